"""Write the report of a sweep: a page that says what it found, with tables and figures beside it.

    python -m analysis.report runs/demo               # writes runs/demo/report/index.html
    python -m analysis.report runs/demo runs/more-seeds --out runs/all
    python -m analysis.report runs/demo --compare runs/other-seeds

The path of the page is printed; open it in a browser. Every table is a CSV and a LaTeX file beside
it, every figure a PNG and an SVG file. geosweep report does the same, and adds the pages to MLflow.
"""

import base64
import errno
import gc
import json
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from analysis import figures
from analysis.beside import beside
from analysis.measures import (
    curve,
    findings,
    intervention,
    live,
    rate_answers,
    robustness,
    states,
)
from analysis.measures.cells import done, gamma_meaning, scored_images
from analysis.measures.correlations import left_out
from analysis.measures.factors import factor_sentences
from analysis.measures.gathered import Gathered, gather, read, sentences
from analysis.measures.layout import WITHOUT
from analysis.measures.markup import markdown_text, visible
from analysis.measures.search import by_validation
from analysis.measures.shown import shown, write_tables
from analysis.results import ResultsError, load
from analysis.scripts import FOLDER, TRACKING_URI, filled, parser, refuse, script, tell
from analysis.targets import refuse_others, refuse_sweep
from scoring import places
from scoring.storage import Damaged, StoreError, is_local, open_folder, refuse_links, write_file

PAGE = Path(__file__).with_name("report.html")
INCH = 105  # pixels per inch of a figure
ELSEWHERE = {  # figures that are not in the section "figures"
    "lss_against_epoch": "top",
    "pareto_front": "search",
    "search_history": "search",
    "accuracy_against_score": "correlations",
    "intervention": "intervention",
    "scores_against_rate": "rates",
    "speed_by_block": "curve",
    "accuracy_against_units": "robustness",
    "accuracy_without_blocks": "robustness",
    "accuracy_against_noise": "robustness",
    "mixed_by_distance": "robustness",
    "states_by_block": "states",
}
IN_MLFLOW = ("lss_against_epoch", "scores_against_gamma")  # figures that its page shows
FIRST = 6  # sentences there
CONTENTS = {
    "search": "Search",
    "claims": "Claims",
    "compare": "Comparison",
    "tables": "Tables",
    "explore": "Explore",
    "figures": "Figures",
    "curve": "Curve of measures",
    "states": "States",
    "robustness": "Robustness",
    "intervention": "Intervention",
    "rates": "Effective rate",
    "correlations": "Correlations",
    "summary": "Scores by cell",
    "reading": "How to read",
    "failed": "Not done",
    "trials": "Trials",
    "provenance": "Provenance",
}


class Picture(NamedTuple):
    """A figure as the page shows it."""

    title: str
    form: str  # the paper's figure of the same form
    alt: str
    caption: str
    place: str  # the section it is in
    source: str
    width: int  # pixels on a large screen, so that letters have the same size in all figures


