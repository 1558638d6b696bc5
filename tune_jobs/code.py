"""Python files of users that a sweep names: from the sweep file to its folder, and to its trials.

A trial's configuration names a callable of such a file by its identity, which holds the checksum
of the file. The folder keeps the file in ``code/``, so every node finds it there.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from models.callables import Code, find, is_code, load
from models.config import TrialConfig
from models.errors import CodeError
from models.messages import plain
from scoring import places, storage
from tune_jobs.errors import SweepError
from tune_jobs.explain import Places, at

FIELDS = ("dataset", "architecture")  # of a trial, which can name a callable
BACK = "put it back, or run the sweep again from its file"


def resolve(
    where: str, file: Any, places: Places, folder: str | os.PathLike[str]
) -> dict[str, Code]:
    """Put identities in the place of callables in a sweep file.

    Args:
        where: how messages name the file.
        file: its checked content, which is changed.
        places: where each of its values was given.
        folder: where relative paths start.

    Returns:
        What was found, by the text in the file.

    Raises:
        SweepError: a file cannot be read, or two files would be taken for one; the message names
            the field.
    """
    found: dict[str, Code] = {}
    first: dict[str, Code] = {}  # by identity
    groups: list[tuple[tuple[str | int, ...], Any]] = [((), file)]
    for section in ("zip", "exclude", "when"):
        groups += [((section, n), group) for n, group in enumerate(getattr(file, section))]
    groups += [(("when", n, "if"), getattr(group, "if")) for n, group in enumerate(file.when)]
    for way, group in groups:
        for field in FIELDS:
            values = group.given().get(field, [])
            for number, text in enumerate(values):
                if not is_code(text):
                    continue
                try:
                    found[text] = find(text, folder)
                except CodeError as error:
                    start = at(where, places, *way, field, number)
                    raise SweepError(f"{start}: {field}: {error}") from error
                code = found[text]
                values[number] = code.identity
                other = first.setdefault(code.identity, code)
                if os.path.abspath(other.file) != os.path.abspath(code.file):
                    raise SweepError(
                        f"{at(where, places, *way, field, number)}: {field}: {plain(other.file)} "
                        f"and {plain(code.file)} have the same name and text, so they would be one "
                        f"{field}; rename one, or change a comment in it"
                    )
    return found


def of_folder(root: str, trials: Iterable[TrialConfig]) -> dict[str, Code]:
    """The files that a sweep's folder keeps for its trials, by identity.

    Raises:
        SweepError: one is missing; the message names it.
    """
    return {text: _kept(root, text) for text in identities(trials)}


def identities(trials: Iterable[TrialConfig]) -> list[str]:
    """The callables that trials name."""
    named = [getattr(trial, field) for trial in trials for field in FIELDS]
    return [text for text in dict.fromkeys(named) if text is not None and is_code(text)]


def load_kept(root: str, trial: TrialConfig) -> None:
    """Load the network of a trial from a sweep's folder, unless this process has loaded it.

    The function that made its data is not called again.

    Raises:
        SweepError: a file is missing.
        CodeError: a file fails.
    """
    if trial.architecture is not None and is_code(trial.architecture):
        load(_kept(root, trial.architecture))


def put(root: str, files: Mapping[str, Code]) -> None:
    """Write files into a sweep's folder; a copy there that was changed is replaced."""
    for code in files.values():
        storage.write_file(root, places.code(code.checksum), code.content)


def _kept(root: str, identity: str) -> Code:
    name, checksum = identity.rpartition("#")[::2]
    path = places.code(checksum)
    content = storage.read_file(root, path)
    if content is None:
        raise SweepError(f"{root}/{path}: no such file; it is {name}, {BACK}")
    code = Code(f"{root}/{path}", name.rpartition(":")[2], bytes(content))
    if code.checksum != checksum:
        raise SweepError(f"{root}/{path}: has changed; it is {name}, {BACK}")
    return code
