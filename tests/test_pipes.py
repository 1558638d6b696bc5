"""Whoever reads what a command prints may leave at any time, like ``| head -1``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import made_up_sweep
from running import ROOT

GEOSWEEP = Path(sys.executable).with_name("geosweep")
PRINTS = """
import sys
from pathlib import Path
from tune_jobs.terminal import complain, output, say

console = output()
for number in range(3):
    say("a line")
    console.print("a table")
    complain("a warning")
Path(sys.argv[1]).write_text("went on")
"""


def without_a_reader(*command: str | Path, both: bool = False) -> tuple[int, str]:
    """Run a command whose output nobody reads; its exit status, and what it says as an error."""
    reader, writer = os.pipe()
    os.close(reader)
    error = writer if both else subprocess.PIPE
    try:
        done = subprocess.run(
            command, stdout=writer, stderr=error, cwd=ROOT, text=True, timeout=200
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("both", [False, True])
def test_a_command_goes_on_when_the_reader_of_its_output_has_left(tmp_path, both):
    done = tmp_path / "done"
    status, said = without_a_reader(sys.executable, "-c", PRINTS, str(done), both=both)
    assert status == 0
    assert done.read_text() == "went on"
    assert said == ("" if both else "geosweep: a warning\n" * 3)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["sweeps"], ["run", "demo", "--dry-run"]])
def test_a_command_that_only_prints_ends_quietly_without_a_reader(arguments):
    assert without_a_reader(GEOSWEEP, *arguments) == (0, "")


@pytest.mark.slow
def test_all_figures_are_written_without_a_reader(tmp_path):
    root = made_up_sweep(tmp_path / "demo")
    only = ["--only", "lss_against_epoch", "scores_against_gamma", "--form", "svg"]
    command = [sys.executable, "-m", "analysis.figures", str(root), *only]
    assert without_a_reader(*command) == (0, "")
    written = {path.stem for path in (root / "figures").iterdir()}
    assert written == {"lss_against_epoch", "scores_against_gamma"}