def build(
    path: str | Path,
    out: str | Path | None = None,
    tracking_uri: str | None = None,
    other: str | Path | None = None,
    more: Sequence[str | Path] = (),
    alone: bool = False,
) -> Path | str:
    """Write the report of a sweep, finished or not: a page, its tables and its figures.

    Args:
        path: the sweep's folder, or an MLflow experiment: see :func:`analysis.results.load`.
        out: folder to write to, a path or a URI; by default ``report`` in the sweep's folder, and
            ``report/against-NAME`` for a comparison with the sweep NAME. That of several sweeps
            is a folder beside the first one.
        tracking_uri: MLflow's address, to read an experiment.
        other: folder of a sweep to compare with.
        more: folders of further sweeps; the report is about all of them together.
        alone: this process does nothing else, so a copy of it may draw the figures meanwhile.

    Returns:
        Path of ``index.html``, or its URI. The page needs no other file. Beside it are all tables
        as CSV and LaTeX, and all figures as PNG and SVG. Each file appears only when it is
        complete.

    Raises:
        ResultsError: there is nothing to read, or ``out`` is needed and missing, or it belongs to a
            sweep or holds files of others that the report would replace.
        scoring.storage.StoreError: without ``out``, a link in the report leads out of the folder.
    """
    if more and (other is not None or tracking_uri):
        raise ResultsError("several sweeps: without --compare, and from their folders; give one")
    if more and out is None:
        out = places.together([_absolute(str(one)) for one in (path, *more)])
    folder = _folder(str(path), out, tracking_uri)
    if other is not None and out is None:
        folder = f"{folder.removesuffix(places.REPORT)}{places.comparison(_absolute(str(other)))}"
    if out is not None:  # elsewhere everything is the report's
        refuse_sweep(folder)
        refuse_others(folder)
    there = read(path, tracking_uri, other, more)
    drawing = beside(lambda: [*figures.drawn(there.results, there.search)])
    with drawing if alone else nullcontext() as wait:
        found = gather(there)
        if out is not None:
            names = [*found.tables, *(table.name for table in found.paper_tables)]
            refuse_others(folder, [f"{name}{end}" for name in names for end in (".csv", ".tex")])
        write_tables(found.tables, found.paper_tables, folder)
        drawn = wait() if wait else figures.drawn(found.results, found.search, found.tables)
        pictures, lost = _pictures(drawn, folder)
    said = sentences(found)
    if lost:
        said.append(lost)
        warnings.warn(lost, RuntimeWarning, stacklevel=2)
    write_file(folder, "verdict.md", verdict(found, said, pictures).encode(), lasting=False)
    write_file(folder, "index.html", render(found, said, pictures).encode(), lasting=False)
    page = f"{folder}/index.html"
    return Path(page) if is_local(folder) else page


def verdict(found: Gathered, said: list[str], pictures: dict[str, Picture]) -> str:
    """The answer in Markdown, with its first sentences and figures, as MLflow shows it."""
    top = findings.headline(found.tables["summary"], found.results)
    parts = [f"**{markdown_text(top.verdict)}**"]
    if top.number:
        parts.append(markdown_text(f"{top.number} {top.baseline}"))
    parts.append("\n".join(f"- {markdown_text(sentence)}" for sentence in said[:FIRST]))
    figures_ = [name for name in IN_MLFLOW if name in pictures]
    parts += [f"![{markdown_text(pictures[name].alt)}]({name}.png)" for name in figures_]
    return "\n\n".join(parts) + "\n"


