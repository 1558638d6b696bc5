"""Sweeps from Python: the checks, which need no Ray."""

from functools import partial
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from models.errors import DataError
from scoring import places, storage
from tune_jobs import api, folder, kept, lease, notebook, sweep, yaml_file
from tune_jobs.errors import SweepError


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEOSWEEP_STORAGE", raising=False)
    return tmp_path


def test_a_mapping_a_file_and_a_name_are_the_same_sweep(here):
    demo = sweep.builtin()["demo"]
    content, _ = yaml_file.parse(demo.read_text())
    plans = [api.plan(each) for each in ("demo", demo, {"name": "demo", **content})]
    assert [p.lines for p in plans] == [plans[0].lines] * 3
    assert [p.folder for p in plans] == [str(here / "runs/demo")] * 3
    assert list(here.iterdir()) == []


def test_a_plan_is_what_the_command_prints(here, geosweep):
    code, out = geosweep("run", "demo", "--set", "gamma=0,0.1", "--dry-run")
    found = api.plan("demo", ["gamma=0,0.1"])
    assert (code, out) == (0, f"{found}\n")
    assert repr(found) == str(found)
    assert [(t["gamma"], t["status"]) for t in found.trials[:2]] == [(0.0, ""), (0.1, "")]


def test_values_of_python_become_those_of_a_file():
    np = pytest.importorskip("numpy")
    given = {"name": "x", "gamma": np.array([0, 1e-5]), "seed": range(2), "epochs": np.int64(3)}
    given |= {"network": ("plain", "resnet"), "dataset": Path("digits")}
    found = sweep.read(given)
    assert len(found.trials) == 8
    assert {(t.epochs, t.dataset) for t in found.trials} == {(3, "digits")}
    assert sorted({t.gamma for t in found.trials}) == [0, 1e-5]
    assert sweep.read({"name": "näh \U0001f600", "gamma": 0}).name == "näh \U0001f600"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"name": "x", "gamma": -1}, "the mapping: gamma = -1.0: should be 0 to 1000000"),
        ({"name": "x", "gama": 1}, "the mapping: gama: no such field; did you mean gamma?"),
        ({"gamma": 1}, "the mapping: the sweep has no name; give it a name: field"),
        ({"name": "x", "gamma": print}, "the mapping: has what no file holds: a value of type"),
        ({}, "the mapping: the sweep has no name"),
    ],
)
def test_a_mapping_that_is_no_sweep_is_refused_like_a_file(here, content, told):
    with pytest.raises(SweepError) as error:
        api.plan(content)
    assert told in str(error.value)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["run", "nope"], ["run", "demo", "--set", "gamma"], ["status", "nowhere"]],
)
def test_errors_are_exceptions_with_the_text_of_the_command(here, geosweep, words):
    call = partial(api.run, words[1], words[3:]) if words[0] == "run" else None
    with pytest.raises(SweepError) as error:
        (call or partial(api.status, words[1]))()
    assert geosweep(*words) == (2, f"geosweep: {error.value}\n")


def test_data_that_cannot_be_read_and_evaluations_that_are_none_are_refused(here):
    with pytest.raises((SweepError, DataError), match=r"mine\.npz"):
        api.run({"name": "x", "dataset": "mine.npz"})
    folder.claim(str(here / "out"), sweep.read("demo"))
    with pytest.raises(SweepError, match="no 'blur'; should be one of lesion"):
        api.evaluate("out", "blur")
    with pytest.raises(SweepError, match="no trial is done yet"):
        api.evaluate(here / "out", "noise")


def test_a_status_is_what_the_command_prints(here, geosweep):
    root = str(here / "out")
    folder.claim(root, sweep.read("demo"))
    found = api.status("out")
    assert geosweep("status", "out") == (0, f"{found}\n")
    assert (found.planned, found.counts["missing"], found.complete) == (16, 16, False)
    assert (found.running, found.seconds_left, found.errors) == (False, None, {})
    with lease.hold(root):
        assert api.status(root).running


def test_a_folder_with_many_sweeps_has_a_line_for_each(here, geosweep):
    for name in ("one", "two"):
        folder.claim(str(here / "runs" / name), sweep.read("demo"))
    (here / "runs/notes").mkdir()
    storage.write_file(str(here / "runs/torn"), places.SWEEP, b"{")
    code, out = geosweep("status", "runs")
    assert code == 0
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["sweep", "runs/one", "runs/torn", "runs/two"]
    assert lines[1].split()[1:4] == ["0", "of", "16"]
    assert lines[1].rstrip().endswith("not running")
    assert "sweep.json: torn" in lines[2]
    assert kept.below(str(here / "runs/one")) == []


def test_a_folder_that_cannot_be_read_is_no_sweep(here, monkeypatch):
    folder.claim(str(here / "runs/one"), sweep.read("demo"))
    (here / "runs/private").mkdir()
    read = storage.read_file

    def refused(root, path):
        if root.endswith("private"):
            raise PermissionError(13, "Permission denied")
        return read(root, path)

    monkeypatch.setattr(storage, "read_file", refused)
    assert kept.below(str(here / "runs")) == [str(here / "runs/one")]


@pytest.mark.parametrize("begin", [api.run, api.evaluate])
def test_a_second_sweep_in_the_same_process_is_refused(here, monkeypatch, begin):
    with monkeypatch.context() as first:  # whose checks call the second
        first.setattr(api.work, "request_run", lambda *_, **__: begin("demo"))
        with pytest.raises(SweepError, match="a sweep runs in this process already"):
            api.run("demo")
    assert api.plan("demo").trials  # to look is not to run
    with pytest.raises(SweepError, match="nowhere"):
        api.run("nowhere")


def test_a_live_table_in_a_notebook_is_text():
    table = Table()
    table.add_column("trial")
    table.add_row(Text("<script>alert(1)</script> \x1b[2J", style="red"))
    found = notebook.html(table)
    assert "&lt;script&gt;" in found
    assert "<script" not in found
    assert "\x1b" not in found
    assert 'style="color' in found
