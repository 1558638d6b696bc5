"""Draw the figures of a probed model again, from the results that geosweep probe wrote.

    python -m analysis.probe runs/probe-resnet18

It reads probe.json in that folder, writes the figures depth and tracks beside it as PNG and SVG,
and prints the names of their files.
"""

import json
from collections.abc import Sequence

from analysis.plots.files import clean, render, save  # before matplotlib

# isort: split
from analysis.plots import probe
from analysis.scripts import filled, parser, refuse, script, tell
from scoring.storage import StoreError, read_file


def draw(root: str) -> list[str]:
    """Draw the figures of a folder.

    Args:
        root: path or URI of the folder.

    Returns:
        The names of the files.

    Raises:
        ValueError: ``probe.json`` is not what ``geosweep probe`` writes.
        StoreError: the folder cannot be read or written.
    """
    content = read_file(root, "probe.json")
    if content is None:
        raise ValueError(f"{root}: has no probe.json, which geosweep probe writes")
    try:
        results = json.loads(content)["results"]
        figures = {"depth": probe.depth(results), "tracks": probe.tracks(results)}
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{root}/probe.json: not from this version of geosweep probe") from error
    written = []
    for name, figure in figures.items():
        clean(figure)
        content = render(figure, name)
        save(content, root, name)
        written += [f"{name}.{form}" for form in content]
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figures of a folder and print their names; 2, with one message, after an error."""
    reader = parser("probe", __doc__)
    reader.add_argument(
        "folder",
        type=filled,
        metavar="DIR",
        help="the folder that geosweep probe wrote, like runs/probe-resnet18",
    )
    given = reader.parse_args(arguments)
    try:
        tell(*draw(given.folder))
    except (ValueError, StoreError, OSError) as error:
        return refuse("probe", error)
    return 0


if __name__ == "__main__":
    script(main)
