"""Small sweeps that tests run for real, in this process, and copies of finished ones."""

import io
import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from unittest import mock

from mlflow.tracking import MlflowClient
from rich.console import Console

from scoring import places
from tune_jobs import cli, folder, service, sweep

SWEEP = """
dataset: digits
layers: fully_connected
network: [plain, resnet]
gamma: 1e-3
epochs: 2
points: 60
epoch_points: 40
"""


class Run:
    """A sweep file and its folder, to run more than once.

    Args:
        path: where they are.
        source: path of another Run, whose folder is copied.
    """

    def __init__(self, path: Path, source: Path | None = None):
        self.file, self.root = path / "tiny.yaml", str(path / "out")
        self.output = io.StringIO()
        if source is None:
            add_database(self.root)
        else:
            copy_sweep(f"{source}/out", self.root)

    def __call__(self, text: str = SWEEP, *settings: str) -> folder.State:
        self.file.write_text(text)
        request = service.check(sweep.read(str(self.file), settings), self.root, None, None)
        return service.run(request, Console(file=self.output, width=120))


def geosweep(*words: str) -> tuple[int, str]:
    """Call the command line in this process, which uses its Ray; exit status and output."""
    output = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["geosweep", *words]),
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), output.getvalue()
    return 0, output.getvalue()


def add_database(root: str) -> None:
    """Put an empty MLflow database into a folder, because creating one takes seconds."""
    Path(root).mkdir(parents=True, exist_ok=True)
    if not Path(root, places.MLFLOW).exists():
        shutil.copy(_database(), Path(root, places.MLFLOW))


@cache
def _database() -> Path:
    """An MLflow database with all its tables and no runs."""
    file = Path(tempfile.mkdtemp(dir=os.environ["GEOSWEEP_CACHE"]), places.MLFLOW)
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


def copy_sweep(source: str, target: str) -> None:
    """Copy a sweep's folder, as if it had been run in the new place.

    MLflow stores absolute paths: of its files, and of the sweep's folder in a tag.
    """
    shutil.copytree(source, target, dirs_exist_ok=True)
    note = Path(target, places.MLFLOW_NOTE)
    note.write_text(note.read_text().replace(source, target))
    columns = [("experiments", "artifact_location"), ("runs", "artifact_uri"), ("tags", "value")]
    with closing(sqlite3.connect(Path(target, places.MLFLOW))) as database, database:
        for table, column in columns:
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (source, target)
            )
