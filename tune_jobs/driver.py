"""The driver of a running sweep. It connects Ray Tune, the scorers, MLflow and the board."""

import gc
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

from models.config import TrialConfig
from scoring import handover, places, storage
from scoring.actors import Pool
from scoring.history import forget_weights
from scoring.tables import read_row, write_table
from tune_jobs import folder, provenance, room
from tune_jobs.account import Account
from tune_jobs.board import Board, Cell, cells
from tune_jobs.cluster import nodes
from tune_jobs.cluster.machines import Demand, Spared
from tune_jobs.errors import SweepError, full_disk, no_space
from tune_jobs.estimates import Forecast
from tune_jobs.labels import label, labels, last_line, unclear
from tune_jobs.merging import Merger
from tune_jobs.meter import Meter
from tune_jobs.picking import field
from tune_jobs.study import Study
from tune_jobs.sweep import Sweep
from tune_jobs.tracking import Tracker
from tune_jobs.tuning import Cells, NotKept, Setup, Stop, lost_workers, scheduler
from tune_jobs.weights import aim, best_of, spare

UNSEEN = 60.0  # NFS may not show a new file for this many seconds (acdirmax).
RETRIES = 2  # restarts of a trial that failed, each from its last epoch; then it counts as failed


class Driver(NotKept, tune.Callback):
    """Receives every epoch from Ray Tune, and passes trained trials on to the scorers."""

    def __init__(
        self,
        request: folder.Request,
        state: folder.State,
        study: Study | None,
        console: Console,
        scratch: str,
        forecast: Forecast,
    ):
        self._request = request
        self._scratch = scratch
        self._state = state
        self._study = study
        self._claimed = 0, study.ended if study else {}  # what sweep.json has of the study
        self._root = request.root
        self._gpus = room.gpus_of_trial(request.sweep.resources, ray.cluster_resources())
        self._shared = nodes.share(request)
        self._identity, self._gone = folder.identity(self._root), False
        self._apart = ""  # why a node that joined later cannot reach the sweep's folder
        self._pool, self.meter = Pool(self._root), Meter()
        self._demand, self._spared = Demand(), Spared()
        self._evaluating = {trial.trial for trial in state.unevaluated}  # done; only to evaluate
        there = {n.partition(".")[0] for n in storage.list_files(self._root, places.CHECKPOINTS)}
        self._weights = {t: row for t, row in state.rows.items() if t in there}
        known = folder.description(self._root)
        self._wanted = known.evaluations
        self._best_in = aim(known.objectives, request.sweep.trials)
        self._varying = varied(request.sweep) or None
        self._exact = unclear(request.sweep.trials, self._varying or [])
        begun = cells(state, self._varying, self._exact)
        self._board = Board(self._root, begun, self.at_once, console, state.to_suggest)
        sweep = request.sweep
        forecast = replace(forecast, gpus=self._gpus)
        self.account = Account(self._root, sweep.budget, forecast, self.meter, self._board.cells)
        self._stop = Stop(request.max_failures, self._board.say, self.account.stops)
        self._tracker = Tracker(self._root, sweep.name, sweep.description, self._board.say)
        self._merger = Merger(self._root, len(state.rows))

    def run(self) -> None:
        """Train what is missing and score what is trained, until nothing is left."""
        for trial in self._state.leftover:
            handover.discard(self._root, trial)
        self._forget()
        storage.require(self._root)
        with self._board, self._stop.on_interrupt():
            try:
                self._train_and_score()
            except BaseException as error:
                if self._gone or folder.identity(self._root) != self._identity:
                    raise SweepError(
                        f"{self._root}: the folder was deleted or replaced; the sweep has stopped"
                    ) from None
                self._tracker.close("KILLED")
                if no_space(error):
                    raise full_disk(error, self._root, self._scratch) from error
                raise
        if self._apart:
            raise SweepError(f"{self._apart}; choose a folder that all nodes reach with --out")

    def _train_and_score(self) -> None:
        self._sync(self._state)
        for trial in self._state.scoring:
            self._start(trial)
            self._pool.submit(trial)
        if self._state.missing or self._state.to_suggest or self._evaluating:
            self._train()
        storage.delete(self._root, places.NODES)
        while self._pool.left and not (self._stop.asked or self.account.spent):
            self._collect(timeout=0.5)
        if self._study:
            self._claim(self._study)
        self._board.refresh(last=True)
        self.account.write(at_once=True)
        self.meter.keep(self._request, self._board.cells)
        if not self._stop.asked:
            self._merger.finish()
        counts = self._board.snapshot()["counts"]
        if self._tracker.failed:
            self._sync(folder.inspect(self._root))
        complete = set(counts) <= set(handover.ENDED)
        early = self._stop.asked or self.account.over
        self._tracker.close("FINISHED" if complete else "KILLED" if early else "FAILED")

    def _check_folder(self) -> None:
        """Raise before anything is written if the sweep's folder was deleted or replaced."""
        if self._gone or folder.identity(self._root) != self._identity:
            self._gone = True
            raise FileNotFoundError(self._root)

    def _train(self) -> None:
        sweep, resources = self._request.sweep, self._request.sweep.resources
        setup = Setup(
            root=self._root,
            sources=self._request.sources,
            folder=self._request.data,
            cpus=resources.cpus,
            gpus=self._gpus,
            evaluations=sweep.evaluations,
            keep=sweep.keep,
            revision=provenance.revision(),
            shared=self._shared,
            held=True,
        )
        trainable = tune.with_parameters(train_cell, setup=setup)
        held = tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": self._gpus}])
        place = f"ray-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        # Queue one suggestion at most. A grid may queue more, for a cluster that is growing.
        one_by_one = self._study or self.account.limited
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "1" if one_by_one else "16"
        # A trial that is only evaluated, or that found the disk full, has no scores to report.
        os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
        tuner = tune.Tuner(
            tune.with_resources(trainable, held),
            param_space={},
            tune_config=tune.TuneConfig(
                search_alg=Cells(self.cells(), lambda: self._stop.asked),
                scheduler=scheduler(sweep, self._root, self._state),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name=place,
                storage_path=f"{self._scratch}/tune",  # Ray needs it to restore; we never do
                callbacks=[self],
                progress_reporter=tune.CLIReporter(),  # in a notebook another one clears the cell
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                stop=self._stop,
                verbose=0,
            ),
        )
        with lost_workers(self._board.say):
            tuner.fit()
        for trial, cell in self._board.cells.items():
            if cell.status in ("running", "evaluating"):  # stopped before the epoch ended
                back = "to evaluate" if trial in self._evaluating else "waiting"
                self._board.change(trial, back)

    def at_once(self) -> int:
        """How many trials fit on the cluster side by side now, at least 1.

        Raises:
            SweepError: one trial needs more than this machine has.
        """
        have, resources = ray.cluster_resources(), self._request.sweep.resources
        fit = room.at_once(resources, have, self._gpus)
        if not fit and self._request.address is None:
            asked = f"{resources.cpus:g} CPUs and {self._gpus:g} GPUs"
            there = f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}"
            raise SweepError(
                f"{self._request.sweep.source}: resources: a trial asks for {asked}; "
                f"this machine has {there}"
            )
        return max(1, fit)  # a cluster may get more nodes later

    def cells(self) -> Iterator[TrialConfig | None]:
        """Yield the cells to train or evaluate: missing, unevaluated, then suggested by a search.

        None means "ask again later", so that a suggestion can learn from the running trials. A run
        that trains failed cells only suggests none.
        """
        known = (*self._state.missing, *self._state.unevaluated)
        yield from self.account.fitting(known, lambda: self._is_busy(len(self.meter.running)))
        while self._study is not None and self._study.left and not self._request.retry:
            busy = sum(c.status in ("waiting", "running") for c in self._board.cells.values())
            busy = len(self.meter.running) if self.account.limited else busy  # others may wait
            if self._is_busy(busy):
                yield None
                continue
            if not self.account.fits(None):
                if not self.meter.running:
                    return
                yield None
                continue
            config = self._study.suggest()
            self._claim(self._study)
            if config is not None:
                self._board.add(Cell(config, label(config, self._varying or [], self._exact)))
            elif not busy and self._pool.left:  # Ray Tune asks again before it looks for results
                self._collect(timeout=0.5)
            elif not busy:
                return  # this run was not asked to train any of what is left
            self._board.expect(self._study.left)
            yield config

    def _is_busy(self, busy: int) -> bool:
        """Whether enough trials are busy; on a cluster one more waits, so that it may grow."""
        return busy >= self.at_once() + (self._request.address is not None)

    def _claim(self, study: Study) -> None:
        """Write to the sweep's folder what a search has suggested, if that has changed."""
        now = len(study.cells), study.ended
        if now != self._claimed:
            sweep, notes = self._request.sweep, self._request.notes
            folder.claim(self._root, sweep, study.cells, notes, study.ended)
            for cell in now[1].keys() - self._claimed[1]:
                self._board.say(study.why_ended(cell, self._varying or [], self._exact))
            self._claimed = now

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the sweep."""
        return self._stop.interrupted

    def _start(self, trial: str) -> None:
        cell = self._board.cells[trial]
        self._tracker.start(trial, cell.config.model_dump(), cell.label)

    def _sync(self, state: folder.State) -> None:
        self._tracker.sync(state.rows, labels(state.trials, self._varying, self._exact))

    def _collect(self, timeout: float = 0) -> None:
        self._check_folder()
        self._demand.look(self._pool.left)
        for trial, error in self._pool.collect(timeout):
            if error is not None:
                self._failed(trial, f"scoring: {error}", record=False)
                continue
            row = self._scored_row(trial)
            if not row:
                path = f"{self._root}/{places.table_path('trials', trial)}"
                self._failed(trial, f"scoring: {path}: not there, or damaged", record=False)
                continue
            self._board.cells[trial].record = row
            self._tracker.finish(trial, row)
            self._board.change(trial, row["status"])
            self.meter.scored()
            self._merger.add()
            if self._study:
                self._study.tell(trial, row)
            self._weights[trial] = row
            self._forget()
        self._board.refresh()
        self.account.write()

    def _row(self, trial: str) -> dict[str, Any]:
        """A trial's row; empty if there is none, or a damaged one."""
        try:
            return read_row(self._root, "trials", trial)
        except storage.Damaged:
            return {}

    def _scored_row(self, trial: str) -> dict[str, Any]:
        """The row that a scorer has written; on NFS it may take a while to be seen here."""
        end = time.monotonic() + (UNSEEN if storage.is_local(self._root) else 0.0)
        while (row := self._row(trial)).get("status") not in handover.ENDED:
            if time.monotonic() > end:
                break
            time.sleep(1.0)
        return row

    def _forget(self) -> None:
        """Delete the weights that the sweep does not keep and nothing needs any more."""
        sweep = self._request.sweep
        ended = ["done", "diverged"]
        if sweep.scheduler and best_of(sweep.keep):  # else stopped trials would go on
            ended.append("stopped")
        for trial in spare(self._weights, sweep.keep, self._best_in, self._wanted, ended):
            forget_weights(self._root, trial)
            del self._weights[trial]

    def _failed(self, trial: str, error: str, record: bool = True) -> None:
        """Write the traceback to the folder and the failure to the trials table.

        If only a trial's evaluation failed, it stays done in the table and in MLflow. So does
        a trial that had ended in an earlier run. A full disk is no failure of the trial: the sweep
        ends, and goes on where there is room.
        """
        self._check_folder()
        if no_space(error):
            raise full_disk(error, self._root, self._scratch)
        storage.write_file(self._root, places.error(trial), error.encode())
        last = last_line(error)
        if trial in self._evaluating:
            self._board.change(trial, "failed", f"evaluation: {last}")
            self._stop.failed()
            return
        row = self._row(trial) if record else {}
        ended = row.get("status") in handover.ENDED
        if not ended:
            row = self._board.cells[trial].config.row() | {"status": "failed", "error": last}
        if record and not ended:
            write_table(self._root, "trials", trial, [row])
        if self._study:
            self._study.tell(trial, row)
        self._start(trial)
        if ended:
            self._tracker.finish(trial, row)
        else:
            self._tracker.fail(trial, error)
        self._board.change(trial, "failed", last)
        self._stop.failed()

    # Ray Tune's callbacks, in the order in which a trial triggers them.

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name = _trial_id(trial)
        self.meter.start(name)
        if name in self._evaluating:
            self._board.change(name, "evaluating")
            return
        self._start(name)
        self._board.change(name, "running")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._check_folder()
        if "no_space" in result:
            raise full_disk(result["no_space"], self._root, self._scratch)
        for line in result.get("set_aside", []):
            self._board.say(line)
        if "epoch" in result:
            name = _trial_id(trial)
            self.meter.report(name, result["epoch"], self._board.cells[name].config.epochs)
            self._board.report(name, result)
            self._tracker.epoch(name, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._check_folder()
        name = _trial_id(trial)
        self.meter.end(name)
        cell = self._board.cells[name]
        if name in self._evaluating:
            self._start(name)
        elif not handover.handed_over(self._root, name) and not self._is_done(name):
            if self._stop.asked or self.account.paused(name):
                self._board.change(name, "waiting")
                return
            handover.leave_stopped(self._root, name, cell.epoch)
        elif self._study and not cell.record.get("diverged", True):
            self._study.tell(name, cell.record)
        self._board.change(name, "scoring")
        self._pool.submit(name)

    def _is_done(self, trial: str) -> bool:
        """Whether a trial is done; a scorer of a killed driver may have finished it meanwhile."""
        return self._row(trial).get("status") == "done"

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.meter.end(_trial_id(trial))
        file = trial.error_file
        text = Path(file).read_text() if file and Path(file).exists() else "the worker died"
        if nodes.NotShared.__name__ in last_line(text):
            self._apart = last_line(text)
            self._stop.ask("a node does not have the sweep's folder")
            self._board.change(_trial_id(trial), "waiting")
            return
        self._failed(_trial_id(trial), text)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._stop.look(trials)
        self._spared.look(trials)
        self._collect()


def train_cell(config: dict[str, Any], setup: Setup) -> None:
    """Run :func:`tune_jobs.trial.run_trial` in a Ray worker. Only workers import torch.

    A full disk is reported as a result, since Ray Tune would retry a failed trial in vain.
    """
    gc.disable()  # as in tune_jobs.cli, but only while packages load
    try:
        from tune_jobs.trial import run_trial
    finally:
        gc.enable()
    try:
        run_trial(config, setup)
    except Exception as error:
        if not no_space(error):
            raise
        full = full_disk(error, setup.root)
        if setup.shared.token:  # of several nodes, any may be the one that is full
            full.filename = f"{full.filename} on {socket.gethostname()}"
        tune.report({"no_space": str(full)})


def varied(sweep: Sweep) -> list[str]:
    """The fields that a search varies; empty without a search."""
    spaces = [sweep.space, *(branch.space for branch in sweep.rules.branches)]
    names = [n for space in spaces for axis in space for n in field(axis).split(", ")]
    seeds = ["seed"] if sweep.rules.seeds > 1 else []
    return [*dict.fromkeys(names), *seeds] if names else []


def _trial_id(trial: Any) -> str:
    return TrialConfig.model_validate(trial.config).trial
