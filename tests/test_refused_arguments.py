"""Arguments that look right and would do harm: empty texts, folders of others, wrong addresses."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_sweep

from analysis import figures, probe, report, watch
from analysis.errors import ResultsError
from analysis.mlflow_address import check_address
from scoring import places
from scoring.storage import write_file
from tune_jobs import yaml_file
from tune_jobs.cluster import reach
from tune_jobs.commands.probe import _check
from tune_jobs.errors import SweepError
from tune_jobs.probing import inputs


@pytest.fixture
def geosweep(geosweep, monkeypatch, tmp_path):
    """The command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return geosweep


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "demo", "--cluster", ""],
        ["run", "demo", "--out", ""],
        ["run", "demo", "--set", ""],
        ["submit", "demo", "--slurm", " "],
        ["report", "demo", "--compare", ""],
        ["watch", "demo", "--host", ""],
        ["ui", "demo", "--host", ""],
        ["probe", "net.py:build", "--data", ""],
        ["doctor", "--cluster", ""],
    ],
)
def test_an_empty_text_is_no_missing_option(geosweep, tmp_path, arguments):
    code, said = geosweep(*arguments)
    assert code == 2
    assert said.startswith(f"geosweep: {arguments[-2]} is empty: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["clean", "", "--yes"], ["status", ""], ["report", "a", ""]])
def test_an_empty_folder_name_is_not_the_current_folder(geosweep, arguments):
    code, said = geosweep(*arguments)
    assert (code, len(said.splitlines())) == (2, 1)
    assert " is empty: " in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "demo", "--out", "s3:/bucket/x"], "s3://bucket/x"),
        (["run", "demo", "--fail-fast", "--max-failures", "3"], "give one of them"),
        (["run", "demo", "--retry-failed", "--leave-failed"], "give one of them"),
        (["submit", "demo", "--retry-failed", "--leave-failed"], "give one of them"),
        (["run", "demo", "--budget", "\u0663h"], "a budget is a time"),
        (["status", "a" * 300], "File name too long"),
        (["run", "demo", "--out", "a" * 300], "File name too long"),
        (["run", "demo", "--out", "loop/x"], "Too many levels"),
    ],
)
def test_what_cannot_work_is_told_in_a_line(geosweep, tmp_path, arguments, told):
    Path("loop").symlink_to("loop")
    code, said = geosweep(*arguments)
    assert (code, len(said.splitlines())) == (2, 1)
    assert told in said
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_an_error_of_the_system_on_a_file_has_no_traceback(geosweep, monkeypatch):
    import errno

    from tune_jobs import sweep

    for number in (errno.ESTALE, errno.EINVAL, errno.ENAMETOOLONG, errno.ENXIO, errno.EIO):
        error = OSError(number, os.strerror(number), "a/file")
        monkeypatch.setattr(sweep, "builtin", lambda error=error: (_ for _ in ()).throw(error))
        code, said = geosweep("sweeps")
        assert code == 2
        assert said.startswith(f"geosweep: a/file: {os.strerror(number)}")
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("inner", ["results", "checkpoints/x", "report"])
def test_a_sweep_does_not_begin_among_the_files_of_another(geosweep, tmp_path, inner):
    write_file(str(tmp_path / "other"), places.SWEEP, b"{}")
    code, said = geosweep("run", "demo", "--out", f"other/{inner}", "--dry-run")
    assert code == 2
    assert f"the sweep in {tmp_path}/other keeps its {inner.partition('/')[0]} there" in said


@pytest.mark.usefixtures("without_figures")
def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    sweep, mine = made_up_sweep(tmp_path / "demo"), tmp_path / "mine"
    mine.mkdir()
    for name in ("index.html", "trials.csv"):
        (mine / name).write_text("my own")
        with pytest.raises(ResultsError, match=f"{name} there is not of a geosweep report"):
            report.build(sweep, mine)
        assert {path.read_text() for path in mine.iterdir()} == {"my own"}
        (mine / name).unlink()
    (mine / "notes.txt").write_text("my own")
    first = Path(report.build(sweep, mine)).read_bytes()
    (mine / "index.html").write_bytes(b"<title>demo: geosweep report</title>")  # an earlier one
    assert len(Path(report.build(sweep, mine)).read_bytes()) == len(first)
    assert (mine / "notes.txt").read_text() == "my own"


@pytest.mark.parametrize("inner", ["", "results", "checkpoints/x"])
def test_reports_figures_and_probes_leave_the_files_of_a_sweep_alone(tmp_path, inner, capsys):
    sweep = made_up_sweep(tmp_path / "demo")
    write_file(str(sweep), places.SWEEP, b"{}")
    before = sorted(sweep.rglob("*"))
    with pytest.raises(ResultsError, match="belongs to a sweep"):
        report.build(sweep, sweep / inner)
    assert figures.main([str(sweep), "--out", str(sweep / inner)]) == 2
    assert "belongs to a sweep" in capsys.readouterr().err
    with pytest.raises(SweepError, match=r"--out .*sweep"):
        _check(str(sweep / inner).rstrip("/"), {}, None)
    assert sorted(sweep.rglob("*")) == before


