"""Feed hostile files, names, folders and environments to ``geosweep run --dry-run``.

    python -m benchmarks.hostile_inputs
    python -m benchmarks.hostile_inputs --only data --show

Each input of the catalogue runs in this process, in a temporary folder with its own home, cache,
working and temporary folders. It must end within a minute in one of two ways: refused with exit
status 2 and one message on standard error, or accepted with exit status 0 and nothing there.
Neither may leave a file, a process or a warning behind; only the cache may gain a whole data set.
Prints a line for each input that breaks this, with ``--show`` every message, and a Markdown table.
The exit status is 1 if any input breaks it. About two minutes on two cores.

To extend the catalogue, add an entry to a dictionary or list in ``hostile_sweeps.py`` or
``hostile_files.py``.
"""

import argparse
import contextlib
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import psutil

from benchmarks import hostile_files, hostile_sweeps
from models.datasets import load
from tune_jobs import cli

PATIENCE = 60  # seconds for one input
LONGEST = 4000  # characters of a message
OURS = {"GEOSWEEP_DATA", "GEOSWEEP_STORAGE", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"}
MOST_LINES = 11  # a line for each of ten problems, and one that counts the others


@dataclass(frozen=True)
class Input:
    """One entry of the catalogue."""

    family: str
    name: str
    accepted: bool
    arguments: list[str]
    make: Callable[[Path], object] = lambda folder: None  # writes files into the working folder
    environment: dict[str, str] = field(default_factory=dict)


def catalogue() -> Iterator[Input]:
    """All inputs, family by family."""
    for accepted, texts in ((False, hostile_sweeps.REFUSED), (True, hostile_sweeps.ACCEPTED)):
        for name, text in texts.items():
            content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            make = _writer("sweep.yaml", content)
            yield Input("sweep", name, accepted, ["sweep.yaml"], make)
    for accepted, settings in (
        (False, hostile_sweeps.REFUSED_SETTINGS),
        (True, hostile_sweeps.ACCEPTED_SETTINGS),
    ):
        for words in settings:
            arguments = ["demo", *(word for s in words.split(" & ") for word in ("--set", s))]
            yield Input("setting", words, accepted, arguments)
    for accepted, makers in ((False, hostile_files.REFUSED), (True, hostile_files.ACCEPTED)):
        for name, make in makers.items():
            yield Input("data", name, accepted, ["sweep.yaml", "--data", "."], _with_sweep(make))
    for name in hostile_sweeps.MISSING_NAMES:
        yield Input("name", repr(name), False, ["--", name])
    for accepted, names in ((False, hostile_sweeps.REFUSED_NAMES), (True, hostile_sweeps.NAMES)):
        for name in names:
            make = _writer(name, b"epochs: 1\n")
            yield Input("name", repr(name)[:60], accepted, ["--", name], make)
    for accepted, makers in ((False, hostile_files.REFUSED_PATHS), (True, hostile_files.PATHS)):
        for name, make in makers.items():
            yield Input("path", name, accepted, ["sweep.yaml"], make)
    for accepted, makers in ((False, hostile_files.REFUSED_FOLDERS), (True, hostile_files.FOLDERS)):
        for name, make in makers.items():
            yield Input("folder", name, accepted, ["demo"], make)
    for name, (accepted, environment) in hostile_files.ENVIRONMENTS.items():
        yield Input("environment", name, accepted, ["demo"], _none, environment)


def _none(folder: Path) -> None:
    pass


def _writer(name: str, content: bytes) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            (folder / name).write_bytes(content)

    return write


def _with_sweep(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / "sweep.yaml").write_text("dataset: mine.npz\npoints: 4\nbatch_size: 4\n")
        make(folder / "mine.npz")

    return write


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every path under a folder: its kind, size and time of change."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            info = os.lstat(path)
            size = 0 if name in folders else info.st_size
            found[path] = (info.st_mode, size, 0 if name in folders else info.st_mtime_ns)
    return found


@dataclass
class Outcome:
    """What came of one input."""

    status: int | None  # None where an exception came out
    out: str
    err: str
    problems: list[str]
    seconds: float


def attempt(given: Input, ready: Path) -> Outcome:
    """Run one input; ``ready`` is a cache that has the digits."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        root = Path(place)
        for name in ("home", "work", "tmp"):
            (root / name).mkdir()
        shutil.copytree(ready, root / "cache")
        work = root / "work"
        given.make(work)
        environment = {
            "HOME": str(root / "home"),
            "TMPDIR": str(root / "tmp"),
            "GEOSWEEP_CACHE": str(root / "cache"),
        }
        environment |= {k: v.replace("$ROOT", place) for k, v in given.environment.items()}
        before, children = snapshot(root), set(psutil.Process().children(recursive=True))
        argv = ["geosweep", "run", "--dry-run", *given.arguments]
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(tempfile, "tempdir", str(root / "tmp")),
            mock.patch.object(sys, "argv", argv),
            contextlib.chdir(work),
        ):
            for name in OURS - environment.keys():
                os.environ.pop(name, None)
            found = _run()
        after = snapshot(root)
        new = {path for path in after if before.get(path) != after[path]} | before.keys() - after
        new = {path for path in new if not os.path.isdir(path) and not _of_a_data_set(path)}
        found.problems += [f"wrote {os.path.relpath(path, root)}" for path in sorted(new)]
        left = set(psutil.Process().children(recursive=True)) - children
        found.problems += [f"left process {process.pid}" for process in left]
    return found


def _of_a_data_set(path: str) -> bool:
    """Whether a file belongs to a whole data set in a cache."""
    folder = path.removesuffix(".lock") if path.endswith(".lock") else os.path.dirname(path)
    return "/arrays-" in path and os.path.isfile(os.path.join(folder, "about.json"))


def _run() -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    status: int | None = None
    problems = []

    def late(*_: object) -> None:
        raise TimeoutError(f"no answer in {PATIENCE} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except BaseException:
                problems.append(f"traceback: {traceback.format_exc().splitlines()[-1][:300]}")
    signal.alarm(0)
    said = err.getvalue()
    problems += [f"warning: {one.message}" for one in warned]
    if status == 0 and said:
        problems.append(f"accepted, and said {said[:200]!r}")
    elif status == 2 and (len(said) > LONGEST or not 1 <= len(said.splitlines()) <= MOST_LINES):
        problems.append(f"{len(said.splitlines())} lines, {len(said)} characters")
    elif status not in (0, 2, None):
        problems.append(f"exit status {status}")
    return Outcome(status, out.getvalue(), said, problems, time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", help="one family: sweep, setting, data, name, path, ...")
    parser.add_argument("--show", action="store_true", help="print every message")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory(prefix="hostile-cache-") as ready:
        with mock.patch.dict(os.environ, {"GEOSWEEP_CACHE": ready}):
            load("digits")
        for given in catalogue():
            if options.only not in (None, given.family):
                continue
            found = attempt(given, Path(ready))
            if found.status in (0, 2) and (found.status == 0) != given.accepted:
                found.problems.append("accepted" if found.status == 0 else "refused")
            counts[given.family, "tried"] += 1
            counts[given.family, "refused"] += found.status == 2
            counts[given.family, "accepted"] += found.status == 0
            for kind in ("traceback", "wrote", "left process", "warning"):
                counts[given.family, kind] += any(p.startswith(kind) for p in found.problems)
            counts[given.family, "bad"] += bool(found.problems)
            slowest = max(slowest, (found.seconds, f"{given.family}: {given.name}"))
            if options.show or found.problems:
                print(f"{given.family}: {given.name}: {'; '.join(found.problems) or 'ok'}")
                if found.err:
                    print(f"    {found.err.strip()}")
    print(
        "\n| family | tried | refused with one message | accepted | tracebacks | wrote a file | "
        "left a process | warnings | not as it should be |"
    )
    print("|" + " --- |" * 9)
    columns = ("tried", "refused", "accepted", "traceback", "wrote", "left process", "warning")
    for family in dict.fromkeys(family for family, _ in counts):
        row = [counts[family, column] for column in (*columns, "bad")]
        print(f"| {family} | {' | '.join(map(str, row))} |")
    print(f"\nslowest: {slowest[0]:.1f} s, {slowest[1]}")
    return int(any(count for (_, column), count in counts.items() if column == "bad"))


if __name__ == "__main__":
    sys.exit(main())
