"""One page that says what a sweep found, with its tables and figures as files beside it.

Command: ``python -m analysis.report runs/demo`` writes ``runs/demo/report/index.html``.
"""

import argparse
import base64
import json
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from analysis import correlation, figures
from analysis.claims import claims, claims_sentence
from analysis.measures import findings, intervention, paper_layout, robustness, two_sweeps
from analysis.measures.cells import as_strings, done, without_collapsed
from analysis.measures.layout import as_text, fold, heading, readable
from analysis.measures.planned import extra_sentence, missing, missing_sentence, planned
from analysis.measures.search import Search, read_search, search_table
from analysis.measures.summary import summary
from analysis.results import Results, ResultsError, load
from scoring import places
from scoring.schemas import CONFIG
from scoring.storage import StoreError, is_local, open_folder, write_file

PAGE = Path(__file__).with_name("report.html")
TRIAL = [
    *("status", "epochs_done", "clean_train_accuracy", "test_accuracy", "lss", "ots"),
    *("collapsed", "ties"),
]
SECONDS = ["seconds", "scoring_seconds"]
COLUMNS = {  # of the larger tables: what the page shows of them
    "epochs": figures.COLUMNS["epochs"],
    "tracks": list(dict.fromkeys([*figures.COLUMNS["tracks"], *paper_layout.COLUMNS["tracks"]])),
    "samples": list(dict.fromkeys([*figures.COLUMNS["samples"], *correlation.COLUMNS])),
    "robustness": robustness.COLUMNS,
}
INCH = 105  # pixels of a figure's inch
ELSEWHERE = {  # figures that stand in sections of their own
    "pareto_front": "search",
    "search_history": "search",
    "accuracy_against_score": "correlations",
    "intervention": "intervention",
    "accuracy_against_units": "robustness",
    "accuracy_without_blocks": "robustness",
    "accuracy_against_noise": "robustness",
    "mixed_by_distance": "robustness",
}
CONTENTS = {
    "search": "Search",
    "claims": "Claims",
    "compare": "Comparison",
    "tables": "Tables",
    "figures": "Figures",
    "robustness": "Robustness",
    "intervention": "Intervention",
    "correlations": "Correlations",
    "summary": "Scores by cell",
    "reading": "How to read",
    "failed": "Not done",
    "trials": "Trials",
    "provenance": "Provenance",
}


class Shown(NamedTuple):
    """A table as the page shows it."""

    name: str  # of its files
    rows: pd.DataFrame  # texts
    same: str  # what all rows have in common


class Picture(NamedTuple):
    """A figure as the page shows it."""

    title: str
    form: str  # the paper's figure of the same form
    alt: str
    caption: str
    place: str  # the section it stands in
    source: str
    width: int  # pixels on a large screen, so that letters are of one size in all of them


class Comparison(NamedTuple):
    """Another sweep beside this one."""

    name: str
    table: Shown


