"""Machines of a cluster that a sweep's driver asks for, and those that are taken away from it."""

import os
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray._private.state import state  # as Ray Train finds them; there is no public way

EACH = 8  # Ask for one machine per this many waiting assignments.
EVERY = 2.0  # seconds between two looks; a machine is announced two minutes ahead


class Demand:
    """Asks a cluster that starts machines on demand for CPU workers to solve assignments.

    Scorers ask Ray for no resources, so that they never wait for the CPUs that a trial holds. For
    the same reason they never make Ray start a machine. If the CPU workers of a cluster have a
    resource of their own (``GEOSWEEP_SCORING`` names it, as in ``ray_cluster.yaml``), the driver
    asks for that resource while many assignments wait. It asks with tasks that do nothing, which
    end with the driver.
    """

    def __init__(self) -> None:
        self._resource = os.environ.get("GEOSWEEP_SCORING")
        self._asked: list[ray.ObjectRef] = []

    def look(self, waiting: int) -> None:
        """Ask for as many machines as the waiting trials need; cancel requests beyond that."""
        if not self._resource:
            return
        if self._asked:
            _, self._asked = ray.wait(self._asked, num_returns=len(self._asked), timeout=0)
        while len(self._asked) > waiting // EACH:
            ray.cancel(self._asked.pop())
        while len(self._asked) < waiting // EACH:
            self._asked.append(_come.options(resources={self._resource: 1}).remote())


@ray.remote(num_cpus=0, max_retries=0)
def _come() -> None:
    """Does nothing, on a machine with the resource that was asked for."""


class Spared:
    """Trials on machines that are taken away do not fail.

    Ray Tune restarts a trial from its last epoch when its machine dies, but a few times only, and
    a machine that was taken away counts like any other. (Ray Tune 2.60 spares the deaths that Ray
    calls preempted, but not those of a machine that shuts down in order.) So the driver looks for
    nodes that are to be taken away, which :mod:`tune_jobs.cluster.watch` announces, and allows
    each trial there one more restart.
    """

    def __init__(self) -> None:
        self._looked = 0.0
        self._known: set[tuple[str, str]] = set()  # trials and nodes

    def look(self, trials: Sequence[Any]) -> None:
        """Allow one more restart to Ray Tune's trials that run on nodes about to be taken away."""
        if time.monotonic() - self._looked < EVERY:
            return
        self._looked = time.monotonic()
        if not (going := state.get_draining_nodes()):
            return
        addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        for node in going:
            for trial in trials:
                # A trial that has not reported yet does not say where it is.
                there = trial.node_ip in (None, addresses.get(node))
                if (
                    trial.status == "RUNNING"
                    and there
                    and (trial.trial_id, node) not in self._known
                ):
                    self._known.add((trial.trial_id, node))
                    trial.max_failures += 1
