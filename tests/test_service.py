"""Sweeps end to end: real Ray, MLflow and Parquet on scikit-learn's digits."""

import io
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.tracking import MlflowClient
from numpy.testing import assert_allclose
from rich.console import Console
from small_sweeps import SWEEP, Run

from analysis.measures.findings import sentences
from analysis.results import load
from models import datasets, training
from models.config import TrialConfig
from scoring import handover, merging, pieces, places, schemas, storage, tables
from scoring.tables import read_row, read_rows, read_table
from scoring.transport import optimal_transport_score
from tune_jobs import checkpoints, folder, service, sweep, trial
from tune_jobs.board import Board, cells
from tune_jobs.commands.ending import results_table
from tune_jobs.errors import SweepError
from tune_jobs.tracking import METRICS, ROBUSTNESS, SWEEP_TAG, TRIAL_TAG, Tracker
from tune_jobs.tuning import Setup, Stop

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.fixture
def plain(tmp_path, plain_finished):
    """A copy of a finished sweep of one trial, and its state."""
    run = Run(tmp_path, plain_finished)
    return run, run(SWEEP, "network=plain")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, plain_finished):
    """The sweep of one trial after it has grown to two."""
    run = Run(tmp_path_factory.mktemp("finished"), plain_finished)
    with mock.patch.object(merging, "MANY", 2):
        state = run()
    assert len(state.rows) == 2, run.output.getvalue()
    return run, state


def test_a_two_trial_sweep_fills_the_four_tables(finished):
    run, state = finished
    assert [row["status"] for row in state.rows.values()] == ["done", "done"]
    sizes = {table: read_table(run.root, table).num_rows for table in schemas.TABLES}
    wanted = {"trials": 2, "epochs": 2 * 3, "tracks": 2 * 3, "samples": 2 * 60, "robustness": 0}
    assert sizes == wanted
    for trial_id, row in state.rows.items():
        assert row["epochs_done"] == 2
        assert row["started_at"] <= row["trained_at"] <= row["released_at"] <= row["scored_at"]
        assert TrialConfig.model_validate({n: row[n] for n in TrialConfig.model_fields}).trial == (
            trial_id
        )


def test_the_driver_leaves_merged_files_that_read_as_the_files_do(finished, monkeypatch):
    run, _ = finished
    for table in set(schemas.TABLES) - {"robustness"}:
        (merged,) = pieces.pieces(run.root, table)
        assert len(merged.files) == 2
        plain = read_table(run.root, table)
        with monkeypatch.context() as patch:
            patch.setattr(tables, "MANY", 2)
            read = read_table(run.root, table)
        pd.testing.assert_frame_equal(read.to_pandas(), plain.to_pandas())


def test_every_score_has_its_nulls_beside_it(finished):
    run, state = finished
    tracks = read_table(run.root, "tracks").to_pandas()
    last = tracks[tracks["epoch"] == 2].set_index("trial")
    first = tracks[tracks["epoch"] == 0].set_index("trial")
    for trial_id, row in state.rows.items():
        assert row["lss_random"] == 5**0.5
        assert row["ots_random"] == 1 / 60
        assert row["lss_initial"] == first.loc[trial_id, "lss"]
        assert row["ots_initial"] == first.loc[trial_id, "ots"]
        assert row["ots"] == last.loc[trial_id, "ots"]
    assert tracks.loc[tracks["epoch"] == 1, "ots"].isna().all()
    assert set(tracks.loc[tracks["epoch"] == 1, "m"]) == {40}
    assert set(tracks.loc[tracks["epoch"] == 2, "m"]) == {60}


def test_energies_are_of_every_epoch_and_separation_of_the_first_and_the_last(finished):
    run, state = finished
    tracks = read_table(run.root, "tracks").to_pandas()
    for name in ("energy", "weight_norms", "energy_ratio", "cosines"):
        assert set(tracks[name].map(len)) == {4 if name == "cosines" else 5}
    ratios = np.stack(tracks["energy"]) / np.stack(tracks["weight_norms"])
    np.testing.assert_allclose(np.stack(tracks["energy_ratio"]), ratios)
    ends = tracks["epoch"].isin([0, 2])
    at_the_ends = ("separat", "straight_distance", "not_monotone", "lss_scaled", "fuzziness", "nc1")
    at_the_ends += ("lss_without", "relative_energy", "effective_rank", "participation_ratio")
    for name in (n for n in tracks if n.startswith(at_the_ends)):
        assert tracks.loc[ends, name].notna().all()
        assert tracks.loc[~ends, name].isna().all()
    assert set(tracks.loc[ends, "separation_m"]) == {40}  # the epoch_points first
    for epoch, null in ((0, "_initial"), (2, "")):
        here = tracks[tracks["epoch"] == epoch].set_index("trial")
        for trial_id, row in state.rows.items():
            assert row[f"energy{null}"] == pytest.approx(here.loc[trial_id, "energy"].sum())
            assert row[f"turning{null}"] == pytest.approx(here.loc[trial_id, "cosines"].mean())
            assert row[f"lss_scaled{null}"] == here.loc[trial_id, "lss_scaled"]
            assert row[f"separated{null}"] == here.loc[trial_id, "separated"]
            assert row[f"not_monotone{null}"] == here.loc[trial_id, "not_monotone"]


