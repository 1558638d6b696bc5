"""Turns a finished sweep into one of an earlier version, which had fewer scores."""

from pathlib import Path

import pyarrow.parquet as pq

from scoring import checked, places, schemas
from scoring.storage import read_file, write_file

LATER = ("scaled", "_drift", "relative_energy", "curvature", "spacing", "fuzziness", "nc1")
LATER += ("effective_rank", "participation", "geodesic", "_factor", "shuffled", "transport_share")
LATER += ("shift",)


def is_later(column: str) -> bool:
    """Whether an earlier version did not have a column."""
    return column == "drift" or any(part in column for part in LATER)


def make_older(root: str) -> None:
    """Remove the later columns from all files of a sweep's folder."""
    for table in schemas.TABLES:
        for file in Path(root, places.table_folder(table)).glob("*.parquet"):
            content = pq.read_table(file)
            pq.write_table(
                content.drop_columns([n for n in content.column_names if is_later(n)]), file
            )
    for file in Path(root, places.CHECKPOINTS).glob("*.json"):
        trial = places.history(file.stem)
        history = checked.load(read_file(root, trial) or b"")
        for part in ("epochs", "tracks"):
            history[part] = [
                {name: value for name, value in row.items() if not is_later(name)}
                for row in history[part]
            ]
        write_file(root, trial, checked.dump(history))
