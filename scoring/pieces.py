"""Merged files: rows of many trials' files together, in hidden files next to a table's folder.

Opening 10,000 small files takes most of a minute, so a process that reads or writes many of them
also keeps their rows in a few large ones. A merged file can be deleted at any time. It says which
files it holds, with the size and time that each had; a file that is gone, or has another size or
time, is read from its own Parquet file instead. So a row is never lost and never counted twice,
even if a process is killed, two processes merge at once, or the folder is copied.

A merged file holds an Arrow stream of each column, one after another, so that columns are read
and written one by one, and files on a disk of this machine are mapped. After the columns come a
JSON index with a checksum of each column, and the index's size and checksum.
"""

import json
import mmap
import os
import re
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from scoring.cores import cores
from scoring.places import RESULTS, merged
from scoring.schemas import FORMAT, TABLES
from scoring.storage import (
    Damaged,
    StoreError,
    delete,
    infos,
    open_folder,
    reading,
    writing,
)

OF_A_TABLE = re.compile(r"\.([a-z]+)\.[0-9a-f]{12}\.merged")  # name of a merged file
END = struct.Struct("<QI8s")  # at the end: size of the index, its checksum, MARK
MARK = b"geosweep"
ALIGNED = 64  # Columns begin at a multiple of this many bytes.
BLOCK = 8192  # 8-byte words that are added up at a time for a checksum
TOGETHER = 2**25  # bytes that are fetched at a time if the file is not mapped
ABANDONED = 600  # A half-written file that has not grown for this many seconds is abandoned.

Files = dict[str, tuple[str, int]]  # name -> size and time of a trial's file, number of its rows


class Piece(NamedTuple):
    """An open merged file."""

    root: str
    table: str
    path: str
    files: Files  # in the order of their rows, which is that of their names
    index: dict[str, tuple[int, int, int]]  # column -> offset, bytes, checksum
    mapped: mmap.mmap | None  # None: the file is not on a disk of this machine

    def columns(self, names: Sequence[str]) -> list[pa.ChunkedArray]:
        """Some columns, after their checksums were compared.

        Raises:
            Damaged: a checksum differs.
            OSError: the file was deleted meanwhile, or cannot be read.
        """
        contents = self._mapped(names) if self.mapped else self._fetched(names)

        def decoded(name: str) -> pa.ChunkedArray:
            content = contents[name]
            if checksum(content) != self.index[name][2]:
                raise Damaged(self.root, self.path, f"the checksum of {name} differs")
            self.forget(name)
            with reading(self.root, self.path):
                return pa.ipc.open_stream(content).read_all().column(0)

        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(decoded, names))

    def _mapped(self, names: Sequence[str]) -> dict[str, pa.Buffer]:
        whole = pa.py_buffer(self.mapped)
        return {name: whole.slice(*self.index[name][:2]) for name in names}

    def forget(self, name: str) -> None:
        """Release the memory of a mapped column; its pages are loaded again when they are used."""
        offset, size, _ = self.index[name]
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if self.mapped and last > first:
            self.mapped.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _fetched(self, names: Sequence[str]) -> dict[str, pa.Buffer]:
        """The columns' bytes; columns that follow each other come in one request."""
        groups: list[list[str]] = []
        end = begun = 0
        for name in sorted(names, key=lambda name: self.index[name][0]):
            offset, size, _ = self.index[name]
            near = offset - end < ALIGNED and offset + size - begun <= TOGETHER
            if not groups or not near:
                groups.append([])
                begun = offset
            groups[-1].append(name)
            end = offset + size
        fs, base = open_folder(self.root)

        def fetch(group: list[str]) -> dict[str, pa.Buffer]:
            first = self.index[group[0]][0]
            offset, size, _ = self.index[group[-1]]
            content = pa.py_buffer(file.read_at(offset + size - first, first))
            places = {name: self.index[name] for name in group}
            return {name: content.slice(at - first, size) for name, (at, size, _) in places.items()}

        found: dict[str, pa.Buffer] = {}
        with fs.open_input_file(f"{base}/{self.path}") as file, ThreadPoolExecutor(8) as pool:
            for some in pool.map(fetch, groups):
                found |= some
        return found


