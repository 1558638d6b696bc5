"""Orders of workers that fail: which, why, and an end to those that only cost money.

Ray's autoscaler orders a worker again when its launch or its setup has failed, without an end, and
says so only in its log on the head. A failed launch costs nothing and shows here. A failed setup
costs a machine each time, so after a few in a row the head stops ordering that type
(:class:`Limiter`, run by :mod:`tune_jobs.cluster.watch`). Ray 2.60 has no such limit of its own.
"""

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from scoring.places import argument

LIMIT = 3  # Stop orders of a type when this many setups in a row have failed.
LAUNCH = re.compile(r"Failed to launch (\d+) nodes of type (\S+): (.*)")
STEP = re.compile(r"Update instance (\w+)->(\w+) \(id=([^,]*), type=([^,]*),[^)]*\): (.*)")
NOISE = re.compile(r"Node Launch Exception \((.*?)\): ")


@dataclass
class Type:
    """What became of the orders of one type of worker, since one of them last started well.

    Attributes:
        launches: how many launches have failed.
        setups: how many setups have failed.
        why: the reason for the last failure, as the provider or Ray gives it.
        when: time of the last failure on the head's clock, as in its log.
        running: Ray's ids of the workers that run now.
    """

    launches: int = 0
    setups: int = 0
    why: str = ""
    when: str = ""
    running: set[str] = field(default_factory=set)

    @property
    def stopped(self) -> bool:
        """Whether too many setups have failed."""
        return self.setups >= LIMIT


def read(lines: Iterable[str], known: dict[str, Type] | None = None) -> dict[str, Type]:
    """Read the log of the autoscaler (``monitor.log`` on the head).

    Args:
        lines: of the log.
        known: what earlier lines said; it is added to.

    Returns:
        The types of workers that the log mentions, by name.

    >>> said = "2026-11-28 16:48:37,640 INFO -- Failed to launch 2 nodes of type gpu: quota"
    >>> read([said])["gpu"].launches, read([said])["gpu"].why
    (2, 'quota')
    """
    known = {} if known is None else known
    for line in lines:
        if launch := LAUNCH.search(line):
            count, name, why = launch.groups()
            found = known.setdefault(name, Type())
            found.launches += int(count)
            found.why, found.when = NOISE.sub(r"\1: ", why).strip(), line[:19]
        elif step := STEP.search(line):
            _before, after, worker, name, why = step.groups()
            found = known.setdefault(name, Type())
            if after == "RAY_RUNNING":
                found.launches = found.setups = 0
                found.running.add(worker)
            else:
                found.running.discard(worker)
            if after == "RAY_INSTALL_FAILED":
                found.setups += 1
                found.why, found.when = why.strip(), line[:19]
    return known


def explain(known: dict[str, Type], cluster: str | None = None) -> list[str]:
    """One line for each kind of failure, with what to do about it; none if all is well.

    Args:
        known: from :func:`read`.
        cluster: its file, for the commands in the lines.
    """
    file, said = cluster or "FILE", []
    for name, found in known.items():
        if found.launches:
            said.append(
                f"{name}: {found.launches} launches failed, the last at {found.when}: {found.why} "
                f"(geosweep doctor --cluster {argument(file)} looks for causes)"
            )
        if found.setups:
            end = "the head orders no more of them; " if found.stopped else ""
            said.append(
                f"{name}: {found.setups} setups failed in a row, the last at {found.when}; {end}"
                f"ray exec {argument(file)} "
                "'tail -n 100 /tmp/ray/session_latest/logs/monitor*' says why, "
                f"ray up {argument(file)} starts again"
            )
    return said


class Limiter:
    """Ends orders of workers that cannot be set up, by Ray's own limit for the type.

    Ray reads its cluster file on the head anew in every round. There, the type's ``max_workers``
    becomes the number of its workers that run. ``ray up`` replaces the file and so lifts the limit.

    Args:
        config: the cluster file on the head.
        log: of the autoscaler; a new one means that Ray was started anew.
        say: called with a sentence when a limit is set.
    """

    def __init__(self, config: Path, log: Path, say: Callable[[str], None]):
        self._config, self._log, self._say = config, log, say
        self._known: dict[str, Type] = {}
        self._file, self._read = (0, 0), 0  # which file is the log, and how many bytes are read

    def __call__(self) -> None:
        """Read what is new in the log, and set limits that are due."""
        try:
            with self._log.open("rb") as stream:
                there = self._log.stat()
                if self._file != (there.st_dev, there.st_ino) or there.st_size < self._read:
                    self._known, self._read = {}, 0
                    self._file = (there.st_dev, there.st_ino)
                stream.seek(self._read)
                text = stream.read()
        except FileNotFoundError:
            return
        text = text[: text.rfind(b"\n") + 1]  # the last line may be half written
        self._read += len(text)
        read(text.decode(errors="replace").splitlines(), self._known)
        limits = {name: len(found.running) for name, found in self._known.items() if found.stopped}
        if limits:
            self._set(limits)

    def _set(self, limits: dict[str, int]) -> None:
        try:
            content = yaml.safe_load(self._config.read_text())
        except FileNotFoundError:
            return
        kinds = content["available_node_types"]
        for name, limit in limits.items():
            kind = kinds.get(name)
            if (
                kind is None
                or kind.get("max_workers") == limit
                or name == content["head_node_type"]
            ):
                continue
            kind["max_workers"] = limit
            kind["min_workers"] = min(limit, kind.get("min_workers", 0))
            self._say(f"{name}: {LIMIT} setups failed in a row; at most {limit} from now on")
            beside = self._config.with_name(f"{self._config.name}.new")
            beside.touch()
            shutil.copymode(self._config, beside)
            beside.write_text(yaml.safe_dump(content))
            beside.replace(self._config)
