"""Logs to MLflow, from the driver only: a parent run for the sweep, a child run for each trial.

Runs are found by their tags, so a resumed sweep adds to its existing runs. MLflow is for
browsing; the Parquet files are the complete record. If MLflow fails, the sweep goes on without
it.
"""

import json
import math
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from models.config import TrialConfig
from models.messages import plain
from scoring import places, schemas, storage
from scoring.handover import ENDED
from scoring.places import redact
from scoring.tables import read_rows
from tune_jobs.mlflow_store import (
    ID_TAG,
    SWEEP_TAG,
    find_parent,
    here,
    is_there,
    noted_uri,
    open_client,
    opt_out,
    read_note,
    told,
    tracking_uri,
)

TRIAL_TAG = "geosweep.trial"
SCORED_TAG = "geosweep.scored_at"
ERROR_TAG = "geosweep.error"
ERROR = "error.txt"  # artifact of a trial's run, with the whole traceback
PAUSE = 60.0  # seconds to wait after a failure before trying MLflow again
METRICS = (  # at most 16 with all evaluations: many keys make MLflow's pages slow
    "train_loss",
    "train_accuracy",
    "clean_train_accuracy",
    "validation_accuracy",  # if there is a validation split
    "test_loss",
    "test_accuracy",
    "seconds",
    "lss",
    "lsr",
    "geodesic_excess",
    "ots",
    "gap",
)
ENDS = ("geodesic_excess", "ots", "gap")  # known before training and after the last epoch only
ROBUSTNESS = ("lesion_auc", "noise_auc", "fgsm_auc", "pgd_auc")  # if measured
TAGS = (  # further scores, and their baselines: OTS 1/m, LSS sqrt(n), before training
    *(
        "suboptimality",
        "ots_random",
        "ots_shuffled",
        "lss_random",
        "lss_scaled",
        "relative_energy",
        "nc1",
    ),
    *("effective_rank", "fuzziness_slope"),
    *("curve_length_ratio", "curve_length_ratio_initial"),  # if measured
    *("curve_speed_variation", "curve_speed_variation_initial"),
)
OWN_TAGS = {f"geosweep.{name}" for name in (*TAGS, "status", "error", "collapsed", "scored_at")}


def load_mlflow() -> None:
    """Import MLflow ahead of time, because the import takes seconds."""
    opt_out()
    import mlflow.tracking  # noqa: F401


