"""Disk space: the weights of the best trials, what can be deleted, and what never is."""

import itertools
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import places, storage
from scoring.tables import write_table
from tune_jobs import disk, evaluations, folder, lease, mlflow_store, sweep
from tune_jobs.commands import clean
from tune_jobs.weights import aim, spare

NOISE = evaluations.read(["noise"])
ACCURACY = ("test_accuracy", "max")
ENDED = ("done", "diverged")


def row(value: float | None, status: str = "done", has: dict | None = None) -> dict:
    return {"test_accuracy": value, "status": status, "evaluations": json.dumps(has or {})}


def ranked(rows: dict) -> list[str]:
    """Trials from the best to the worst, by comparing each with all others."""

    def beats(one: str, other: str) -> bool:
        a, b = (rows[t]["test_accuracy"] for t in (one, other))
        return (a, other) > (b, one)

    wins = {t: sum(beats(t, other) for other in rows if other != t) for t in rows}
    return sorted(rows, key=lambda t: -wins[t])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8).flatmap(
        lambda values: st.tuples(st.just(values), st.permutations(range(len(values))))
    ),
    st.integers(1, 4),
)
def test_the_same_trials_keep_their_weights_in_whatever_order_they_finish(drawn, count):
    values, order = drawn
    rows = {f"t{i}": row(value / 5) for i, value in enumerate(values)}
    kept: dict = {}
    for number in order:
        kept[f"t{number}"] = rows[f"t{number}"]
        for trial in spare(kept, {"best": count}, ACCURACY, {}, ENDED):
            del kept[trial]
        assert len(kept) <= count
    assert set(kept) == set(ranked(rows)[:count])


def test_a_trial_that_lacks_an_evaluation_or_is_not_finished_keeps_its_weights():
    rows = {"a": row(0.9, has=NOISE), "b": row(0.8, has=NOISE), "c": row(0.7)}
    rows |= {"d": row(None, "failed"), "e": row(0.1, "diverged"), "f": row(0.2, "stopped")}
    assert spare(rows, {"best": 1}, ACCURACY, NOISE, ENDED) == ["b", "e"]
    assert spare(rows, "none", ACCURACY, NOISE, ENDED) == ["a", "b", "e"]
    assert spare(rows, {"best": 1}, ACCURACY, {}, (*ENDED, "stopped")) == ["b", "c", "e", "f"]
    assert spare(rows, "final", ACCURACY, {}, ENDED) == []


def test_a_score_that_is_unknown_is_the_worst():
    rows = {"a": row(None), "b": row(float("nan")), "c": row(0.0)}
    assert spare(rows, {"best": 1}, ACCURACY, {}, ENDED) == ["a", "b"]


def test_the_best_are_those_of_the_searchs_objective_or_of_accuracy():
    trials = sweep.read("demo").trials
    held_out = sweep.read("demo", ["validation=0.1"]).trials
    assert aim(None, trials) == ("test_accuracy", "max")
    assert aim(None, [*held_out, trials[0]]) == ("test_accuracy", "max")
    assert aim(None, held_out) == ("validation_accuracy", "max")
    assert aim({"lss": "min", "ots": "max"}, held_out) == ("lss", "min")


def test_the_number_of_trials_that_keep_weights_is_read_and_does_not_change_their_ids():
    plain, best = sweep.read("demo"), sweep.read("demo", ["keep.best=3"])
    assert best.keep == {"best": 3}
    assert [t.trial for t in plain.trials] == [t.trial for t in best.trials]


@pytest.mark.parametrize("value", ["0", "yes", "1.5", "-1", "100001"])
def test_a_number_of_trials_that_cannot_be_is_refused(value):
    with pytest.raises(ValueError, match=r"should be \{best: k\}, for the weights of the k best"):
        sweep.read("demo", [f"keep.best={value}"])


