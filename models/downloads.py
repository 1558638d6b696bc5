"""Files that torchvision has downloaded and unpacked.

torchvision compares the CIFAR files with their checksums. Of the MNIST files it only checks that
they exist, so a file that was later truncated or filled with zeros fails when it is read. This
module deletes such files, and torchvision then unpacks or downloads them again.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable
from math import prod
from pathlib import Path

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
COUNTS = {"train": 60_000, "t10k": 10_000}
IMAGE = (28, 28)


def delete_damaged(root: Path, name: str, resources: Iterable[tuple[str, str]]) -> list[Path]:
    """Delete the damaged ones among the unpacked files of a data set.

    Args:
        root: torchvision's folder.
        name: the name of the data set.
        resources: file names and MD5 sums of its archives, as torchvision lists them.

    Returns:
        The files that were deleted.
    """
    if name not in FOLDERS:
        return []
    sums = dict(resources)
    damaged = []
    for split, count in COUNTS.items():
        for kind, shape in (("images-idx3", (count, *IMAGE)), ("labels-idx1", (count,))):
            path = root / FOLDERS[name] / "raw" / f"{split}-{kind}-ubyte"
            archive = path.with_name(f"{path.name}.gz")
            if path.is_file() and not _is_whole(path, shape, archive, sums.get(archive.name)):
                path.unlink()
                damaged.append(path)
    return damaged


def _is_whole(path: Path, shape: tuple[int, ...], archive: Path, md5: str | None) -> bool:
    content = path.read_bytes()
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    if not content.startswith(header) or len(content) != len(header) + prod(shape):
        return False
    packed = archive.read_bytes() if archive.is_file() else b""
    if md5 is None or hashlib.md5(packed, usedforsecurity=False).hexdigest() != md5:
        return True  # without an intact archive there is no checksum to compare with
    checksum, _ = struct.unpack("<II", packed[-8:])  # the end of a gzip file: CRC-32 and size
    return zlib.crc32(content) == checksum
