"""The command line as a user meets it."""

import errno
import io
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from models import archives, datasets
from models.errors import DataError
from scoring import storage
from scoring.tables import read_table
from tune_jobs import cli, folder, sweep
from tune_jobs.axes import ALIASES
from tune_jobs.commands.ending import results_table
from tune_jobs.commands.run import FOR_GPUS
from tune_jobs.terminal import output


@pytest.fixture
def geosweep(called, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return called


BAD = {
    "unknown field": ("gama: 1", "gama"),
    "wrong type": ("epochs: many", "epochs"),
    "empty axis": ("gamma: []", "gamma"),
    "negative gamma": ("gamma: -1", "gamma"),
    "K = 7": ("K: 7", "K = 7"),
    "unreadable data file": ("dataset: broken.npz", "broken.npz"),
    "missing data file": ("dataset: missing.npz", "missing.npz"),
    "too many points": ("dataset: digits\npoints: 501", "500 test images"),
    "not YAML": ("{", "not YAML"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_sweep_ends_with_one_message_and_status_2(geosweep, tmp_path, kind):
    text, word = BAD[kind]
    (tmp_path / "bad.yaml").write_text(text)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and then nothing")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = geosweep("run", "bad.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("geosweep: bad.yaml")
    assert word in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before  # nothing was begun


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "nope"],
        ["run", "demo", "--set", "gamma"],
        ["status", "."],
        ["evaluate", "."],
        ["report", "."],
        ["ui", "."],
        ["watch", "."],
        ["watch"],
    ],
)
def test_bad_arguments_end_with_status_2(geosweep, arguments):
    code, _, err = geosweep(*arguments)
    assert code == 2
    assert len(err.splitlines()) == 1


def test_sweeps_lists_what_is_built_in(geosweep):
    code, out, _ = geosweep("sweeps")
    assert code == 0
    for name in ("demo", "mnist", "mnist-quick", "table4", "table7", "figure2", "robustness"):
        assert name in out
    assert "straightness" in out
    assert [*sweep.builtin()] == [
        each["name"] for each in json.loads(geosweep("sweeps", "--json")[1])
    ]


@pytest.mark.parametrize("name", sweep.builtin())
def test_a_built_in_sweep_is_printed_to_be_copied(geosweep, tmp_path, name):
    code, out, err = geosweep("sweeps", name)
    assert (code, err) == (0, "")
    assert out == sweep.builtin()[name].read_text()


def test_a_built_in_sweep_says_how_long_it_takes_or_that_it_is_for_gpus():
    for name, file in sweep.builtin().items():
        text = file.read_text()
        assert (FOR_GPUS in text) != bool(re.search("minute|70 s", text)), name


def test_a_sweep_that_is_not_built_in_cannot_be_printed(geosweep):
    assert "no built-in sweep; did you mean demo?" in geosweep("sweeps", "dmeo")[2]


@pytest.mark.parametrize("words", [[], ["run"]])
def test_the_help_has_every_exit_status(geosweep, words):
    page = Path(__file__).parents[1] / "docs/crashes.md"
    statuses = re.findall(r"^\| (\d+) \|", page.read_text().partition("## Exit status")[2], re.M)
    assert len(statuses) == 5
    told = " ".join(geosweep(*words, "--help")[1].partition("Exit status")[2].split())
    assert re.findall(r"(?:: |; )(\d+) ", told) == statuses


@pytest.mark.parametrize(
    "words",
    [["report", "--compare"], ["run", "demo", "--set"], ["ui", "--port"], ["status", "--x"]],
)
def test_a_wrong_option_points_to_the_help_of_its_command(geosweep, words):
    code, _, err = geosweep(*words)
    assert code == 2
    assert err.endswith(f"; see geosweep {words[0]} --help\n")


def test_help_teaches(geosweep):
    code, out, _ = geosweep("run", "--help")
    assert code == 0
    assert "--set" in out
    assert "geosweep run table4" in out


@pytest.mark.parametrize("command", ["run", "submit"])
def test_the_help_names_every_field_of_a_sweep_file_and_the_page_on_them(geosweep, command):
    told = geosweep(command, "--help")[1].partition("Fields of a sweep file")[2]
    words = set(re.findall(r"\w+", told))
    assert {*sweep.SweepFile.model_fields, *ALIASES} <= words
    assert "docs/sweeps.md" in told


