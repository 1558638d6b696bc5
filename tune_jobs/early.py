"""Loads what the driver of a sweep needs, which takes seconds, while Ray's processes start."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tune_jobs import signals
from tune_jobs.mlflow_store import prepare

LONGEST = 30.0  # seconds to wait for it at the end, where no signal is heard


@contextmanager
def loading(root: str) -> Iterator[Callable[[], None]]:
    """Load MLflow and Ray Tune in a thread, and create MLflow's database of a sweep.

    Args:
        root: the sweep's folder.

    Yields:
        A function that waits for it. At the end of the context nothing is still being loaded.
    """

    def load() -> None:
        with suppress(Exception):  # the driver meets what fails here
            prepare(root)
        import tune_jobs.driver  # noqa: F401

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    try:
        yield thread.join
    finally:
        with signals.ignored():  # else Ray might be loaded after this, without its variables
            thread.join(LONGEST)
