"""The file that says how to run sweeps on a Slurm cluster, like ``clusters/slurm.yaml``."""

import os
import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from models.fields import Text, Whole
from models.files import given_path
from models.messages import first_line, plain
from scoring.places import argument
from tune_jobs import yaml_file
from tune_jobs.axes import listed
from tune_jobs.cluster import folders
from tune_jobs.errors import SweepError
from tune_jobs.explain import explain

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<h>\d+)(?::(?P<m>[0-5]?\d))?(?::(?P<s>[0-5]?\d))?")
OPTION = re.compile(r"--[a-z][a-z-]*|-[A-Za-z]|-\d+")  # the last one is a value, as of --nice
OURS = ("output", "error", "open-mode", "signal", "requeue", "no-requeue", "job-name", "chdir")
OURS += ("array", "dependency", "wrap", "ntasks", "ntasks-per-node", "nodes", "parsable")
OURS += ("test-only", "wait", "help", "usage", "version", "clusters", "uid", "gid")
SHORT = "JoeadDnNWhVM"  # some of them in short


def seconds(time: str) -> int:
    """A time limit in seconds.

    >>> seconds("08:00:00"), seconds("1-12"), seconds("0:30:00")
    (28800, 129600, 1800)

    Raises:
        ValueError: it has none of the forms that the file allows.
    """
    found = TIME.fullmatch(time)
    if found is None or not (found["days"] or found["s"]):
        raise ValueError("should be like 08:00:00 (hours, minutes, seconds) or 1-12:00:00 (a day)")
    days, hours, minutes, rest = (int(found[name] or 0) for name in ("days", "h", "m", "s"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _time(text: Any) -> str:
    if seconds(str(text)) < 60:
        raise ValueError("should be at least a minute")
    return text


def _memory(text: Any) -> Any:
    if text is not None and not re.fullmatch(r"\d+[KMGT]", str(text)):
        raise ValueError("should be like 16G, for each node")
    return text


def _storage(text: str) -> str:
    path = os.path.expandvars(str(given_path(text)))
    if not path.startswith("/") or "$" in path or "\n" in path:
        raise ValueError(
            "should be a folder that all nodes have, like /scratch/me/sweeps; ~ and variables of "
            f"this machine are replaced (it is {plain(path)} now)"
        )
    return folders.whole(path)


def _line(text: str) -> str:
    try:
        words = [] if "\n" in text else shlex.split(text)
    except ValueError as error:
        raise ValueError(f"should be what a shell can read: {first_line(error)}") from None
    names = [word.partition("=")[0] for word in words if word.startswith("-")]
    if not words or not words[0].startswith("-") or not all(map(OPTION.fullmatch, names)):
        raise ValueError("should be an option of sbatch, like --qos=long")
    for name in names:
        word = name.lstrip("-")
        is_long = name.startswith("--")  # sbatch also takes the beginning of a long name
        if any(full.startswith(word) for full in OURS) if is_long else word in SHORT:
            raise ValueError(f"geosweep gives {name} itself, or cannot work with it; leave it out")
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.,:@+-]+", text):
        raise ValueError("should be one word")
    return text


Word = Annotated[Text, Field(max_length=200), AfterValidator(_word)]
Lines = Annotated[list[Text], BeforeValidator(listed), Field(max_length=100)]
Option = Annotated[Text, AfterValidator(_line)]
Options = Annotated[list[Option], BeforeValidator(listed), Field(max_length=100)]


class SlurmFile(BaseModel):
    """What one job of a sweep asks Slurm for, and what happens on its nodes first."""

    model_config = ConfigDict(extra="forbid")

    storage: Annotated[Text, AfterValidator(_storage)]
    time: Annotated[Text, BeforeValidator(_time)]
    nodes: Whole = Field(default=1, ge=1, le=1000)
    cpus: Whole = Field(ge=1, le=10_000)
    gpus: Whole = Field(default=0, ge=0, le=1000)
    memory: Annotated[Text, BeforeValidator(_memory)] | None = None
    partition: Word | None = None
    account: Word | None = None
    grace: Whole = Field(default=300, ge=30, le=86_400)
    setup: Lines = Field(default_factory=list)
    sbatch: Options = Field(default_factory=list)

    def options(self, nodes: int) -> list[str]:
        """Options for ``sbatch``, as lines of a job script on some nodes have them."""
        asked = {
            "partition": self.partition,
            "account": self.account,
            "time": self.time,
            "nodes": nodes,
            "ntasks-per-node": 1,
            "cpus-per-task": self.cpus,
            "gpus-per-node": self.gpus or None,
            "mem": self.memory,
            "signal": f"B:USR1@{self.grace}",
            "open-mode": "append",
        }
        given = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        return [*given, "--requeue", *self.sbatch]


def read(path: str) -> SlurmFile:
    """Read and check the file.

    Raises:
        SweepError: each line names the file, the line, the field and what is allowed.
    """
    where = f"--slurm {argument(path)}"
    try:
        content, lines = yaml_file.parse(yaml_file.read_text(given_path(path)))
    except yaml_file.YamlError as error:
        start = f"{where}, line {error.line}" if error.line else where
        raise SweepError(f"{start}: {error}") from None
    if not isinstance(content, dict):
        raise SweepError(f"{where}: should be a mapping, like clusters/slurm.yaml")
    try:
        found = SlurmFile.model_validate(content)
    except ValidationError as error:
        raise SweepError(*explain(where, error, {**lines}, {"": SlurmFile}, {})) from None
    if found.grace > seconds(found.time) / 2:
        raise SweepError(
            f"{where}, line {lines.get(('grace',)) or lines['time',]}: grace = {found.grace} s: "
            f"should be at most half of time = {found.time}"
        )
    return found
