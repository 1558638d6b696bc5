"""Follows a sweep's folder while it fills: what is new since the last look.

Only Parquet files and small JSON files are read, so the sweep may run here or elsewhere, or have
ended, and its folder may be a copy or in an object store.
"""

import json
import time
from contextlib import suppress
from typing import Any

import pyarrow.fs as pafs

from analysis.errors import ResultsError
from analysis.measures.live import COLUMNS, CURVES, LONGEST, Curve, axes, point, record, rounded
from analysis.measures.markup import visible
from scoring import places, storage
from scoring.tables import read_rows, read_table

MANY = 50  # So many new files are read together, which merges them; fewer are read one by one.
AWAY = 60.0  # A driver that has written nothing for so many seconds is no longer there.
LINES = 400  # of the log
BY_TRIAL = ("trials", "curves")  # the large parts of an answer
WRONG = (ValueError, TypeError, KeyError, AttributeError, RecursionError)  # of a foreign JSON file
Marks = dict[str, tuple[int, int]]  # size and time of each file, by name


class Follower:
    """A sweep's folder, as far as it was read. Each look that finds something is a new version.

    Args:
        root: the sweep's folder, a path or a URI.
    """

    def __init__(self, root: str):
        self.root = root
        self.version = 0
        self._marks: dict[str, Marks] = {}
        self._rows: dict[str, dict[str, Any]] = {}  # of the trials table, by trial
        self._begun: dict[str, dict[str, Any]] = {}  # the same of trials without such a row
        self._curves: dict[str, Curve] = {}
        self._axes: list[str] = []
        self._progress: dict[str, Any] = {}
        self._sweep: dict[str, Any] = {}
        self._fresh = True  # whether a file has come, changed or gone since the last look
        self._ran = False  # whether the driver did then
        self._asked = 0  # trials of a search in the end
        self._damaged: dict[str, str] = {}  # what is wrong with a file, by its path
        self._shown: dict[str, tuple[int, dict[str, Any]]] = {}  # version and record, by trial
        self._drawn: dict[str, list[int]] = {}  # the version of each epoch of a curve, by trial
        self._log: tuple[int, list[list[Any]]] = (0, [])  # its version and its lines
        self._texts: dict[str, tuple[Any, str]] = {}  # of records and curves, with these
        self._made: dict[str, dict[str, Any]] = {}  # the row of a record that needs nothing else
        self._whole = 0  # what is older than this version has to be sent again

    def look(self) -> None:
        """Read what has changed in the folder.

        Raises:
            scoring.storage.StoreError: the folder cannot be reached.
        """
        try:
            self._look()
        except (storage.StoreError, OSError):
            self._marks.clear()  # What was found in this look is lost, so the next one reads all.
            raise

    def _look(self) -> None:
        top = self._changed("")
        if places.SWEEP in top:
            self._sweep, self._asked = self._json(places.SWEEP), 0
            if self._sweep.get("search"):
                from analysis.measures.search import read_search  # loads SciPy

                with suppress(ResultsError):
                    search = read_search(self.root)
                    self._asked = search.planned if search else 0
        if places.PROGRESS in top:
            self._progress = self._json(places.PROGRESS)
        self._look_at_trials()
        curves = self._look_at_epochs() | self._look_at_histories()
        running = self._is_running()
        if self._fresh or running != self._ran:
            self._note(curves)
        self._fresh, self._ran = False, running

    def since(self, version: int) -> dict[str, Any]:
        """All that is newer than a version, as JSON values; everything if the version is 0."""
        version = 0 if version < self._whole else version
        curves = {}
        for trial, versions in self._drawn.items():
            first = next((i for i, one in enumerate(versions) if one > version), None)
            if first is not None:
                curves[trial] = [first, self._curves[trial][first:]]
        name = str(self._sweep.get("name") or self.root.rstrip("/").rpartition("/")[2])
        return {
            "version": self.version,
            "whole": version == 0,  # forget what was sent before
            "name": visible(name),
            "folder": visible(places.redact(self.root)),
            "planned": self._planned(),
            "axes": self._axes,
            "running": self._is_running(),
            "progress": _numbers(self._progress),
            "trials": [record for at, record in self._shown.values() if at > version],
            "curves": curves,
            "log": self._log[1] if self._log[0] > version else None,
            "damaged": [visible(text) for text in self._damaged.values()],
        }

    def text(self, version: int, **more: Any) -> str:
        """The same as JSON, with more in it. The texts of all trials are made once each."""
        found = self.since(version) | more
        if not found["whole"]:
            return _dumped(found)
        trials = [self._told(f"trial {t}", shown) for t, (_, shown) in self._shown.items()]
        curves = [
            f"{_dumped(trial)}:[0,{self._told(f'curve {trial}', self._curves[trial])}]"
            for trial in found["curves"]
        ]
        rest = _dumped({name: one for name, one in found.items() if name not in BY_TRIAL})
        return f'{rest[:-1]},"trials":[{",".join(trials)}],"curves":{{{",".join(curves)}}}}}'

    def _told(self, name: str, content: Any) -> str:
        """The text of a record or a curve, which is another object once it has changed."""
        known = self._texts.get(name)
        if known is None or known[0] is not content:
            known = self._texts[name] = (content, _dumped(content))
        return known[1]

    def _changed(self, folder: str) -> set[str]:
        """Names of the files in a folder that are new or have changed since the last call."""
        infos = storage.infos(self.root, folder)
        files = [info for info in infos if info.type == pafs.FileType.File]
        now = {info.base_name: (info.size or 0, info.mtime_ns or 0) for info in files}
        before = self._marks.get(folder, {})
        self._marks[folder] = now
        self._fresh |= now != before
        return {name for name, mark in now.items() if before.get(name) != mark}

    def _json(self, path: str) -> dict[str, Any]:
        """A JSON object in the folder; empty if there is none or it is something else."""
        try:
            content = json.loads(storage.read_file(self.root, path) or b"{}")
        except (*WRONG, OSError, storage.Damaged):
            return {}
        return content if isinstance(content, dict) else {}

    def _read(self, table: str) -> list[dict[str, Any]]:
        """The rows of all files of a table that have changed; damaged ones are only noted."""
        folder = places.table_folder(table)
        names = {name for name in self._changed(folder) if name.endswith(".parquet")}
        self._damaged = {p: s for p, s in self._damaged.items() if p.rpartition("/")[0] != folder}
        if len(names) >= MANY:
            with suppress(storage.StoreError, OSError):
                return read_table(self.root, table, COLUMNS[table]).to_pylist()
        rows = []
        for name in sorted(names):
            trial = name.removesuffix(".parquet")
            try:
                rows += read_rows(self.root, table, trial)
            except (storage.Damaged, OSError) as error:
                self._damaged[places.table_path(table, trial)] = str(error)
                self._marks[folder].pop(name)  # it may be whole the next time
        return rows

    def _look_at_trials(self) -> None:
        new = {row["trial"]: row for row in self._read("trials") if row["trial"]}
        there = self._marks[places.table_folder("trials")]
        rows = self._rows | new
        self._rows = {t: row for t, row in rows.items() if f"{t}.parquet" in there}

    def _look_at_epochs(self) -> dict[str, Curve]:
        """The new curves of trials that have ended."""
        found: dict[str, Curve] = {}
        for row in self._read("epochs"):
            found.setdefault(row["trial"], []).append(point(row))
        return found

    def _look_at_histories(self) -> dict[str, Curve]:
        """The new curves of trials that have not: they are next to their checkpoints."""
        ended = self._marks[places.table_folder("epochs")]
        found = {}
        for name in self._changed(places.CHECKPOINTS):
            trial, _, kind = name.rpartition(".")
            if kind != "json" or f"{trial}.parquet" in ended:
                continue
            history = self._json(places.history(trial))
            with suppress(*WRONG):
                curve = [point(row) for row in history["epochs"]]
                self._begun[trial] = {**history["summary"], "trial": trial}
                found[trial] = curve
        there = self._marks[places.CHECKPOINTS]
        self._begun = {t: row for t, row in self._begun.items() if f"{t}.json" in there}
        return found

    def _running(self) -> dict[str, dict[str, Any]]:
        """What the driver says of the trials that it trains now."""
        told = self._progress.get("running") if self._is_running() else None
        return {t: one for t, one in (told or {}).items() if isinstance(one, dict)}

    def _is_running(self) -> bool:
        written = _seconds(self._progress.get("written_at"))
        done = sum(
            row.get("status") in ("done", "diverged", "stopped") for row in self._rows.values()
        )
        return abs(time.time() - written) < AWAY and done < max(1, self._planned())

    def _planned(self) -> int:
        """How many trials there will be in the end, as far as that is known."""
        cells = self._sweep.get("trials")
        planned = len(cells) if isinstance(cells, list) else 0
        return max(planned, self._asked, len(self._rows))

    def _note(self, curves: dict[str, Curve]) -> None:
        """Give a new version to the records, the epochs and the log that have changed."""
        new, running = self.version + 1, self._running()
        for trial, curve in curves.items():
            self._drawn[trial] = self._versions(trial, curve, new)
            self._curves[trial] = curve
            self.version = new
        rows = {t: row for t, row in self._begun.items() if t not in self._rows} | self._rows
        if self._axes != (names := axes(rows.values())):
            self._axes, self._made = names, {}
        now = rows.keys() | running.keys()
        for trial in now:
            if trial in running or trial not in self._rows:
                self._made.pop(trial, None)
            elif self._made.get(trial) is rows[trial]:
                continue
            else:
                self._made[trial] = rows[trial]
            shown = self._record(trial, rows.get(trial, {"trial": trial}), running.get(trial))
            if trial not in self._shown or self._shown[trial][1] != shown:
                self._shown[trial] = (new, shown)
                self.version = new
        if gone := self._shown.keys() - now:
            self._shown = {t: one for t, one in self._shown.items() if t not in gone}
            self.version = self._whole = new
        if self._log[1] != (lines := self._lines()):
            self._log, self.version = (new, lines), new

    def _record(
        self, trial: str, row: dict[str, Any], running: dict[str, Any] | None
    ) -> dict[str, Any]:
        """What is shown of a trial. Until it has ended, its curve and the driver know more."""
        shown = record(row, self._axes)
        if trial in self._rows and not running:
            return shown
        curve = self._curves.get(trial)
        last = dict(zip(("epoch", *CURVES), curve[-1], strict=True)) if curve else {}
        if not running:
            return shown | last | {"status": "interrupted"}
        label = visible(str(running.get("label", "")))[:200]
        known = {"status": "running", "epochs": rounded(running.get("epochs")), "error": ""}
        return shown | last | known | {"label": label}

    def _versions(self, trial: str, curve: Curve, new: int) -> list[int]:
        """The version of each epoch of a curve, which may have grown or begun again."""
        before = self._curves.get(trial, [])
        same = 0
        while same < min(len(before), len(curve)) and before[same] == curve[same]:
            same += 1
        return self._drawn.get(trial, [])[:same] + [new] * (len(curve) - same)

    def _lines(self) -> list[list[Any]]:
        """The driver's last lines, and before them what the tables say of earlier trials.

        Returns:
            The time of each in seconds, a text, and the trial that it is about, if it is of one.
        """
        told = self._progress.get("log")
        lines: list[list[Any]] = []
        for line in told if isinstance(told, list) else []:
            with suppress(*WRONG):
                at, text = line
                lines.append([_seconds(at), visible(str(text))[:LONGEST], None])
        first = lines[0][0] if lines else float("inf")
        ended = [[one["ended"], one["status"], t] for t, (_, one) in self._shown.items()]
        earlier = sorted(line for line in ended if line[0] and line[0] < first)
        return (earlier + lines)[-LINES:]


def _dumped(content: Any) -> str:
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def _seconds(given: Any) -> float:
    """A time in seconds; 0 if it is none."""
    return 0.0 if rounded(given) is None else float(given)


def _numbers(progress: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of the driver's progress."""
    return {
        "written_at": _seconds(progress.get("written_at")) or None,
        "started_at": _seconds(progress.get("started_at")) or None,
        "seconds_left": rounded(progress.get("seconds_left")),
    }
