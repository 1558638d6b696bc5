"""Ray Tune restarts a trial whatever error of Ray its worker died of."""

from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)

from tune_jobs import tuning


class Manager(RayActorManager):
    """Handles the errors of tasks, without any actor."""

    def __init__(self) -> None:
        self._failed_actor_ids = set()

    def _cleanup_actor(self, tracked_actor) -> None:
        pass


def handled(error: Exception, said: list[str]) -> list[Exception]:
    """The errors that Ray Tune passes on to the trial."""
    seen: list[Exception] = []
    actor = SimpleNamespace(actor_id=0, _on_error=lambda actor, error: seen.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    with tuning.lost_workers(said.append):
        Manager()._actor_task_failed(tracked_actor_task=task, exception=error)
    return seen


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("2 workers were killed"),
        NodeDiedError("the node died"),
        WorkerCrashedError(),
        ObjectLostError("0" * 56, "", ""),
        ActorDiedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_trial_is_told_of_any_error_of_ray(error, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(tuning.time, "sleep", waits.append)
    said: list[str] = []
    (seen,) = handled(error, said)
    assert isinstance(seen, RayActorError)
    assert str(seen) == str(error)
    assert bool(said) == bool(waits) == isinstance(error, OutOfMemoryError)


def test_other_errors_still_end_the_sweep_and_ray_is_left_as_it_was():
    before = RayActorManager._actor_task_failed
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        handled(ValueError("a mistake of ours"), [])
    assert RayActorManager._actor_task_failed is before


def test_ray_tune_itself_would_end_the_sweep():
    """Once this fails, Ray handles these errors and ``lost_workers`` can go."""
    with pytest.raises(RuntimeError, match="unexpected"):
        Manager()._actor_task_failed(
            SimpleNamespace(_tracked_actor=None), OutOfMemoryError("memory")
        )
    assert issubclass(OutOfMemoryError, RayError)


def test_workers_that_were_killed_together_are_waited_for_once(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(tuning.time, "sleep", waits.append)
    actor = SimpleNamespace(actor_id=0, _on_error=None)
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    said: list[str] = []
    with tuning.lost_workers(said.append):
        for _ in range(4):
            Manager()._actor_task_failed(
                tracked_actor_task=task, exception=OutOfMemoryError("killed")
            )
    assert (len(waits), len(said)) == (1, 4)
