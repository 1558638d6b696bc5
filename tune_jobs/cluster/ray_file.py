"""What a cluster file for ``ray up`` says, as far as geosweep uses it."""

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from models.fields import Whole
from models.messages import first_line, plain
from tune_jobs.errors import SweepError
from tune_jobs.explain import explain

COMMANDS = (  # lists of commands that run on the head, in the order in which they run
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "head_start_ray_commands",
)
OPTIONS = ("run_options", "head_run_options")  # of the container on the head
PLACE = re.compile(r"[/~$`]|[A-Za-z][A-Za-z0-9+.-]*:/")  # how a path or URI begins for a shell
_QUOTED = r"""\\[\s\S]|'[^']*'|"(?:\\[\s\S]|[^"\\])*\""""
# A word of a shell, or a comment: # begins one only at the start of a word.
WORD = re.compile(rf"""(?:{_QUOTED}|[^\s;&|()<>'"\\#])(?:{_QUOTED}|[^\s;&|()<>'"\\])*|#.*""")


class _Part(BaseModel):
    """Other fields than those below are Ray's business."""

    model_config = ConfigDict(extra="allow", strict=True)


class _KeyPair(_Part):
    key_name: str = ""


class _Provider(_Part):
    type: str
    region: str = ""
    availability_zone: str = ""
    key_pair: _KeyPair = _KeyPair()
    head_ip: str = ""
    external_head_ip: str = ""
    worker_ips: list[str] = []


class _Auth(_Part):
    ssh_user: str = ""
    ssh_private_key: str = ""
    ssh_proxy_command: str = ""


class _Kind(_Part):
    node_config: dict[str, Any] = {}
    max_workers: Whole = 0


class _Docker(_Part):
    run_options: list[str] = []
    head_run_options: list[str] = []


class RayFile(_Part):
    """The fields of the file that geosweep reads. None of them may be empty, as for Ray."""

    provider: _Provider
    auth: _Auth = _Auth()
    cluster_name: str = ""
    max_workers: Whole = 0
    head_node_type: str = ""
    available_node_types: dict[str, _Kind] = {}
    docker: _Docker = _Docker()
    initialization_commands: list[str] = []
    setup_commands: list[str] = []
    head_setup_commands: list[str] = []
    head_start_ray_commands: list[str] = []


def check(where: str, content: Mapping[str, Any], lines: Mapping[Any, int]) -> None:
    """Refuse a file in which a field that geosweep uses has the wrong form.

    Args:
        where: how messages name the file.
        content: of the file.
        lines: of its values.

    Raises:
        SweepError: each line names the file, the line, the field and what is allowed.
    """
    try:
        RayFile.model_validate(content)
    except ValidationError as error:
        raise SweepError(*explain(where, error, {**lines}, {"": RayFile}, {})) from None


def variable(where: str, content: Mapping[str, Any], name: str) -> str:
    """The value that a cluster file gives to an environment variable on the head; the last one.

    Args:
        where: how messages name the file.
        content: of the file.
        name: of the variable.

    Returns:
        The value as a shell reads it; empty if nothing sets the variable. A command may name the
        variable without setting it, as ``grep -q ^X= FILE`` does. So a value that is no path, URI
        or part for a shell to replace counts only if there is no other.

    >>> commands = ["echo 'export X=/old' > env", "# X=/no", "export X='/my data'; ray start"]
    >>> variable("", {"setup_commands": commands}, "X")
    '/my data'

    Raises:
        SweepError: no command sets it but one that may do so is no command of a shell.
    """
    container = content.get("docker", {})
    texts = [text for key in OPTIONS for text in container.get(key, ())]
    texts += [text for key in COMMANDS for text in content.get(key, ())]
    found: list[str] = []
    unread: list[str] = []
    for text in texts:
        try:
            found += _values(text, name)
        except ValueError as error:
            unread.append(f"{first_line(error)}: {plain(text)}")
            for line in text.splitlines():  # of a text that is written to a file
                with suppress(ValueError):
                    found += _values(line, name)
    found = [value for value in found if value]
    places = [value for value in found if PLACE.match(value)]
    if unread and not found:
        raise SweepError(f"{where}: the command that sets {name} cannot be read: {unread[0]}")
    return ["", *found, *places][-1]


def _values(command: str, name: str) -> list[str]:
    """What follows ``name=`` in the words of a command, and in commands that are its words."""
    if f"{name}=" not in command:
        return []
    text = WORD.sub(lambda found: "" if found[0].startswith("#") else found[0], command)
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.whitespace_split, words.commenters = True, ""
    values: list[str] = []
    for word in words:
        if given := re.match(rf"(?:-e|--env=)?{name}=", word):
            values.append(word[given.end() :])
        elif word != command and re.search(rf"(^|\W){name}=", word):
            values += _values(word, name)
    return values
