"""The command line: puts the commands together and turns errors into exit statuses."""

import errno
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from scoring.storage import StoreError
from tune_jobs import provenance
from tune_jobs.commands import cluster, folder, run
from tune_jobs.errors import SweepError

app = typer.Typer(
    help="Does a deep network learn the geodesic between its input and output distributions in "
    "Wasserstein space? Sweep weight decay gamma, K, data set and architecture, and measure.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)

for group in (run, folder, cluster):
    app.add_typer(group.app)


def main() -> NoReturn:
    """Entry point: bad input ends with one message and exit status 2, never with a traceback."""
    try:
        app()
    except (SweepError, StoreError) as error:
        print(f"geosweep: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(
            f"geosweep: no space left on the disk{place}; make room, the same command goes on",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(0)


def _say_version(asked: bool) -> None:
    if asked:
        revision = provenance.revision()
        print(f"geosweep {version('geosweep')}{f' ({revision})' if revision else ''}")
        raise typer.Exit


@app.callback()
def geosweep(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which one this is.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What holds for every command."""


if __name__ == "__main__":
    main()
