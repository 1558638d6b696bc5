"""CPU workers for assignments, on a cluster that starts machines when something asks for them.

Scorers ask Ray for nothing, so that they never wait for what a trial holds; then nothing starts a
machine for them either. Where the CPU workers have a resource of their own (``GEOSWEEP_SCORING``
names it, as ``ray_cluster.yaml`` does), the driver asks for it while many assignments wait. What
asks are tasks that do nothing: they go with the driver, however it ends.
"""

import os

import ray

EACH = 8  # assignments that wait, for each machine to come


class Demand:
    """What the driver has asked for and not got yet."""

    def __init__(self) -> None:
        self._resource = os.environ.get("GEOSWEEP_SCORING")
        self._asked: list[ray.ObjectRef] = []

    def look(self, waiting: int) -> None:
        """Ask for as many machines as these waiting trials are worth, and for no more."""
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
    """Runs where there is a machine of the kind that was asked for."""
