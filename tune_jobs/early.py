"""Loads what the driver of a sweep needs, which takes seconds, while Ray's processes start."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tune_jobs import signals
from tune_jobs.mlflow_store import prepare

LONGEST = 30.0  # seconds to wait for the thread at the end, while signals are ignored


@contextmanager
def loading(root: str) -> Iterator[Callable[[], None]]:
    """Load MLflow and Ray Tune in a thread, and create MLflow's database of a sweep.

    Args:
        root: the sweep's folder.

    Yields:
        A function that waits for the thread, which has ended when the context is left.
    """

    def load() -> None:
        with suppress(Exception):  # the driver will meet the same error
            prepare(root)
        import tune_jobs.driver  # noqa: F401

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        yield thread.join
    finally:
        with signals.ignored():  # else Ray might load after this, without its variables
            thread.join(LONGEST)
