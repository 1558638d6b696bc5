"""Keeps the rows of trials' files in a few merged files (see :mod:`scoring.pieces`).

A merged file is never changed. New rows go into a new merged file. A merged file is joined with
all smaller ones as soon as these together hold as many trials as it does. So each row is rewritten
only a few times, however large a sweep becomes, and there are few files.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from scoring.pieces import Files, Piece, pieces, remove, sweep_up, write_piece
from scoring.schemas import TABLES
from scoring.storage import Damaged, StoreError
from scoring.trial_files import SETTLED, TICK, marks, read_files

MANY = 50  # Merge tables with at least this many files; read fewer new ones one by one.
TOGETHER, LARGE = 500, 2**26  # files, and bytes of files, whose rows are in memory at a time
SHORT = 16  # Copy rows one by one where fewer than this many on average follow each other.

_Columns = Callable[[str], pa.ChunkedArray]  # makes a column of a merged file


class Run(NamedTuple):
    """Rows that follow each other in one of several sources."""

    source: int
    row: int
    count: int


def located(known: Sequence[Piece], now: Mapping[str, str]) -> dict[str, Run]:
    """Where the rows of each file are, for files whose present rows are in a merged file."""
    found: dict[str, Run] = {}
    for source, piece in enumerate(known):
        row = 0
        for name, (mark, count) in piece.files.items():
            if now.get(name) == mark and name not in found:
                found[name] = Run(source, row, count)
            row += count
    return found


def runs(places: Iterable[Run]) -> list[Run]:
    """The same rows in the same order, with neighbours in one run."""
    found: list[Run] = []
    for place in places:
        last = found[-1] if found else None
        if last and last.source == place.source and last.row + last.count == place.row:
            found[-1] = last._replace(count=last.count + place.count)
        elif place.count:
            found.append(place)
    return found


def positions(found: Sequence[Run], sizes: Sequence[int]) -> np.ndarray | None:
    """Row numbers in the concatenated sources; None if runs are so long that slicing is faster."""
    counts = np.array([run.count for run in found], np.int64)
    if counts.sum() >= SHORT * len(counts):
        return None
    before = np.concatenate([[0], np.cumsum(sizes)])
    first = np.array([before[run.source] + run.row for run in found], np.int64)
    return np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def merge(root: str, table: str, finish: bool = False) -> None:
    """Merge the files of trials that are in no merged file yet.

    Any number of processes may do this at once, and be killed. The merged files stay correct; at
    worst some rows are in two of them for a while. In a read-only folder nothing happens, because
    the trials' own files are enough. Damaged files of trials are left out.

    Args:
        root: the sweep's folder.
        table: the name of the table.
        finish: put everything into a single merged file, which is the fastest to read.
    """
    try:
        now = marks(root, table)
        end = time.monotonic() + SETTLED
        while finish and len(now) >= MANY and not all(now.values()) and time.monotonic() < end:
            time.sleep(5 * TICK)  # the last files are too young to tell whether they change
            now = marks(root, table)
        if len(now) < MANY:
            return
        sweep_up(root, table)
        there = located(pieces(root, table), now)
        new = sorted(name for name, mark in now.items() if mark and name not in there)
        for some in _portions(new, now):
            _add(root, table, {name: now[name] for name in some})
        _join(root, table, now, finish)
    except Damaged as error:
        remove(root, error.path)  # the next one to merge makes it again
    except (OSError, pa.ArrowException, StoreError):
        return


def _portions(names: Iterable[str], now: Mapping[str, str]) -> Iterator[list[str]]:
    """Files that are read at a time; the first part of a mark is a file's size."""
    some: list[str] = []
    size = 0
    for name in names:
        some.append(name)
        size += int(now[name].split()[0])
        if len(some) == TOGETHER or size > LARGE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _add(root: str, table: str, now: Mapping[str, str]) -> None:
    """Write a merged file of some trials' files."""

    def prepare() -> tuple[Files, _Columns]:
        found = read_files(root, table, now, TABLES[table])
        files = {name: (now[name], count) for name, count in found.counts.items()}
        return files, found.rows.column

    write_piece(root, table, prepare)


def _join(root: str, table: str, now: Mapping[str, str], finish: bool) -> None:
    """Join merged files if there are too many, and delete unused ones."""
    known = pieces(root, table)
    there = located(known, now)
    used = Counter(place.source for place in there.values())
    for source, piece in enumerate(known):
        if not used[source]:
            remove(root, piece.path)
    chosen = _chosen(known, used, finish)
    if not chosen:
        return
    names = sorted(name for name, place in there.items() if place.source in chosen)

    def prepare() -> tuple[Files, _Columns]:
        found = runs(there[name] for name in names)
        files = {name: (now[name], there[name].count) for name in names}
        return files, lambda column: _joined(known, found, column)

    write_piece(root, table, prepare)
    for source in chosen:
        remove(root, known[source].path)


def _chosen(known: Sequence[Piece], used: Counter[int], finish: bool) -> set[int]:
    """Choose the merged files to join, by the number of trials of each that are still used."""
    order = [source for source, _ in used.most_common()]
    stale = [len(known[source].files) - used[source] for source in order]
    if finish:
        return {*order} if len(order) > 1 or sum(stale) >= MANY else set()
    for i, source in enumerate(order):
        others = sum(used[smaller] for smaller in order[i + 1 :])
        if others >= used[source] or stale[i] > used[source]:
            return {*order[i:]}
    return set()


def _joined(known: Sequence[Piece], found: Sequence[Run], name: str) -> pa.ChunkedArray:
    """A column of the rows in these runs, in as few pieces as can be."""
    used = sorted({run.source for run in found})
    columns = {source: known[source].columns([name])[0] for source in used}
    sizes = [len(columns.get(source, ())) for source in range(len(known))]
    rows = positions(found, sizes)
    if rows is not None:
        chunks = [chunk for column in columns.values() for chunk in column.chunks]
        return in_one_piece(pa.chunked_array(chunks).take(pa.array(rows)))
    slices = [columns[run.source].slice(run.row, run.count) for run in found]
    kind = TABLES[known[0].table].field(name).type
    whole = in_one_piece(pa.chunked_array([c for part in slices for c in part.chunks], kind))
    for source in used:
        known[source].forget(name)
    return whole


def in_one_piece(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with one chunk, or more if its lists or texts have more than 2^31 elements."""
    if column.num_chunks < 2:
        return column
    try:
        return pa.chunked_array([pa.concat_arrays(column.chunks)])
    except pa.ArrowInvalid:
        half = column.num_chunks // 2
        first, second = column.chunks[:half], column.chunks[half:]
        parts = [in_one_piece(pa.chunked_array(part)) for part in (first, second)]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks])