def made_up(root: str, keep="final") -> dict[str, str]:
    """A sweep with a trial of each kind; the trials by what they are.

    The first two are finished, one was never evaluated, one is begun and one is scored.
    """
    found = sweep.read("demo", [f"keep={keep}", "evaluations=noise"])
    folder.claim(root, found)
    names = ("finished", "best", "unevaluated", "begun", "waiting", "diverged")
    trials = dict(zip(names, (t.trial for t in found.trials), strict=False))
    configs = {t.trial: t for t in found.trials}
    for name, trial in trials.items():
        if name in ("finished", "best", "unevaluated", "diverged"):
            has = {} if name == "unevaluated" else NOISE
            status = "diverged" if name == "diverged" else "done"
            write_table(
                root,
                "trials",
                trial,
                [{"trial": trial, **configs[trial].model_dump()} | row(0.5, status, has)],
            )
            write_table(root, "robustness", trial, [{"trial": trial, "evaluation": "noise"}])
        storage.write_file(root, places.checkpoint(trial), b"w" * 1000)
        storage.write_file(root, places.history(trial), b"h" * 10)
    storage.write_file(root, places.best_checkpoint(trials["best"]), b"w" * 500)
    storage.write_file(root, places.final(trials["waiting"]), b"p" * 7)
    return trials


def weights(root: str) -> set[str]:
    return {name.partition(".")[0] for name in storage.list_files(root, places.CHECKPOINTS)}


