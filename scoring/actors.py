"""Ray actors that finish trials on the CPU while other trials train."""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
BLOCKS = 8  # Cut a pass into at least this many blocks per node, unless they get very small.
MOST_ROWS = 16_384  # rows of a block
AHEAD = 2  # Each node holds this many blocks at a time, so that it never waits for the next one.
RETRIES = 2  # Give up on a trial when it has lost more scorers (or their nodes) than this.


@ray.remote(num_cpus=0)
class Scorer:
    """Finishes one trial at a time. It never imports torch, so it cannot take GPU memory."""

    def finish(self, root: str, trial: str, released_at: datetime, share: int) -> None:
        """Finish a trial with 1/share of the cores of this machine."""
        require(root)
        with across_nodes(share):
            finish(root, trial, released_at, max(1, cores() // share))


@ray.remote(num_cpus=0, max_restarts=RETRIES, max_task_retries=RETRIES)
class Searcher:
    """Searches blocks of rows in passes of a large assignment. It keeps a copy of the points."""

    def __init__(self) -> None:
        self._share: Any = None

    def search(
        self, clouds: Any, share: int, function: Callable, arguments: tuple, rows: tuple[int, int]
    ) -> list[Any]:
        """Where each part of a block of rows ends, and what was found in it."""
        if self._share is None:
            from scoring.passes import by_threads, copied

            self._context = by_threads(copied(clouds), max(1, cores() // share))
            self._share = self._context.__enter__()
        return list(self._share(function, rows, *arguments))


@contextmanager
def across_nodes(share: int = 1) -> Iterator[None]:
    """Solve large assignments on all nodes of the Ray cluster that this process belongs to.

    While the context is open, an assignment whose products do not fit into 1 GiB distributes its
    passes over all pairs; everything else runs here. Each node that scorers can start on gets the
    points once, searches blocks of rows on 1/share of its cores, and sends back candidates. If a
    node or process dies, its blocks are searched again, in this process if all have died.
    """
    from scoring.passes import by_threads, spread_by  # loads numba

    @contextmanager
    def spread(clouds: Any, threads: int) -> Iterator[Any]:
        nodes = list(capacity(ray.nodes()))
        if len(nodes) < 2:
            with by_threads(clouds, threads) as alone:
                yield alone
            return
        points, searchers = ray.put(clouds), []
        for node in nodes:
            where = NodeAffinitySchedulingStrategy(node, soft=False)
            searchers.append(Searcher.options(scheduling_strategy=where).remote())
        try:
            with by_threads(clouds, threads) as alone:
                yield lambda function, count, *arguments: _searched(
                    searchers, (points, share), alone, function, count, arguments
                )
        finally:
            for searcher in searchers:
                ray.kill(searcher)

    with spread_by(spread):
        yield


def _searched(
    searchers: list[Any],
    with_points: tuple[ray.ObjectRef, int],
    alone: Any,
    function: Callable,
    count: int,
    arguments: tuple,
) -> Iterator[Any]:
    """What a function finds in blocks of rows, in order. Searchers that died are removed."""
    from scoring.passes import blocks

    given = ray.put(arguments)
    queue = deque(enumerate(blocks(count, BLOCKS * max(1, len(searchers)), MOST_ROWS)))
    busy: dict[ray.ObjectRef, tuple[Any, int, tuple[int, int]]] = {}
    found: dict[int, list[Any]] = {}
    following = 0
    while queue or busy:
        at_work = Counter(id(searcher) for searcher, *_ in busy.values())
        for searcher in searchers * AHEAD:
            if queue and at_work[id(searcher)] < AHEAD:
                at_work[id(searcher)] += 1
                number, block = queue.popleft()
                done = searcher.search.remote(*with_points, function, given, block)
                busy[done] = searcher, number, block
        if not busy:  # all have died
            number, block = queue.popleft()
            found[number] = list(alone(function, block, *arguments))
        for reference in ray.wait(list(busy), timeout=PATIENCE)[0] if busy else ():
            searcher, number, block = busy.pop(reference)
            try:
                found[number] = ray.get(reference, timeout=60)
            except RayTaskError:
                raise
            except RayError:
                queue.appendleft((number, block))
                searchers[:] = [one for one in searchers if one is not searcher]
        while following in found:
            yield from found.pop(following)
            following += 1


@dataclass(eq=False)
class _Started:
    """A scorer, its node, and the time at which it became idle."""

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
        ray.kill(scorer.actor)  # it may still run, but cannot be reached
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
