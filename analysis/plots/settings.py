"""matplotlib without the user's settings: a safe import, and settings of our own.

Import this module before matplotlib. A ``matplotlibrc``, ``MPLBACKEND`` or whatever else changed
matplotlib's settings is for the user's own figures; ours look the same everywhere.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def _import():
    """Import matplotlib even if MPLBACKEND names a backend that is not installed.

    matplotlib refuses to be imported then. A notebook, for instance, passes its own backend to
    every command that is started in it.
    """
    backend = os.environ.get("MPLBACKEND")
    if backend is None or "matplotlib" in sys.modules:
        import matplotlib

        return matplotlib
    del os.environ["MPLBACKEND"]
    try:
        import matplotlib
    finally:
        os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = backend  # for the user's figures
    return matplotlib


mpl = _import()
PYPLOT = ("backend", "backend_fallback")  # settings of pyplot, which we do not use


@contextmanager
def own_settings(salt: str | None = None) -> Iterator[None]:
    """matplotlib's defaults inside of the context, and the user's settings again behind it.

    Figures are made and written inside. Text is text there: ``$`` starts no formula, so a name
    may hold one.

    Args:
        salt: makes the identifiers in an SVG file, which are random without it.
    """
    own: Any = {n: mpl.rcParamsDefault[n] for n in mpl.rcParamsDefault if n not in PYPLOT}
    with mpl.rc_context(own | {"text.parse_math": False, "svg.hashsalt": salt}):
        yield
