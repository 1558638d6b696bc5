"""One page that says what a sweep found, with its tables and figures as files beside it.

Command: ``python -m analysis.report runs/demo`` writes ``runs/demo/report/index.html``.
"""

import argparse
import base64
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
import pyarrow.fs as pafs
from matplotlib.figure import Figure

from analysis import drawing, figures
from analysis.findings import correlations, sentences
from analysis.results import Results, ResultsError, load
from analysis.search import Search, candidates, read_search, search_table
from analysis.tables import as_text, fold, readable, summary, without_collapsed
from scoring.schemas import CONFIG, open_folder, write_file

PAGE = Path(__file__).with_name("report.html")
TRIAL = [
    *("status", "epochs_done", "clean_train_accuracy", "test_accuracy", "lss", "ots"),
    *("collapsed", "ties"),
]
SECONDS = ["seconds", "scoring_seconds"]


class Shown(NamedTuple):
    """A table as the page shows it."""

    name: str  # of its files
    rows: pd.DataFrame  # texts
    same: str  # what all rows have in common


def build(path: str | Path, out: str | Path | None = None, tracking_uri: str | None = None) -> Path:
    """Write the report of a sweep, finished or not: a page, its tables and its figures.

    Args:
        path: the sweep's folder, or an MLflow experiment: see :func:`analysis.results.load`.
        out: local folder to write to; ``report`` in the sweep's folder if that is local.
        tracking_uri: MLflow's address, to read an experiment.

    Returns:
        Path of ``index.html``, which needs no other file; every table lies beside it as CSV
        and LaTeX, every figure as PNG and SVG. Each file is written aside and moved into place.

    Raises:
        ResultsError: there is nothing to read, or ``out`` is needed and missing.
    """
    folder = _folder(str(path), out, tracking_uri)
    results = load(path, tracking_uri, ("trials", "epochs", "tracks"), figures.COLUMNS)
    search = read_search(path, tracking_uri)
    tables = _tables(results, search)
    for name, table in tables.items():
        write_file(str(folder), f"{name}.csv", as_text(table, "csv").encode())
        write_file(str(folder), f"{name}.tex", as_text(table, "latex").encode())
    pictures = {}
    for name, figure in _figures(results, search).items():
        svg = drawing.save(figure, str(folder), name)["svg"]
        pictures[name] = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    page = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(PAGE.read_text(encoding="utf-8"))
    html = page.render(
        title=str(path).rstrip("/").rpartition("/")[2] or "sweep",
        sentences=sentences(results, search),
        tables={name: _shown(name, table) for name, table in tables.items()},
        pictures=pictures,
        any_done=bool((results.trials.status == "done").any()),
        replicated=bool((tables["summary"].seeds > 1).any()),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_file(str(folder), "index.html", html.encode())
    return folder / "index.html"


def _folder(path: str, out: str | Path | None, tracking_uri: str | None) -> Path:
    if out is not None:
        return Path(out).absolute()
    if not tracking_uri and "://" not in path and Path(path).is_dir():
        return Path(path).absolute() / "report"
    if path.startswith("file://"):
        fs, base = open_folder(path)
        if isinstance(fs, pafs.LocalFileSystem):
            return Path(base) / "report"
    if tracking_uri or "://" in path:
        raise ResultsError(f"{path}: a report is written to a local folder; name one (--out DIR)")
    load(path, tables=("trials",))  # says what is wrong, or finds it in MLflow
    raise ResultsError(f"{path}: name a folder to write the report to (--out DIR)")


def _tables(results: Results, search: Search | None) -> dict[str, pd.DataFrame]:
    tables = {
        "summary": summary(results),
        "correlations": correlations(results),
        "trials": _trials(results),
        "failed": _failed(results),
        "provenance": _provenance(results),
    }
    return tables | ({"search": search_table(results, search)} if search else {})


def _figures(results: Results, search: Search | None) -> dict[str, Figure]:
    drawn = {
        "lss_against_epoch": figures.lss_against_epoch(results),
        "scores_against_gamma": figures.scores_against_gamma(results),
    }
    if results.tracks.prefix_m.notna().any():
        drawn["ots_against_m"] = figures.ots_against_m(results)
    if search and len(candidates(results, search)):
        draw = figures.pareto_front if len(search.objectives) > 1 else figures.search_history
        drawn[draw.__name__] = draw(results, search)
    return drawn


def _trials(results: Results) -> pd.DataFrame:
    """A row a trial: its configuration, how it ended, its scores, and how long it took."""
    config = ["dataset", "network", "stages", "gamma", "seed", *(f.name for f in CONFIG)]
    columns = ["trial", *config, *TRIAL, *SECONDS]
    table = without_collapsed(results.trials)[columns]
    table = table.astype({"dataset": "str", "network": "str"})
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
    folded, same = fold(table)
    return Shown(name, readable(folded), same)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build a sweep's report and print its path. Exit status 2 with one message if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: DIR/report)")
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    given = parser.parse_args(arguments)
    try:
        print(build(given.folder, given.out, given.tracking_uri))
    except (ResultsError, OSError) as error:
        print(f"analysis.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
