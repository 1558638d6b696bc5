"""Ray actors that finish trials on the CPU while others go on training."""

import math
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scoring.handover import finish

NO_DEVICE = {"CUDA_VISIBLE_DEVICES": ""}  # Ray unsets it otherwise

MOST = 8  # scorers on one node
PATIENCE = 3.0  # seconds a trial waits before another scorer is started for it


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=2, runtime_env={"env_vars": NO_DEVICE})
class Scorer:
    """Finishes one trial at a time; one that is killed starts again with the same trial."""

    def finish(self, root: str, trial: str, released_at: datetime, share: int) -> None:
        """Solve with all cores of this machine, divided by the trials being finished now."""
        finish(root, trial, released_at, max(1, (os.cpu_count() or 1) // share))


class Pool:
    """A few scorers and a queue: what waits is on storage, not in memory.

    Scorers ask Ray for no CPU, so they never wait for one that a trial holds: with few cores
    training and scoring share them.
    """

    def __init__(self, root: str):
        self.root = root
        self._free: list[Any] = []
        self._started: Counter[str] = Counter()  # scorers, by the node that each was started on
        self._queue: deque[tuple[str, datetime]] = deque()
        self._busy: dict[ray.ObjectRef, tuple[str, Any]] = {}

    def submit(self, trial: str) -> None:
        """Have a trial finished that has just given its CPU or GPU back."""
        self._queue.append((trial, datetime.now(UTC)))
        self._feed()

    @property
    def left(self) -> int:
        """Trials not finished yet."""
        return len(self._queue) + len(self._busy)

    def collect(self, timeout: float = 0) -> Iterator[tuple[str, Exception | None]]:
        """Trials finished since the last call, each with its error if it has one.

        Waits up to ``timeout`` seconds for the first of them.
        """
        ready, _ = ray.wait(list(self._busy), timeout=timeout) if self._busy else ([], [])
        for reference in ready:
            trial, actor = self._busy.pop(reference)
            self._free.append(actor)
            error = None
            try:
                ray.get(reference, timeout=60)
            except RayError as failed:
                error = failed
            yield trial, error
        self._feed()

    def _feed(self) -> None:
        while self._queue:
            room = places(ray.nodes())  # nodes come and go
            if not self._free:
                # A scorer takes seconds to start: another one only where the first cannot follow.
                _, since = self._queue[0]
                waited = (datetime.now(UTC) - since).total_seconds()
                least = min(room, key=lambda node: self._started[node] / room[node])
                if self._started[least] >= room[least]:
                    return
                if self._started.total() and waited < PATIENCE:
                    return
                where = NodeAffinitySchedulingStrategy(least, soft=True)
                self._free.append(Scorer.options(scheduling_strategy=where).remote())
                self._started[least] += 1
            at_once = min(sum(room.values()), len(self._busy) + len(self._queue))
            share = math.ceil(at_once / len(room))  # of the cores of one of these nodes
            trial, released_at = self._queue.popleft()
            actor = self._free.pop()
            self._busy[actor.finish.remote(self.root, trial, released_at, share)] = trial, actor


def places(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The nodes that scorers start on, and how many on each: as many as it has CPUs, 1 to 8.

    Those are the nodes without a GPU, if there are any.
    """
    alive = [node for node in nodes if node["Alive"]]
    spared = [node for node in alive if not node["Resources"].get("GPU")]
    cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 1)) for node in spared or alive}
    return {node: max(1, min(MOST, count)) for node, count in cpus.items()}
