"""How trials of real sweeps end: handed over and scored, diverged, collapsed, or stopped."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from numpy.testing import assert_allclose
from rich.console import Console
from small_sweeps import SWEEP, Run

from analysis.measures.findings import sentences
from analysis.results import load
from models.config import TrialConfig
from scoring import handover, storage
from scoring.tables import read_row, read_rows, read_table
from tune_jobs import sweep, trial
from tune_jobs.commands.ending import results_table
from tune_jobs.tracking import TRIAL_TAG
from tune_jobs.tuning import Setup, Stop

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]


def test_a_trained_trial_is_only_scored(run, monkeypatch):
    config = (
        sweep.read("demo")
        .trials[0]
        .model_copy(
            update={"epochs": 1, "points": 30, "layers": "fully_connected", "normalisation": "none"}
        )
    )
    monkeypatch.setattr(trial.tune, "report", lambda record: None)
    trial.run_trial(config.model_dump(), Setup(run.root, {"digits": "digits"}))
    assert handover.waiting(run.root) == [config.trial]
    handover.finish(run.root, config.trial)
    assert handover.waiting(run.root) == []
    (row,) = read_table(run.root, "trials").to_pylist()
    assert row["status"] == "done"
    assert row["scored_at"] > row["trained_at"]


def test_what_a_trial_left_for_scoring_may_be_torn_too(run, monkeypatch):
    config = TrialConfig(layers="fully_connected", epochs=1, points=30)
    monkeypatch.setattr(trial.tune, "report", lambda record: None)
    train = [config.model_dump(), Setup(run.root, {"digits": "digits"})]
    trial.run_trial(*train)
    kept = storage.read_file(run.root, f"checkpoints/{config.trial}.pt")
    storage.write_file(run.root, f"pending/{config.trial}/final.npz", b"torn")
    with pytest.raises(storage.StoreError, match="torn"):
        handover.finish(run.root, config.trial)
    assert handover.waiting(run.root) == []
    trial.run_trial(*train)  # leaves it again, and trains nothing
    handover.finish(run.root, config.trial)
    assert storage.read_file(run.root, f"checkpoints/{config.trial}.pt") == kept
    row = read_row(run.root, "trials", config.trial)
    assert (row["status"], row["epochs_done"]) == ("done", 1)


@pytest.fixture(scope="module")
def scored_and_diverged(tmp_path_factory, ray_here):
    """A sweep of two trials: one with more points than the others here, and one that diverges."""
    text = SWEEP.replace("epochs: 2\npoints: 60\n", "").replace("[plain, resnet]", "plain")
    text += """
