"""Folders of sweeps on a cluster, as all of its nodes see them: whole paths and URIs."""

import re

from models.messages import plain
from scoring.storage import refuse, subfolder
from tune_jobs.errors import SweepError

SCHEMES = ("s3", "gs", "gcs", "hdfs")  # of the stores that all nodes can reach
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
FORM = "an absolute path or a URI like s3://bucket/sweeps/demo"


def whole(folder: str) -> str:
    """A folder that is the same on every node: an absolute path, or a URI of an object store.

    >>> whole("/mnt/sweeps/demo/"), whole("s3://bucket/demo")
    ('/mnt/sweeps/demo', 's3://bucket/demo')

    Raises:
        ValueError: it is not one; the message says what it should be.
    """
    refuse(folder)
    kind, is_uri, path = folder.partition("://")
    if is_uri and (kind not in SCHEMES or not re.match(r"[^/\s]", path)):
        raise ValueError(f"should be {FORM} (with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]})")
    if not is_uri and not folder.startswith("/"):
        raise ValueError(f"should be {FORM}")
    if {".", ".."} & {*folder.split("/")}:
        raise ValueError("should have no . or .. in its path")
    return folder.rstrip("/") or "/"


def noted(folder: str) -> str:
    """A folder as a job notes it, unchanged. Older versions noted some that :func:`whole` refuses.

    >>> noted("/mnt/./sweeps/demo")
    '/mnt/./sweeps/demo'

    Raises:
        ValueError: it is no absolute path or URI, or one of this machine, or has .. in its path.
    """
    if not re.match(r"/|(?!file:)[a-z][a-z0-9+.-]*://[^/]", folder):
        raise ValueError(f"should be {FORM}")
    if ".." in folder.split("/"):
        raise ValueError("should have no .. in its path")
    return folder


def storage(folder: str) -> str:
    """The storage of a cluster, which is a whole folder without anything that a shell replaces.

    Raises:
        ValueError: it is not one; the message says what it should be.
    """
    if found := re.search(r"[$`]", folder):
        raise ValueError(f"should be {FORM}, without {found[0]}")
    return whole(folder)


def within(storage: str, out: str | None, name: str, option: str = "--out ") -> str:
    """A sweep's folder on a cluster.

    Args:
        storage: from :func:`storage`.
        out: an absolute path or URI, which is used as it is, or a name within the storage.
        name: of the sweep; used if there is no ``out``, or an empty one.
        option: how a message names ``out``.

    Raises:
        SweepError: ``out`` is none of these, or leads out of the storage.
    """
    if not out:
        return whole(subfolder(storage, name))
    try:
        if is_whole(out):
            found = whole(out)
            if not out.strip("/"):
                raise ValueError(f"should be the folder of one sweep: {FORM}, or a name")
            return found
        if URI.match(out):
            raise ValueError(f"should be {FORM}, or a name within the storage")
        return whole(subfolder(storage, out.strip("/")))
    except ValueError as error:
        raise SweepError(f"{option}{plain(out)}: {error}") from None


def is_whole(out: str | None) -> bool:
    """Whether a text should be a whole folder, and not a name in the storage."""
    return out is not None and ("://" in out or out.startswith("/"))
