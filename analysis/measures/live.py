"""What interactive charts show of a sweep: a record and curves for each trial, as JSON values.

The page of ``geosweep watch`` gets them bit by bit, the report all at once.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from analysis.measures.markup import visible
from scoring.schemas import CONFIG, KEY
from scoring.tables import ARGUMENT

if TYPE_CHECKING:
    from analysis.results import Results

Row = Mapping[str, Any]
Curve = list[tuple[Any, ...]]  # (epoch, *CURVES) of each epoch

CURVES = ("test_accuracy", "lss", "straightness_factor")  # known after every epoch
SCORES = ("test_accuracy", "lss", "geodesic_excess", "straightness_factor", "ots")
BASELINES = ("geodesic_excess_initial",)
FIELDS = [f.name for f in (*KEY, *CONFIG) if f.name not in ("trial", "architecture", "model")]
COLUMNS = {
    "trials": [
        "trial",
        "architecture",
        "model",
        *FIELDS,
        "status",
        "epochs_done",
        *SCORES,
        *BASELINES,
        "collapsed",
        "error",
        "scored_at",
    ],
    "epochs": ["trial", "epoch", *CURVES],
}
DIGITS = 5  # of a number; a chart shows fewer
LONGEST = 5000  # characters of an error


def axes(rows: Iterable[Row]) -> list[str]:
    """The fields in which trials differ, in the order of the configuration.

    A trial from before a field existed has no value of it, and does not differ in it.

    >>> axes([{"network": "plain", "gamma": 0.1}, {"network": "plain", "gamma": 0.2, "seed": 0}])
    ['gamma']
    """
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in _settings(row).items():
            values.setdefault(name, set()).add(str(value))
    known = [*FIELDS, *sorted(values.keys() - set(FIELDS))]
    return [name for name in known if len(values.get(name, ())) > 1]


def _settings(row: Row) -> dict[str, Any]:
    """The fields of a trial that have a value, with the keyword arguments of an architecture."""
    found = {name: row[name] for name in FIELDS if _there(row.get(name))}
    if _there(row.get("architecture")):
        found["network"] = row["architecture"]
    if _there(row.get("model")):
        try:
            given = dict(json.loads(row["model"]))
        except (ValueError, TypeError, RecursionError):
            given = {}
        found |= {f"{ARGUMENT}{name}": value for name, value in given.items()}
    return found


def record(row: Row, names: Sequence[str]) -> dict[str, Any]:
    """What the charts and tables show of a trial.

    Args:
        row: columns of the trials table, as far as they are known.
        names: the fields to show, from :func:`axes`.

    Returns:
        JSON values. Texts have no control characters. Numbers are rounded; NaN and infinite ones,
        and the scores of a collapsed trial, are None.
    """
    settings = _settings(row)
    scores = {name: rounded(row.get(name)) for name in (*SCORES, *BASELINES)}
    if row.get("collapsed") is True:
        scores |= {"geodesic_excess": None, "ots": None}
    return {
        "trial": visible(str(row["trial"])),
        "values": [value(settings.get(name)) for name in names],
        "status": visible(_text(row.get("status"))),
        "epoch": rounded(row.get("epochs_done")),
        "epochs": rounded(row.get("epochs")),
        "points": rounded(row.get("points")),
        "error": visible(_text(row.get("error"))[-LONGEST:], keep="\n"),
        "ended": moment(row.get("scored_at")),
        **scores,
    }


def value(given: Any) -> Any:
    """A setting as a number or as a text."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None if given is None else visible(str(given))[:200]
    return given if math.isfinite(given) else None


def rounded(number: Any) -> float | int | None:
    """A finite number with few digits; None for anything else."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return number if isinstance(number, int) else float(f"{number:.{DIGITS}g}")


def moment(time: Any) -> float | None:
    """Seconds since 1970 of a time, which a history has as text."""
    try:
        found = datetime.fromisoformat(time) if isinstance(time, str) else time
        return round(found.timestamp(), 1) if _there(found) else None
    except (ValueError, AttributeError, OverflowError):
        return None


def point(row: Row) -> tuple[Any, ...]:
    """An epoch of a curve."""
    return (rounded(row.get("epoch")), *(rounded(row.get(name)) for name in CURVES))


def of_results(results: "Results", name: str, planned: int | None = None) -> dict[str, Any]:
    """All that the charts show of a sweep, in the form that the page is sent.

    Args:
        results: from :func:`analysis.results.load`; of the larger tables COLUMNS are enough.
        name: the sweep's name.
        planned: how many trials it has in the end, if that is known.
    """
    rows = [{str(n): v for n, v in row.items()} for row in _plain(results.trials)]
    names = axes(rows)
    curves: dict[str, Curve] = {}
    for row in _plain(results.epochs[COLUMNS["epochs"]]):
        curves.setdefault(str(row["trial"]), []).append(point(row))
    return {
        "name": visible(name),
        "planned": max(planned or 0, len(rows)),
        "axes": names,
        "trials": [record(row, names) for row in rows],
        "curves": {trial: [0, curve] for trial, curve in curves.items()},
    }


def _plain(frame: Any) -> list[dict[Any, Any]]:
    return frame.to_dict("records")


def _text(given: Any) -> str:
    return str(given) if _there(given) else ""


def _there(given: Any) -> bool:
    """Whether there is a value: pandas has NaN and NaT for null."""
    return given is not None and given == given and given != ""


def as_script(content: Mapping[str, Any]) -> str:
    """JSON to be put into a script element: no text in it can end the element or begin another.

    >>> as_script({"a": "</script><!--"})
    '{"a":"\\\\u003c/script>\\\\u003c!--"}'
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