@pytest.fixture
def root(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return str(tmp_path / "out")


def test_checkpoints_of_finished_trials_are_deleted_and_no_others(root, geosweep):
    trials = made_up(root)
    before = disk.sizes(root)
    code, out = geosweep("clean", "out", "--checkpoints", "--yes")
    assert code == 0
    assert "weights of finished trials      7  3.5 kB" in out
    assert "freed 3.5 kB" in out
    assert weights(root) == {trials[n] for n in ("unevaluated", "begun", "waiting")}
    gone = before.keys() - disk.sizes(root).keys() - {places.HOLDER}
    assert all(path.startswith(f"{places.CHECKPOINTS}/") for path in gone)
    assert geosweep("clean", "out", "--checkpoints", "--yes") == (0, "nothing to delete\n")


def test_without_a_terminal_and_without_yes_nothing_is_deleted(root, geosweep):
    made_up(root)
    before = disk.sizes(root)
    code, out = geosweep("clean", "out", "--checkpoints")
    assert code == 2
    assert "no terminal to ask on; --yes deletes without asking" in out
    assert disk.sizes(root).keys() - {places.LOCK} == before.keys()


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_asks(root, geosweep, monkeypatch, answer):
    made_up(root)
    monkeypatch.setattr(clean.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(clean.typer, "confirm", lambda text: answer)
    code, out = geosweep("clean", "out", "--checkpoints")
    assert code == 0
    assert ("freed" in out) is answer
    assert ("nothing was deleted" in out) is not answer
    assert len(weights(root)) == (3 if answer else 6)


def test_a_running_sweep_is_left_alone(root, geosweep):
    made_up(root)
    with lease.hold(root):
        code, out = geosweep("clean", "out", "--yes")
    assert code == 2
    assert "is running this sweep; wait for it, or stop it" in out
    assert len(weights(root)) == 6


def test_what_nothing_needs_is_the_default_and_a_report_may_be_writing(root, geosweep):
    trials = made_up(root)
    hidden = f".trials.csv.{'0a' * 16}"
    for path in (
        f"{places.ASIDE}/torn.json",
        places.dataset("0123"),
        f"{places.pending(trials['finished'])}/{places.INITIAL}",
        f"{places.REPORT}/{hidden}",
        f"{places.RESULTS}/{hidden}",
        f"{places.ARTIFACTS}/{hidden}",
        "notes.txt",
    ):
        storage.write_file(root, path, b"12345")
    old = time.time() - 7200
    for place in (places.RESULTS, places.ARTIFACTS):
        os.utime(Path(root, place, hidden), (old, old))
    code, out = geosweep("clean", "out", "--yes")
    assert code == 0
    assert "files that nothing needs      4  20 bytes  damaged files, or files of others, in" in out
    assert "--checkpoints would free 3.5 kB: weights of finished trials" in out
    left = disk.sizes(root)
    assert {f"{places.REPORT}/{hidden}", f"{places.ARTIFACTS}/{hidden}", "notes.txt"} <= set(left)
    assert f"{places.RESULTS}/{hidden}" not in left
    assert not Path(root, places.ASIDE).exists()
    assert storage.list_files(root, places.PENDING) == [trials["waiting"]]


def test_mlflows_data_is_deleted_and_the_results_stay(root, geosweep):
    made_up(root)
    storage.write_file(root, places.MLFLOW, b"d" * 30)
    storage.write_file(root, f"{places.ARTIFACTS}/1/run/a.txt", b"a" * 10)
    before = set(disk.sizes(root))
    assert "freed 40 bytes" in geosweep("clean", "out", "--mlflow", "--yes")[1]
    assert before - set(disk.sizes(root)) == {places.MLFLOW, f"{places.ARTIFACTS}/1/run/a.txt"}


@pytest.mark.long
@pytest.mark.ray  # for the warnings that MLflow causes
def test_of_two_sweeps_in_a_folder_only_the_named_ones_runs_are_deleted(
    tmp_path, geosweep, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = str(tmp_path / "100% of 50?")  # letters that URIs encode
    made_up(root)
    name = folder.inspect(root).name
    client, runs = mlflow_store.open_client(root), {}
    for one in ("other", name):
        place = Path(root, places.ARTIFACTS).as_uri()
        run = client.create_run(client.create_experiment(one, place)).info.run_id
        client.log_text(run, "a" * 10, "a.txt")
        runs[one] = run
    said = geosweep("clean", root, "--mlflow", "--yes")[1]
    assert f"MLflow's runs of {name}" in said
    assert "runs of other stay" in said
    assert mlflow_store.mlflow_runs(root) == {"other": [runs["other"]]}
    kept = [path.parts[-3] for path in Path(root, places.ARTIFACTS).rglob("a.txt")]
    assert kept == [runs["other"]]
    assert client.get_experiment_by_name(name) is None
    assert not (tmp_path / "100% of 50%3F").exists()


def test_a_cleaning_that_was_killed_goes_on(root, geosweep, monkeypatch):
    made_up(root)
    calls = itertools.count()
    real = storage.delete

    def delete(root: str, path: str) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        real(root, path)

    monkeypatch.setattr(storage, "delete", delete)
    assert geosweep("clean", "out", "--checkpoints", "--yes")[0] == 130
    folder.inspect(root)
    assert geosweep("clean", "out", "--checkpoints", "--yes")[0] == 0
    assert len(weights(root)) == 3


def test_an_object_store_is_cleaned_likewise(object_store, tmp_path, cache, geosweep):
    root = f"{object_store}/{tmp_path.name}/out"
    trials = made_up(root)
    storage.write_file(root, f"{places.ASIDE}/torn.json", b"12345")
    code, out = geosweep("clean", root, "--checkpoints", "--leftover", "--yes")
    assert code == 0
    assert "freed 3.5 kB" in out
    assert weights(root) == {trials[n] for n in ("unevaluated", "begun", "waiting")}
    assert storage.list_files(root, places.ASIDE) == []
    assert "size: " in geosweep("status", root)[1]


def test_status_shows_the_size_without_what_links_lead_to(root, geosweep):
    made_up(root)
    Path(root, "again").symlink_to(root)
    out = geosweep("status", "out")[1]
    assert out.splitlines()[-2].endswith("kB, of which 6.6 kB are checkpoints")
    assert "size: " in out


def test_a_trial_that_is_not_among_the_best_is_excused_from_evaluations(root):
    trials = made_up(root)
    storage.delete(root, places.checkpoint(trials["unevaluated"]))
    assert folder.inspect(root).weightless == [trials["unevaluated"]]  # killed half-way
    storage.delete(root, places.history(trials["unevaluated"]))
    assert folder.inspect(root).weightless == [trials["unevaluated"]]
    folder.claim(root, sweep.read("demo", ["keep.best=1", "evaluations=noise"]))
    state = folder.inspect(root)
    assert (state.weightless, state.excused) == ([], [trials["unevaluated"]])
    assert state.unreachable == ["noise of 1 trial cannot be added"]
    assert folder.as_sweep(root).keep == {"best": 1}