zip:
- {recipe: [adam, sgd], learning_rate: [1e-3, 1e6], epochs: [2, 3], points: [350, 60]}
"""
    run = Run(tmp_path_factory.mktemp("varied"))
    state = run(text)
    return run, state, [state.rows[trial.trial] for trial in state.trials]


@pytest.mark.long
def test_a_trial_that_diverges_says_so_and_keeps_what_it_measured(scored_and_diverged):
    run, state, (_, row) = scored_and_diverged
    assert row["status"] == "diverged"
    assert row["epochs_done"] < 3
    assert len(read_rows(run.root, "epochs", row["trial"])) == row["epochs_done"] + 1
    assert state.missing == []


def test_finishing_twice_is_finishing_once(run, monkeypatch):
    config = TrialConfig(layers="fully_connected", epochs=1, points=30)
    monkeypatch.setattr(trial.tune, "report", lambda record: None)
    trial.run_trial(config.model_dump(), Setup(run.root, {"digits": "digits"}))
    handover.finish(run.root, config.trial)
    row = read_row(run.root, "trials", config.trial)
    handover.finish(run.root, config.trial)
    assert read_row(run.root, "trials", config.trial) == row
    with pytest.raises(FileNotFoundError):
        handover.finish(run.root, "0123456789ab")


@pytest.mark.long
def test_a_network_that_decay_has_emptied_is_reported_as_collapsed_and_not_as_optimal(run):
    text = SWEEP.replace("gamma: 1e-3", "gamma: 10\nlearning_rate: 0.1").replace("2", "3", 1)
    state = run(text)
    plain, resnet = (state.rows[trial.trial] for trial in state.trials)
    assert plain["collapsed"]
    assert all(np.isnan(plain[name]) for name in ("ots", "gap", "movement"))
    assert not resnet["collapsed"]
    assert resnet["movement"] < 1e-4  # the identity: its OTS of 1 was not learnt
    assert all(row["suboptimality"] <= 1e-6 for row in (plain, resnet))
    console = Console(file=io.StringIO(), width=140)
    console.print(results_table(state, 140))
    assert "collapsed" in console.file.getvalue()
    client = MlflowClient(f"sqlite:///{run.root}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    tags = {r.data.tags.get(TRIAL_TAG): r.data.tags.get("geosweep.collapsed") for r in runs}
    assert tags[plain["trial"]] == "true: no OTS"
    assert tags[resnet["trial"]] is None
    said = " ".join(sentences(load(run.root)))
    assert "Collapsed: 1 of 2 trials (plain 1, at γ = 10)" in said
    assert "Hardly moving: 1 of 2 trials (at γ = 10)" in said


@pytest.mark.long
def test_ots_comes_with_its_proof_its_classes_and_smaller_m(scored_and_diverged):
    run, _, (row, _) = scored_and_diverged
    assert row["released_at"] < row["scored_at"]
    tracks = read_rows(run.root, "tracks", row["trial"])
    for track in (tracks[0], tracks[-1]):
        assert track["suboptimality"] <= 1e-6
        assert track["prefix_m"] == [100, 300, 350]
        assert track["prefix_ots"][-1] == track["ots"]
        assert track["prefix_gap"][-1] == track["gap"]
    samples = pd.DataFrame(read_rows(run.root, "samples", row["trial"]))
    kept = samples.permutation == samples.point
    assert_allclose(tracks[-1]["ots_by_class"], kept.groupby(samples.label).mean())
    assert tracks[1]["prefix_m"] is None


@pytest.mark.long
def test_asha_stops_what_lags_behind_and_what_it_stopped_goes_on_without_it(run):
    text = SWEEP.replace("epochs: 2", "epochs: 12\nlearning_rate: [1e-3, 1e-9]\nrecipe: sgd")
    text = text.replace("[plain, resnet]", "resnet")
    asha = text + "scheduler: {method: asha, grace: 2}"
    run(asha.replace("[1e-3, 1e-9]", "1e-3"))  # first: what is alone at a rung is not stopped
    state = run(asha)
    best, worst = sorted(state.rows.values(), key=lambda r: -r["test_accuracy"])
    assert (best["status"], best["epochs_done"]) == ("done", 12)
    assert (worst["status"], worst["epochs_done"]) == ("stopped", 2)
    assert worst["lss"] > 1
    assert np.isnan(worst["ots"])
    assert state.complete
    assert len(read_rows(run.root, "epochs", worst["trial"])) == 3
    state = run(text)
    assert {row["status"] for row in state.rows.values()} == {"done"}
    assert state.rows[best["trial"]] == best
    assert len(read_rows(run.root, "epochs", worst["trial"])) == 13


def test_a_sweep_that_stops_lets_running_epochs_end_and_waits_for_no_other():
    said: list[str] = []
    stop = Stop(2, said.append)
    one, other = (SimpleNamespace(trial_id=name, status="RUNNING") for name in ("one", "other"))
    stop.failed()
    stop.look([one, other])
    assert not stop("one", {})
    stop.failed()
    assert stop("one", {})  # where it is, after its epoch
    stop.look([one, other])
    assert said == ["stopping when the epochs that are running have ended (too many cells failed)"]
    assert not stop.stop_all()
    one.status = "TERMINATED"
    late = SimpleNamespace(trial_id="late", status="RUNNING")
    stop.look([one, other, late])
    assert not stop.stop_all()
    other.status = "ERROR"
    stop.look([one, other, late])
    assert stop.stop_all()  # late had no epoch under way when it was asked for
    assert not stop.interrupted
