"""Asks a cluster that starts machines on demand for CPU workers to solve assignments.

Scorers ask Ray for no resources, so that they never wait for the CPUs that a trial holds. For the
same reason they never make Ray start a machine. If the CPU workers of a cluster have a resource of
their own (``GEOSWEEP_SCORING`` names it, as in ``ray_cluster.yaml``), the driver asks for that
resource while many assignments wait. It asks with tasks that do nothing, which end with the driver.
"""

import os

import ray

EACH = 8  # Ask for one machine per this many waiting assignments.


class Demand:
    """The machines that the driver has asked for and that have not started yet."""

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
