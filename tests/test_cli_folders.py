"""Commands on a sweep's folder: what is there, what is not, and what does not belong there."""

import io
import json
import math
import os
from pathlib import Path
from unittest import mock

import pytest
from rich.console import Console

from models import datasets
from scoring import places, storage
from scoring.tables import write_table
from tune_jobs import folder, lease, service, sweep
from tune_jobs.board import Board
from tune_jobs.evaluations import EARLIER, read


@pytest.fixture
def geosweep(called, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return called


def test_a_folder_that_cannot_be_written_is_named(geosweep, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = geosweep("run", "demo", "--out", str(tmp_path / "file"))
    assert code == 2
    assert "file: a file, where a folder should be; name another folder" in err


@pytest.mark.parametrize(
    "words", [["run", "demo", "--dry-run", "--out"], *([n] for n in ("status", "watch", "clean"))]
)
@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_folder_for_any_command(geosweep, tmp_path, words, name):
    (tmp_path / "file").write_text("")
    code, out, err = geosweep(*words, str(tmp_path / name))
    said = f"geosweep: {tmp_path}/file: a file, where a folder should be; name another folder\n"
    assert (code, out, err) == (2, "", said)


def test_a_torn_table_is_named(geosweep, tmp_path):
    folder.claim(str(tmp_path / "out"), sweep.read("demo"))
    storage.write_file(str(tmp_path / "out"), "results/trials/x.parquet", b"PAR1 torn")
    code, _, err = geosweep("status", "out")
    assert code == 2
    assert "x.parquet" in err


def done(root: str, found: sweep.Sweep) -> None:
    """Have a sweep's folder hold a row of each of its trials."""
    folder.claim(root, found)
    for one in found.trials:
        row = {"trial": one.trial, **one.model_dump(), "status": "done"}
        write_table(root, "trials", one.trial, [row])


def files(place) -> dict:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["epochs=1"], "runs/demo holds 16 trials that this sweep does not have (epochs=5)"),
        (["gamma=0,0.01"], "holds 8 trials that this sweep does not have (gamma=0.1, gamma=0.3)"),
        (["network=plain", "K=1"], "holds 12 trials that this sweep does not have (resnet, K=2)"),
    ],
)
def test_another_sweep_does_not_land_in_a_folder_by_accident(geosweep, tmp_path, settings, told):
    done(str(tmp_path / "runs/demo"), sweep.read("demo"))
    before = files(tmp_path)
    words = [word for setting in settings for word in ("--set", setting)]
    code, out, err = geosweep("run", "demo", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.endswith(
        "; --out runs/demo-2 uses another folder, --out runs/demo keeps both sweeps in this one\n"
    )
    assert files(tmp_path) == before
    done(str(tmp_path / "runs/demo-2"), sweep.read("demo"))
    assert "--out runs/demo-3 uses" in geosweep("run", "demo", *words)[2]
    assert geosweep("run", "demo", *words, "--out", "runs/demo", "--dry-run")[0] == 0


def test_a_misspelt_argument_is_named_rather_than_the_folder_that_lacks_it(geosweep, tmp_path):
    (tmp_path / "my.yaml").write_text("dataset: digits\narchitecture: own_net.py:two\nseeds: 1\n")
    (tmp_path / "own_net.py").write_bytes((Path(__file__).parent / "own_net.py").read_bytes())
    done(str(tmp_path / "runs/my"), sweep.read("my.yaml"))
    code, _, err = geosweep("run", "my.yaml", "--set", "model.widht=3", "--dry-run")
    assert code == 2
    assert "widht" in err
    assert "--out" not in err


def test_cells_that_differ_in_no_single_value_are_named(geosweep, tmp_path):
    (tmp_path / "my.yaml").write_text("gamma: [0, 1]\nK: [1, 2]")
    done(str(tmp_path / "runs/my"), sweep.read("my.yaml"))
    (tmp_path / "my.yaml").write_text("zip: [{gamma: [0, 1], K: [1, 2]}]")
    err = geosweep("run", "my.yaml", "--dry-run")[2]
    assert "holds 2 trials that this sweep does not have (K=1 gamma=1, K=2 gamma=0)" in err


def test_a_sweep_that_grew_and_one_of_which_nothing_has_begun_are_not_refused(geosweep, tmp_path):
    root = str(tmp_path / "runs/demo")
    done(root, sweep.read("demo", ["seeds=1"]))
    assert geosweep("run", "demo", "--set", "seeds=3", "--dry-run")[0] == 0
    assert geosweep("run", "demo", "--set", "gamma=0,0.01,0.1,0.3,1", "--dry-run")[0] == 0
    folder.claim(root, sweep.read("demo", ["epochs=3"]))  # of these nothing is there
    assert geosweep("run", "demo", "--set", "epochs=4", "--dry-run")[0] == 0
    storage.write_file(
        root, f"checkpoints/{sweep.read('demo', ['epochs=3']).trials[0].trial}.pt", b""
    )
    assert "holds 1 trial that" in geosweep("run", "demo", "--set", "epochs=4", "--dry-run")[2]


def test_a_search_does_not_land_in_the_folder_of_a_grid_by_accident(geosweep, tmp_path):
    (tmp_path / "my.yaml").write_text("gamma: [0, 0.1]\nepochs: 2")
    done(str(tmp_path / "runs/my"), sweep.read("my.yaml"))
    before = files(tmp_path / "runs")
    (tmp_path / "my.yaml").write_text("gamma: {low: 1e-5, high: 0.1}\nepochs: 3\nsearch: optuna")
    code, _, err = geosweep("run", "my.yaml", "--dry-run")
    assert code == 2
    assert "runs/my holds 2 trials that this sweep does not have (" in err
    assert "--out runs/my keeps both sweeps in this one" in err
    assert files(tmp_path / "runs") == before
    assert geosweep("run", "my.yaml", "--dry-run", "--out", "runs/my")[0] == 0


def test_a_search_goes_on_in_its_folder(geosweep, tmp_path):
    (tmp_path / "my.yaml").write_text("gamma: {low: 1e-5, high: 0.1}\nsearch: optuna")
    found = sweep.read("my.yaml")
    suggested = [found.trials[0].model_copy(update={"gamma": 0.02})]
    root = str(tmp_path / "runs/my")
    folder.claim(root, found, suggested)
    row = {"trial": suggested[0].trial, **suggested[0].model_dump(), "status": "done"}
    write_table(root, "trials", suggested[0].trial, [row])
    code, out, _ = geosweep("run", "my.yaml", "--dry-run")
    assert code == 0
    assert "my: 20 cells, suggested over gamma" in out
    assert "runs/my (1 of them done there)" in out


def test_a_dry_run_downloads_nothing_and_says_what_would_happen(geosweep, tmp_path):
    (tmp_path / "my.yaml").write_text(
        "dataset: [digits, cifar100]\nm: 60\nepochs: 20\nevaluations: {pgd: {steps: 5}, noise:}"
    )
    with mock.patch.object(datasets, "_from_torchvision", side_effect=AssertionError):
        code, out, err = geosweep("run", "my.yaml", "--dry-run")
    assert (code, err) == (0, "")
    assert "folder   runs/my (none done there)" in out
    assert "fixed    epochs=20 points=60" in out
    assert "evaluate noise, pgd (steps = 5)" in out
    assert "data     cifar100 is not on this machine yet" in out
    assert list(tmp_path.iterdir()) == [tmp_path / "my.yaml"]
    done(str(tmp_path / "runs/demo"), sweep.read("demo", ["network=plain"]))
    out = geosweep("run", "demo", "--dry-run")[1]
    assert "(8 of them done there)" in out
    assert out.count("(done)") == 8


def test_status_says_that_a_driver_is_starting(geosweep, tmp_path):
    root = str(tmp_path / "out")
    folder.claim(root, sweep.read("demo"))
    with lease.hold(root):
        assert f"starting (process {os.getpid()} on " in geosweep("status", "out")[1]
        board = Board(root, {}, lambda: 1, Console(file=io.StringIO()))
        live = board.snapshot() | {"seconds_left": 125.0}
        storage.write_file(root, places.PROGRESS, json.dumps(live).encode())
        out = geosweep("status", "out")[1]
        assert "running now, about 2 min 05 s left; no trial has its place yet" in out
        name = "plain " + "gamma=0.1 " * 20
        live["running"] = {"x": {"label": name, "epoch": 3, "epochs": 15}}
        storage.write_file(root, places.PROGRESS, json.dumps(live).encode())
        out = geosweep("status", "out")[1]
        assert f"running now, about 2 min 05 s left:\n  {name}: epoch 3 of 15\n" in out
    assert "not running; geosweep run continues" in geosweep("status", "out")[1]


@pytest.mark.parametrize(
    "arguments",
    [["status", "out"], ["evaluate", "out"], ["report", "out"], ["ui", "out"], ["watch", "out"]],
)
def test_a_folder_that_is_not_there_is_told_from_one_without_a_sweep(geosweep, tmp_path, arguments):
    assert "out: no such folder; geosweep run SWEEP" in geosweep(*arguments)[2]
    (tmp_path / "out").mkdir()
    told = geosweep(*arguments)[2]
    assert told.endswith("out: no sweep here (no sweep.json); is it another folder?\n")
    folder.claim(str(tmp_path / "my demo"), sweep.read("demo"))
    told = geosweep(*arguments)[2]
    assert f"is it another folder? geosweep status {tmp_path} lists the sweeps there" in told
    assert geosweep("status", str(tmp_path))[1].splitlines()[1].startswith("my demo ")


@pytest.mark.parametrize("part", ["results", "results/trials", "typo", "pending/0123456789ab"])
def test_a_part_of_a_sweeps_folder_is_told_with_the_folder(geosweep, tmp_path, part):
    root = tmp_path / "my demo"
    folder.claim(str(root), sweep.read("demo"))
    if part != "typo":
        (root / part).mkdir(parents=True)
    told = geosweep("status", str(root / part))[2]
    assert told.endswith(f"is it another folder? geosweep status '{root}' shows the sweep there\n")


def test_status_as_json_has_each_trial_and_nothing_else(geosweep, tmp_path):
    root, found = str(tmp_path / "runs/out"), sweep.read("demo")
    folder.claim(root, found)
    first, _, third, *_ = found.trials
    rows = {"done": {"lss": 1.5, "ots": math.nan, "epochs_done": 5}, "failed": {"error": "E: no"}}
    for trial, (status, values) in zip(found.trials, rows.items(), strict=False):
        row = {"trial": trial.trial, **trial.model_dump(), "status": status, **values}
        write_table(root, "trials", trial.trial, [row])
    code, out, err = geosweep("status", root, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert [t["trial"] for t in told["trials"]] == [t.trial for t in found.trials]
    assert [t["status"] for t in told["trials"]] == ["done", "failed", *["missing"] * 14]
    assert told["counts"]["missing"] == 14
    assert told["seconds_left"] is None
    assert told["trials"][0]["scores"] | {"lss": 1.5, "ots": None} == told["trials"][0]["scores"]
    assert told["trials"][0] | first.model_dump() == told["trials"][0]
    assert told["trials"][1]["error"] == "E: no"
    live = {"written_at": 0, "started_at": 0, "counts": {}, "log": [], "seconds_left": 125.0}
    live["running"] = {third.trial: {"label": "it", "epoch": 3, "epochs": 5}}
    with lease.hold(root):
        storage.write_file(root, places.PROGRESS, json.dumps(live).encode())
        told = json.loads(geosweep("status", root, "--json")[1])
    assert (told["running"], told["seconds_left"]) == (True, 125.0)
    assert (told["trials"][2]["status"], told["trials"][2]["epoch"]) == ("running", 3)
    assert json.loads(geosweep("status", "runs", "--json")[1])["sweeps"][0]["name"] == "demo"
    storage.write_file(root, places.SWEEP, b"torn")
    code, out, err = geosweep("status", "runs", "--json")
    assert (code, err) == (0, "")
    assert "sweep.json: torn" in json.loads(out)["sweeps"][0]["error"]


def test_evaluations_are_added_to_a_description_without_another_change(tmp_path):
    root, file = str(tmp_path), tmp_path / places.SWEEP
    folder.claim(root, sweep.read("demo", ["evaluations=noise"]))
    content = file.read_bytes()
    folder.request_evaluations(root, {})
    assert file.read_bytes() == content
    file.write_text(json.dumps(json.loads(content) | {"of_a_later_version": [1]}))
    folder.request_evaluations(root, {"fgsm": {"levels": [8.0]}})
    assert folder.description(root).evaluations.keys() == {"noise", "fgsm"}
    assert json.loads(file.read_text())["of_a_later_version"] == [1]


def test_a_report_of_nothing_is_refused_without_the_names_of_modules(geosweep, tmp_path):
    folder.claim(str(tmp_path / "out"), sweep.read("demo"))
    code, _, err = geosweep("report", "out")
    assert code == 2
    assert err.startswith(f"geosweep: {tmp_path}/out: no results in it")


def test_status_counts_without_ray(geosweep, tmp_path):
    folder.claim(str(tmp_path / "out"), sweep.read("demo"))
    code, out, _ = geosweep("status", "out")
    assert code == 0
    assert "16 missing" in out
    assert "not running" in out


def test_what_was_measured_stays_and_what_is_new_is_out_of_reach_without_weights(
    geosweep, tmp_path
):
    root, file = str(tmp_path / "out"), tmp_path / "old.yaml"
    file.write_text("dataset: digits\nkeep: none\nevaluations: [lesion, separation, noise]\n")
    found = sweep.read(str(file), ["seeds=2", "epochs=1", "points=60"])
    had = {name: dict(settings) for name, settings in found.evaluations.items()}
    for name, new in EARLIER.items():  # as a version recorded them that had fewer settings
        had[name] = {k: v for k, v in had[name].items() if k not in new}

    def record(evaluations: dict) -> folder.State:
        folder.claim(root, found)
        for one in found.trials:
            row = {"trial": one.trial, **one.model_dump(), "status": "done"}
            row["evaluations"] = json.dumps(evaluations)
            write_table(root, "trials", one.trial, [row])
            write_table(root, "robustness", one.trial, [{"trial": one.trial, "of": "lesion"}])
        return folder.inspect(root)

    state = record(had)
    assert (state.weightless, state.unevaluated, state.complete) == ([], [], True)
    assert state.excused == [one.trial for one in found.trials]
    words = (
        "lesion of 2 trials stays as measured (replacement = previous, units = top); "
        "replacement = previous, mean, units = top, random cannot be added"
    )
    code, out, _ = geosweep("status", "out")
    assert code == 0
    assert f"  no weights: {words}\n" in out
    assert "to evaluate" not in out
    code, _, err = geosweep("evaluate", "out", "lesion")
    assert (code, err) == (
        2,
        f"geosweep: {root}: no weights were kept (keep: none, or geosweep clean): {words}\n",
    )
    state = record({name: had[name] for name in ("lesion", "separation")})
    assert (len(state.weightless), state.excused) == (2, [])
    assert "noise of 2 trials cannot be added" in geosweep("status", "out")[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["blur"], "no 'blur'; should be one of lesion, noise, fgsm, pgd, separation, curve"),
        (["noise", "--set", "noise.levels=900"], "noise.levels = 900"),
        (["noise", "--set", "pgd.steps=2"], "pgd is not among noise"),
        (
            ["pdg"],
            "no 'pdg'; should be one of lesion, noise, fgsm, pgd, separation, curve, scores; "
            "did you mean pgd?",
        ),
        (
            ["pgd", "--set", "steps=3"],
            "--set steps=3: should be like noise.levels=0,8,16; did you mean pgd.steps=3?",
        ),
        (["pgd", "--set", "pgd.step=3"], "did you mean steps?"),
        ([], "no trial is done yet; geosweep run trains them"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_a_line(geosweep, tmp_path, arguments, told):
    folder.claim(str(tmp_path / "out"), sweep.read("demo"))
    code, _, err = geosweep("evaluate", "out", *arguments)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1
    assert folder.as_sweep(str(tmp_path / "out")).evaluations == {}


def test_status_tells_begun_from_missing(geosweep, tmp_path):
    root, demo = str(tmp_path / "out"), sweep.read("demo")
    folder.claim(root, demo)
    storage.write_file(root, f"checkpoints/{demo.trials[0].trial}.pt", b"some epochs")
    _, out, _ = geosweep("status", "out")
    assert "1 begun" in out
    assert "15 missing" in out


AGAIN, ALL = "run the same command again for", "run the same command without {} for"


@pytest.mark.parametrize(
    ("option", "before", "after", "status", "told"),
    [
        ("--leave-failed", "done failed", None, 0, ALL),  # nothing is left to do
        ("--leave-failed", "missing failed", "done failed", 0, ALL),
        ("--leave-failed", "missing failed", "failed failed", 1, ALL),  # one failed now
        ("--leave-failed", "missing failed", "missing failed", 1, ALL),
        ("--leave-failed", "missing done", "missing done", 1, AGAIN),
        ("--leave-failed", "missing done", "done done", 0, ""),
        ("--retry-failed", "missing done", None, 0, ALL),
        ("--retry-failed", "missing failed", "missing done", 0, ALL),
        ("--retry-failed", "missing failed", "missing failed", 1, ALL),
        ("--retry-failed", "done failed", "done failed", 1, AGAIN),
        ("--no-report", "missing failed", "missing failed", 1, AGAIN),
        ("--no-report", "missing failed", "done done", 0, ""),
    ],
)
def test_the_end_says_which_command_trains_the_rest(
    geosweep, tmp_path, monkeypatch, option, before, after, status, told
):
    """Without Ray: the two trials have these statuses before and after the run."""
    found = sweep.read("demo", ["gamma=0", "K=1"])
    root = str(tmp_path / "out")
    folder.claim(root, found)

    def leave(statuses):
        for one, word in zip(found.trials, statuses.split(), strict=True):
            row = one.row(1) | {"status": word, "error": "ValueError: 7"}
            if word != "missing":
                write_table(root, "trials", one.trial, [row])

    def trained(request, *_):
        assert after, "nothing should be trained"
        leave(after)
        return {}

    leave(before)
    monkeypatch.setattr(service, "_run", trained)
    monkeypatch.setattr(service, "is_behind", lambda *_: False)
    words = ("run", "demo", "--set", "gamma=0", "--set", "K=1", "--out", "out", "--no-report")
    code, out, _ = geosweep(*words, option)
    assert code == status
    last = out.splitlines()[-1]
    if told:
        assert last == f"continue {told.format(option)} what is missing"
    else:
        assert "continue" not in out


@pytest.mark.parametrize("option", ["--retry-failed", "--leave-failed", "--no-report"])
def test_the_end_counts_every_trial_if_no_budget_is_left(geosweep, tmp_path, monkeypatch, option):
    found = sweep.read("demo", ["gamma=0", "K=1"])
    row = found.trials[0].row(1) | {"status": "failed", "error": "ValueError: 7"}
    write_table(str(tmp_path / "out"), "trials", row["trial"], [row])
    monkeypatch.setattr(service, "_nothing_fits", lambda *_: "2 h of 2 h used")
    words = ("run", "demo", "--set", "gamma=0", "--set", "K=1", "--out", "out", "--no-report")
    code, out, _ = geosweep(*words, option)
    assert code == 3
    assert "0 of 2 done, 1 failed, 1 not finished in" in out


@pytest.mark.parametrize("evaluated", [True, False])
def test_evaluate_leaves_what_is_missing_to_a_run(geosweep, tmp_path, monkeypatch, evaluated):
    found, root = sweep.read("demo", ["gamma=0", "K=1"]), str(tmp_path / "out")
    folder.claim(root, found)
    row = found.trials[0].row(1) | {"status": "done", "evaluations": json.dumps(read(["noise"]))}
    write_table(root, "trials", row["trial"], [row])
    storage.write_file(root, places.checkpoint(row["trial"]), b"")
    if evaluated:
        write_table(root, "robustness", row["trial"], [{"trial": row["trial"], "of": "noise"}])
    monkeypatch.setattr(service, "_run", lambda *_: {})
    code, out, _ = geosweep("evaluate", "out", "noise", "--no-report")
    told = "geosweep run with the sweep file trains" if evaluated else "run the same command again"
    assert code == int(not evaluated)
    assert out.splitlines()[-1].startswith(f"continue {told}")


def test_only_one_of_two_opposite_options_is_taken(geosweep):
    for words in (("--retry-failed", "--leave-failed"), ("--leave-failed", "--retry-failed")):
        code, out, err = geosweep("run", "demo", *words, "--dry-run")
        assert (code, out) == (2, "")
        assert err == "geosweep: --retry-failed and --leave-failed: give one of them\n"
