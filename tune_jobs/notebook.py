"""The live table of a sweep in a Jupyter notebook: one output of a cell, which is replaced.

rich's own live display needs ipywidgets there. This needs only IPython, which every notebook has.
"""

import io
import time
from typing import Any

from rich.console import Console, RenderableType

from tune_jobs.terminal import Terminal

EVERY = 0.5  # seconds between two updates; each is a message to the browser, and is kept there
WIDTH = 110  # characters
FRAME = '<pre style="line-height:normal; overflow-x:auto">{code}</pre>'


class Live:
    """What :class:`rich.live.Live` is on a terminal, as far as the board uses it."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._updated = 0.0

    def start(self) -> None:
        """Add an empty output to the cell."""
        from IPython.display import HTML, display

        self._handle = display(HTML(""), display_id=True)

    def update(self, table: RenderableType, refresh: bool = True) -> None:
        """Replace the output, unless that was done a moment ago."""
        from IPython.display import HTML

        now = time.monotonic()
        if self._handle and now - self._updated >= EVERY:
            self._updated = now
            self._handle.update(HTML(html(table)))

    def stop(self) -> None:
        """Leave the output empty, as the results follow."""
        from IPython.display import HTML

        if self._handle:
            self._handle.update(HTML(""))
            self._handle = None


def html(table: RenderableType) -> str:
    """A table as HTML, with all text in it escaped and cleaned as on a terminal."""
    drawn: Console = Terminal(
        record=True, file=io.StringIO(), force_jupyter=False, force_terminal=True, width=WIDTH
    )
    drawn.print(table)
    return drawn.export_html(inline_styles=True, code_format=FRAME)
