"""The files of a figure: the same figure gives the same bytes on every machine and each time."""

import io
import warnings
from collections.abc import Mapping, Sequence

from analysis.plots.settings import own_settings  # before matplotlib

# isort: split
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.measures.markup import visible
from scoring.storage import write_file

FORMS = {
    "png": {"dpi": 150, "pil_kwargs": {"compress_level": 4}},
    "svg": {"metadata": {"Date": None}},
}


def clean(figure: Figure) -> None:
    """Make control characters in a figure's texts visible: an SVG file must not hold them.

    They can be part of a name, for instance of a file that a dataset was read from.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(visible(text.get_text(), keep="\n"))


def render(figure: Figure, name: str, forms: Sequence[str] = tuple(FORMS)) -> dict[str, bytes]:
    """The content of a figure's files by form: ``png`` (150 dpi) and ``svg``."""
    content = {}
    with own_settings(salt=name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it is drawn as a box
        for form in forms:
            stream = io.StringIO() if form == "svg" else io.BytesIO()  # text is faster for SVG
            figure.savefig(stream, format=form, **FORMS[form])  # type: ignore[arg-type]
            drawn = stream.getvalue()
            content[form] = drawn.encode() if isinstance(drawn, str) else drawn
    return content


def save(content: Mapping[str, bytes], root: str, name: str) -> None:
    """Write the files of a figure to a folder, as ``<name>.png`` and ``<name>.svg``.

    Args:
        content: bytes by form, from :func:`render`.
        root: path or URI of the folder.
        name: name of the figure.
    """
    for form, drawn in content.items():
        write_file(root, f"{name}.{form}", drawn, lasting=False)
