"""The Parquet files of trials: which there are, and the rows of many of them."""

import re
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.cores import cores
from scoring.places import table_folder
from scoring.schemas import KEY
from scoring.storage import Damaged, StoreError, infos, read_buffer, reading

OF_A_TRIAL = re.compile(r"[0-9a-f]{12}\.parquet")  # name of a trial's file
SMALL = ("trials", "robustness")  # tables that are read before a run
TOGETHER = 200  # Concatenate columns after reading this many files.
TICK = 0.02  # seconds in which a file may change twice and keep its time; clocks tick every 4 ms
SETTLED = 2.0  # the same where times are whole seconds, as in an object store


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


class Found(NamedTuple):
    """The rows of some files."""

    rows: pa.Table  # in the order of the files
    counts: dict[str, int]  # number of rows of each file that could be read
    broken: list[Damaged]  # what is wrong with the others


def marks(root: str, table: str) -> dict[str, str]:
    """Marks of files by name, which tell whether a file has changed: its size and time.

    An empty mark says that the file is too young to tell: a change would not be seen.
    """
    now, found = time.time(), {}
    for info in infos(root, table_folder(table)):
        if info.base_name.endswith(".parquet"):
            changed = info.mtime_ns or 0  # folders in an object store have no time
            young = now - changed / 1e9 < (TICK if changed % 10**9 else SETTLED)
            found[info.base_name] = "" if young else f"{info.size} {changed}"
    return found


def read_files(root: str, table: str, names: Iterable[str], wanted: pa.Schema) -> Found:
    """The wanted columns of all rows of some files."""
    folder, names = table_folder(table), list(names)

    def fetch(name: str) -> pa.Buffer:
        return read_buffer(root, f"{folder}/{name}")

    def read(name: str, content: Future[pa.Buffer]) -> pa.Table | Damaged:
        path = f"{folder}/{name}"
        try:
            with reading(root, path):
                return read_content(content.result(), table, wanted)
        except Damaged as error:
            return error

    found = Found(wanted.empty_table(), {}, [])
    parts = [found.rows]
    # Many threads may wait for a disk or a network, but decoding needs a core for each thread.
    with ThreadPoolExecutor(16) as fetching, ThreadPoolExecutor(cores()) as decoding:
        for start in range(0, len(names), TOGETHER):
            some = names[start : start + TOGETHER]
            done = list(decoding.map(read, some, [fetching.submit(fetch, name) for name in some]))
            found.broken.extend(one for one in done if isinstance(one, Damaged))
            whole = {n: r for n, r in zip(some, done, strict=True) if not isinstance(r, Damaged)}
            found.counts.update({name: rows.num_rows for name, rows in whole.items()})
            parts.append(pa.concat_tables([parts[0], *whole.values()]).combine_chunks())
    return found._replace(rows=pa.concat_tables(parts))


def read_content(content: pa.Buffer, table: str, wanted: pa.Schema) -> pa.Table:
    """The wanted columns of a Parquet file; null where it was written without them.

    Raises:
        pa.ArrowException: it is not Parquet, or not of this table.
    """
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