def test_scores_are_those_of_the_network_that_was_kept(finished):
    run, state = finished
    data = datasets.load("digits")
    for config in state.trials:
        weights = checkpoints.read(run.root, config.trial)["network"]
        network = training.build(config, data.image, data.classes).eval()
        network.load_state_dict(weights)
        images = training.standardiser(data, "cpu")(torch.from_numpy(data.x_test[:60]))
        with torch.no_grad():
            states = [state for _, state in network.states(images)]
        ots = optimal_transport_score(states[0], states[-1])
        row = state.rows[config.trial]
        assert (row["ots"], row["gap"]) == pytest.approx((ots.ots, ots.gap))
        samples = read_table(run.root, "samples").to_pandas().query("trial == @config.trial")
        np.testing.assert_array_equal(samples["permutation"], ots.permutation)
        np.testing.assert_allclose(samples["own_cost"], ots.own_cost, rtol=1e-5)


def test_mlflow_has_a_parent_and_a_child_a_trial(finished):
    run, state = finished
    client = MlflowClient(f"sqlite:///{run.root}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [r for r in runs if SWEEP_TAG in r.data.tags]
    children = {r.data.tags[TRIAL_TAG]: r for r in runs if TRIAL_TAG in r.data.tags}
    assert parent.info.status == "FINISHED"
    assert set(children) == set(state.rows)
    for trial_id, child in children.items():
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["gamma"] == "0.001"
        assert set(child.data.metrics) <= {*METRICS, *ROBUSTNESS}
        assert len({*METRICS, *ROBUSTNESS}) <= 16
        assert float(child.data.tags["geosweep.ots_random"]) == pytest.approx(1 / 60, rel=1e-5)
        steps = [m.step for m in client.get_metric_history(child.info.run_id, "lss")]
        assert steps == [0, 1, 2]
        for name in ("ots", "gap", "geodesic_excess"):
            first, last = client.get_metric_history(child.info.run_id, name)
            assert (first.step, last.step) == (0, 2)
            row = state.rows[trial_id]
            assert (first.value, last.value) == (row[f"{name}_initial"], row[name])
        for table in schemas.TABLES.keys() - {"robustness"}:  # nothing was evaluated
            path = client.download_artifacts(child.info.run_id, places.table_path(table, trial_id))
            assert pq.read_table(path).num_rows > 0


def test_a_few_tracks_are_kept_in_two_dimensions_and_the_shapes_of_table_1(finished):
    run, _ = finished
    tracks = read_table(run.root, "tracks").to_pandas().set_index("epoch")
    assert tracks.loc[[0, 2], "projected"].map(len).eq(6 * 50 * 2).all()
    assert tracks.loc[1, "projected"].isna().all()
    trials = load(run.root).trials
    assert trials.columns.size == len(set(trials.columns))
    assert set(trials.image) == {"1 x 8 x 8"}
    assert set(trials.shapes) == {"100"}
    assert set(trials.blocks) == {5}
    assert set(trials.classes) == {10}


def test_the_report_is_in_mlflow_too(finished):
    run, state = finished
    page, missed = service.report(run.root, state.name)
    assert missed is None
    client = MlflowClient(f"sqlite:///{run.root}/mlflow.db")
    experiment = client.get_experiment_by_name(state.name)
    query = f"tags.`{SWEEP_TAG}` = '{run.root}'"
    (parent,) = client.search_runs([experiment.experiment_id], query)
    kept = {item.path for item in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/index.html", "report/claims.csv", "report/lss_against_epoch.svg"} < kept
    with (
        open(page) as ours,
        open(client.download_artifacts(parent.info.run_id, "report/index.html")) as theirs,
    ):
        assert ours.read() == theirs.read()


@pytest.mark.long
def test_the_report_of_an_mlflow_experiment_is_that_of_its_folder(finished, tmp_path):
    run, state = finished
    page, _ = service.report(str(tmp_path), None, (f"sqlite:///{run.root}/mlflow.db", state.name))
    assert page == str(tmp_path / "report/index.html")
    with open(page) as text:
        assert "2 trials: 2 done" in text.read()


def test_what_is_done_is_not_run_again(finished, monkeypatch):
    run, state = finished

    def never(*_):
        raise AssertionError("a finished sweep started Ray")

    monkeypatch.setattr(service, "_run", never)
    assert run().rows == state.rows


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, finished):
    """A sweep whose first trial was interrupted, and whose second has a torn checkpoint."""

    class Killed(Exception):
        pass

    def killed_after_the_first_epoch(record):
        if record["epoch"] == 1:
            raise Killed

    run = Run(tmp_path_factory.mktemp("resumed"))
    interrupted, torn = finished[1].trials
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial.tune, "report", killed_after_the_first_epoch)
        with pytest.raises(Killed):
            trial.run_trial(interrupted.model_dump(), Setup(run.root, {"digits": "digits"}))
    storage.write_file(run.root, places.checkpoint(torn.trial), b"not a checkpoint")
    return run, run()


