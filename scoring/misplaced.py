"""Files in the place of folders, and folders in the place of files, in a sweep's folder."""

from pyarrow.fs import FileType

from scoring import places, storage


def misplaced(root: str) -> list[str]:
    """Paths in a sweep's folder that are of the wrong kind.

    Files that :mod:`scoring.places` does not know, such as a user's notes, are never listed. The
    files of tables and of trained trials are not listed either. A damaged one affects more than
    itself, so :func:`scoring.tables.broken_files` and :func:`scoring.handover.check` find them.
    """
    found, folders = [], [""]
    for folder in folders:  # grows while it is read
        for info in storage.infos(root, folder, hidden=True):
            path = f"{folder}/{info.base_name}".lstrip("/")
            should = places.is_folder(path)
            if should is not None and should != (info.type == FileType.Directory):
                found.append(path)
            elif should and not folder and path not in places.FREE:
                folders.append(path)
    return sorted(found)


def set_all_aside(root: str) -> list[str]:
    """Set aside what is :func:`misplaced`, and return a line about each.

    A folder in the place of ``sweep.json`` stays, because reading that file raises an error.
    """
    lines = []
    for path in misplaced(root):
        if path != places.SWEEP:
            kind = "file" if places.is_folder(path) else "folder"
            moved = storage.set_aside(root, path)
            lines.append(f"{path}: torn: a {kind} is in its place; it is in {moved} now")
    return lines