def test_a_probe_does_not_replace_the_results_of_another(tmp_path):
    root, about = str(tmp_path / "probe"), {"model": "net.py:build", "data": "a.npz"}
    _check(root, about, ["a.pt"])
    assert list(tmp_path.iterdir()) == []  # nothing is left while the model may still fail
    write_file(root, "probe.json", json.dumps({**about, "results": {"a.pt": {}}}).encode())
    _check(root, about, ["a.pt"])
    for other, weights in (
        (about, ["b.pt"]),
        (about | {"data": "b.npz"}, ["a.pt"]),
        (about | {"model": "net.py:other"}, ["a.pt"]),
    ):
        with pytest.raises(SweepError, match="has the results of other"):
            _check(root, other, weights)
        _check(root, other, None)  # the user named the folder


def test_points_that_are_no_numbers_and_npy_files_are_refused_by_name(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    np.savez(tmp_path / "nan.npz", x=np.array([[0.0, 1.0], [np.nan, 0.0], [np.inf, 0.0]]))
    np.savez(tmp_path / "one.npz", x=np.float32(1))
    for name, told in (
        ("x.npy", "should be .npz, which np.savez"),
        ("nan.npz", "2 of 3 images of x .* the first is image 1"),
        ("one.npz", r"x is float32 \(\)"),
    ):
        with pytest.raises(SweepError, match=told):
            inputs.images(str(tmp_path / name), 5, 2, False)


@pytest.mark.parametrize("content", [None, b"{}", b"[]", b"no JSON", b"1"])
def test_figures_of_what_is_no_probe_are_refused_in_a_line(tmp_path, capsys, content):
    if content is not None:
        write_file(str(tmp_path), "probe.json", content)
    assert probe.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x", "--host", ""], "--host: is empty"),
        (["x", "--port", "99999"], "--port: should be"),
        (["x", "--port", "-1"], "--port: should be"),
        ([""], "DIR: is empty"),
    ],
)
def test_the_page_is_not_served_where_nobody_meant_it(arguments, told, capsys):
    with pytest.raises(SystemExit) as end:
        watch.main(arguments)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_an_address_of_mlflow_that_holds_nothing_is_told_and_not_made(tmp_path):
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one")
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as database:
        database.execute("CREATE TABLE mine (x)")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, told in (
        ("sqlite:///{}/no/typo.db", "no such file"),
        ("sqlite:///{}/text.db", "file is not a database"),
        ("sqlite:///{}/empty.db", "not a database of MLflow"),
        ("sqlite:///{}/foreign.db", "not a database of MLflow"),
        ("{}/typo", "no such folder"),
        ("file://{}/typo", "no such folder"),
    ):
        uri = name.format(tmp_path)
        with pytest.raises(ResultsError, match=told) as error:
            check_address(uri)
        assert f"MLflow at {uri} (--mlflow, --tracking-uri or" in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pages_of_a_foreign_mlflow_are_not_served(geosweep, monkeypatch, tmp_path):
    made_up_sweep(tmp_path / "demo")
    monkeypatch.setattr("tune_jobs.folder.inspect", lambda root: type("State", (), {"name": "x"}))
    (tmp_path / "empty.db").touch()
    for uri, told in (
        (f"sqlite:///{tmp_path}/empty.db", "no database of MLflow"),
        ("http://127.0.0.1:9", "open that address"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        code, said = geosweep("ui", "demo", "--port", "5981")
        assert (code, len(said.splitlines())) == (2, 1)
        assert told in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("provider: {type: local}\nmax_workers: 2026-13-45", "month must be in"),
        (f"provider: {{type: local}}\na: {'[' * 2000}", "at most 20 levels deep"),
        ("provider: {type: aws}\nprovider: {type: local}", "line 2: provider is given in line 1"),
        ("provider: [", "not YAML"),
    ],
)
def test_a_cluster_file_gets_the_checks_of_a_sweep_file(tmp_path, text, told):
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(SweepError, match=told):
        reach.cluster_file(str(file))


def test_a_cluster_file_may_be_no_pipe_and_may_override_what_it_merges(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(SweepError, match="is a named pipe"):
        reach.cluster_file(str(tmp_path / "pipe.yaml"))
    file = tmp_path / "cluster.yaml"
    file.write_text("base: &b {x: 1, y: 2}\nprovider: {x: 3, <<: *b, type: local}")
    assert reach.cluster_file(str(file))["provider"] == {"x": 3, "y": 2, "type": "local"}
    assert yaml_file.parse(file.read_text(), overriding=True)[0] == reach.cluster_file(str(file))
    with pytest.raises(yaml_file.YamlError, match="given"):
        yaml_file.parse(file.read_text())


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[0,1e-3]", [0, 1e-3]),
        (" [0, 1e-3] ", [0, 1e-3]),
        ("[0]", [[0]]),
        ('"x, y"', ["x, y"]),
        ("'it''s, so',2", ["it's, so", 2]),
        (r'"a\", b",c', ['a", b', "c"]),
        ("[a, 'b, c'], {x: [1, 2]}", [["a", "b, c"], {"x": [1, 2]}]),
        ("a[1],b{2},it's", ["a[1]", "b{2}", "it's"]),
        ("0,1e-3,plain", [0, 1e-3, "plain"]),
        ("x", ["x"]),
    ],
)
def test_values_of_a_command_line_may_be_lists_and_quoted_texts(text, values):
    assert yaml_file.values(text) == values


@pytest.mark.parametrize("text", ["0,,1", "", ",", "[0,", '"x, y', "[0]]"])
def test_values_that_are_no_values_are_refused(text):
    with pytest.raises(yaml_file.YamlError):
        yaml_file.values(text)
