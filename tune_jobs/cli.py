"""The command line: puts the commands together and turns errors into exit statuses."""

import errno
import gc
import sys
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperCommand

from models import messages
from models.errors import DataError
from scoring.storage import Damaged, StoreError
from tune_jobs import provenance, surroundings, terminal
from tune_jobs.commands import clean, cluster, folder, probe, run, targets, watch
from tune_jobs.errors import NO_SPACE, SweepError

HELP = """
Measure how close deep networks come to a geodesic in Wasserstein space.

A sweep trains many small networks that differ in weight decay gamma, number
of stages K, dataset and architecture. It scores how straight their data tracks
are (LSS) and how close their map is to the optimal transport (OTS). Results
are Parquet tables in a folder, MLflow runs, and an HTML report.

[b]geosweep run demo[/]            train 16 networks on digits: a minute on 2 cores
[b]geosweep status runs/demo[/]    what is done, running, failed and missing
[b]geosweep watch runs/demo[/]     a page that follows it, with charts
[b]geosweep ui runs/demo[/]        MLflow's pages
[b]geosweep sweeps[/]              the other built-in sweeps

[b]geosweep COMMAND --help[/] explains a command.
[b]geosweep --install-completion[/] lets the TAB key complete commands, options
and names of built-in sweeps in new shells.

Exit status: 0 all done; 1 some trials failed or diverged, or the disk is
full; 2 bad input; 3 the budget is used up and something is left; 130 after
Ctrl-C.
"""

# What typer raises for any wrong command line. It exports only some of the subclasses.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


class Filled(TyperCommand):
    """A command that refuses empty texts, like those of unset shell variables, and s3:/bucket."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; an error names this command, also one without a value."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.ctx = error.ctx or ctx  # type: ignore[attr-defined]
            raise

    def invoke(self, ctx: typer.Context) -> Any:
        """Check all options and arguments, then run the command."""
        for param in self.params:
            given = ctx.params.get(str(param.name))
            texts = given if isinstance(given, list | tuple) else [given]
            for text in texts:
                if isinstance(text, str) and not text.strip():
                    name = param.opts[0] if param.opts[0][0] == "-" else param.metavar
                    hint = "give a value, or leave it out (is a variable of the shell unset?)"
                    raise SweepError(f"{name} is empty: {hint}")
                if isinstance(text, str):
                    targets.check_uri(text)
        return super().invoke(ctx)


for group in (run, folder, watch, clean, probe, cluster):
    for registered in group.app.registered_commands:
        registered.cls = Filled
    app.add_typer(group.app)

RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)
DISK = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)
PATH = (errno.EISDIR, errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


def main() -> NoReturn:
    """Entry point: bad input ends with one message and exit status 2, never with a traceback."""
    terminal.never_fail_to_encode()
    # So that the help, which typer prints, ends like everything else when its reader leaves.
    Console.on_broken_pipe = lambda self: terminal.silence(self.file)
    # Loading packages makes many objects and hardly any garbage, and the collector looks at all of
    # them again and again: by default it takes a fifth of the time to load Ray and MLflow.
    before = gc.get_threshold()
    gc.set_threshold(100_000, 10, 10)
    try:
        surroundings.prepare()
        sys.exit(app(prog_name="geosweep", standalone_mode=False) or 0)
    except UsageError as error:
        if type(error).__name__ != "NoArgsIsHelpError":  # typer has printed the help already.
            terminal.complain(_usage(error))
        sys.exit(2)
    except Damaged as error:
        terminal.complain(f"{error}; geosweep run sets it aside")
        sys.exit(2)
    except SweepError as error:
        terminal.complain(*map(str, error.args))
        sys.exit(2)
    except (StoreError, DataError) as error:
        terminal.complain(str(error))
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except OSError as error:
        if error.errno not in NO_SPACE:
            remote = error.errno in (errno.ETIMEDOUT, errno.ENOTCONN)
            known = error.errno in (*RIGHTS, *DISK, *PATH)
            if error.filename is None and (remote or not known):
                raise
            terminal.complain(_about_a_file(error))
            sys.exit(2)
        quota = error.errno == errno.EDQUOT
        what = "the quota is used up on the disk" if quota else "no space left on the disk"
        place = f" ({error.filename})" if error.filename else ""
        terminal.complain(f"{what}{place}; free some, then run the same command again to continue")
        sys.exit(1)
    finally:
        gc.set_threshold(*before)


def _about_a_file(error: OSError) -> str:
    """What is wrong with a file or folder, and what to do."""
    named = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in RIGHTS:
        return f"{named}; give yourself the rights to it, or name another folder"
    if error.errno in DISK:
        return f"{named}; look after that disk, then run the same command again"
    fix = "; name another path" if error.errno in PATH else ""
    return f"{messages.plain(named, 400)}{fix}"


def _usage(error: Any) -> str:
    """One line about a wrong command line."""
    text = " ".join(error.format_message().split()).rstrip(".")
    text = f"{text[:1].lower()}{messages.plain(text[1:], 400)}"
    return f"{text}; see {error.ctx.command_path if error.ctx else 'geosweep'} --help"


def _show_version(wanted: bool) -> None:
    if wanted:
        revision = provenance.revision()
        terminal.say(f"geosweep {version('geosweep')}{f' ({revision})' if revision else ''}")
        raise typer.Exit


@app.callback()
def geosweep(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and git revision.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Options before the name of a command."""


if __name__ == "__main__":
    main()
