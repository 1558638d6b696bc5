"""Ray actors that finish trials on the CPU while others go on training."""

import math
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scoring.handover import finish
from scoring.storage import require

NO_DEVICE = {"CUDA_VISIBLE_DEVICES": ""}  # Ray unsets it otherwise

MOST = 8  # scorers on one node
PATIENCE = 3.0  # seconds a trial waits before another scorer is started for it
IDLE = 60.0  # seconds a scorer without work is kept: a cluster gives idle nodes back
RETRIES = 2  # of a trial whose scorer died, or its node


@ray.remote(num_cpus=0, runtime_env={"env_vars": NO_DEVICE})
class Scorer:
    """Finishes one trial at a time."""

    def finish(self, root: str, trial: str, released_at: datetime, share: int) -> None:
        """Solve with all cores of this machine, divided by the trials being finished now."""
        require(root)
        finish(root, trial, released_at, max(1, (os.cpu_count() or 1) // share))


@dataclass(eq=False)
class _Started:
    """A scorer, the node that it is on, and since when it has been without work."""

    actor: Any
    node: str
    since: float = field(default_factory=time.monotonic)


class Pool:
    """A few scorers and a queue: what waits is on storage, not in memory.

    Scorers ask Ray for no CPU, so they never wait for one that a trial holds: with few cores
    training and scoring share them. Each stays on the node it was started on. One that dies takes
    nothing with it: its trial goes to the head of the queue, and to another scorer.
    """

    def __init__(self, root: str):
        self.root = root
        self._free: list[_Started] = []
        self._queue: deque[tuple[str, datetime]] = deque()
        self._busy: dict[ray.ObjectRef, tuple[str, datetime, _Started]] = {}
        self._died: Counter[str] = Counter()  # scorers, by node
        self._tries: Counter[str] = Counter()  # scorers that died, by trial

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
            trial, released_at, scorer = self._busy.pop(reference)
            error = None
            try:
                ray.get(reference, timeout=60)
            except RayError as failed:
                error = failed
            if error is None or isinstance(error, RayTaskError):  # the scorer itself is well
                scorer.since = time.monotonic()
                self._free.append(scorer)
            else:
                self._lose(scorer)
                self._tries[trial] += 1
                if self._tries[trial] <= RETRIES:
                    self._queue.appendleft((trial, released_at))
                    continue
            yield trial, error
        self._feed()

    def _lose(self, scorer: _Started) -> None:
        """A scorer has died; where its node has, so have the free ones there."""
        ray.kill(scorer.actor)  # it may be out of reach only
        self._died[scorer.node] += 1
        self._dismiss([free for free in self._free if free.node == scorer.node])

    def _dismiss(self, scorers: list[_Started]) -> None:
        for scorer in scorers:
            self._free.remove(scorer)
            ray.kill(scorer.actor)

    def _feed(self) -> None:
        if not self._queue:
            now = time.monotonic()
            self._dismiss([scorer for scorer in self._free if now - scorer.since > IDLE])
        while self._queue:
            room = places(ray.nodes())  # nodes come and go
            self._dismiss([scorer for scorer in self._free if scorer.node not in room])
            if not self._free:
                # A scorer takes seconds to start: another one only where the first cannot follow.
                _, since = self._queue[0]
                waited = (datetime.now(UTC) - since).total_seconds()
                started = Counter(scorer.node for *_, scorer in self._busy.values())
                with_room = [node for node in room if started[node] < room[node]]
                if not with_room or (started and waited < PATIENCE):
                    return
                least = min(with_room, key=lambda n: (self._died[n], started[n] / room[n]))
                where = NodeAffinitySchedulingStrategy(least, soft=False)
                actor = Scorer.options(scheduling_strategy=where).remote()
                self._free.append(_Started(actor, least))
            at_once = min(sum(room.values()), len(self._busy) + len(self._queue))
            share = math.ceil(at_once / len(room))  # of the cores of one of these nodes
            trial, released_at = self._queue.popleft()
            scorer = self._free.pop()
            done = scorer.actor.finish.remote(self.root, trial, released_at, share)
            self._busy[done] = trial, released_at, scorer


def places(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The nodes that scorers start on, and how many on each: as many as it has CPUs, 1 to 8.

    Those are the nodes without a GPU, if there are any.
    """
    alive = [node for node in nodes if node["Alive"]]
    spared = [node for node in alive if not node["Resources"].get("GPU")]
    cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 1)) for node in spared or alive}
    return {node: max(1, min(MOST, count)) for node, count in cpus.items()}
