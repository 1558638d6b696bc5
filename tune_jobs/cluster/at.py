"""Which cluster a command is about: one of Ray, or one of Slurm."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from scoring.places import argument
from tune_jobs.cluster import folders, jobs, reach
from tune_jobs.cluster.slurm import Slurm
from tune_jobs.errors import SweepError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

Client = Union["JobSubmissionClient", Slurm]


@dataclass(frozen=True)
class At:
    """A cluster as the options of a command name it.

    Attributes:
        cluster: file of a Ray cluster.
        address: of a Ray cluster's dashboard.
        slurm: file of a Slurm cluster.
    """

    cluster: str | None = None
    address: str | None = None
    slurm: str | None = None

    def __str__(self) -> str:
        """The option in a command that a message shows."""
        if self.slurm:
            return f"--slurm {argument(self.slurm)}"
        if self.cluster:
            return f"--cluster {argument(self.cluster)}"
        return f"--address {argument(self.address or '')}"

    def check(self) -> None:
        """Refuse options that name no cluster, or two.

        Raises:
            SweepError: the options name no cluster, or two.
        """
        options = {"--cluster": self.cluster, "--slurm": self.slurm, "--address": self.address}
        given = [name for name, value in options.items() if value]
        if len(given) > 1:
            raise SweepError(f"{' and '.join(given)} name two clusters; give one of them")
        if not given:
            raise SweepError(
                "which cluster? Give --cluster FILE, as for ray up, or --slurm FILE, or --address "
                f"http://127.0.0.1:{reach.DASHBOARD} if its dashboard answers there"
            )

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """A client of the cluster's jobs.

        Raises:
            SweepError: the options name none, or it cannot be reached, or its file is wrong.
        """
        self.check()
        if self.slurm:
            yield Slurm(self.slurm)
            return
        with jobs.connect(self.cluster, self.address) as client:
            yield client

    def find(self, client: Client, which: str | None) -> Any:
        """The job of a sweep; see :func:`tune_jobs.cluster.jobs.find`.

        Raises:
            SweepError: there is no such job; the message lists some that exist.
        """
        there = None
        if which is not None:
            with suppress(SweepError):  # Nothing says where the storage is.
                there = self.folder(client, which, which)
        return jobs.find(client, which, there)

    def folder(self, client: Client, out: str | None, name: str, option: str = "--out ") -> str:
        """A sweep's folder as the nodes see it: an absolute path or URI, or a name in the storage.

        Raises:
            SweepError: nothing says where the storage is, or not all nodes reach the folder.
        """
        if isinstance(client, Slurm):
            return folders.within(client.file.storage, out, name, option)
        return reach.folder_there(self.cluster, out, name, option)


def state_of(job: Any) -> str:
    """What has become of a job, and why Slurm lets it wait."""
    why = getattr(job, "reason", "")
    return f"{job.status.value.lower()}{f' ({why})' if why else ''}"
