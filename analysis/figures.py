"""Draw the figures of a sweep, as PNG and SVG files.

    python -m analysis.figures runs/demo      # writes runs/demo/figures/*.png and *.svg
    python -m analysis.figures runs/demo --only tracks_by_gamma --form png --out my-figures

Figures show stored results only; nothing is measured again. The path of each file is printed. A
figure is left out if the sweep does not have what it needs.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.plots.catalogue import FIGURES, Spec  # before matplotlib, which it imports safely

# isort: split
import pandas as pd
from matplotlib.figure import Figure

from analysis.measures.robustness import COLUMNS as ROBUSTNESS
from analysis.measures.search import Search, read_search
from analysis.plots import files
from analysis.results import Results, ResultsError, load
from analysis.scripts import FOLDER, TRACKING_URI, filled, listing, parser, refuse, script, tell
from analysis.targets import refuse_sweep
from scoring.storage import StoreError, refuse_links

# fmt: off
COLUMNS = {  # the columns of the larger tables that figures show
    "epochs": [
        "trial", "epoch", "lss", "straightness_factor", "learning_rate", "effective_rate",
        "effective_rate_others",
    ],
    "tracks": [
        "trial", "split", "epoch", "stage", "blocks", "collapsed", "projected", "lss",
        "lss_initial", "lss_random", "ots", "ots_initial", "ots_random", "ots_shuffled",
        "prefix_m", "prefix_ots", "prefix_gap", "fuzziness", "effective_rank",
    ],
    "samples": ["trial", "split", "point", "label"],
    "robustness": ROBUSTNESS,
}
# fmt: on


class Written(NamedTuple):
    """A figure and the files that were written of it."""

    name: str
    files: dict[str, bytes]  # the content by form, ``png`` and ``svg``; empty after an error
    width: float  # inches; 0 after an error
    error: str = ""  # why the figure could not be drawn


def draw(
    results: Results,
    search: Search | None = None,
    only: Sequence[str] = (),
    tables: Mapping[str, pd.DataFrame] = {},
) -> dict[str, Figure]:
    """The figures that apply to a sweep, by name, in the order of the paper.

    Args:
        results: from :func:`analysis.results.load`; of the larger tables COLUMNS are enough.
        search: from :func:`analysis.measures.search.read_search`, if the sweep was a search.
        only: names of the figures to draw; by default all.
        tables: what is already computed: ``intervention`` and ``rates``, from the functions
            ``effects`` of :mod:`analysis.measures.intervention` and :mod:`analysis.measures.rates`.
    """
    specs = _applicable(results, search, only)
    return {name: spec.draw(results, search, tables) for name, spec in specs.items()}


def save(figure: Written, folder: str) -> None:
    """Write the files of a figure to a folder, a path or a URI; none after an error."""
    files.save(figure.files, folder, figure.name)


def drawn(
    results: Results,
    search: Search | None = None,
    tables: Mapping[str, pd.DataFrame] = {},
    only: Sequence[str] = (),
    forms: Sequence[str] = tuple(files.FORMS),
) -> Iterator[Written]:
    """Draw the figures that apply to a sweep one by one; one that fails has an error, no files."""
    for name, spec in _applicable(results, search, only).items():
        try:
            figure = spec.draw(results, search, tables)
            content = files.render(figure, name, forms)
        except Exception as error:
            yield Written(name, {}, 0.0, f"{type(error).__name__}: {error}")
            continue
        yield Written(name, content, figure.get_figwidth())


def failed_sentence(failed: Sequence[Written]) -> str:
    """Which figures are missing because they could not be drawn, and why; empty for none."""
    if not failed:
        return ""
    count = "One figure is" if len(failed) == 1 else f"{len(failed)} figures are"
    reasons = "; ".join(f"{figure.name} ({figure.error})" for figure in failed)
    return f"{count} left out because of an error while drawing: {reasons}."


def _applicable(results: Results, search: Search | None, only: Sequence[str]) -> dict[str, Spec]:
    wanted = {name: spec for name, spec in FIGURES.items() if not only or name in only}
    return {name: spec for name, spec in wanted.items() if spec.fits(results, search)}


def _folder(path: str, out: str | None) -> str:
    if out is not None:
        refuse_sweep(out)
        return out
    local = path.removeprefix("file://")
    if "://" in local or not Path(local).is_dir():
        raise ResultsError(f"{path}: name a folder to write the figures to (--out DIR)")
    refuse_links(local, "figures")
    return str(Path(local) / "figures")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figures of a sweep and print their paths.

    Returns:
        Exit status: 1 if a figure could not be drawn, 2 if there is nothing to draw or to read.
    """
    names = {
        name: f"{spec.title}{f' ({spec.paper})' if spec.paper else ''}; needs {spec.needs}"
        for name, spec in FIGURES.items()
    }
    end = listing("figures, with those of the paper that have the same form", names)
    reader = parser("figures", __doc__, end)
    add = reader.add_argument
    add("folder", **FOLDER)
    add("--out", type=filled, metavar="DIR", help="where to write (default: DIR/figures)")
    add(
        "--only",
        metavar="NAME",
        nargs="+",
        default=[],
        help="draw only these figures, which are listed below (default: all)",
    )
    add(
        "--form",
        default="both",
        choices=["png", "svg", "both"],
        help="the kind of files (default: both)",
    )
    add("--tracking-uri", **TRACKING_URI)
    given = reader.parse_args(arguments)
    try:
        if unknown := [name for name in given.only if name not in FIGURES]:
            known = ", ".join(FIGURES)
            raise ResultsError(f"no figure is called {', '.join(unknown)}; there are {known}")
        results = load(given.folder, given.tracking_uri, columns=COLUMNS)
        search = read_search(given.folder, given.tracking_uri)
        folder = _folder(given.folder, given.out)
        specs = _applicable(results, search, given.only)
        if lost := [f"{n} ({FIGURES[n].needs})" for n in given.only if n not in specs]:
            raise ResultsError(f"{given.folder} lacks what is needed for {', '.join(lost)}")
        if not specs:
            raise ResultsError(f"{given.folder}: no trial is done yet, so there is no figure")
        forms = tuple(files.FORMS) if given.form == "both" else (given.form,)
        failed = []
        for figure in drawn(results, search, only=given.only, forms=forms):
            save(figure, folder)
            for form in figure.files:
                tell(Path(folder) / f"{figure.name}.{form}")
            if figure.error:
                failed.append(figure)
    except (ResultsError, StoreError, OSError) as error:
        return refuse("figures", error)
    if failed:
        print(f"analysis.figures: {failed_sentence(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    script(main)
