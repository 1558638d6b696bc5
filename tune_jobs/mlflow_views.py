"""Views of a sweep that MLflow's pages open with: its trials as rows, and their curves.

MLflow keeps a view that somebody shares as a tag of the experiment, and opens it by a parameter of
the address (``useSharedExperimentViewState`` in MLflow 3). These tags are written here.
"""

import json
import os
import zlib
from base64 import b64encode
from typing import Any

from tune_jobs.mlflow_store import open_client
from tune_jobs.tracking import METRICS, ROBUSTNESS, TRIAL_TAG

TAG = "mlflow.sharedViewState."
TRIALS, CURVES = "geosweep-trials", "geosweep-curves"  # names of the views
PARAMETERS = ("network", "stages", "gamma", "points")
SCORES = ("test_accuracy", "lss", "geodesic_excess", "ots")
BY_EPOCH = ("lss", "test_accuracy")  # have a chart
SECTION = "geosweep-section"


def share(client: Any, experiment: str) -> None:
    """Write the views into the tags of an experiment, unless they are there.

    Args:
        client: MLflow's client.
        experiment: the experiment's ID.
    """
    there = client.get_experiment(experiment).tags
    for name, content in ((TRIALS, _trials()), (CURVES, _trials() | _curves())):
        value = _packed(content)
        if there.get(f"{TAG}{name}") != value:
            client.set_experiment_tag(experiment, f"{TAG}{name}", value)


def links(address: str, experiment: str) -> dict[str, str]:
    """Where the views are, by what they show.

    Args:
        address: of MLflow's pages, like ``http://127.0.0.1:5000``.
        experiment: the experiment's ID.
    """
    page = f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    return {
        "trials": f"{page}&viewStateShareKey={TRIALS}&compareRunsMode=TABLE",
        "curves": f"{page}&viewStateShareKey={CURVES}&compareRunsMode=CHART",
    }


def shared(root: str, name: str, address: str) -> dict[str, str]:
    """The :func:`links` of a sweep, whose views are written first; empty if MLflow fails.

    Args:
        root: the sweep's folder.
        name: the sweep's name; also the experiment's name.
        address: of MLflow's pages.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # of a server elsewhere
    try:
        client = open_client(root)
        experiment = client.get_experiment_by_name(name).experiment_id
        share(client, experiment)
    except Exception:  # of many types; without views the pages are still there
        return {}
    return links(address, experiment)


def _packed(content: dict[str, Any]) -> str:
    """As MLflow packs it, because a tag has 5000 characters at most."""
    return "deflate;" + b64encode(zlib.compress(json.dumps(content).encode(), 9)).decode()


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _trials() -> dict[str, Any]:
    """The trials as rows, the straightest first, without the sweep's own run, which has no score.

    MLflow hides the runs of all but the first rows in its charts; more than twenty are slow.
    """
    widths = {_column("params", name): 84 for name in PARAMETERS}  # in pixels
    widths |= {_column("metrics", name): 112 for name in SCORES}
    columns = [*widths]
    return {
        "searchFilter": f"tags.`{TRIAL_TAG}` != ''",
        "orderByKey": _column("metrics", "lss"),
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": widths,
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "hideEmptyCharts": True,
    }


def _curves() -> dict[str, Any]:
    """A chart by epoch for each score of BY_EPOCH; MLflow adds one for each metric not named."""
    others = [name for name in (*METRICS, *ROBUSTNESS) if name not in BY_EPOCH]
    charts = [_chart(name) for name in BY_EPOCH]
    return {
        "compareRunCharts": [*charts, *({**_chart(name), "deleted": True} for name in others)],
        "compareRunSections": [
            {"uuid": SECTION, "name": "", "display": True, "isReordered": False}
        ],
        "isAccordionReordered": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0},
    }


def _chart(metric: str) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": f"geosweep-{metric}",
        "metricSectionId": SECTION,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
        "xAxisKey": "step",
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
    }
