"""Trials on machines that are taken away do not fail.

Ray Tune restarts a trial from its last epoch when its machine dies, but a few times only, and a
machine that was taken away counts like any other. (Ray Tune 2.60 spares the deaths that Ray calls
preempted, but not those of a machine that shuts down in order.) So the driver looks for nodes that
are to be taken away, which :mod:`tune_jobs.cluster.watch` announces, and allows each trial there
one more restart.
"""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray._private.state import state  # as Ray Train finds them; there is no public way

EVERY = 2.0  # seconds between two looks; a machine is announced two minutes ahead


class Spared:
    """The trials that were allowed one more restart, and the nodes they ran on."""

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