def render(found: Gathered, said: list[str], pictures: dict[str, Picture]) -> str:
    """Render the page as HTML."""
    tables, results = found.tables, found.results
    any_done = len(done(results)) > 0
    robust = any_done and len(tables["robustness"]) > 0
    sections = dict.fromkeys(CONTENTS, True)
    sections |= dict.fromkeys(("claims", "tables", "explore", "figures", "correlations"), any_done)
    sections |= {
        "robustness": robust,
        "curve": len(tables["curve"]) > 0,
        "states": "states" in tables,
        "intervention": "intervention" in tables,
        "rates": "rates" in tables,
        "search": found.search is not None,
        "compare": found.other is not None and any_done,
    }
    return _template().render(
        title=found.name,
        headline=findings.headline(tables["summary"], results),
        factors=factor_sentences(results, tables["summary"]),
        sentences=said,
        contents=[(id, text) for id, text in CONTENTS.items() if sections[id]],
        claims=tables["claims"].to_dict("records"),
        tables=shown(tables),
        paper_tables=found.paper_tables,
        figures=pictures,
        other=found.other,
        left_out=", ".join(f"{n} {reason}" for reason, n in left_out(results).items() if n),
        charts=_charts(found),
        any_done=any_done,
        robust=robust,
        changed=intervention.sentence(tables["intervention"]) if "intervention" in tables else "",
        rated=rate_answers.sentences(tables["rates"], tables["rate_answers"])
        if "rates" in tables
        else [],
        gamma=gamma_meaning(results.trials),
        images=scored_images(results.trials),
        curved=curve.sentences(results),
        of_states=states.sentences(tables["states"]) if "states" in tables else [],
        evaluated=robustness.settings_sentence(results),
        without=WITHOUT,
        unused=found.search is not None and by_validation(found.search),
        replicated=bool((tables["summary"].seeds > 1).any()),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _charts(found: Gathered) -> dict[str, Markup]:
    """The interactive charts: their code and the sweep's data, to be put into the page as it is."""
    planned_ = len(found.planned) if found.planned else None
    data = live.as_script(live.of_results(found.results, found.name, planned_))
    files = {"css": "charts.css", "code": "charts.js", "library": "echarts.min.js"}
    pages = PAGE.with_name("pages")
    code = {name: (pages / file).read_text(encoding="utf-8") for name, file in files.items()}
    return {name: Markup(text) for name, text in (code | {"data": data}).items()}


@cache
def _template() -> jinja2.Template:
    engine = jinja2.Environment(
        autoescape=True,
        finalize=_plain,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["groupby_top"] = lambda heads: [
        (top, len(list(same))) for top, same in groupby(heads, key=lambda pair: pair[0])
    ]
    return engine.from_string(PAGE.read_text(encoding="utf-8"))


def _plain(value: Any) -> Any:
    """What the page prints for a value: a text without control characters, before it is escaped."""
    return visible(value, keep="\n") if type(value) is str else value  # not markup of a macro


def _folder(path: str, out: str | Path | None, tracking_uri: str | None) -> str:
    """The folder to write to: an absolute path, or a URI."""
    if out is not None:
        return _absolute(str(out))
    if not tracking_uri:
        if "://" in path or Path(path).is_dir():
            root = _absolute(path)
            refuse_links(root, places.REPORT)
            return f"{root}/{places.REPORT}"
        load(path, tables=("trials",))  # raises an error that says why, unless MLflow has them
    raise ResultsError(f"{path}: name a folder to write the report to (--out DIR)")


def _absolute(folder: str) -> str:
    if "://" not in folder:
        return str(Path(folder).absolute())
    try:
        return open_folder(folder)[1] if is_local(folder) else folder.rstrip("/")
    except ValueError as error:
        raise ResultsError(f"{folder}: {error}; give a path, or a URI like s3://...") from error


def _pictures(drawn: Iterable[figures.Written], folder: str) -> tuple[dict[str, Picture], str]:
    """Write the files of figures, one by one.

    Returns:
        The figures for the page by name, and a sentence about those that could not be drawn.
    """
    pictures, failed = {}, []
    for figure in drawn:
        figures.save(figure, folder)
        if figure.error:
            failed.append(figure)
            continue
        source = "data:image/svg+xml;base64," + base64.b64encode(figure.files["svg"]).decode()
        spec = figures.FIGURES[figure.name]
        place = ELSEWHERE.get(figure.name, "figures")
        width = round(INCH * figure.width)
        pictures[figure.name] = Picture(
            spec.title, spec.paper, spec.alt, spec.caption, place, source, width
        )
    return pictures, figures.failed_sentence(failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a sweep's report and print its path.

    Returns:
        Exit status: 2, with one message, if the report cannot be built.
    """
    reader = parser("report", __doc__)
    add = partial(reader.add_argument, type=filled)
    reader.add_argument("folder", **FOLDER)
    add("more", metavar="DIR", nargs="*", help="further sweeps, pooled with it")
    add(
        "--out",
        metavar="DIR",
        help="where to write (default: report in DIR, report/against-DIR2 for a comparison, and "
        "a folder beside DIR for several sweeps)",
    )
    reader.add_argument("--tracking-uri", **TRACKING_URI)
    add("--compare", metavar="DIR2", help="folder of a sweep to compare with")
    reader.add_argument(
        "--json", action="store_true", help='print one JSON object, with the "page" or the "error"'
    )
    given = reader.parse_args(arguments)
    try:
        alone = arguments is None  # a process of the command line, as no other passes none
        if alone:  # and one that ends soon: by default a fifth of its time is garbage collection
            gc.set_threshold(100_000, 50, 100)
        page = build(given.folder, given.out, given.tracking_uri, given.compare, given.more, alone)
    except (ResultsError, StoreError, OSError) as error:
        said = f"{error}; move it away" if isinstance(error, Damaged) else str(error)
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            said += "; --out DIR writes the report to a folder that you may write"
        if not given.json:
            return refuse("report", said)
        tell(json.dumps({"error": said}))
        return 2
    tell(json.dumps({"page": str(page)}) if given.json else page)
    return 0


if __name__ == "__main__":

    def _main() -> int:
        status = main()
        gc.freeze()  # nothing is worth collecting as the process ends
        return status

    script(_main)
