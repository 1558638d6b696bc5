"""Locates a sweep's MLflow data and finds its runs there.

By default the data is a database in the sweep's own folder. If the folder is moved or copied, its
database is updated to the new location when it is next opened. The original is left alone.
"""

import json
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from models.datasets import cache_folder
from models.messages import MOST_NAME, plain
from scoring import places, storage
from scoring.places import redact
from tune_jobs import processes
from tune_jobs.errors import SweepError
from tune_jobs.labels import last_line

SWEEP_TAG = "geosweep.sweep"  # tag of a sweep's parent run; its value is the sweep's folder
ID_TAG = "geosweep.id"  # tells folders with the same path apart, on machines that share a server
SQLITE = "sqlite:///"


def tracking_uri(root: str) -> str:
    """``MLFLOW_TRACKING_URI`` if it is set, else a SQLite file in the sweep's folder.

    A database cannot live in an object store. If the sweep's folder is in one, the database is on
    this machine, below the cache folder. On another machine ``geosweep sync`` creates it again
    from the results.
    """
    if own := os.environ.get("MLFLOW_TRACKING_URI"):
        return own
    return _address(here(root) / places.MLFLOW)


def _address(path: Path) -> str:
    return SQLITE + str(path).replace("%", "%25").replace("?", "%3F")  # SQLAlchemy decodes them


def here(root: str) -> Path:
    """The sweep's folder if it is on this machine, else a folder below the cache folder."""
    if storage.is_local(root):
        return Path(storage.open_folder(root)[1])
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in root)
    return cache_folder() / "mlflow" / f"{name}-{sha256(root.encode()).hexdigest()[:8]}"


def is_there(uri: str) -> bool:
    """Whether MLflow's SQLite database exists; True for any other kind of address."""
    return not uri.startswith(SQLITE) or Path(unquote(uri.removeprefix(SQLITE))).exists()


def opt_out() -> None:
    """Opt out of the usage statistics that MLflow and other packages send.

    Call this before MLflow is imported, because it reads these variables then.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")


def open_client(root: str, say: Callable[[str], None] = lambda line: None) -> Any:
    """Open MLflow's client for a sweep, with a database that points at the sweep's folder.

    Args:
        root: the sweep's folder.
        say: called with a line about a database that was set aside.
    """
    opt_out()
    from mlflow.tracking import MlflowClient

    uri, folder = tracking_uri(root), here(root)
    if not storage.is_local(root):
        folder.mkdir(parents=True, exist_ok=True)
    is_new = not adopt(root, say)
    # MLflow creates the database's folder under its still encoded name; delete what it created.
    stray = Path(uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else folder
    new = [place for place in (stray, *stray.parents) if not place.exists()]
    try:
        if is_new:
            _create(folder / places.MLFLOW)
        client = MlflowClient(uri)
        client.get_experiment("0")
    finally:
        for place in new:
            with suppress(OSError):
                place.rmdir()
    return client


def prepare(root: str) -> None:
    """Load MLflow, and create the database of a sweep that has none. Both take seconds.

    Raises:
        Exception: whatever MLflow raises; :func:`open_client` raises it again.
    """
    opt_out()
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    if not is_there(tracking_uri(root)):
        open_client(root)


def _create(path: Path) -> None:
    """Create an MLflow database, which appears when it is complete.

    MLflow makes its tables in many steps, and cannot go on if a kill or a full disk interrupts it.
    """
    from mlflow.tracking import MlflowClient

    hidden = f".{path.name}."
    for left in path.parent.glob(f"{hidden}*"):  # by a process that was killed
        left.unlink(missing_ok=True)
    made = path.with_name(f"{hidden}{uuid.uuid4().hex}")
    try:
        MlflowClient(_address(made)).get_experiment("0")
        made.replace(path)
    except BaseException:
        for left in path.parent.glob(f"{hidden}*"):  # SQLite adds a journal
            left.unlink(missing_ok=True)
        raise


def adopt(root: str, say: Callable[[str], None] = lambda line: None) -> bool:
    """Point the database in a sweep's folder at that folder, after a move or a copy.

    A file that is not a database is set aside, and so is one that an earlier version left half
    made. Everything is then logged to MLflow again.

    Args:
        root: the sweep's folder.
        say: called with a line about what was set aside.

    Returns:
        Whether there is a database with tables now, or a server instead.
    """
    path = here(root) / places.MLFLOW
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return True
    if not path.exists():
        return False
    why = "a folder is in its place"
    try:
        with closing(sqlite3.connect(path, timeout=10)) as database, database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if not tables:
                return False
            # The first experiment is the last thing that MLflow adds to a new database.
            if "runs" in tables and database.execute("SELECT 1 FROM experiments").fetchone():
                _point_at(database, (path.parent / places.ARTIFACTS).as_uri())
                return True
            why = "it was left half made"
    except sqlite3.OperationalError as error:
        if not path.is_dir() and "no such table" not in str(error):
            closed = any(word in str(error) for word in ("readonly", "unable to open"))
            fix = "make it writable, or copy the folder" if closed else "then try again"
            raise SweepError(f"{path}: cannot be used: {error}; {fix}") from None
        why = why if path.is_dir() else "it was left half made"
    except sqlite3.DatabaseError as error:
        why = str(error)
    moved = storage.set_aside(str(path.parent), places.MLFLOW)
    say(f"{path}: torn: {why}; it is in {moved} now, and MLflow gets everything again")
    return False


def _point_at(database: sqlite3.Connection, new: str) -> None:
    moved = database.execute(
        "SELECT experiment_id, artifact_location FROM experiments "
        "WHERE artifact_location LIKE ? AND artifact_location != ?",
        (f"%/{places.ARTIFACTS}", new),
    ).fetchall()
    for experiment, old in moved:
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (new, experiment),
        )
        database.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (new, len(old) + 1, experiment, len(old), old),
        )


@contextmanager
def server(root: str) -> Iterator[tuple[dict[str, str], str | None]]:
    """What MLflow's server of a sweep needs: environment variables, and its current folder.

    The address may hold a password, which does not belong on a command line. A database in the
    sweep's folder is reached through a link in a temporary folder, because the server would create
    a folder wherever a path has a letter that URIs encode.
    """
    uri = tracking_uri(root)
    if os.environ.get("MLFLOW_TRACKING_URI"):
        yield {"MLFLOW_BACKEND_STORE_URI": uri}, None
        return
    with _linked(here(root)) as (address, place):
        files = {"MLFLOW_ARTIFACTS_DESTINATION": (here(root) / places.ARTIFACTS).as_uri()}
        yield files | {"MLFLOW_BACKEND_STORE_URI": address}, place


@contextmanager
def _linked(folder: Path) -> Iterator[tuple[str, str]]:
    """A temporary folder with a link to another, and the address of the database through it."""
    with tempfile.TemporaryDirectory(prefix="geosweep-") as place:
        Path(place, "sweep").symlink_to(folder)
        yield f"{SQLITE}sweep/{places.MLFLOW}", place


def mlflow_runs(root: str) -> dict[str, list[str]]:
    """Ids of the runs in a folder's own database, by experiment, which is the name of a sweep.

    There is one for each sweep of the folder; none if there is no database, or a damaged one.
    """
    path = here(root) / places.MLFLOW
    found: dict[str, list[str]] = {}
    if path.is_file():
        query = "SELECT e.name, run_uuid FROM runs JOIN experiments e USING (experiment_id)"
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path, timeout=10)) as base:
            for name, run in base.execute(query):
                found.setdefault(name, []).append(run)
    return found


def forget(folder: str, experiment: str) -> None:
    """Delete an experiment, with its runs, from the database in a folder; others stay.

    Raises:
        SweepError: MLflow could not do it.
    """
    path = Path(folder, places.MLFLOW)
    number = "SELECT experiment_id FROM experiments WHERE name = ?"
    mark = "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = ?"
    with closing(sqlite3.connect(path, timeout=10)) as database, database:
        ((found,),) = database.execute(number, (experiment,)).fetchall()
        database.execute(mark, (experiment,))  # MLflow deletes for good only what is marked so
    with _linked(path.parent) as (uri, place):
        words = ["gc", "--backend-store-uri", uri, "--tracking-uri", uri]
        words += ["--experiment-ids", str(found)]
        done = processes.run("-m", "mlflow", *words, cwd=place)
    if done.returncode:
        name = plain(experiment)
        raise SweepError(f"{path}: MLflow did not delete {name}: {last_line(done.stderr)}")
    with closing(sqlite3.connect(path, timeout=10)) as database:
        database.execute("VACUUM")  # or the file would stay as large as it is


def read_note(root: str) -> dict[str, Any]:
    """The note in a sweep's folder of what MLflow has; empty if it is missing or damaged."""
    try:
        note = json.loads(storage.read_file(root, places.MLFLOW_NOTE) or b"{}")
    except (ValueError, RecursionError, storage.Damaged):
        return {}
    if not isinstance(note, dict) or not isinstance(note.get("scored_at", {}), dict):
        return {}
    texts = all(isinstance(note.get(name, ""), str) for name in ("root", "id"))
    return note if texts else {}


