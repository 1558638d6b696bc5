"""MLflow, from the driver alone: a parent run for the sweep, a child run for each trial.

Runs are found again by their tags, so a sweep that goes on adds to the runs it has. MLflow is
where people look; Parquet is the record. If MLflow fails the sweep goes on without it.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from scoring import schemas

SWEEP_TAG, TRIAL_TAG = "geosweep.sweep", "geosweep.trial"
METRICS = (  # few on purpose: many keys make MLflow's pages slow
    "train_loss",
    "train_accuracy",
    "clean_train_accuracy",
    "test_loss",
    "test_accuracy",
    "learning_rate",
    "seconds",
    "lss",
    "inverse_lss",
    "lsr",
    "ots",
    "gap",
)
AT_THE_END = ("suboptimality", "ots_random", "lss_random")  # 1/m and sqrt(n): what is random


def tracking_uri(root: str) -> str:
    """``MLFLOW_TRACKING_URI`` if it is set, else a SQLite file in the sweep's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow.db"


def load_mlflow() -> None:
    """Import MLflow, which takes seconds, before it is needed."""
    import mlflow.tracking  # noqa: F401


class Tracker:
    """The sweep's runs in MLflow.

    Args:
        root: the sweep's folder; tag of the parent run.
        name: of the sweep; the experiment's name.
        description: of the sweep, for the parent run's page.
        warn: told once, in words, if MLflow fails; nothing is logged from then on.
    """

    def __init__(self, root: str, name: str, description: str, warn: Callable[[str], None]):
        self._root = root
        self._warn = warn
        self._works = True
        self._runs: dict[str, tuple[str, int]] = {}  # trial -> run, last epoch logged
        self._safely(self._open, name, description)

    def start(self, trial: str, config: Mapping[str, Any], label: str) -> None:
        """Find the run of a trial, or create it with its parameters."""
        if trial not in self._runs:
            self._safely(self._start, trial, config, label)

    def epoch(self, trial: str, record: Mapping[str, Any]) -> None:
        """Log one epoch's metrics, unless that epoch is logged already."""
        self._safely(self._epoch, trial, record)

    def finish(self, trial: str) -> None:
        """Log a finished trial's assignment scores and its Parquet files, and end its run."""
        self._safely(self._finish, trial)

    def fail(self, trial: str, error: str) -> None:
        """End the run of a trial that failed."""
        self._safely(self._fail, trial, error)

    def close(self, complete: bool) -> None:
        """End the parent run."""
        self._safely(self._close, complete)

    def _safely(self, call: Callable[..., None], *arguments: Any) -> None:
        if not self._works:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever a database or a server throws: not the sweep's end
            self._works = False
            self._warn(f"MLflow: {error}; the sweep goes on without it, Parquet is complete")

    def _open(self, name: str, description: str) -> None:
        from mlflow.tracking import MlflowClient

        uri = tracking_uri(self._root)
        self._client = MlflowClient(uri)
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            self._experiment = known.experiment_id
        else:
            local = uri.startswith("sqlite:") and "://" not in self._root
            place = Path(self._root, "mlartifacts").as_uri() if local else None
            # MLflow's pages open with runs and charts, not with what it has for language models.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            self._experiment = self._client.create_experiment(name, place, tags)
        parent = self._find(SWEEP_TAG, self._root)
        if parent is None:
            tags = {SWEEP_TAG: self._root, "mlflow.note.content": description}
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
            parent = run.info.run_id
        else:
            self._client.update_run(parent, status="RUNNING")
        self._parent = parent

    def _find(self, tag: str, value: str, parent: str | None = None) -> str | None:
        query = f"tags.`{tag}` = '{value}'"
        if parent:
            query += f" and tags.`mlflow.parentRunId` = '{parent}'"
        runs = self._client.search_runs([self._experiment], query, max_results=1)
        return runs[0].info.run_id if runs else None

    def _start(self, trial: str, config: Mapping[str, Any], label: str) -> None:
        from mlflow.entities import Param

        run = self._find(TRIAL_TAG, trial, self._parent)
        logged = -1
        if run is None:
            tags = {TRIAL_TAG: trial, "mlflow.parentRunId": self._parent}
            run = self._client.create_run(self._experiment, run_name=label, tags=tags).info.run_id
            params = [Param(key, str(value)) for key, value in config.items()]
            self._client.log_batch(run, params=params)
        else:
            self._client.update_run(run, status="RUNNING")
            history = self._client.get_metric_history(run, "test_loss")
            logged = max((metric.step for metric in history), default=-1)
        self._runs[trial] = run, logged

    def _epoch(self, trial: str, record: Mapping[str, Any]) -> None:
        run, logged = self._runs[trial]
        if record["epoch"] > logged:
            self._log(run, record, record["epoch"], METRICS)
            self._runs[trial] = run, record["epoch"]

    def _log(self, run: str, values: Mapping[str, Any], step: int, names: Iterable[str]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(name, values[name], now, step)
            for name in names
            # MLflow stores infinity as 1.8e308, which no chart survives
            if values.get(name) is not None and math.isfinite(values[name])
        ]
        self._client.log_batch(run, metrics=metrics)

    def _finish(self, trial: str) -> None:
        run, _ = self._runs[trial]
        with tempfile.TemporaryDirectory() as folder:
            for table in schemas.TABLES:
                content = schemas.read_file(self._root, schemas.table_path(table, trial))
                if content is not None:
                    file = Path(folder, schemas.table_path(table, trial))
                    file.parent.mkdir(parents=True)
                    file.write_bytes(content)
            self._client.log_artifacts(run, folder)
            row = schemas.read_table(folder, "trials").to_pylist()[0]
        initial = {"ots": row["ots_initial"], "gap": row["gap_initial"]}
        self._log(run, initial, 0, initial)
        self._log(run, row, row["epochs_done"], (*initial, *AT_THE_END))
        if row["collapsed"]:
            self._client.set_tag(run, "geosweep.collapsed", "true: no OTS")
        self._client.set_tag(run, "geosweep.status", row["status"])
        self._client.set_terminated(run, "FINISHED")

    def _fail(self, trial: str, error: str) -> None:
        run, _ = self._runs[trial]
        self._client.set_tag(run, "geosweep.status", "failed")
        self._client.set_tag(run, "geosweep.error", error[:5000])
        self._client.set_terminated(run, "FAILED")

    def _close(self, complete: bool) -> None:
        self._client.set_terminated(self._parent, "FINISHED" if complete else "FAILED")
