"""Where a report or figures may be written: not over a sweep's own files, nor those of others."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from analysis.errors import ResultsError
from scoring import places, storage

PAGE = "index.html"
OURS = b": geosweep report</title>"  # in every report's page since the first version
KEPT = {*places.FOLDERS} - {places.REPORT}


def is_folder(root: str) -> bool:
    """Whether the folder exists. In an object store, only a folder with files exists."""
    try:
        fs, base = storage.open_folder(root)
        return fs.get_file_info(base).type == pafs.FileType.Directory
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ResultsError(f"{root}: cannot be opened: {error}") from error


def refuse_sweep(folder: str) -> None:
    """Refuse a sweep's folder, and the folders in it that hold its files, as a place to write to.

    Args:
        folder: as a user names it: a path, or a URI, of which only the folder itself is looked at.

    Raises:
        ResultsError: it is one; the message names another folder.
    """
    path = Path(storage.open_folder(folder)[1]).absolute() if storage.is_local(folder) else None
    for above in (path, *path.parents) if path else (folder,):
        inner = path.relative_to(above).parts[:1] if path else ()
        if KEPT.issuperset(inner) and storage.read_file(str(above), places.SWEEP) is not None:
            other = places.argument(f"{str(above).rstrip('/')}/my-report")
            raise ResultsError(
                f"--out {folder}: belongs to a sweep; name another folder, like {other}"
            )


def refuse_others(folder: str, names: Iterable[str] = ()) -> None:
    """Refuse to replace files that are not of a report: some have names that a report has, too.

    Args:
        folder: path or URI of the folder to write a report to.
        names: of the report's files besides its page.

    Raises:
        ResultsError: there is such a file, and no page of a report beside it.
    """
    there = {info.base_name for info in storage.infos(folder, "") if info.is_file}
    page = storage.read_file(folder, PAGE) if PAGE in there else b""
    taken = sorted(there & {PAGE, *names})
    if taken and OURS not in (page or b""):
        raise ResultsError(
            f"--out {folder}: {taken[0]} there is not of a geosweep report; name another folder, "
            "or move that file away"
        )