def noted_uri(root: str) -> str:
    """Which MLflow a note is about: a server's address, or the database in the sweep's folder."""
    own = os.environ.get("MLFLOW_TRACKING_URI")
    return redact(own) if own else places.MLFLOW


def told(error: BaseException) -> str:
    """The first line of an error of MLflow, without the passwords of its addresses.

    They are left out before a long line is cut, because half of an address hides nothing.
    """
    lines = redact(str(error)).strip().splitlines()
    return plain(lines[0], 2 * MOST_NAME) if lines else type(error).__name__


def find_parent(client: Any, experiment: str, root: str, own_id: str = "") -> Any:
    """Find the parent run of a sweep; None if there is none. A deleted run is restored.

    Every run in the folder's own database belongs to this sweep, whatever the folder was called
    before. On a server, a run logged under an earlier folder belongs to this sweep only if that
    folder is gone: then it was moved, not copied. A run with the id of another sweep is that of
    another machine, where a folder has the same path. An earlier version leaves the id out of its
    note; the run at the folder's path was its run then.

    Args:
        client: MLflow's client.
        experiment: the experiment's ID.
        root: the sweep's folder.
        own_id: the sweep's id if the caller has it; else it comes from the note.
    """
    from mlflow.entities import ViewType

    own = not os.environ.get("MLFLOW_TRACKING_URI")
    note, names = read_note(root), {root, redact(root)}
    own_id = own_id or note.get("id", "")
    by_earlier_version = not own_id and note.get("uri") == noted_uri(root)
    earlier = note.get("root")
    if earlier and storage.is_local(earlier) and not Path(earlier).exists():
        names.add(earlier)
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
        query, order = f"tags.`{SWEEP_TAG}` LIKE '%'", ["attributes.start_time ASC"]
        for run in client.search_runs([experiment], query, view, max_results=1000, order_by=order):
            tags = run.data.tags
            known = by_earlier_version or tags.get(ID_TAG, own_id) == own_id  # older runs have none
            if not own and not (known and tags[SWEEP_TAG] in names):
                continue
            if view == ViewType.DELETED_ONLY:
                client.restore_run(run.info.run_id)
            if run.data.tags[SWEEP_TAG] != redact(root):
                client.set_tag(run.info.run_id, SWEEP_TAG, redact(root))
            return run
    return None