def test_a_sweep_that_grew_trains_its_new_cells_only(plain, finished):
    before, after = plain[1].rows, finished[1].rows
    assert (len(before), len(after)) == (1, 2)
    for trial_id, row in before.items():
        assert after[trial_id] == row


@pytest.mark.long
def test_an_interrupted_trial_goes_on_and_ends_with_the_same_numbers(resumed, finished):
    _, undisturbed = finished
    config = undisturbed.trials[0]
    row = resumed[1].rows[config.trial]
    numbers = [n for n, v in row.items() if isinstance(v, float)]
    numbers = [n for n in numbers if "seconds" not in n and "memory" not in n]
    assert {n: row[n] for n in numbers} == {n: undisturbed.rows[config.trial][n] for n in numbers}


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


@pytest.mark.long
def test_a_torn_checkpoint_is_set_aside_and_its_trial_starts_again(resumed, finished):
    run, state = resumed
    _, undisturbed = finished
    config = undisturbed.trials[1]
    assert state.rows[config.trial]["test_loss"] == undisturbed.rows[config.trial]["test_loss"]
    assert storage.list_files(run.root, places.ASIDE) == [f"checkpoints-{config.trial}.pt"]


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


def test_a_trial_knows_where_it_comes_from(finished):
    _, state = finished
    checksum = datasets.load("digits").checksum
    for row in state.rows.values():
        assert len(row["revision"]) >= 7 or row["revision"] == ""
        assert row["data_checksum"] == checksum
        assert 0.1 < row["peak_memory"] < 8
        assert row["peak_gpu_memory"] is None


def test_trials_of_other_data_are_not_added_to(plain):
    run, _ = plain
    request = service.check(sweep.read(str(run.file)), run.root, None, None)
    request.checksums["digits"] = "another"
    with pytest.raises(SweepError, match="was trained on another digits"):
        service.run(request, Console(file=run.output))


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


def test_a_second_run_on_one_folder_is_told_who_holds_it(run):
    storage.write_file(run.root, "sweep.json", b"{}")
    with (
        folder.hold(run.root),
        pytest.raises(SweepError, match="is running this sweep"),
        folder.hold(run.root),
    ):
        pass


@pytest.mark.long
def test_the_sweep_goes_on_without_mlflow(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.file}/is/a/file.db")
    state = run(SWEEP, "network=plain")
    assert [row["status"] for row in state.rows.values()] == ["done"]
    assert "Parquet is complete" in run.output.getvalue()


def test_rows_of_an_older_version_are_logged_with_the_defaults_that_they_had(plain):
    (run, state), said = plain, []
    older = {"transport_penalty": None, "scored_at": "later"}
    rows = {trial_id: row | older for trial_id, row in state.rows.items()}
    tracker = Tracker(run.root, state.name, state.description, said.append)
    assert tracker.sync(rows, dict.fromkeys(rows, "plain")) == list(rows)
    assert said == []


def waiting(run: Run, state: folder.State, at_once: int) -> Board:
    """The board of a sweep none of whose cells has begun."""
    board = Board(run.root, cells(state), lambda: at_once, Console(file=io.StringIO()))
    for cell in board.cells.values():
        cell.status, cell.epoch, cell.record = "waiting", -1, {}
    return board


def test_the_board_counts_and_estimates(finished):
    board = waiting(*finished, at_once=2)
    first, second = board.cells
    assert board.seconds_left() is None
    board.report(first, {"epoch": 1, "seconds": 4.0})
    assert board.seconds_left() == pytest.approx((4.0 + 2 * 4.0) / 2)
    board.change(first, "done")
    board.change(second, "done")
    assert board.seconds_left() == 0
    assert board.snapshot()["counts"] == {"done": 2}


def test_what_a_trial_takes_after_its_last_epoch_is_expected_of_the_others_too(finished):
    board = waiting(*finished, at_once=1)
    first, _ = board.cells
    last = board.cells[first].config.epochs
    for epoch in range(last + 1):
        if epoch == last:
            board.cells[first].reported_at -= 30 + 4.0  # it was evaluated for 30 seconds
        board.report(first, {"epoch": epoch, "seconds": 4.0})
    board.change(first, "done")
    assert board.seconds_left() == pytest.approx(4.0 * last + 30, abs=1)


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
