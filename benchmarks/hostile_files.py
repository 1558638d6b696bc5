"""Data files, paths, folders and environments for ``hostile_inputs.py``."""

import io
import json
import os
import socket
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scoring import places

Make = Callable[[Path], object]
COUNT = 40  # images of a split
LABELS = np.arange(COUNT) % 4


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Random uint8 images."""
    return np.random.default_rng(seed).integers(0, 256, (COUNT, *shape), dtype=np.uint8)


def ordinary(*shape: int) -> dict[str, np.ndarray]:
    """The four arrays of a data set that can be trained on."""
    x = images(*(shape or (8, 8)))
    return {"x_train": x, "y_train": LABELS, "x_test": x, "y_test": LABELS}


def npz(**changes: Any) -> Make:
    """An .npz file with some arrays changed; ``x`` and ``y`` stand for those of both splits."""
    arrays: dict[str, Any] = ordinary()
    for name, value in changes.items():
        keys = [f"{name}_train", f"{name}_test"] if name in "xy" else [name]
        arrays |= dict.fromkeys(keys, value)
    return lambda path: np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def npy(array: np.ndarray) -> bytes:
    """The bytes of an .npy file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def header(dtype: str, shape: tuple[int, ...], rest: bytes = b"") -> bytes:
    """An .npy file whose header says this, whatever follows."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return content.getvalue() + rest


def archive(members: Mapping[str, bytes], *more: tuple[str, bytes]) -> Make:
    """A zip file of these members, in this order."""

    def make(path: Path) -> None:
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            warnings.simplefilter("ignore")  # zipfile's, about a name given twice
            for name, content in (*members.items(), *more):
                file.writestr(name, content)

    return make


def members(**changes: bytes) -> dict[str, bytes]:
    """The members of an ordinary archive, some of them changed."""
    return {
        f"{k}.npy": v for k, v in ({k: npy(v) for k, v in ordinary().items()} | changes).items()
    }


def edited(edit: Callable[[bytes], bytes]) -> Make:
    """An ordinary archive with other bytes."""

    def make(path: Path) -> None:
        content = io.BytesIO()
        np.savez(content, **ordinary())  # type: ignore[arg-type]
        path.write_bytes(edit(content.getvalue()))

    return make


def sized(rows: int) -> Make:
    """An archive that claims so many images, and has none of them."""

    def make(path: Path) -> None:
        labels = npy(np.arange(rows) % 4)
        archive(members(x_train=header("|u1", (rows, 32, 32, 3)), y_train=labels))(path)
        content = bytearray(path.read_bytes())
        at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"x_train.npy"))
        size = struct.unpack_from("<I", content, at + 24)[0] + rows * 3072
        struct.pack_into("<I", content, at + 24, min(size, 2**32 - 2))
        path.write_bytes(content)

    return make


def pipe(path: Path) -> None:
    """A named pipe that nobody writes to."""
    os.mkfifo(path)


def listening(path: Path) -> None:
    """A socket."""
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket has at most 108 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def link(goal: str) -> Make:
    """A link to this."""
    return lambda path: path.symlink_to(goal)


KINDS: dict[str, Make] = {
    "a named pipe": pipe,
    "a socket": listening,
    "a folder": lambda path: path.mkdir(),
    "a device": link("/dev/zero"),
    "a terminal": link("/dev/tty"),
    "a link to nowhere": link("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a pipe": lambda path: (os.mkfifo(path.parent / "pipe"), path.symlink_to("pipe")),
}

REFUSED: dict[str, Make] = {
    **KINDS,
    "no file": lambda path: None,
    "nothing": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "a page": lambda path: path.write_bytes(b"<!DOCTYPE html><html>404</html>"),
    "a pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR."),
    "one array": lambda path: path.write_bytes(npy(images(8, 8))),
    "an empty archive": archive({}),
    "half an archive": edited(lambda content: content[: len(content) // 2]),
    "an archive without its end": edited(lambda content: content[:-30]),
    "an archive with a changed byte": edited(
        lambda content: content[:500] + bytes([content[500] ^ 255]) + content[501:]
    ),
    "an archive of zeros within": edited(
        lambda content: content[:1000] + bytes(2000) + content[3000:]
    ),
    "an array less": npz(y_test=None),
    "other names": archive({k.replace("x_", "images_"): v for k, v in members().items()}),
    "names in a folder": archive({f"mine/{k}": v for k, v in members().items()}),
    "names in capitals": archive({k.upper(): v for k, v in members().items()}),
    "a member twice": archive(members(), ("x_train.npy", npy(images(8, 8, seed=1)))),
    "a member with and without .npy": archive(members(), ("y_test", npy(LABELS))),
    "500 other members": archive({f"{'m' * 1000}{i}.npy": b"" for i in range(500)}),
    "text for an array": archive(members(x_train=b"1 2 3")),
    "a header alone": archive(members(x_train=header("|u1", (COUNT, 8, 8)))),
    "a header of 2^60 images": archive(members(x_train=header("|u1", (2**60, 8, 8)))),
    "a header of negative size": archive(members(x_train=header("|u1", (-1, 8, 8)))),
    "bytes after an array": archive(members(y_test=npy(LABELS) + b"more")),
    "an unknown version": archive(members(x_train=b"\x93NUMPY\x09\x00" + bytes(100))),
    "a long header": archive(
        members(x_train=b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**6) + b" " * 10**6)
    ),
    "a header with code": archive(
        members(
            x_train=b"\x93NUMPY\x01\x00" + struct.pack("<H", 30) + b"__import__('os')".ljust(30)
        )
    ),
    "4 GB of zeros in 18 MB": sized(1_300_000),
    "objects": npz(x=np.array([{}] * COUNT)),
    "objects for labels": npz(y=np.array([None] * COUNT)),
    "records": npz(x=np.zeros((COUNT, 8, 8), dtype=[("a" * 5000, "u1"), ("b", "f4")])),
    "fractions from 0 to 1": npz(x=images(8, 8) / 255),
    "float32": npz(x=images(8, 8).astype(np.float32)),
    "half precision": npz(x=images(8, 8).astype(np.float16)),
    "NaN": npz(x=np.full((COUNT, 8, 8), np.nan)),
    "int64 images": npz(x=images(8, 8).astype(np.int64)),
    "int8 images": npz(x=images(8, 8).astype(np.int8)),
    "booleans for images": npz(x=images(8, 8) > 99),
    "text for images": npz(x=np.full((COUNT, 8, 8), "a")),
    "dates for images": npz(x=np.zeros((COUNT, 8, 8), "<M8[s]")),
    "complex images": npz(x=np.zeros((COUNT, 8, 8), complex)),
    "flat images": npz(x=images(64)),
    "images of four axes": npz(x=images(2, 8, 8, 1)),
    "a number for images": npz(x=np.uint8(3)),
    "no images": npz(x=images(8, 8)[:0], y=LABELS[:0]),
    "images of no height": npz(x=images(0, 8)),
    "images of no channels": npz(x=images(8, 8, 0)),
    "channels first": npz(x=images(3, 32, 32)),
    "one channel first": npz(x=images(1, 28, 28)),
    "channels first in the test split": npz(x_test=images(3, 8, 8), x_train=images(8, 8, 3)),
    "two sizes": npz(x_test=images(9, 8)),
    "two numbers of channels": npz(x_test=images(8, 8, 3)),
    "huge images": npz(x=np.zeros((4, 2049, 2049), np.uint8), y=np.arange(4) % 2),
    "fewer labels": npz(y_train=LABELS[:9]),
    "more labels": npz(y_test=np.arange(COUNT + 1) % 4),
    "labels in a column": npz(y=LABELS[:, None]),
    "one-hot labels": npz(y=np.eye(4, dtype=int)[LABELS]),
    "labels with fractions": npz(y=LABELS + 0.5),
    "whole labels as floats": npz(y=LABELS.astype(float)),
    "NaN for a label": npz(y=np.where(LABELS == 3, np.nan, LABELS)),
    "booleans for labels": npz(y=LABELS > 1),
    "words for labels": npz(y=np.array(["cat", "dog"] * (COUNT // 2))),
    "durations for labels": npz(y=LABELS.astype("<m8[s]")),
    "negative labels": npz(y=LABELS - 1),
    "labels of 2^62": npz(y=LABELS + 2**62),
    "labels above 2^63": npz(y=LABELS.astype(np.uint64) + np.uint64(2**63)),
    "the largest uint64": npz(y_train=np.full(COUNT, 2**64 - 1, np.uint64)),
    "10^9 classes": npz(y=LABELS * 3 * 10**8),
    "100,001 classes": npz(y=np.where(LABELS == 3, 100_000, LABELS)),
    "labels that were not trained on": npz(y_test=LABELS + 1),
    "too few test images": npz(x_test=images(8, 8)[:3], y_test=LABELS[:3]),
}


ACCEPTED: dict[str, Make] = {
    "grey images": npz(),
    "a channel": npz(x=images(8, 8, 1)),
    "two channels": npz(x=images(8, 8, 2)),
    "colours": npz(x=images(8, 8, 3)),
    "four channels": npz(x=images(8, 8, 4)),
    "one pixel": npz(x=images(1, 1)),
    "Fortran order": npz(x=np.asfortranarray(images(8, 8, 3))),
    "a view": npz(x=images(16, 16)[:, ::2, ::-2]),
    "big-endian labels": npz(y=LABELS.astype(">i8")),
    "uint64 labels": npz(y=LABELS.astype(np.uint64)),
    "small labels": npz(y=LABELS.astype(np.int8)),
    "labels with gaps": npz(y=LABELS * 20),
    "black images": npz(x=images(8, 8) * 0),
    "one class": npz(y=LABELS * 0),
    "other arrays beside": npz(names=np.array(["a", "b"]), more=np.zeros(3)),
    "a compressed archive": lambda path: np.savez_compressed(path, **ordinary()),
    "names without .npy": archive({k.removesuffix(".npy"): v for k, v in members().items()}),
    "a link to a file": lambda path: (npz()(path.parent / "b.npz"), path.symlink_to("b.npz")),
    "sorted by class": npz(y=np.sort(LABELS)),
}


def _as_sweep(make: Make, work: Path) -> object:
    return make(work / "sweep.yaml")


REFUSED_PATHS: dict[str, Make] = {
    f"{name} for a sweep file": partial(_as_sweep, make) for name, make in KINDS.items()
}
PATHS: dict[str, Make] = {
    "a link to a sweep file": lambda work: (
        (work / "other.yaml").write_text("epochs: 1"),
        (work / "sweep.yaml").symlink_to("other.yaml"),
    ),
    "a sweep file that is read-only": lambda work: (
        (work / "sweep.yaml").write_text("epochs: 1"),
        (work / "sweep.yaml").chmod(0o400),
    ),
}


def in_folder(path: str, content: bytes | None) -> Make:
    """A file in the folder of a sweep, or a folder for one."""

    def make(work: Path) -> None:
        place = work / "runs/demo" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir() if content is None else place.write_bytes(content)

    return make


REFUSED_FOLDERS: dict[str, Make] = {
    "a torn sweep.json": in_folder("sweep.json", b'{"name": '),
    "a sweep.json of zeros": in_folder("sweep.json", bytes(100)),
    "an empty sweep.json": in_folder("sweep.json", b""),
    "a list in sweep.json": in_folder("sweep.json", b"[1, 2]"),
    "a number in sweep.json": in_folder("sweep.json", b"3"),
    "no fields in sweep.json": in_folder("sweep.json", b"{}"),
    "a word for trials in sweep.json": in_folder("sweep.json", b'{"trials": "all"}'),
    "unknown trials in sweep.json": in_folder("sweep.json", b'{"trials": [{"gama": 1}]}'),
    "a deep sweep.json": in_folder("sweep.json", b"[" * 100_000),
    "a sweep.json that is not UTF-8": in_folder("sweep.json", b'{"name": "\xff"}'),
    "a folder for sweep.json": in_folder("sweep.json", None),
    "text for a table": in_folder("results/trials/x.parquet", b"mine"),
    "zeros for a table": in_folder("results/trials/x.parquet", bytes(1000)),
    "a folder for a table": in_folder("results/trials/x.parquet", None),
    "a file for the checkpoints": in_folder("checkpoints", b"mine"),
    "a file for a table's folder": in_folder("results/trials", b"mine"),
}
FOLDERS: dict[str, Make] = {
    "an empty folder": lambda work: (work / "runs/demo").mkdir(parents=True),
    "no trials in sweep.json": in_folder(
        "sweep.json", json.dumps({"name": "demo", "trials": [], "extra": []}).encode()
    ),
    "a file for the tables": in_folder("results", b"mine"),
    **{
        f"a file for {name}": in_folder(name, b"mine")
        for name in places.FOLDERS
        if name not in (places.RESULTS, places.CHECKPOINTS)
    },
    **{
        f"a folder for {name}": in_folder(name, None)
        for name in places.FILES
        if name != places.SWEEP
    },
    "other files": in_folder("notes.txt", b"mine"),
}

ENVIRONMENTS: dict[str, tuple[bool, dict[str, str]]] = {
    "a cache that is a file": (False, {"GEOSWEEP_CACHE": "/dev/null"}),
    "a cache of 5,000 letters": (False, {"GEOSWEEP_CACHE": "/" + "c" * 5000}),
    "a cache below a file": (False, {"GEOSWEEP_CACHE": "/dev/null/cache"}),
    "an empty cache": (True, {"GEOSWEEP_CACHE": "$ROOT/cache/other"}),
    "an empty name for the cache": (True, {"GEOSWEEP_CACHE": "", "HOME": "$ROOT/cache"}),
    "no data folder": (True, {"GEOSWEEP_DATA": "$ROOT/nowhere"}),
    "a data folder that is a file": (True, {"GEOSWEEP_DATA": "/dev/null"}),
    "a data folder of 5,000 letters": (True, {"GEOSWEEP_DATA": "/" + "d" * 5000}),
    "a home of nobody": (True, {"GEOSWEEP_DATA": "~nobody/data"}),
    "another storage": (True, {"GEOSWEEP_STORAGE": "$ROOT/storage"}),
    "another language": (True, {"LC_ALL": "C", "LANG": "C"}),
}
