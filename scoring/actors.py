"""Ray actors that finish trials on the CPU while other trials train."""

import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scoring.cores import cores
from scoring.handover import finish
from scoring.storage import require

MOST = 8  # A node has at most this many scorers.
PATIENCE = 3.0  # Start another scorer when a trial has waited longer than this, in seconds.
IDLE = 60.0  # Stop a scorer that was idle for longer, in seconds, so that its node can be released.
RETRIES = 2  # Give up on a trial when it has lost more scorers (or their nodes) than this.


@ray.remote(num_cpus=0)
class Scorer:
    """Finishes one trial at a time. It loads no torch, so it cannot take memory of a GPU."""

    def finish(self, root: str, trial: str, released_at: datetime, share: int) -> None:
        """Finish a trial with 1/share of the cores of this machine."""
        require(root)
        finish(root, trial, released_at, max(1, cores() // share))


@dataclass(eq=False)
class _Started:
    """A scorer, its node, and the time since when it is idle."""

    actor: Any
    node: str
    since: float = field(default_factory=time.monotonic)


class Pool:
    """A few scorers and a queue of trials. What a trial left is on storage, not in memory.

    Scorers request no CPU from Ray, so they never wait for a trial to release one: when there
    are few cores, training and scoring share them. A scorer stays on the node where it started.
    When one dies, nothing is lost: its trial moves to the head of the queue, for another scorer.
    """

    def __init__(self, root: str):
        self.root = root
        self._free: list[_Started] = []
        self._queue: deque[tuple[str, datetime]] = deque()
        self._busy: dict[ray.ObjectRef, tuple[str, datetime, _Started]] = {}
        self._died: Counter[str] = Counter()  # scorers, by node
        self._tries: Counter[str] = Counter()  # scorers that died, by trial

    def submit(self, trial: str) -> None:
        """Queue a trial that has just released its CPU or GPU."""
        self._queue.append((trial, datetime.now(UTC)))
        self._feed()

    @property
    def left(self) -> int:
        """Number of trials that are not finished yet."""
        return len(self._queue) + len(self._busy)

    def collect(self, timeout: float = 0) -> Iterator[tuple[str, Exception | None]]:
        """Trials that finished since the last call, each with its error or None.

        Waits up to ``timeout`` seconds for the first one.
        """
        ready, _ = ray.wait(list(self._busy), timeout=timeout) if self._busy else ([], [])
        for reference in ready:
            trial, released_at, scorer = self._busy.pop(reference)
            error = None
            try:
                ray.get(reference, timeout=60)
            except RayError as failed:
                error = failed
            if error is None or isinstance(error, RayTaskError):  # the scorer itself still works
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
        """Remove a scorer that died, and idle ones on its node, as the node may be lost."""
        ray.kill(scorer.actor)  # it may still run, but out of reach
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
            limits = capacity(ray.nodes())  # nodes come and go
            self._dismiss([scorer for scorer in self._free if scorer.node not in limits])
            if not self._free:
                # A scorer takes seconds to start, so wait first: a busy one may become free.
                _, since = self._queue[0]
                waited = (datetime.now(UTC) - since).total_seconds()
                started = Counter(scorer.node for *_, scorer in self._busy.values())
                open_nodes = [node for node in limits if started[node] < limits[node]]
                if not open_nodes or (started and waited < PATIENCE):
                    return
                least = min(open_nodes, key=lambda n: (self._died[n], started[n] / limits[n]))
                where = NodeAffinitySchedulingStrategy(least, soft=False)
                actor = Scorer.options(scheduling_strategy=where).remote()
                self._free.append(_Started(actor, least))
            at_once = min(sum(limits.values()), len(self._busy) + len(self._queue))
            share = math.ceil(at_once / len(limits))  # trials at once on one node
            trial, released_at = self._queue.popleft()
            scorer = self._free.pop()
            done = scorer.actor.finish.remote(self.root, trial, released_at, share)
            self._busy[done] = trial, released_at, scorer


def capacity(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Nodes that scorers start on, and how many each can have: one per CPU, from 1 to 8.

    These are the nodes without a GPU if there are any, otherwise all nodes.
    """
    alive = [node for node in nodes if node["Alive"]]
    spared = [node for node in alive if not node["Resources"].get("GPU")]
    cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 1)) for node in spared or alive}
    return {node: max(1, min(MOST, count)) for node, count in cpus.items()}
