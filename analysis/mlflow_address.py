"""Checks an address of MLflow before MLflow opens it, which would create what is not there."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from analysis.errors import ResultsError
from scoring import places

OPTION = "--mlflow, --tracking-uri or MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
OTHERS = ("databricks", "databricks-uc", "uc")  # addresses that are no folders


def check_address(uri: str) -> None:
    """Check that a database or folder of MLflow is on this machine; servers are not asked.

    Args:
        uri: MLflow's address.

    Raises:
        ResultsError: it is not there, or is something else.
    """
    what = f"MLflow at {places.redact(uri)} ({OPTION})"
    scheme = urlsplit(uri).scheme
    if uri.startswith(SQLITE):
        path = Path(unquote(uri.removeprefix(SQLITE).partition("?")[0]))
        if not path.is_file():
            raise ResultsError(f"{what}: no such file; give the address of an MLflow database")
        try:
            address = f"{path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=10)) as database:
                query = "SELECT 1 FROM sqlite_master WHERE name = 'experiments'"
                there = database.execute(query).fetchone()
        except sqlite3.Error as error:
            raise ResultsError(f"{what}: cannot be read as a database: {error}") from error
        if not there:
            raise ResultsError(f"{what}: not a database of MLflow; it has no experiments")
    elif scheme in ("", "file") and uri not in OTHERS:
        path = Path(unquote(urlsplit(uri).path) if scheme else uri)
        if not path.is_dir():
            raise ResultsError(
                f"{what}: no such folder; an address is like {SQLITE}runs/demo/mlflow.db or "
                "http://127.0.0.1:5000"
            )
