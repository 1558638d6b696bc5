"""Write what a probe found: JSON, Parquet, figures."""

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.probing.result import ProbeResult
from scoring.storage import write_file
from tune_jobs import processes
from tune_jobs.errors import SweepError
from tune_jobs.labels import last_line

FILE = "probe.json"


def write(root: str, about: Mapping[str, Any], results: Mapping[str, ProbeResult]) -> list[str]:
    """Write ``probe.json``, ``stages.parquet``, ``blocks.parquet`` and the figures.

    Args:
        root: path or URI of the folder.
        about: what was probed.
        results: by the name of the weights.

    Returns:
        Names of the files.

    Raises:
        SweepError: the figures could not be drawn; the rest is written.
    """
    content = {
        **about,
        "results": {
            name: result.to_dict() | {"tracks": [_track(stage) for stage in result.stages]}
            for name, result in results.items()
        },
    }
    write_file(root, FILE, json.dumps(_plain(content), indent=1).encode())
    for name in ("stages", "blocks"):
        rows = [
            {"weights": weights, **row}
            for weights, result in results.items()
            for row in (result.rows() if name == "stages" else result.blocks())
        ]
        names = dict.fromkeys(column for row in rows for column in row)  # some rows lack some
        columns = {column: [row.get(column) for row in rows] for column in names}
        stream = io.BytesIO()
        pq.write_table(pa.table(columns), stream)
        write_file(root, f"{name}.parquet", stream.getvalue())
    return [FILE, "stages.parquet", "blocks.parquet", *draw(root)]


def draw(root: str) -> list[str]:
    """Draw the figures of a folder with ``probe.json``; their names."""
    done = processes.run("-m", "analysis.probe", "--", root)
    if done.returncode:
        reason = last_line(done.stderr) if done.stderr.strip() else f"status {done.returncode}"
        raise SweepError(f"figures: {reason}; the numbers are in {root}")
    return done.stdout.split()


def _track(stage: Any) -> list[Any]:
    """Tracks of the first points in two dimensions, (n + 1, points, 2), with five digits."""
    projected = stage.points.projected
    return (
        [] if projected is None else np.vectorize(lambda v: float(f"{v:.5g}"))(projected).tolist()
    )


def _plain(value: Any) -> Any:
    """Values that JSON has: None where a number is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
