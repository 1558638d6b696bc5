"""The driver of a running sweep: between Ray Tune, the scorers, MLflow and the board."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator
from rich.console import Console

from models.config import TrialConfig
from scoring import handover, schemas
from scoring.actors import Pool, pool_size
from tune_jobs import folder
from tune_jobs.board import Board, cells
from tune_jobs.sweep import SweepError
from tune_jobs.tracking import Tracker

RETRIES = 2  # of a trial whose worker died; it goes on from its last epoch
ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b")  # how a traceback ends


class Driver(tune.Callback):
    """Hears of every epoch from Ray Tune, and hands on what is trained."""

    def __init__(self, request: folder.Request, state: folder.State, console: Console):
        self._request = request
        self._state = state
        self._root = request.root
        asked = request.sweep.resources.gpus
        there = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        self._gpus = there if asked is None else asked
        self._pool = Pool(self._root, pool_size())
        self._board = Board(self._root, cells(state), self._at_once(), console)
        sweep = request.sweep
        self._tracker = Tracker(self._root, sweep.name, sweep.description, self._board.say)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles callbacks for a restore of its own, which is never asked for."""
        return {}

    def run(self) -> None:
        """Train what is missing, score what is trained, until nothing is left."""
        for trial in self._state.leftover:
            handover.discard(self._root, trial)
        with self._board:
            for trial in self._state.scoring:
                self._start(trial)
                self._pool.submit(trial)
            if self._state.missing:
                self._train()
            while self._pool.left:
                self._collect(timeout=0.5)
            self._board.refresh()
            counts = self._board.snapshot()["counts"]
            self._tracker.close(set(counts) <= set(folder.FINISHED))

    def _train(self) -> None:
        trials = self._state.missing
        resources = self._request.sweep.resources
        trainable = tune.with_parameters(
            train_cell,
            root=self._root,
            sources=self._request.sources,
            folder=self._request.data,
            cpus=resources.cpus,
            gpus=self._gpus,
        )
        held = tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": self._gpus}])
        place = f"ray-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        rows = [trial.model_dump() for trial in trials]
        tuner = tune.Tuner(
            tune.with_resources(trainable, held),
            param_space={name: tune.choice(sorted_values(rows, name)) for name in rows[0]},
            tune_config=tune.TuneConfig(
                search_alg=BasicVariantGenerator(points_to_evaluate=rows),
                num_samples=len(rows),
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=tune.RunConfig(
                name=place,
                storage_path=f"{self._root}/.ray",
                callbacks=[self],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )
        tuner.fit()
        schemas.delete(self._root, ".ray")

    def _at_once(self) -> int:
        """How many trials the cluster holds side by side."""
        have, resources = ray.cluster_resources(), self._request.sweep.resources
        fits = [have.get("CPU", 1) / resources.cpus]
        if self._gpus:
            fits.append(have.get("GPU", 0) / self._gpus)
        if min(fits) < 1 and self._request.address is None:
            asked = f"{resources.cpus:g} CPUs and {self._gpus:g} GPUs"
            there = f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}"
            raise SweepError(
                f"{self._request.sweep.source}: resources: a trial asks for {asked}; "
                f"this machine has {there}"
            )
        return max(1, int(min(fits)))  # a cluster may have nodes to come

    def _start(self, trial: str) -> None:
        cell = self._board.cells[trial]
        self._tracker.start(trial, cell.config.model_dump(), cell.label)

    def _collect(self, timeout: float = 0) -> None:
        for trial, error in self._pool.collect(timeout):
            if error is not None:
                self._failed(trial, f"scoring: {error}", record=False)
                continue
            row = schemas.read_row(self._root, "trials", trial)
            self._board.cells[trial].record = row
            self._tracker.finish(trial)
            self._board.change(trial, row["status"])
        self._board.refresh()

    def _failed(self, trial: str, error: str, record: bool = True) -> None:
        """Keep the traceback in the folder and the failure in the trials table."""
        schemas.write_file(self._root, f"errors/{trial}.txt", error.encode())
        lines = error.strip().splitlines() or ["no message"]
        last = next((line for line in reversed(lines) if ERROR.match(line)), lines[-1])
        if record:
            config = self._board.cells[trial].config
            row = {"trial": trial, **config.model_dump(), "status": "failed", "error": last}
            schemas.write_table(self._root, "trials", trial, [row])
        self._start(trial)
        self._tracker.fail(trial, error)
        self._board.change(trial, "failed", last)

    # What Ray Tune tells, in the order of a trial's life.

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._start(_trial_id(trial))
        self._board.change(_trial_id(trial), "running")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" in result:
            self._board.report(_trial_id(trial), result)
            self._tracker.epoch(_trial_id(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._board.change(_trial_id(trial), "scoring")
        self._pool.submit(_trial_id(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        file = trial.error_file
        text = Path(file).read_text() if file and Path(file).exists() else "the worker died"
        self._failed(_trial_id(trial), text)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._collect()


def train_cell(config: dict[str, Any], **where: Any) -> None:
    """What Ray runs: :func:`tune_jobs.trial.run_trial`. Its torch is loaded by workers only."""
    from tune_jobs.trial import run_trial

    run_trial(config, **where)


def sorted_values(rows: list[dict[str, Any]], name: str) -> list[Any]:
    """The values a field takes, each once."""
    return list({str(row[name]): row[name] for row in rows}.values())


def _trial_id(trial: Any) -> str:
    return TrialConfig.model_validate(trial.config).trial