class Tracker:
    """The sweep's runs in MLflow.

    ``mlflow.json`` in the sweep's folder lists the finished trials that MLflow has. Trials that
    it lacks, because MLflow was unreachable or the driver was killed, are logged by the next run
    or by ``geosweep sync``. Logging a trial twice has the same result as logging it once: runs
    are found by their tags, and every number carries the time of its epoch.

    Args:
        root: the sweep's folder; also the tag of the parent run.
        name: the sweep's name; also the experiment's name.
        description: the sweep's description, shown on the parent run's page.
        warn: called with a message when MLflow fails for the first time. After every failure
            MLflow is tried again a minute later.
    """

    def __init__(self, root: str, name: str, description: str, warn: Callable[[str], None]):
        self._root, self._name, self._description = root, name, description
        self._warn = warn
        self._again = 0.0  # do not try before this time (monotonic clock)
        self._begun = False
        self._id = ""  # of the sweep, in the note and in a tag of its run
        self.failed = False  # whether MLflow has failed at least once
        self._runs: dict[str, str] = {}  # MLflow's run IDs by trial
        self._logged: dict[str, set[tuple[int, int]]] = {}  # epochs in MLflow, with their times
        self._running: dict[str, tuple[Mapping[str, Any], str]] = {}  # what `start` was given
        self._open: set[str] = set()  # trials whose run has started and not ended
        self._noted: dict[str, str] = {}  # by trial, the `scored_at` of the row that MLflow has
        # An unreachable server should not hold up the sweep.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._safely(lambda: None)

    def start(self, trial: str, config: Mapping[str, Any], label: str) -> None:
        """Find the run of a trial, or create it with its parameters."""
        self._running[trial] = config, label
        self._safely(self._reopen, trial)

    def epoch(self, trial: str, record: Mapping[str, Any]) -> None:
        """Log one epoch's metrics, unless that epoch is logged already."""
        self._safely(self._epoch, trial, record)

    def finish(self, trial: str, row: Mapping[str, Any]) -> None:
        """Log a finished trial's assignment scores and its Parquet files, and end its run."""
        self._safely(self._finish, trial, row)
        self._running.pop(trial, None)

    def fail(self, trial: str, error: str) -> None:
        """End the run of a trial that failed."""
        self._safely(self._fail, trial, error)
        self._running.pop(trial, None)

    def sync(self, rows: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[str]:
        """Log the finished trials that MLflow does not have, and return those now logged.

        Args:
            rows: rows of the trials table, by trial.
            labels: names of the runs, by trial.
        """
        behind = [trial for trial, row in rows.items() if _is_behind(self._noted, trial, row)]
        for trial in behind:
            self._safely(self._catch_up, trial, rows[trial], labels[trial])
        return [trial for trial in behind if not _is_behind(self._noted, trial, rows[trial])]

    def close(self, status: str) -> None:
        """End the parent run, and mark the runs of unfinished trials as killed."""
        self._safely(self._close, status)

    def _safely(self, call: Callable[..., object], *arguments: Any) -> None:
        if time.monotonic() < self._again:
            return
        try:
            if not self._begun:
                self._begin()
                self._begun = True
            call(*arguments)
        except Exception as error:  # no error of a database or a server may end the sweep
            self._again, self._begun = time.monotonic() + PAUSE, False
            self._open.clear()
            if self.failed:
                return  # warn only once
            self.failed = True
            self._warn(
                f"MLflow: {told(error)}; the sweep goes on without it, Parquet is "
                "complete; what MLflow misses it gets later, at the latest from geosweep sync"
            )

    def _begin(self) -> None:
        self._client, name = open_client(self._root, self._warn), plain(self._name)
        known = self._client.get_experiment_by_name(self._name)
        if known is None:
            local = tracking_uri(self._root).startswith("sqlite:")
            place = (here(self._root) / places.ARTIFACTS).as_uri() if local else None
            # Makes MLflow's pages open with runs and charts, not its language-model views.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            self._experiment = self._client.create_experiment(self._name, place, tags)
        else:
            self._experiment = known.experiment_id
            if known.lifecycle_stage == "deleted":
                self._client.restore_experiment(self._experiment)
                self._warn(f"MLflow: the experiment {name} was deleted there; it is restored")
        parent = find_parent(self._client, self._experiment, self._root, self._id)
        self._keep_id(parent.data.tags.get(ID_TAG) if parent else None)
        if parent is not None:
            self._parent = parent.info.run_id
            self._client.set_tag(self._parent, ID_TAG, self._id)
            if parent.info.lifecycle_stage == "deleted":
                self._warn(f"MLflow: the run of {name} was deleted there; it is restored")
            self._client.update_run(self._parent, status="RUNNING")
        else:
            tags = {SWEEP_TAG: redact(self._root), ID_TAG: self._id}
            tags["mlflow.note.content"] = self._description
            run = self._client.create_run(self._experiment, run_name=self._name, tags=tags)
            self._parent = run.info.run_id
        self._runs, has = {}, {}
        for run in self._find(f"tags.`mlflow.parentRunId` = '{self._parent}'"):
            trial = run.data.tags.get(TRIAL_TAG, "")
            if trial in self._runs:  # created twice: a request that seemed lost had arrived
                self._client.delete_run(run.info.run_id)
                continue
            self._runs[trial] = run.info.run_id
            if run.info.status == "FINISHED":
                has[trial] = run.data.tags.get(SCORED_TAG, "")
        self._noted = {t: scored for t, scored in has.items() if scored}
        if read_note(self._root) != self._content():
            self._note()

    def _keep_id(self, of_run: str | None) -> None:
        """Give the sweep an id, unless it has one, and keep it in the note.

        The note has it before the sweep's run does: a run with an id that no note has would be
        taken for that of another folder.
        """
        note = read_note(self._root)
        self._id = self._id or note.get("id") or of_run or uuid.uuid4().hex
        if note.get("id") != self._id:
            self._write({**note, "id": self._id})

    def _find(self, query: str) -> list[Any]:
        found, token = [], None
        while token != "":
            page = self._client.search_runs(
                [self._experiment],
                query,
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            found += page
            token = page.token or ""
        return found

    def _reopen(self, trial: str) -> bool:
        """Start the run of a trial unless it has, as after an outage; whether it has now."""
        if trial not in self._open and trial in self._running:
            self._start(trial, *self._running[trial])
        return trial in self._open

    def _start(self, trial: str, config: Mapping[str, Any], label: str) -> None:
        from mlflow.entities import Param

        run = self._runs.get(trial)
        self._logged[trial] = set()
        if run is None:
            tags = {TRIAL_TAG: trial, "mlflow.parentRunId": self._parent}
            run = self._client.create_run(self._experiment, run_name=label, tags=tags).info.run_id
            self._runs[trial] = run
        else:
            self._client.update_run(run, status="RUNNING")
            history = self._client.get_metric_history(run, "test_loss")
            self._logged[trial] = {(metric.step, metric.timestamp) for metric in history}
        params = [Param(key, str(value)) for key, value in config.items() if value is not None]
        self._client.log_batch(run, params=params)
        self._open.add(trial)

    def _epoch(self, trial: str, record: Mapping[str, Any]) -> None:
        if not self._reopen(trial):
            return
        # A trial that starts again from the beginning has the same epochs at other times.
        epoch = record["epoch"], _milliseconds(record["finished_at"])
        if epoch not in self._logged[trial]:
            self._log(trial, record, record["epoch"], METRICS, record["finished_at"])
            self._logged[trial].add(epoch)

    def _log(
        self,
        trial: str,
        values: Mapping[str, Any],
        step: int,
        names: Iterable[str],
        at: datetime | str,
    ) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, values[name], _milliseconds(at), step)
            for name in names
            # MLflow stores infinity as 1.8e308, which makes its charts useless.
            if values.get(name) is not None and math.isfinite(values[name])
        ]
        self._client.log_batch(self._runs[trial], metrics=metrics)

    def _hide(self, run: str, names: Iterable[str], at: datetime, row: Mapping[str, Any]) -> None:
        """Make MLflow show NaN for metrics that a trial has no more; it cannot delete them."""
        from mlflow.entities import Metric

        step = row["epochs_done"]
        metrics = [Metric(name, math.nan, _milliseconds(at), step) for name in names]
        self._client.log_batch(run, metrics=metrics)

    def _finish(self, trial: str, row: Mapping[str, Any]) -> None:
        if not self._reopen(trial):
            return
        run = self._runs[trial]
        for record in read_rows(self._root, "epochs", trial):
            self._epoch(trial, record)  # the worker may have died before reporting an epoch
        with tempfile.TemporaryDirectory() as folder:
            for table in schemas.TABLES:
                content = storage.read_file(self._root, places.table_path(table, trial))
                if content is not None:
                    file = Path(folder, places.table_path(table, trial))
                    file.parent.mkdir(parents=True)
                    file.write_bytes(content)
            self._client.log_artifacts(run, folder)
        initial = {name: row[f"{name}_initial"] for name in ENDS}
        self._log(trial, initial, 0, initial, row["trained_at"])
        self._log(trial, row, row["epochs_done"], ENDS, row["trained_at"])
        # Later evaluations replace earlier ones: of the values of a step, MLflow shows the latest.
        known = self._client.get_run(run).data.metrics
        new = [name for name in (*ENDS, *ROBUSTNESS) if row.get(name) != known.get(name)]
        at = row["scored_at"] or row["trained_at"]
        self._log(trial, row, row["epochs_done"], new, at)
        gone = [name for name in ROBUSTNESS if row.get(name) is None and name in known]
        self._hide(run, [name for name in gone if math.isfinite(known[name])], at, row)
        tags = {name: f"{row[name]:.6g}" for name in TAGS if row.get(name) is not None}
        tags |= {"collapsed": "true: no OTS"} if row["collapsed"] else {}
        self._tag(run, tags | {"status": row["status"], "scored_at": str(row["scored_at"])})
        self._end(trial, "FINISHED")
        self._noted[trial] = str(row["scored_at"])
        self._note()

    def _note(self) -> None:
        self._write(self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "uri": noted_uri(self._root),
            "root": redact(self._root),
            "id": self._id,
            "scored_at": self._noted,
        }

    def _write(self, note: Mapping[str, Any]) -> None:
        content = json.dumps(note).encode()
        storage.write_file(self._root, places.MLFLOW_NOTE, content, lasting=False)

    def _catch_up(self, trial: str, row: Mapping[str, Any], label: str) -> None:
        self._start(trial, TrialConfig.of_row(row).model_dump(), label)
        self._finish(trial, row)

    def _fail(self, trial: str, error: str) -> None:
        if not self._reopen(trial):
            return
        run = self._runs[trial]
        self._tag(run, {"status": "failed", "error": error[-5000:]})
        self._client.log_text(run, error, ERROR)
        self._end(trial, "FAILED")

    def _tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Set our tags of a trial's run, and delete those that an earlier attempt left there."""
        from mlflow.entities import RunTag
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        named = {f"geosweep.{name}": text for name, text in tags.items()}
        there = self._client.get_run(run)
        stale = there.data.tags.keys() & OWN_TAGS - named.keys()
        if ERROR_TAG in stale:
            with suppress(Exception):  # not every store of MLflow allows it
                get_artifact_repository(there.info.artifact_uri).delete_artifacts(ERROR)
        for name in stale:
            self._client.delete_tag(run, name)
        self._client.log_batch(run, tags=[RunTag(name, text) for name, text in named.items()])

    def _end(self, trial: str, status: str) -> None:
        self._client.set_terminated(self._runs[trial], status)
        self._open.discard(trial)

    def _close(self, status: str) -> None:
        for trial in list(self._open):
            self._end(trial, "KILLED")
        self._client.set_terminated(self._parent, status)


def _milliseconds(at: datetime | str) -> int:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return int(moment.timestamp() * 1000)


def noted(root: str) -> dict[str, str]:
    """By trial, the ``scored_at`` of the trials that MLflow has in full, as last noted."""
    if not is_there(tracking_uri(root)):
        return {}
    note = read_note(root)
    return note.get("scored_at", {}) if note.get("uri") == noted_uri(root) else {}


def is_behind(root: str, rows: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether MLflow lacks finished trials, according to the note of the last run."""
    has = noted(root)
    return any(_is_behind(has, trial, row) for trial, row in rows.items())


def _is_behind(has: Mapping[str, str], trial: str, row: Mapping[str, Any]) -> bool:
    return row["status"] in ENDED and has.get(trial) != str(row["scored_at"])
