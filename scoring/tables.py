"""Reads and writes the tables of a sweep. Needs pyarrow only.

A table is a folder of Parquet files, one for each trial. Merged files keep what many of them hold
together (:mod:`scoring.merging`); they can be deleted at any time. How a file gets into a sweep's
folder as a whole is in :mod:`scoring.storage`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from scoring.merging import MANY, Run, in_one_piece, located, merge, positions, runs
from scoring.pieces import Piece, pieces, remove
from scoring.places import table_folder, table_path
from scoring.schemas import TABLES
from scoring.storage import (
    Damaged,
    Unreachable,
    is_away,
    list_files,
    open_folder,
    read_file,
    reading,
    writing,
)
from scoring.trial_files import OF_A_TRIAL, SMALL, BrokenFiles, marks, read_content, read_files

ARGUMENT = "model."  # starts the names of columns that a trial's file has in addition


def write_table(root: str, table: str, trial: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a trial's rows of a table; columns that a row does not have are null.

    Keyword arguments of an architecture, which are in the column ``model``, also have columns of
    their own, for other readers. Columns of a newer version, which are in the trial's file and in
    these rows, stay. Anything else that is in a row is left out.
    """
    schema, given = TABLES[table], list(rows)
    arguments = [_arguments(row) for row in given]
    more = {name for row in given for name in row if name not in schema.names}
    if any(not name.startswith(ARGUMENT) for name in more):
        for field in _newer(root, table, trial):
            schema = schema.append(field) if field.name in more else schema
    for name in dict.fromkeys(name for row in arguments for name in row):
        kind = pa.array([row.get(name) for row in arguments]).type
        meaning = {"unit": "", "meaning": "keyword argument of the architecture"}
        schema = schema.append(pa.field(name, kind, metadata=meaning))
    whole = [{**row, **flat} for row, flat in zip(given, arguments, strict=True)]
    with writing(root, table_path(table, trial)) as stream:
        write_content(stream, pa.Table.from_pylist(whole, schema))


def _arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of an architecture's keyword arguments, from the column ``model``.

    Every number is a float, so that an axis like [16, 24.5] has one type in all files.
    """
    given = json.loads(row.get("model") or "{}")
    return {f"{ARGUMENT}{n}": float(v) if type(v) is int else v for n, v in given.items()}


def _newer(root: str, table: str, trial: str) -> list[pa.Field]:
    """The columns of a trial's file that this version does not know."""
    content = read_file(root, table_path(table, trial))
    if content is None:
        return []
    with reading(root, table_path(table, trial)):
        return _others(pa.py_buffer(content), table)


def _others(content: pa.Buffer, table: str) -> list[pa.Field]:
    """The columns of a file that are neither known to this version nor arguments."""
    known = TABLES[table].names
    there = pq.read_schema(pa.BufferReader(content))
    return [f for f in there if f.name not in known and not f.name.startswith(ARGUMENT)]


def write_content(stream: Any, content: pa.Table) -> None:
    """Write rows as the Parquet file of a trial.

    It has plain values with snappy, a checksum for each page, and no statistics. Dictionaries,
    statistics and zstd make files with few rows larger, and more than twice as slow to read.
    """
    pq.write_table(
        content, stream, use_dictionary=False, write_statistics=False, write_page_checksum=True
    )


