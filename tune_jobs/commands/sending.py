"""Commands that run on a cluster when they name one: geosweep evaluate | probe."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from json import JSONDecoder
from pathlib import Path

import typer

from models.files import given_path
from models.messages import plain
from tune_jobs import evaluations, processes
from tune_jobs.cluster import jobs
from tune_jobs.cluster.at import At, Client
from tune_jobs.cluster.slurm import Slurm
from tune_jobs.commands import fetching, work
from tune_jobs.commands.cluster import data_there, tell
from tune_jobs.errors import SweepError

MOST = 200_000_000  # bytes of files that are sent to a Ray cluster; its head keeps them in memory


def evaluate(
    at: At,
    directory: str,
    names: Sequence[str],
    settings: Sequence[str],
    data: str | None,
    report: bool,
    follow: bool,
) -> None:
    """``geosweep evaluate`` on a cluster.

    Args:
        at: the cluster.
        directory: a job, or the folder of a sweep there, or the name of that folder.
        names: of the evaluations.
        settings: of the evaluations.
        data: folder of data sets on the cluster; Slurm's nodes share it with this machine.
        report: whether to write the report.
        follow: whether to show the log until the end.

    Raises:
        SweepError: an evaluation is wrong, there is no such sweep, or the cluster refuses the job.
    """
    evaluations.read(names, settings)
    folder_of_data = data_there(at, data)
    with at.connect() as client:
        there, name = _sweep(at, client, directory)
        words = ["evaluate", there, *names]
        words += [word for setting in settings for word in ("--set", setting)]
        words += folder_of_data
        words += [] if report else ["--no-report"]
        if isinstance(client, Slurm):  # the folder is here, too, so errors need not wait
            work.request_evaluation(there, names, settings, data, processes.SLURM)
            job = client.send(name, there, words, {})
        else:
            job = jobs.send(client, name, there, [*words, "--address", "auto"])
        tell(at, client, job, there, follow)
    raise typer.Exit


def _sweep(at: At, client: Client, directory: str) -> tuple[str, str]:
    """The folder of a sweep on a cluster, and its name.

    Raises:
        SweepError: there is no such sweep, or the folder has several.
    """
    try:
        job = at.find(client, directory)
    except SweepError:  # a folder that no job on this cluster has made
        there = at.folder(client, directory, directory, option="")
        if not isinstance(client, Slurm) and _has_several(
            jobs.ask(client, "status", there, "--json")
        ):
            raise SweepError(f"{there}: has several sweeps; give the folder of one") from None
        return there, fetching.name_of(there)
    return jobs.metadata(job, jobs.FOLDER), jobs.metadata(job, jobs.SWEEP)


def _has_several(said: str) -> bool:
    """Whether ``geosweep status --json``, among other lines, tells of a folder of sweeps."""
    with suppress(ValueError):  # The command there will say what is wrong.
        return "sweeps" in JSONDecoder().raw_decode("{" + said.partition("{")[2])[0]
    return False


def probe(
    at: At,
    name: str,
    model: str,
    files: Mapping[str, str],
    options: Sequence[str],
    out: str | None,
    device: str,
    follow: bool,
) -> None:
    """``geosweep probe`` on a cluster.

    Args:
        at: the cluster.
        name: of the probe's folder.
        model: as given on the command line.
        files: path of each file, by its option.
        options: further options.
        out: folder for the results there.
        device: of torch.
        follow: whether to show the log until the end.

    Raises:
        SweepError: a file is missing or too large, or the cluster refuses the job.
    """
    with at.connect() as client:
        there = at.folder(client, out, name)
        kind, _, inner = model.rpartition(":")
        if kind.endswith(".py"):  # a file with a function in it
            files = {"MODEL": kind, **files}
        sent: dict[str, bytes] = {}
        if isinstance(client, Slurm):
            paths = {option: _here(option, path) for option, path in files.items()}
            if kind == "transformers":
                model = f"{kind}:{_here('MODEL', inner)}"
        else:
            if kind == "transformers" and not inner.startswith("/"):
                raise SweepError(f"{plain(model)}: a folder is not sent; give its whole path there")
            paths = {option: _sent(option, path, sent) for option, path in files.items()}
        if source := paths.pop("MODEL", None):
            model = f"{source}:{inner}"
        words = ["probe", model, *(word for pair in paths.items() for word in pair), *options]
        words += ["--out", there, "--device", device]
        if isinstance(client, Slurm):
            job = client.send(name, there, words, {}, nodes=1, kind=jobs.PROBE)
        else:
            gpus = int(device.startswith("cuda"))
            job = jobs.send(client, name, there, words, sent, gpus, jobs.PROBE)
        tell(at, client, job, there, follow)
    raise typer.Exit


def _here(option: str, path: str) -> str:
    """The absolute path of a file or folder, which Slurm's nodes share with this machine."""
    found = given_path(path).absolute()
    if not found.exists():
        raise SweepError(f"{option} {plain(path)}: no such file")
    return str(found)


def _sent(option: str, path: str, sent: dict[str, bytes]) -> str:
    """The path of a file on the cluster; a file on this machine is sent."""
    found = given_path(path)
    if not found.is_file():
        if path.startswith("/"):
            return path
        raise SweepError(f"{option} {plain(path)}: no such file; one there needs its whole path")
    if found.stat().st_size + sum(map(len, sent.values())) > MOST:
        raise SweepError(
            f"{option} {plain(path)}: with the others more than {MOST:,} bytes, the most that is "
            "sent; copy it to where all nodes reach it, and give that path"
        )
    name = f"{option.lstrip('-').lower()}-{found.name}"
    sent[name] = found.read_bytes()
    return str(Path(jobs.OF_USERS, name))
