"""Printing: text from files, names and errors cannot control the terminal.

Names and messages may contain anything: escape sequences that clear the screen, carriage returns
that overwrite a line, controls that reverse its direction, or rich's markup. Everything that
geosweep prints goes through :func:`output`, :func:`say` or :func:`complain`, which clean it. Where
nobody reads it any more, as after ``| head -1``, the command goes on and prints to nowhere.
"""

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from scoring.places import redact
from tune_jobs.surroundings import NARROWEST, WIDEST

MOST = 10_000  # A message with more characters loses its middle.

# Whole escape sequences: CSI (colours, moves), OSC (titles, links) and short ones.
SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]+[0-~]|\x1b[0-9=>A-Z\\^_a-z]"
)
# Single characters: C0 and C1 controls except tab and newline, line separators, direction controls,
# and the surrogates that stand for bytes of a file name that are not UTF-8.
BREAKS = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\u2028": r"\u2028", "\u2029": r"\u2029"}
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    r"\ud800-\udfff]"
)


def clean(text: str) -> str:
    r"""Text that a terminal shows as it is, instead of obeying it.

    Args:
        text: any.

    Returns:
        The text without escape sequences, and with other control characters replaced. Tabs and
        newlines stay. Addresses lose their user names and passwords.

    >>> clean("\x1b[31mred\x1b[0m and \x07bell")
    'red and �bell'
    """
    text = SEQUENCE.sub("", text.replace("\r\n", "\n"))
    return redact(CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


class Terminal(Console):
    """A rich console that cleans all text, and takes ``[red]`` in it for text.

    Args:
        options: further options of :class:`rich.console.Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)
        if not self.is_terminal:
            self.width = WIDEST  # no wrapping in a pipe or a file
        self.width = max(self.width, NARROWEST)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Clean what is rendered; rich's own controls have segments of their own."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else clean(text), style, control)

    def on_broken_pipe(self) -> None:
        """Go on without a reader; rich would end the process, and with it a sweep."""
        silence(self.file)


def output() -> Console:
    """Standard output with colours, tables and live displays. Lines are not wrapped in a pipe."""
    return Terminal()


def table(left: Sequence[str] = (), right: Sequence[str] = ()) -> Table:
    """A table without a frame.

    Args:
        left: headings of columns of text, which may be broken into lines.
        right: headings of the columns after them: numbers, which are not.
    """
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in left:
        made.add_column(heading, overflow="fold")
    for heading in right:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def say(text: str, end: str = "\n") -> None:
    """Print a line on standard output."""
    try:
        print(clean(text), end=end, flush=True)
    except BrokenPipeError:
        silence(sys.stdout)


def one_line(text: str) -> str:
    r"""A message on one line, whatever is in the names and paths that it quotes.

    >>> one_line("runs/two\nlines: no results in it")
    'runs/two\\nlines: no results in it'
    """
    for letter, shown in BREAKS.items():
        text = text.replace(letter, shown)
    return clean(text)


def complain(*lines: str) -> None:
    """Print an error or a warning on standard error: each problem on a line of its own."""
    text = "\n".join(map(one_line, lines))
    if len(text) > MOST:
        text = f"{text[: MOST // 2]} ... {text[-MOST // 2 :]}"
    try:
        print(f"geosweep: {text}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        silence(sys.stderr)


def silence(stream: IO[str]) -> None:
    """Send what is printed on a stream from now on to nowhere, because its reader has left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def never_fail_to_encode() -> None:
    """Print ``?`` for characters that standard output cannot encode, like é in ASCII."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # None if it was closed
        sys.stdout.reconfigure(errors="replace")
