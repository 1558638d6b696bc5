"""Sweeps as jobs of a Slurm cluster: submit, find and follow them, on its login node.

Every job has a folder in ``.jobs`` of the storage: its script, the code and the sweep file that it
was submitted with, and its log. :mod:`tune_jobs.cluster.slurm_job` runs the sweep in the job.
"""

import asyncio
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

from models.callables import SENT
from models.messages import first_line, short
from scoring.places import argument
from scoring.storage import write_file
from tune_jobs import processes, provenance, signals
from tune_jobs.cluster.jobs import (
    FOLDER,
    KIND,
    OF_USERS,
    SWEEP,
    copy_code,
    new_name,
    sent_files,
    word,
)
from tune_jobs.cluster.slurm_file import SlurmFile
from tune_jobs.cluster.slurm_file import read as read_file
from tune_jobs.errors import SweepError
from tune_jobs.sweep import BESIDE, Sweep, builtin

JOBS = ".jobs"  # in the storage; a folder for each job
ABOUT, ENDED, LOG, SCRIPT, TEXT = "job.json", "ended.json", "log", "job.sh", "sweep.yaml"
STOP = "stop"  # from geosweep stop
CODE = "code"  # folder of the packages and of the user's files
NUMBER = "slurm.txt"  # Slurm's number of the job
INTERRUPTED = 130  # the exit status of a sweep after Ctrl-C
LOOK = 5.0  # seconds between two questions to Slurm while a log is followed
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "SIGNALING", "STOPPED", "SUSPENDED", "RESIZING"}
LEAVING = {"COMPLETING", "STAGE_OUT"}  # its processes have ended, and it may start again
REFUSALS = (  # what sbatch says when it refuses a job, and the field of the file that it is about
    ("[Mm]emory", "memory"),
    ("[Pp]artition", "partition"),
    ("[Ii]nvalid account|[Ss]pecify an account", "account"),
    ("[Rr]equested time limit|[Ii]nvalid time limit|time limit specification", "time"),
    ("CPU", "cpus"),
    ("[Gg]res|GRES|gpu", "gpus"),
    ("[Nn]ode count|Too many nodes", "nodes"),
)


