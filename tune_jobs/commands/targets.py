"""Folders that a command may not write to: those in which a sweep keeps its files."""

import re
from pathlib import Path

from scoring import places, storage
from scoring.places import argument
from tune_jobs.errors import SweepError

ONE_SLASH = re.compile(r"(s3|gs|gcs)(:/)(?!/)")


def check_uri(text: str) -> None:
    """Refuse ``s3:/bucket/x``, which would be a folder of this machine.

    Raises:
        SweepError: the message has the URI with two slashes.
    """
    if ONE_SLASH.match(text):
        right = ONE_SLASH.sub(r"\1://", text, count=1)
        raise SweepError(f"{text}: a URI has two slashes: {right}; a folder here would be ./{text}")


def refuse_inner(root: str) -> None:
    """Refuse a folder in another sweep's folder in which that sweep keeps its files.

    Args:
        root: to write to, an absolute path or a URI, of which only the folder above is looked at.

    Raises:
        SweepError: it is one; the message names another folder.
    """
    above = [root.rpartition("/")[0]] if "://" in root else map(str, Path(root).parents)
    for sweep in above:
        inner = root.removeprefix(sweep).strip("/").partition("/")[0]
        if inner in places.FOLDERS and storage.read_file(sweep, places.SWEEP) is not None:
            raise SweepError(
                f"--out {root}: the sweep in {sweep} keeps its {inner} there; name another folder, "
                f"like --out {argument(f'{sweep}-2')}"
            )


def refuse_sweep(root: str) -> None:
    """Refuse a sweep's folder, and folders in it in which the sweep keeps its files.

    Args:
        root: to write to, an absolute path or a URI.

    Raises:
        SweepError: it is one; the message names another folder.
    """
    refuse_inner(root)
    if storage.read_file(root, places.SWEEP) is not None:
        raise SweepError(
            f"--out {root}: is a sweep's folder; name another one, like "
            f"--out {argument(f'{root}/probe')}"
        )