def checksum(content: pa.Buffer | bytes) -> int:
    """A checksum at the speed of memory: a CRC of the sums of 8-byte words in each block."""
    numbers = np.frombuffer(content, np.uint8)
    words = numbers[: len(numbers) // 8 * 8].view(np.uint64)
    sums = np.add.reduceat(words, np.arange(0, len(words), BLOCK)) if len(words) else words
    return zlib.crc32(numbers[words.nbytes :].tobytes(), zlib.crc32(sums.tobytes()))


def write_piece(
    root: str, table: str, prepare: Callable[[], tuple[Files, Callable[[str], pa.ChunkedArray]]]
) -> str:
    """Write a merged file and return its path.

    Args:
        root: the sweep's folder.
        table: the name of the table.
        prepare: returns the files in it and a function that makes a column. It is called once
            the file is open, because some folders are read-only.
    """
    path = merged(table, uuid.uuid4().hex[:12])
    index, at = {}, 0
    with writing(root, path, lasting=False) as stream:
        files, column = prepare()
        for field in TABLES[table]:
            content = _encoded(field, column(field.name))
            index[field.name] = (at, content.size, checksum(content))
            stream.write(content)
            stream.write(b"\0" * (-content.size % ALIGNED))
            at += content.size + -content.size % ALIGNED
            del content
            pa.default_memory_pool().release_unused()
        about = {"format": FORMAT, "types": _types(table), "columns": index, "files": files}
        text = json.dumps(about).encode()
        stream.write(text)
        stream.write(END.pack(len(text), zlib.crc32(text), MARK))
    return path


def _encoded(field: pa.Field, column: pa.ChunkedArray) -> pa.Buffer:
    rows = pa.table([column], pa.schema([field.remove_metadata()]))
    counted = pa.MockOutputStream()
    with pa.ipc.new_stream(counted, rows.schema) as stream:
        stream.write_table(rows)
    content = pa.allocate_buffer(counted.size())
    with (
        pa.FixedSizeBufferWriter(content) as sink,
        pa.ipc.new_stream(sink, rows.schema) as stream,
    ):
        stream.write_table(rows)
    return content


def _types(table: str) -> list[list[str]]:
    return [[field.name, str(field.type)] for field in TABLES[table]]


def pieces(root: str, table: str) -> list[Piece]:
    """The merged files of a table that are whole and have its present columns, largest first.

    Other merged files are of no use, and are deleted if possible.
    """
    for _ in range(5):
        found, gone = [], False
        for info in infos(root, RESULTS, hidden=True):
            match = OF_A_TABLE.fullmatch(info.base_name)
            if match and match[1] == table and info.type == pafs.FileType.File:
                path = f"{RESULTS}/{info.base_name}"
                try:
                    found.append(_opened(root, table, path, info.size))
                except FileNotFoundError:
                    gone = True  # another process has joined it with other files
                except Damaged:
                    remove(root, path)
                except (OSError, StoreError):
                    continue  # it may be readable for others
        if not gone:
            break
    return sorted(found, key=lambda piece: (-len(piece.files), piece.path))


def _opened(root: str, table: str, path: str, size: int) -> Piece:
    fs, base = open_folder(root)
    mapped = None
    if isinstance(fs, pafs.LocalFileSystem) and size and is_on_disk(f"{base}/{path}"):
        with open(f"{base}/{path}", "rb") as plain:
            mapped = mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_COPY)
    with reading(root, path), fs.open_input_file(f"{base}/{path}") as file:
        tail = file.read_at(min(size, 2**20), max(0, size - 2**20))
        length, check, mark = END.unpack(tail[-END.size :])
        if mark != MARK or length + END.size > size:
            raise ValueError("it does not end as it should")
        if length + END.size > len(tail):
            tail = file.read_at(length + END.size, size - length - END.size)
        text = tail[len(tail) - END.size - length : -END.size]
        if zlib.crc32(text) != check:
            raise ValueError("the checksum of its index differs")
        about: dict[str, Any] = json.loads(text)
        if about["format"] != FORMAT or about["types"] != _types(table):
            raise ValueError("it has the columns of another version")
        files = {name: (mark, rows) for name, (mark, rows) in about["files"].items()}
        index = {name: tuple(where) for name, where in about["columns"].items()}
        return Piece(root, table, path, files, index, mapped)


def remove(root: str, path: str) -> None:
    """Delete a merged file if possible; another process may delete it at the same time.

    Only hidden files among the results are ever deleted.
    """
    if path.startswith(f"{RESULTS}/."):
        with suppress(OSError, StoreError):
            delete(root, path)


def sweep_up(root: str, table: str) -> None:
    """Delete half-written files of killed processes, and files of earlier versions."""
    remove(root, f"{RESULTS}/.{table}.arrow")
    for info in infos(root, RESULTS, hidden=True):
        begun = info.base_name.startswith(f"..{table}.") and ".merged." in info.base_name
        if begun and info.mtime_ns < (time.time() - ABANDONED) * 1e9:
            remove(root, f"{RESULTS}/{info.base_name}")


def is_on_disk(path: str) -> bool:
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
