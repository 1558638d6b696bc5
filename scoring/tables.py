"""Reads and writes the tables of a sweep. Needs pyarrow only.

A table is a folder of Parquet files, one for each trial. ``results/.<table>.arrow`` keeps what
many of them hold together; it can be deleted at any time. How a file gets into a sweep's folder as
a whole is in :mod:`scoring.storage`.
"""

import itertools
import json
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from scoring.places import merged_table, table_folder, table_path
from scoring.schemas import KEY, TABLES
from scoring.storage import (
    Damaged,
    StoreError,
    Unreachable,
    infos,
    is_away,
    list_files,
    open_folder,
    read_buffer,
    read_file,
    reading,
    writing,
)

OF_A_TRIAL = re.compile(r"[0-9a-f]{12}\.parquet")  # name of a trial's file
ARGUMENT = "model."  # starts the names of columns that a trial's file has in addition
SMALL = ("trials", "robustness")  # tables that are read before a run
MANY = 50  # With this many files, a table also keeps all rows in a merged file.
TOGETHER = 200  # Concatenate columns after reading this many files.
KEPT = b"files"  # metadata of a merged file: size, time and number of rows of each file in it


def write_table(root: str, table: str, trial: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a trial's rows of a table; columns that a row does not have are null.

    Keyword arguments of an architecture have columns of their own, which other readers find: here
    their values are in the column ``model``.

    It writes plain values with snappy, a checksum for each page, and no statistics. Dictionaries,
    statistics and zstd make files with few rows larger, and more than twice as slow to read.
    """
    rows = list(rows)
    schema = TABLES[table]
    for name in dict.fromkeys(name for row in rows for name in row if name.startswith(ARGUMENT)):
        meaning = {"unit": "", "meaning": "keyword argument of the architecture"}
        kind = pa.array([row.get(name) for row in rows]).type
        schema = schema.append(pa.field(name, kind, metadata=meaning))
    with writing(root, table_path(table, trial)) as stream:
        content = pa.Table.from_pylist(rows, schema)
        pq.write_table(
            content, stream, use_dictionary=False, write_statistics=False, write_page_checksum=True
        )


class BrokenFiles(StoreError):
    """Files of a table are damaged or foreign; the message names the first one."""

    def __init__(self, table: str, errors: list[Damaged]):
        super().__init__(table, errors)
        self.paths = [error.path for error in errors]

    def __str__(self) -> str:
        table, errors = self.args
        others = f" (and {len(errors) - 1} other files)" if len(errors) > 1 else ""
        fix = "geosweep run sets it aside and measures the trial again"
        if table not in SMALL:
            fix = f"delete it and its namesake in {table_folder('trials')}, then geosweep run "
            fix += "measures the trial again"
        return f"{errors[0]}{others}; {fix}"


class Kept(NamedTuple):
    """Rows of many files, in the order of the files' names."""

    rows: pa.Table
    files: dict[str, tuple[str, int]]  # name -> size and time of the file, number of its rows


def read_table(root: str, table: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a table, from the files of all trials, in the order of their names.

    Many small files are slow to open. With more than a few, all rows are kept in one hidden
    merged file, and only files that are new or have changed are opened. When there are many of
    these, the merged file is written again. On a disk of this machine the merged file is mapped,
    so a column takes memory only when it is used. The memory belongs to the caller: changing it
    changes no file, and no other reader sees it.

    Raises:
        BrokenFiles: a file is not Parquet, or not of this table; the message names it.
    """
    whole = TABLES[table]
    wanted = pa.schema([whole.field(name) for name in columns or whole.names], whole.metadata)
    marks = {
        info.base_name: f"{info.size} {info.mtime_ns}"
        for info in infos(root, table_folder(table))
        if info.base_name.endswith(".parquet")
    }
    if len(marks) < MANY:
        return _updated(root, table, marks, Kept(wanted.empty_table(), {})).rows
    kept = _read_kept(root, table, wanted)
    known = {name: mark for name, (mark, _) in kept.files.items()}
    if len(dict(marks.items() ^ known.items())) >= MANY:  # fewer are read in addition
        rows, files = _updated(root, table, marks, _read_kept(root, table, whole))
        columns_left, rows = rows.columns, None  # so that each column is freed once it is copied
        rows = pa.table([_in_one_piece(columns_left.pop(0)) for _ in whole], whole)
        if not _keep(root, table, Kept(rows, files)):
            return rows.select(wanted.names)
        rows = None  # free it before the file is mapped
        pa.default_memory_pool().release_unused()
        kept = _read_kept(root, table, wanted)
    return _updated(root, table, marks, kept).rows


def _updated(root: str, table: str, marks: dict[str, str], kept: Kept) -> Kept:
    """The kept rows, without files that are gone, and with files that are new or have changed."""
    new = sorted(n for n, mark in marks.items() if kept.files.get(n, ("", 0))[0] != mark)
    read, counts = _read_files(root, table, new, kept.rows.schema)
    added = {name: (marks[name], count) for name, count in zip(new, counts, strict=True)}

    def source(name: str) -> str:
        return "read" if name in added else "kept" if name in marks else "gone"

    parts = [kept.rows.slice(0, 0)]
    i = j = 0  # the next row of kept.rows and of read
    for place, names in itertools.groupby(sorted(marks.keys() | kept.files.keys()), source):
        names = list(names)
        old = sum(kept.files[name][1] for name in names if name in kept.files)
        now = sum(added[name][1] for name in names if name in added)
        if place == "kept":
            parts.append(kept.rows.slice(i, old))
        parts.append(read.slice(j, now))
        i, j = i + old, j + now
    files = {name: added.get(name) or kept.files[name] for name in sorted(marks)}
    return Kept(pa.concat_tables([part for part in parts if len(part)] or parts[:1]), files)


def _read_files(
    root: str, table: str, names: list[str], wanted: pa.Schema
) -> tuple[pa.Table, list[int]]:
    """The wanted columns of all rows of these files, and the number of rows of each file."""

    def fetch(name: str) -> pa.Buffer:
        return read_buffer(root, f"{table_folder(table)}/{name}")

    def read(name: str, content: Future[pa.Buffer]) -> pa.Table | Damaged:
        path = f"{table_folder(table)}/{name}"
        try:
            with reading(root, path):
                return _read_content(content.result(), table, wanted)
        except Damaged as error:
            return error

    parts, counts, broken = [wanted.empty_table()], [], []
    # Many threads may wait for a disk or a network, but decoding needs a core for each thread.
    with ThreadPoolExecutor(16) as fetching, ThreadPoolExecutor(pa.cpu_count()) as decoding:
        for start in range(0, len(names), TOGETHER):
            some = names[start : start + TOGETHER]
            found = list(decoding.map(read, some, [fetching.submit(fetch, name) for name in some]))
            broken += [one for one in found if isinstance(one, Damaged)]
            whole = [one for one in found if not isinstance(one, Damaged)]
            counts += [one.num_rows for one in whole]
            parts.append(pa.concat_tables([parts[0], *whole]).combine_chunks())
    if broken:
        raise BrokenFiles(table, broken)
    return pa.concat_tables(parts), counts


def _read_content(content: pa.Buffer, table: str, wanted: pa.Schema) -> pa.Table:
    """The wanted columns of a Parquet file; null where it was written without them."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    schema = file.schema_arrow
    there = set(schema.names)
    kind = (schema.metadata or {}).get(b"table", table.encode())
    if KEY[0].name not in there or kind != table.encode():
        raise pa.ArrowInvalid(f"its columns are not those of {table}")
    rows = file.read([name for name in wanted.names if name in there], use_threads=False)
    if rows.schema.equals(wanted):
        return rows
    count = file.metadata.num_rows
    columns = [
        rows[field.name].cast(field.type) if field.name in there else pa.nulls(count, field.type)
        for field in wanted
    ]
    return pa.table(columns, wanted)


def _in_one_piece(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    pa.default_memory_pool().release_unused()  # the chunks of the previous column
    try:
        return column.combine_chunks()
    except pa.ArrowInvalid:  # its lists have more numbers than one array can hold, 2^31
        return column


def _read_kept(root: str, table: str, wanted: pa.Schema) -> Kept:
    """The merged file of a table; empty if there is none, or none with the present columns."""
    fs, base = open_folder(root)
    path = f"{base}/{merged_table(table)}"
    nothing = Kept(wanted.empty_table(), {})
    if fs.get_file_info(path).type != pafs.FileType.File:
        return nothing
    try:
        if isinstance(fs, pafs.LocalFileSystem) and _is_on_disk(path):
            with open(path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            reader = pa.ipc.open_file(pa.py_buffer(mapped))
        else:
            places = [TABLES[table].get_field_index(name) for name in wanted.names]
            options = pa.ipc.IpcReadOptions(included_fields=places)
            reader = pa.ipc.open_file(fs.open_input_file(path), options=options)
        rows = reader.read_all().select(wanted.names)
        if rows.schema.equals(wanted):
            files = json.loads(reader.schema.metadata[KEPT])
            rows = pa.Table.from_arrays(rows.columns, schema=wanted)
            return Kept(rows, {name: tuple(about) for name, about in files.items()})
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        pass
    return nothing


def _is_on_disk(path: str) -> bool:
    """Whether a file is on a disk of this machine: a block device, or a kind that needs none.

    On a network file system, a mapped file that somebody replaces disappears, and reading the
    mapping then kills the process.
    """
    device = os.stat(os.path.dirname(path)).st_dev
    if os.major(device):
        return True
    mounts = "/proc/self/mountinfo"
    if not os.path.exists(mounts):
        return False
    with open(mounts) as file:
        kinds = {line.split()[2]: line.partition(" - ")[2].split()[0] for line in file}
    return kinds.get(f"0:{os.minor(device)}") in ("btrfs", "overlay", "tmpfs", "zfs")


def _keep(root: str, table: str, whole: Kept) -> bool:
    """Write the merged file of a table; False if that is impossible."""
    about = {**(TABLES[table].metadata or {}), KEPT: json.dumps(whole.files).encode()}
    schema = TABLES[table].with_metadata(about)
    try:
        with (
            writing(root, merged_table(table)) as stream,
            pa.ipc.new_file(stream, schema) as file,
        ):
            file.write_table(whole.rows)
    except (pa.ArrowException, OSError, Unreachable):
        return False  # a read-only folder or a full disk; the files of the trials are enough
    return True


def broken_files(root: str, table: str) -> list[str]:
    """Paths of files in a table's folder that are damaged or do not belong to a trial.

    Tables with a row or few for each trial are read as a whole. Of the others, which are large,
    only the end of each file is read.
    """
    fs, base = open_folder(root)
    folder = table_folder(table)
    found = []
    for name in list_files(root, folder):
        path = f"{folder}/{name}"
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

    Columns that an earlier version wrote the file without are null.

    Raises:
        Damaged: the file is not Parquet, or not of this table.
    """
    path = table_path(table, trial)
    content = read_file(root, path)
    if content is None:
        return []
    with reading(root, path):
        return _read_content(pa.py_buffer(content), table, TABLES[table]).to_pylist()


def read_row(root: str, table: str, trial: str) -> dict[str, Any]:
    """The first row of a trial in a table; empty if there is none."""
    rows = read_rows(root, table, trial)
    return rows[0] if rows else {}
