"""The page of ``geosweep watch`` on the head of a cluster, for folders that only its nodes see."""

import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import TYPE_CHECKING

from tune_jobs.cluster import jobs
from tune_jobs.cluster.reach import answers
from tune_jobs.errors import SweepError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

IDLE = 600  # seconds without a request after which a page ends, as its laptop is gone
ANSWER = 20.0  # seconds for the page to answer
PATIENCE = 120.0  # seconds for the head to start the page


@contextmanager
def page(client: "JobSubmissionClient", folder: str) -> Iterator[int]:
    """Serve a sweep's page on the loopback address of the head, as a job that is then deleted.

    Args:
        client: from :func:`tune_jobs.cluster.jobs.connect`.
        folder: the sweep's folder, as the head sees it.

    Yields:
        The port there.

    Raises:
        SweepError: the page cannot be served; the message says why.
    """
    words = ["--port", "0", "--idle", str(IDLE), "--", folder]
    job = f"geosweep-watch-{time.time_ns()}"
    jobs.start(client, jobs.command_of(*words, module="analysis.watch"), job)
    try:
        yield _port(client, job)
    finally:
        with suppress(RuntimeError):  # it has ended, or the connection has
            client.stop_job(job)
            until = time.monotonic() + 10
            while not client.get_job_status(job).is_terminal() and time.monotonic() < until:
                time.sleep(0.3)
            client.delete_job(job)


def is_there(port: int) -> bool:
    """Whether a page still answers on a port of this machine; each request keeps it alive."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(f"http://127.0.0.1:{port}/", timeout=ANSWER).close()
    except TimeoutError:  # of a slow network; when that is gone, so is the tunnel
        return answers(port)
    except (OSError, HTTPException):
        return False
    return True


def _port(client: "JobSubmissionClient", job: str) -> int:
    """Wait until the page says where it is."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        ended, said = client.get_job_status(job).is_terminal(), client.get_job_logs(job)
        if found := re.search(r"^http://127\.0\.0\.1:(\d+)\b", said, re.MULTILINE):
            return int(found[1])
        if ended:
            lines = said.strip().splitlines() or ["no output"]
            raise SweepError(f"watch: {lines[-1].removeprefix('analysis.watch: ')}")
        time.sleep(0.3)
    raise SweepError(f"watch: no answer from the cluster in {PATIENCE:g} s")