def read_table(root: str, table: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a table, from the files of all trials, in the order of their names.

    Many small files are slow to open. Rows that are in a merged file are taken from there, and
    only the other files are opened; when there are many of those, they are merged, too. On a disk
    of this machine a merged file is mapped. If it holds all rows, a column takes memory only when
    it is used; otherwise columns are put together in memory. The memory belongs to the caller:
    changing it changes no file, and no other reader sees it.

    Raises:
        BrokenFiles: a file is not Parquet, or not of this table; the message names it.
    """
    whole = TABLES[table]
    wanted = pa.schema([whole.field(name) for name in columns or whole.names], whole.metadata)
    now = marks(root, table)
    if len(now) < MANY:
        return _together(root, table, now, [], wanted)
    known = pieces(root, table)
    there = located(known, now)
    if sum(bool(mark) and name not in there for name, mark in now.items()) >= MANY:
        del known
        merge(root, table)
        known = pieces(root, table)
    for _ in range(len(known) + 3):
        try:
            return _together(root, table, now, known, wanted)
        except Damaged as error:
            if error.path not in (piece.path for piece in known):
                raise
            remove(root, error.path)
            known = [piece for piece in known if piece.path != error.path]
        except OSError:  # another process has merged again, or a store did not answer
            now, known = marks(root, table), pieces(root, table)
    return _together(root, table, now, [], wanted)


def _together(
    root: str, table: str, now: Mapping[str, str], known: Sequence[Piece], wanted: pa.Schema
) -> pa.Table:
    """The rows of all files, from merged files where they are there."""
    places = located(known, now)
    found = read_files(root, table, sorted(now.keys() - places.keys()), wanted)
    if found.broken:
        raise BrokenFiles(table, found.broken)
    sources, row = [found.rows], 0
    used = {place.source for place in places.values()}
    for source, piece in enumerate(known):
        content = piece.columns(wanted.names) if source in used else wanted.empty_table().columns
        sources.append(pa.Table.from_arrays(content, schema=wanted))
    places = {n: place._replace(source=place.source + 1) for n, place in places.items()}
    for name, count in found.counts.items():
        places[name] = Run(0, row, count)
        row += count
    parts = runs(places[name] for name in sorted(places))
    order = positions(parts, [len(source) for source in sources])
    if order is not None:
        return pa.concat_tables(sources).take(pa.array(order))
    slices = [sources[run.source].slice(run.row, run.count) for run in parts]
    rows = pa.concat_tables(slices or [wanted.empty_table()])
    if len(parts) < 2:
        return rows
    columns = []
    for field in wanted:  # lists stay where they are; they are large and seldom used
        nested = pa.types.is_list(field.type)
        columns.append(rows[field.name] if nested else in_one_piece(rows[field.name]))
        for piece in known:
            piece.forget(field.name)
    return pa.Table.from_arrays(columns, schema=wanted)


def broken_files(root: str, table: str) -> list[str]:
    """Paths of files in a table's folder that are damaged or do not belong to a trial.

    Tables with one row or a few for each trial are read as a whole. For the other tables, which
    are large, only the end of each file is read. Files that have not changed since they were
    merged are not opened.
    """
    fs, base = open_folder(root)
    folder = table_folder(table)
    found = []
    names = list_files(root, folder)
    merged = located(pieces(root, table), marks(root, table)) if len(names) >= MANY else {}
    for name in names:
        path = f"{folder}/{name}"
        if name in merged and OF_A_TRIAL.fullmatch(name):
            continue
        if not OF_A_TRIAL.fullmatch(name) or not _is_whole(fs, f"{base}/{path}", table):
            found.append(path)
    if table in SMALL:
        try:
            read_table(root, table)
        except BrokenFiles as error:
            found += [path for path in error.paths if path not in found]
    return found


def _is_whole(fs: pafs.FileSystem, path: str, table: str) -> bool:
    try:
        kind = pq.read_schema(path, filesystem=fs).metadata or {}
    except (pa.ArrowException, OSError) as error:
        if is_away(error):
            raise Unreachable(f"{path}: cannot be reached: {error}") from error
        return False
    return kind.get(b"table") == table.encode()


def read_rows(root: str, table: str, trial: str) -> list[dict[str, Any]]:
    """The rows of a trial in a table; none if its file is not there.

    Columns that an earlier version wrote the file without are null. Columns of a newer version are
    there, too, so that rows can be written again without losing them.

    Raises:
        Damaged: the file is not Parquet, or not of this table.
    """
    path = table_path(table, trial)
    content = read_file(root, path)
    if content is None:
        return []
    with reading(root, path):
        buffer, known = pa.py_buffer(content), TABLES[table]
        rows = read_content(buffer, table, known).to_pylist()
        if others := _others(buffer, table):
            more = read_content(buffer, table, pa.schema(others)).to_pylist()
            rows = [row | one for row, one in zip(rows, more, strict=True)]
        return rows


def read_row(root: str, table: str, trial: str) -> dict[str, Any]:
    """The first row of a trial in a table; empty if there is none."""
    rows = read_rows(root, table, trial)
    return rows[0] if rows else {}