class Status(Enum):
    """What has become of a job, in the words that Ray has for its jobs."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self not in (Status.PENDING, Status.RUNNING)


@dataclass(frozen=True)
class Job:
    """A job, with the attributes of Ray's ``JobDetails`` that :mod:`tune_jobs.cluster.jobs` uses.

    Attributes:
        submission_id: its name.
        metadata: name and folder of its sweep.
        start_time: when it was submitted, in milliseconds since 1970.
        number: Slurm's number of it.
        status: what has become of it.
        reason: why it waits, in Slurm's words.
        hears: whether it has processes that signals reach.
        driver_exit_code: exit status of the sweep; None if it has none.
    """

    submission_id: str
    metadata: Mapping[str, str]
    start_time: int
    number: str
    status: Status = Status.FAILED
    reason: str = ""
    hears: bool = False
    driver_exit_code: int | None = field(default=None, kw_only=True)


class Slurm:
    """The jobs in a storage, with the methods of Ray's ``JobSubmissionClient`` that we use."""

    def __init__(self, path: str):
        self.file: SlurmFile = read_file(path)
        self._where = f"--slurm {argument(path)}"
        self._jobs = Path(self.file.storage, JOBS)

    def list_jobs(self) -> list[Job]:
        """All jobs that were submitted with this storage."""
        found = [job for place in self._jobs.glob(f"*/{ABOUT}") if (job := _read(place.parent))]
        states = _states() if found else {}
        return [_with_status(job, states.get(job.number), self._jobs) for job in found]

    def get_job_info(self, name: str) -> Job:
        """The job of a name."""
        job = _read(self._jobs / name)
        assert job is not None
        return _with_status(job, _states().get(job.number), self._jobs)

    def get_job_status(self, name: str) -> Status:
        """What has become of a job."""
        return self.get_job_info(name).status

    def get_job_logs(self, name: str) -> str:
        """What a job has printed, in all its starts."""
        try:
            return (self._jobs / name / LOG).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        """What a job prints, until it ends."""
        seen, looked, ended = 0, 0.0, False
        while not ended:
            if time.monotonic() - looked > LOOK or (self._jobs / name / ENDED).exists():
                looked = time.monotonic()
                with suppress(SweepError):  # Slurm is busy; it is asked again later
                    ended = self.get_job_status(name).is_terminal()
            if text := self.get_job_logs(name)[seen:]:
                seen += len(text)
                yield text
            await asyncio.sleep(0 if ended else 1)

    def stop_job(self, name: str) -> None:
        """End a job: as Ctrl-C would if it runs, at once if it waits.

        The job may just be on its way back into the queue, where no signal reaches it, or its new
        start would die of it. A file in its folder tells it to stay out, or to end at once if it
        starts again.

        Raises:
            SweepError: Slurm refuses, and the job goes on.
        """
        (self._jobs / name / STOP).touch()
        job = self.get_job_info(name)
        if job.status is Status.PENDING:
            _call(["scancel", job.number])
            note_end(self._jobs / name, INTERRUPTED)  # Slurm forgets it after some minutes
        elif job.hears:
            try:
                _call(["scancel", "--batch", "--signal=USR2", job.number])
            except SweepError:
                if self.get_job_info(name).hears:
                    raise

    def submit(self, sweep: Sweep, folder: str, words: Sequence[str], named: bool = True) -> str:
        """Submit a sweep.

        Args:
            sweep: checked; its file goes into the job's folder, and so do files that it names.
            folder: for the results.
            words: further options for ``geosweep run``.
            named: whether the user named the folder, as for :func:`tune_jobs.cluster.jobs.submit`.

        Returns:
            The name of the job.

        Raises:
            SweepError: Slurm refuses the job, or the storage cannot be written.
        """
        there = sweep.source in builtin()
        variables = {"GEOSWEEP_NAME": sweep.name, "GEOSWEEP_STORAGE": self.file.storage}
        variables[BESIDE] = sweep.beside  # it may be relative, as the job begins in this folder
        if not named:
            variables["GEOSWEEP_STORAGE"] = folder.rpartition("/")[0] or "/"
        command = ["run", sweep.source if there else "-", *(["--out", folder] if named else [])]
        return self.send(
            sweep.name, folder, [*command, *words], variables, sweep.text, sent_files(sweep)
        )

    def send(
        self,
        name: str,
        folder: str,
        words: Sequence[str],
        variables: Mapping[str, str],
        text: str = "",
        files: Mapping[str, bytes] | None = None,
        nodes: int | None = None,
        kind: str = "",
    ) -> str:
        """Submit a command of geosweep.

        Args:
            name: of the sweep.
            folder: of the sweep.
            words: of the command.
            variables: its environment, besides that of this process.
            text: its standard input.
            files: files of the user.
            nodes: how many; by default those of the Slurm file.
            kind: as for :func:`tune_jobs.cluster.jobs.send`.

        Returns:
            The name of the job.

        Raises:
            SweepError: as for :meth:`submit`.
        """
        self._delete_old_code()
        place, count = self._new_place(name), nodes or self.file.nodes
        sent = {SENT: str(place / CODE / OF_USERS)} if files else {}
        about = {
            SWEEP: name,
            FOLDER: folder,
            KIND: kind,
            "submitted": int(time.time() * 1000),
            "words": list(words),
            "variables": {"GEOSWEEP_REVISION": provenance.revision(), **sent, **variables},
            "nodes": count,
            "grace": self.file.grace,
        }
        number = ""
        try:
            copy_code(place / CODE, files or {})
            (place / TEXT).write_text(text, "utf-8")
            options = self._options(folder, count)
            (place / SCRIPT).write_text(self._script(options, place), "utf-8")
            (place / ABOUT).write_text(json.dumps(about), "utf-8")
            with signals.deferred():  # Slurm may have the job before its number is here
                number = self._sbatch(options, place)
                write_file(str(place), NUMBER, number.encode())
        except BaseException as error:
            if number:
                with suppress(SweepError):
                    _call(["scancel", number])
            shutil.rmtree(place, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            raise self._unwritable(place, error) from None
        return place.name

    def _unwritable(self, place: Path, error: OSError) -> SweepError:
        why = error.strerror or first_line(error)
        return SweepError(f"{self._where}: storage: {place}: cannot be written: {why}")

    def _sbatch(self, options: Sequence[str], place: Path) -> str:
        """Submit a job to Slurm, and return its number.

        Raises:
            SweepError: Slurm refuses it; the message names the field of the file that it is about.
        """
        command = ["sbatch", "--parsable", f"--output={LOG}", *_words(options), SCRIPT]
        try:
            said = _call(command, place).strip()
        except SweepError as error:
            if shutil.which(command[0]) is None:
                raise
            named = next((f for words, f in REFUSALS if re.search(words, str(error))), None)
            value = getattr(self.file, named) if named else None
            about = f"{named} = {'not set' if value is None else value}: " if named else ""
            of_nodes = named not in (None, "account", "time")
            fix = "; sinfo --long --Node shows what nodes have" if of_nodes else ""
            raise SweepError(f"{self._where}: {about}{error}{fix}") from None
        number = said.rpartition("\n")[2].partition(";")[0]
        if not number.isdecimal():  # an option in the file makes sbatch do something else
            raise SweepError(
                f"{self._where}: sbatch gave the job no number; it said: {short(said)}"
            )
        return number

    def _delete_old_code(self) -> None:
        """Delete the code of jobs that ended without deleting it, as after ``scancel``."""
        for job in self.list_jobs():
            # A job that Slurm does not know may belong to another Slurm with the same storage.
            if job.driver_exit_code is not None or job.status is Status.STOPPED:
                shutil.rmtree(self._jobs / job.submission_id / CODE, ignore_errors=True)

    def _new_place(self, name: str) -> Path:
        """Make the folder of a new job, which only this user can read."""
        base = new_name(name)
        try:
            self._jobs.mkdir(parents=True, exist_ok=True)
            for end in itertools.chain([""], (f"-{number}" for number in itertools.count(2))):
                with suppress(FileExistsError):  # of a job that was submitted in the same second
                    (self._jobs / f"{base}{end}").mkdir(mode=0o700)
                    return self._jobs / f"{base}{end}"
        except OSError as error:
            raise self._unwritable(self._jobs, error) from None
        raise AssertionError  # numbers do not end

    def _options(self, folder: str, nodes: int) -> list[str]:
        # Slurm runs jobs of one name one by one, so a folder has one driver at a time. File
        # locks, which ensure this elsewhere, do not work on all file systems of clusters.
        last = word(folder.rpartition("/")[2])[:50]
        job = f"geosweep-{last}-{sha256(folder.encode()).hexdigest()[:8]}"
        return [f"--job-name={job}", "--dependency=singleton", *self.file.options(nodes)]

    def _script(self, options: Sequence[str], place: Path) -> str:
        code = shlex.quote(str(place / CODE))
        lines = [
            "#!/bin/bash",
            *(f"#SBATCH {option}" for option in options),
            "unset RAY_ADDRESS SLURM_EXPORT_ENV",
            f"cd {shlex.quote(os.getcwd())}",  # what is relative here is relative there
            f"export PATH={shlex.quote(str(Path(processes.python()[0]).parent))}:$PATH",
            *self.file.setup,
            f"export PYTHONSAFEPATH=1 PYTHONPATH={code}",
            f"exec python -m tune_jobs.cluster.slurm_job {shlex.quote(str(place))}",
        ]
        return "\n".join(lines) + "\n"


def _words(options: Sequence[str]) -> list[str]:
    """The options as words of the command, where they win over the variables SBATCH_*."""
    return [part for option in options for part in shlex.split(option)]


def note_end(place: Path, status: int) -> None:
    """Note in a job's folder that it has ended, with an exit status."""
    write_file(str(place), ENDED, json.dumps({"status": status % 256}).encode())


def _call(command: Sequence[str], folder: Path | None = None) -> str:
    """What a command of Slurm says.

    Raises:
        SweepError: it fails, or is not installed.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C would end it half-way
        )
    except FileNotFoundError:
        raise SweepError(
            f"{command[0]}: not found; --slurm works on the login node of a Slurm cluster"
        ) from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line.removeprefix(f"{command[0]}: ").removeprefix("error: ") for line in lines]
        raise SweepError(f"{command[0]}: {'; '.join(told) or done.returncode}")
    return done.stdout


def _states() -> dict[str, tuple[str, str]]:
    """The state of this user's jobs that run, wait or have ended just now, and why they wait."""
    said = _call(
        ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r"]
    )
    told = (f"{line}||".split("|", 3)[:3] for line in said.split("\n") if line)
    return {number: (state, reason) for number, state, reason in told}


def _read(place: Path) -> Job | None:
    """A job as its folder describes it; None if it has none or is just being submitted."""
    try:
        about: dict[str, Any] = json.loads((place / ABOUT).read_text())
        number = (place / NUMBER).read_text().strip()
        metadata = {name: str(about[name]) for name in (SWEEP, FOLDER, KIND)}
        return Job(place.name, metadata, int(about["submitted"]), number)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_status(job: Job, told: tuple[str, str] | None, jobs: Path) -> Job:
    state, reason = told or ("", "")
    if state in WAITING:
        reason = "" if reason == "None" else reason
        return replace(job, status=Status.PENDING, reason=reason)
    if state in RUNNING | LEAVING:
        return replace(job, status=Status.RUNNING, hears=state in RUNNING)
    place = jobs / job.submission_id
    try:
        code = int(json.loads((place / ENDED).read_text())["status"])
    except (OSError, ValueError, KeyError, TypeError):
        code = None
    status = Status.SUCCEEDED if code == 0 else Status.FAILED
    if code == INTERRUPTED or state == "CANCELLED" or (code is None and (place / STOP).exists()):
        status = Status.STOPPED
    return replace(job, status=status, driver_exit_code=code)