def build(
    path: str | Path,
    out: str | Path | None = None,
    tracking_uri: str | None = None,
    other: str | Path | None = None,
) -> Path | str:
    """Write the report of a sweep, finished or not: a page, its tables and its figures.

    Args:
        path: the sweep's folder, or an MLflow experiment: see :func:`analysis.results.load`.
        out: folder to write to, a path or a URI; by default ``report`` in the sweep's folder.
        tracking_uri: MLflow's address, to read an experiment.
        other: folder of a sweep to compare with.

    Returns:
        Path of ``index.html``, or its URI. It needs no other file; every table lies beside it as
        CSV and LaTeX, every figure as PNG and SVG. Each file appears when it is complete.

    Raises:
        ResultsError: there is nothing to read, or ``out`` is needed and missing.
    """
    folder = _folder(str(path), out, tracking_uri)
    results = load(path, tracking_uri, columns=COLUMNS)
    second = None if other is None else load(other, tables=("trials",))
    search = read_search(path, tracking_uri)
    tables = _tables(results, search)
    cells = planned(path, tracking_uri)
    left = missing(cells, results)
    if left is not None:
        tables["missing"] = left
    if second is not None:
        tables["comparison"] = two_sweeps.compare(results, second)
    for name, table in tables.items():
        read = intervention.shown(table) if name == "intervention" else table
        _write(folder, name, as_text(table, "csv"), as_text(read, "latex"))
    papers = list(paper_layout.paper_tables(results))
    for table in papers:
        texts = (paper_layout.as_text(table, form) for form in ("csv", "latex"))
        _write(folder, table.name, *texts)
    first, *others = findings.sentences(results, search)
    said = [first, missing_sentence(left, results, search)]
    said += [extra_sentence(cells, results), findings.geodesic_sentence(tables["summary"])]
    said += [claims_sentence(tables["claims"]), *others]
    said += [
        correlation.correlation_sentence(tables["correlations"]),
        findings.robustness_sentence(results),
    ]
    changed = intervention.sentence(tables["intervention"]) if "intervention" in tables else ""
    said = [sentence for sentence in [*said, changed] if sentence]
    shown = {name: _shown(name, table) for name, table in tables.items()}
    ranks = tables["correlations"]
    of_accuracy = ranks.outcome == correlation.OUTCOMES[0]
    rows = ranks.assign(known=ranks.value.notna()).groupby(correlation.RANK, dropna=False)
    known = rows.known.transform("any").astype("bool")
    shown["correlations"] = shown["correlations"]._replace(**correlation.ranks(ranks[of_accuracy]))
    shown["robust_ranks"] = shown["correlations"]._replace(
        **correlation.ranks(ranks[~of_accuracy & known])
    )
    shown["points"] = shown["points"]._replace(rows=_by_point(shown["points"].rows))
    comparison = None
    if second is not None:
        name = _name(str(other))
        said.append(two_sweeps.sentence(tables["comparison"], name))
        comparison = Comparison(name, shown.pop("comparison"))
    pictures, lost = _pictures(results, search, folder, tables.get("intervention"))
    if lost:
        said.append(lost)
        warnings.warn(lost, RuntimeWarning, stacklevel=2)
    any_done = len(done(results)) > 0
    here = dict.fromkeys(("claims", "tables", "figures", "correlations"), any_done)
    robust = any_done and len(tables["robustness"]) > 0
    here |= {
        "robustness": robust,
        "intervention": bool(changed),
        "search": search is not None,
        "compare": comparison is not None and any_done,
    }
    html = _page().render(
        title=_name(str(path)),
        sentences=said,
        contents=[(id, text) for id, text in CONTENTS.items() if here.get(id, True)],
        claims=_claims(tables["claims"], results),
        tables=shown,
        paper_tables=papers,
        figures=pictures,
        comparison=comparison,
        left_out=_left_out(results),
        any_done=any_done,
        robust=robust,
        changed=changed,
        evaluated=robustness.settings_sentence(results),
        replicated=bool((tables["summary"].seeds > 1).any()),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_file(folder, "index.html", html.encode())
    page = f"{folder}/index.html"
    return Path(page) if is_local(folder) else page


def _page() -> jinja2.Template:
    engine = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters["groupby_top"] = lambda heads: [
        (top, len(list(same))) for top, same in groupby(heads, key=lambda pair: pair[0])
    ]
    return engine.from_string(PAGE.read_text(encoding="utf-8"))


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or "sweep"


def _write(folder: str, name: str, csv: str, latex: str) -> None:
    write_file(folder, f"{name}.csv", csv.encode())
    write_file(folder, f"{name}.tex", latex.encode())


def _folder(path: str, out: str | Path | None, tracking_uri: str | None) -> str:
    """Where the report goes: an absolute path, or a URI."""
    if out is not None:
        return _absolute(str(out))
    if not tracking_uri and ("://" in path or Path(path).is_dir()):
        return f"{_absolute(path)}/{places.REPORT}"
    if tracking_uri:
        raise ResultsError(f"{path}: name a folder to write the report to (--out DIR)")
    load(path, tables=("trials",))  # says what is wrong, or finds it in MLflow
    raise ResultsError(f"{path}: name a folder to write the report to (--out DIR)")


def _absolute(folder: str) -> str:
    if "://" not in folder:
        return str(Path(folder).absolute())
    try:
        return open_folder(folder)[1] if is_local(folder) else folder.rstrip("/")
    except ValueError as error:
        raise ResultsError(f"{folder}: {error}; give a path, or a URI like s3://...") from error


def _tables(results: Results, search: Search | None) -> dict[str, pd.DataFrame]:
    tables = {
        "claims": claims(results),
        "summary": summary(results),
        "robustness": robustness.by_cell(results),
        "correlations": correlation.correlations(results),
        "points": correlation.points(results),
        "trials": _trials(results),
        "failed": _failed(results),
        "provenance": _provenance(results),
    }
    changed = intervention.effects(results)
    tables |= {"intervention": changed} if len(changed) else {}
    return tables | ({"search": search_table(results, search)} if search else {})


def _pictures(
    results: Results, search: Search | None, folder: str, effects: pd.DataFrame | None
) -> tuple[dict[str, Picture], str]:
    """Draw every figure that applies and write its files.

    Returns:
        The figures for the page by name, and a sentence about those that could not be drawn.
    """
    pictures, failed = {}, []
    for figure in figures.write(results, folder, search, effects=effects):
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


def _claims(table: pd.DataFrame, results: Results) -> list[dict[Any, Any]]:
    """Rows of the claims, and whether several seeds could give any interval."""
    return table.assign(intervals=done(results).seed.nunique() > 1).to_dict("records")


def _by_point(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of points with its own headings: its p is of a t-test."""
    named = rows.rename(columns={"auc": "AUC", "permutation p": "t-test p"})
    return named.assign(score=named.score.map(heading))


def _left_out(results: Results) -> str:
    counts = correlation.left_out(results)
    return ", ".join(f"{n} {reason}" for reason, n in counts.items() if n)


def _trials(results: Results) -> pd.DataFrame:
    """A row a trial: its configuration, how it ended, its scores, and how long it took."""
    config = ["dataset", "network", "stages", "gamma", "seed", *(f.name for f in CONFIG)]
    columns = ["trial", *config, *TRIAL, *SECONDS]
    table = without_collapsed(as_strings(results.trials))[columns]
    return table.rename(columns={"points": "m"}).sort_values(
        ["dataset", "stages", "layers", "network", "gamma", "seed"], ignore_index=True
    )


def _failed(results: Results) -> pd.DataFrame:
    """Trials that are not done: how each ended, when, and the error of those that failed."""
    trials = results.trials[results.trials.status != "done"]
    columns = ["trial", "dataset", "network", "stages", "gamma", "seed", "status"]
    columns += ["epochs_done", "epochs", "error"]
    return trials[columns].reset_index(drop=True)


def _provenance(results: Results) -> pd.DataFrame:
    """Where the numbers come from: what made them, on what, with which settings, when."""
    trials = results.trials
    data = (
        trials.dataset.astype("str") + " " + trials.data_checksum.where(trials.data_checksum != "")
    )
    rates = trials.learning_rate.map("{:g}".format).astype("str")
    rows = [
        ("versions", _distinct(trials.versions)),
        ("revision of the source (git)", _distinct(trials.revision)),
        ("data, with checksum", _distinct(data)),
        (
            "report made with",
            ", ".join(f"{n} {version(n)}" for n in ("geosweep", "pandas", "scipy")),
        ),
        ("hosts", _distinct(trials.host)),
        ("devices", _distinct(trials.device)),
        ("torch threads", _distinct(trials.threads)),
        ("peak memory of a process, largest", _gigabytes(trials.peak_memory.max())),
        ("peak GPU memory of a process, largest", _gigabytes(trials.peak_gpu_memory.max())),
        ("recipe", _distinct(trials.recipe + ", learning rate " + rates)),
        ("batch size", _distinct(trials.batch_size)),
        ("epochs", _distinct(trials.epochs)),
        ("γ applies to", _distinct(trials.decay)),
        ("precision of training", _distinct(trials.precision)),
        ("first epoch begun", _time(trials.started_at.min())),
        ("last table written", _time(trials.scored_at.max())),
        ("seconds of training, all trials", f"{trials.seconds.sum():.0f}"),
        ("seconds of assignment problems, all trials", f"{trials.scoring_seconds.sum():.0f}"),
    ]
    return pd.DataFrame([row for row in rows if row[1]], columns=["what", "value"], dtype="str")


def _distinct(column: pd.Series) -> str:
    values = sorted(value for value in column.dropna().unique() if value != "")
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    return "; ".join(texts[:8]) + (f"; {len(texts) - 8} more" if len(texts) > 8 else "")


def _gigabytes(size: float) -> str:
    return "" if pd.isna(size) else f"{size:.3g} GB"


def _time(moment: Any) -> str:
    return "" if pd.isna(moment) else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _shown(name: str, table: pd.DataFrame) -> Shown:
    folded, same = fold(intervention.shown(table) if name == "intervention" else table)
    return Shown(name, readable(folded), same)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a sweep's report and print its path. Exit status 2 with one message if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: DIR/report)")
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    parser.add_argument("--compare", metavar="DIR2", help="folder of a sweep to compare with")
    parser.add_argument(
        "--json", action="store_true", help='print one JSON object, with the "page" or the "error"'
    )
    given = parser.parse_args(arguments)
    try:
        page = build(given.folder, given.out, given.tracking_uri, given.compare)
    except (ResultsError, StoreError, OSError) as error:
        if given.json:
            print(json.dumps({"error": str(error)}))
        else:
            print(f"analysis.report: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"page": str(page)}) if given.json else page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