COMMANDS = sorted(typer.main.get_command(cli.app).commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_has_an_example_and_names_only_files_that_exist(geosweep, command):
    told = geosweep(command, "--help")[1]
    assert re.search(rf"^ geosweep {command}\b", told, re.MULTILINE)
    for name in re.findall(r"(?:docs|clusters)/[\w/-]+\.\w+|ray_cluster\.yaml", told):
        assert (Path(__file__).parents[1] / name).is_file()


@pytest.mark.parametrize("option", ["cluster", "slurm", "address", "follow"])
def test_the_commands_for_a_cluster_explain_an_option_alike(option):
    commands = typer.main.get_command(cli.app).commands
    params = [param for name in ("status", "submit", "logs") for param in commands[name].params]
    texts = [param.help for param in params if param.name == option]
    assert len(texts) >= 2
    assert len({*texts}) == 1


def test_the_version_is_told(geosweep):
    code, out, _ = geosweep("--version")
    assert code == 0
    assert out.startswith("geosweep 0.1.0")


def test_in_a_pipe_no_line_is_broken_and_on_a_narrow_terminal_columns_go_first():
    trials = sweep.read("demo", ["seeds=2", "layers=fully_connected", "K=1", "epochs=12"]).trials
    row = dict.fromkeys(("clean_train_accuracy", "test_accuracy", "lss", "lss_initial"), 0.5)
    row |= dict.fromkeys(("lss_random", "lsr", "ots", "ots_initial", "ots_random"), 0.5)
    row |= dict.fromkeys(("geodesic_excess", "geodesic_excess_initial", "ots_shuffled"), 0.5)
    row |= {"collapsed": False, "points": 60, "epochs_done": 12, "seconds": 1.0, "status": "done"}
    row["validation_accuracy"] = None  # no such split
    nothing = {"name": "x", "description": "", "extra": [], "to_suggest": 0, "unevaluated": []}
    nothing |= {"scoring": [], "leftover": [], "missing": trials[1:], "weightless": []}
    rows = {trials[0].trial: row}
    state = folder.State(root="", trials=trials, rows=rows, begun=[], **nothing)
    for width, columns in ((1000, 16), (100, 9), (80, 7), (60, 5), (50, 4)):
        console = Console(file=io.StringIO(), width=width)
        console.print(results_table(state, width))
        lines = console.file.getvalue().splitlines()
        assert len(lines) == 1 + len(trials)
        assert len(lines[1].split()) - 2 == columns, lines[1]
        assert lines[1].startswith("plain gamma=0 seed=0 ")
        assert lines[2].split()[-1] == "missing"
    row |= dict.fromkeys(("geodesic_excess", "geodesic_excess_initial"), math.nan)
    row["ots_shuffled"] = None  # in results of an earlier version
    assert [str(c.header) for c in results_table(state, 1000).columns][3:5] == ["LSS", "initial"]
    row["validation_accuracy"] = 0.5
    assert str(results_table(state, 1000).columns[2].header) == "valid. acc."
    with redirect_stdout(io.StringIO()):
        assert output().width >= 1000


def test_a_data_set_of_ones_own_is_found_by_its_path(geosweep, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(
        tmp_path / "own.npz",
        x_train=images,
        y_train=np.arange(40) % 3,
        x_test=images[:20],
        y_test=np.arange(20) % 3,
    )
    (tmp_path / "own.yaml").write_text("dataset: own.npz\npoints: 21")
    code, _, err = geosweep("run", "own.yaml")
    assert code == 2
    assert "own.npz has 20 test images" in err


def test_a_validation_split_that_leaves_nothing_to_train_on_is_refused(geosweep, tmp_path):
    images = np.zeros((10, 8, 8), np.uint8)
    arrays = {f"x_{split}": images for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(10) % 2 for split in ("train", "test")}
    np.savez(tmp_path / "own.npz", **arrays)
    (tmp_path / "own.yaml").write_text("dataset: own.npz\npoints: 10\nvalidation: [0, 0.9]")
    code, _, err = geosweep("run", "own.yaml")
    assert (code, err) == (
        2,
        "geosweep: own.yaml: own.npz: validation = 0.9 leaves 1 of 10 train images to train on; "
        "give a smaller share, or 0\n",
    )


def test_a_data_folder_that_is_not_there_is_named(geosweep):
    code, _, err = geosweep("run", "demo", "--data", "nowhere")
    assert (code, err) == (2, "geosweep: --data nowhere: no such folder\n")


def test_more_cores_than_there_are_is_refused_before_anything_starts(geosweep, tmp_path):
    code, _, err = geosweep("run", "demo", "--set", "resources.cpus=9999")
    assert code == 2
    assert "resources.cpus = 9999: this machine has" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["ui", "watch"])
def test_a_port_in_use_is_named(geosweep, tmp_path, command):
    folder.claim(str(tmp_path / "out"), sweep.read("demo"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = geosweep(command, "out", "--port", str(port))
    assert code == 2
    assert f"127.0.0.1:{port}: Address already in use" in err


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_a_sweep_that_is_stopped_keeps_its_epochs_and_goes_on(tmp_path):
    from small_sweeps import geosweep as again  # imports MLflow, which takes seconds

    root = str(tmp_path / "out")
    (tmp_path / "long.yaml").write_text("layers: fully_connected\nepochs: 150\npoints: 20")
    words = ["run", str(tmp_path / "long.yaml"), "--out", root]
    command = [sys.executable, "-m", "tune_jobs.cli", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        give_up = time.monotonic() + 120
        while not storage.list_files(root, "checkpoints") and time.monotonic() < give_up:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, out
    assert "1 kept at their last epoch" in out
    epoch = int(out.partition("begun, epoch ")[2].partition(" of 150 ")[0])
    assert f"{root}/results" not in out  # there are no tables yet
    status, said = again(*words)
    assert status == 0, said
    assert "1 go on from a checkpoint" in said
    epochs = read_table(root, "epochs", ["epoch"]).to_pydict()["epoch"]
    assert epochs == list(range(151))
    assert 0 <= epoch < 150
    assert f"tables   {root}/results/{{trials,epochs,tracks,samples}}/*.parquet\n" in said


def test_a_dry_run_lists_the_cells_and_starts_nothing(geosweep, tmp_path):
    code, out, _ = geosweep("run", "demo", "--dry-run")
    assert code == 0
    assert "16 cells" in out
    for trial in sweep.read("demo").trials:
        assert trial.trial in out
    assert list(tmp_path.iterdir()) == []


def test_too_many_points_for_the_memory_are_refused(geosweep, monkeypatch):
    monkeypatch.setattr(archives, "memory", lambda: 1e6)
    code, _, err = geosweep("run", "demo", "--set", "K=2")
    assert code == 2
    assert "points = 500: the states of K = 2" in err
    assert "take fewer points" in err


def test_a_gpu_that_is_not_there_is_missed_before_anything_starts(geosweep, tmp_path):
    code, _, err = geosweep("run", "demo", "--set", "resources.gpus=99")
    assert code == 2
    assert "resources.gpus = 99: this machine has" in err
    assert list(tmp_path.iterdir()) == []


TEXTS = [path.read_text() for path in sweep.builtin().values()]
TEXTS = [text for text in TEXTS if "digits" in text] + [
    """
network: [plain, resnet]
gamma: {low: 1e-5, high: 0.1}
zip: [{K: [1, 2], points: [50, 60]}]
search: {method: optuna, trials: 20, objectives: [test_accuracy, lss]}
scheduler: {method: asha, grace: 2}
resources: {cpus: 1, gpus: 0}
""",
    """
dataset: digits
gamma: [0, 1e-3, 1e-2]
exclude: [{network: plain, gamma: 0}]
seeds: 3
epochs: 5
batch_size: [32, 64]
""",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@st.composite
def mutated(draw):
    """The text of a sweep file with a few things changed: in its values, or in its letters."""
    text = draw(st.sampled_from(TEXTS))
    content = yaml.safe_load(text)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([*content, *sweep.SweepFile.model_fields, "K", "m"]))
        inside = content.get(name)
        if isinstance(inside, dict) and inside and draw(st.booleans()):
            content[name] = inside | {draw(st.sampled_from(list(inside))): draw(JSON)}
        else:
            content[name] = draw(JSON | st.sampled_from(["optuna", "asha", "digits", "plain"]))
    text = yaml.safe_dump(content, allow_unicode=True)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(max_size=3)) + text[at + draw(st.integers(0, 4)) :]
    return text


@settings(max_examples=150)
@given(mutated())
def test_whatever_stands_in_a_sweep_file_it_runs_or_is_refused_in_words(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("mutated") / "sweep.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    said = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["geosweep", "run", str(file), "--dry-run"]),
        mock.patch.object(datasets, "_from_torchvision", side_effect=DataError("away")),
        redirect_stderr(said),
        redirect_stdout(io.StringIO()),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    assert end.value.code in (0, 2)
    assert (end.value.code == 2) == bool(said.getvalue())
    assert "Traceback" not in said.getvalue()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space left on the disk"),
        (errno.EDQUOT, "the quota is used up on the disk"),
    ],
)
def test_a_full_disk_or_a_used_up_quota_is_one_message(monkeypatch, capsys, number, says):
    full = OSError(number, os.strerror(number), "/there/a.pt")
    monkeypatch.setattr(cli, "app", mock.Mock(side_effect=full))
    monkeypatch.setattr(sys, "argv", ["geosweep", "run", "demo"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        f"geosweep: {says} (/there/a.pt); free some, then run the same command again to continue\n"
    )
