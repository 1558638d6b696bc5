"""What runs in a Slurm job: the sweep, and what Slurm's signals ask for.

* USR1, some minutes before the time limit: the running epochs end and are kept, then the job goes
  back into the queue. It starts again where it was.
* USR2, from ``geosweep stop``: likewise, and the job ends. A file in the job's folder says the
  same, because no signal reaches a job that is on its way back into the queue.
* TERM, from ``scancel`` or where Slurm takes the nodes away: the sweep ends at once, and Slurm
  decides whether the job starts again. It loses the epochs that are running.
"""

import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from scoring import places, storage
from scoring.schemas import TABLES
from tune_jobs import processes
from tune_jobs.cluster.jobs import FOLDER
from tune_jobs.cluster.slurm import ABOUT, CODE, ENDED, INTERRUPTED, NUMBER, STOP, TEXT, note_end

TOKEN = "token"  # of this job's Ray, in the job's folder
PATIENCE = 600.0  # seconds for the running epochs to end after geosweep stop
LAST = 8.0  # seconds for a sweep that has to end at once; Slurm kills all after 30, by default
RESERVE = 20.0  # seconds before the time limit; later than that nobody waits for an epoch to end


def run(place: Path) -> int:
    """Run a job's sweep, and ask for another start of the job if it has to go on.

    Args:
        place: folder of the job.

    Returns:
        The exit status of the sweep.
    """
    about = json.loads((place / ABOUT).read_text())
    (place / ENDED).unlink(missing_ok=True)  # from an earlier start
    job = os.environ.get("SLURM_JOB_ID", "")
    if not (place / NUMBER).exists():  # geosweep submit was killed
        storage.write_file(str(place), NUMBER, job.encode())
    asked: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    if (place / STOP).exists():  # before the job could hear a signal
        return _end(place, INTERRUPTED)
    before = _newest(about[FOLDER])
    starts = int(os.environ.get("SLURM_RESTART_COUNT", 0)) + 1
    where = os.environ.get("SLURMD_NODENAME", os.uname().nodename)
    _say(f"start {starts} of Slurm job {job}, on {where}")
    with _token(place, about["nodes"]) as token, (place / TEXT).open() as text:
        words = about["words"] + (["--address", processes.SLURM] if about["nodes"] > 1 else [])
        driver = subprocess.Popen(
            processes.python("-m", "tune_jobs.cli", *words),
            env=os.environ | processes.environment() | about["variables"] | token,
            stdin=text,
        )
        status = _follow(driver, asked, about["grace"])
    again = set(asked) == {signal.SIGUSR1} and status in (INTERRUPTED, -signal.SIGKILL)
    if again and _newest(about[FOLDER]) == before:
        _say("no epoch ended in the whole time of the job, so it does not start again; raise time")
        again, status = False, 1
    if again and (place / STOP).exists():
        again, status = False, INTERRUPTED
    if again:
        _say("the job goes back into the queue")
        if _requeue():
            return 0
        status = 1
    return _end(place, status, may_start_again=signal.SIGTERM in asked)


def _end(place: Path, status: int, may_start_again: bool = False) -> int:
    """Note that the job has ended, and delete its code; return the exit status."""
    note_end(place, status)
    if not may_start_again:
        shutil.rmtree(place / CODE, ignore_errors=True)
    return status


def _follow(driver: subprocess.Popen, asked: list[int], grace: float) -> int:
    """Pass signals on to the sweep until it ends, and return its exit status."""
    ends = killed = math.inf  # when to send the second signal, and when to kill the driver
    while driver.poll() is None:
        time.sleep(0.2)
        now = time.monotonic()
        if asked and ends == math.inf:
            ends = now + (grace - RESERVE if signal.SIGUSR1 in asked else PATIENCE)
            driver.send_signal(signal.SIGINT)
        if signal.SIGTERM in asked:
            ends = min(ends, now + 1)  # the first signal arrives before the second
        if now >= ends and killed == math.inf:
            killed = now + LAST
            driver.send_signal(signal.SIGINT)
            if signal.SIGTERM not in asked:
                _say("the running epochs did not end in time; they are lost")
        if now >= killed:
            driver.kill()
    return driver.returncode


def _newest(root: str) -> int:
    """When anything was last finished in a sweep's folder, in nanoseconds of its file system."""
    folders = [places.CHECKPOINTS, places.PENDING, *map(places.table_folder, TABLES)]
    return max((i.mtime_ns for name in folders for i in storage.infos(root, name)), default=0)


@contextmanager
def _token(place: Path, nodes: int) -> Iterator[dict[str, str]]:
    """Make a new token for a Ray of several nodes. A Ray on one node needs no file for it."""
    if nodes == 1:
        yield {}
        return
    file = place / TOKEN
    file.unlink(missing_ok=True)  # of a start that was killed
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secrets.token_hex(32))
        yield {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    finally:
        file.unlink(missing_ok=True)


def _requeue() -> bool:
    """Put this job back into Slurm's queue; whether Slurm has done so."""
    done = subprocess.run(
        ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], capture_output=True, text=True
    )
    if done.returncode:
        _say(f"Slurm refused: {done.stderr.strip()}; submit the sweep again to continue it")
    return done.returncode == 0


def _say(text: str) -> None:
    print(f"--- {datetime.now():%Y-%m-%d %H:%M:%S} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
