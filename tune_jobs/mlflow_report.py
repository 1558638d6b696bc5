"""Shows a sweep's report in MLflow: its files, and its verdict at the top of the run's page."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scoring import storage
from tune_jobs.mlflow_store import find_parent, is_there, open_client, told, tracking_uri

NOTE = "mlflow.note.content"  # tag with what MLflow shows first on a run's page
RULE = "\n\n---\n\n"  # in it, between the verdict and the sweep's description
LONGEST = 7000  # characters of the verdict and the description; MLflow takes 8000
VERDICT = "verdict.md"  # in the folder of the report


def log_report(root: str, name: str, folder: str) -> str | None:
    """Attach a sweep's report, pages and figures, to its parent run.

    Args:
        root: the sweep's folder.
        name: the sweep's name; also the experiment's name.
        folder: the report's folder.

    Returns:
        What went wrong, or None.
    """
    uri = tracking_uri(root)
    if not is_there(uri):
        return None  # nothing was ever logged
    try:
        client = open_client(root)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            return None
        parent = find_parent(client, experiment.experiment_id, root)
        if parent is not None:
            run = parent.info.run_id
            with _local(folder) as path:
                client.log_artifacts(run, path, "report")
                note = _with_verdict(Path(path, VERDICT), run, parent.data.tags.get(NOTE, ""))
            client.set_tag(run, NOTE, note)
    except Exception as error:  # a failure of MLflow must not fail the report
        return told(error)
    return None


def _with_verdict(file: Path, run: str, before: str) -> str:
    """What the page of a sweep's run shows first: the report's verdict, then the description.

    Args:
        file: the verdict in Markdown, with figures of the same folder.
        run: MLflow's ID of the run, which has them as artifacts.
        before: what the page has shown so far; the verdict in it is replaced.
    """
    if not file.exists():
        return before
    address = f"get-artifact?run_uuid={run}&path=report/"
    verdict = re.sub(
        r"(?<=\]\()(?=\w+\.png\)$)", address, file.read_text("utf-8"), flags=re.MULTILINE
    )
    description = before.rpartition(RULE)[2]
    return f"{verdict[: LONGEST - len(description)]}{RULE}{description}"


@contextmanager
def _local(folder: str) -> Iterator[str]:
    """The folder itself if it is on this machine, else a temporary copy of it."""
    if storage.is_local(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="geosweep-") as copy:
        for name in storage.list_files(folder, "."):
            Path(copy, name).write_bytes(storage.read_file(folder, name) or b"")
        yield copy
