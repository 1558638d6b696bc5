"""Sweeps end to end: real Ray, MLflow and Parquet on scikit-learn's digits."""

import io
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.tracking import MlflowClient
from rich.console import Console
from small_sweeps import SWEEP, Run

from analysis.results import load
from models import datasets, training
from models.config import TrialConfig
from scoring import merging, pieces, places, schemas, storage, tables
from scoring.tables import read_table
from scoring.transport import optimal_transport_score
from tune_jobs import checkpoints, folder, lease, service, sweep, trial
from tune_jobs.board import Board, cells
from tune_jobs.errors import SweepError
from tune_jobs.tracking import METRICS, ROBUSTNESS, SWEEP_TAG, TRIAL_TAG, Tracker
from tune_jobs.tuning import Setup

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]


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


@pytest.mark.long
def test_a_torn_checkpoint_is_set_aside_and_its_trial_starts_again(resumed, finished):
    run, state = resumed
    _, undisturbed = finished
    config = undisturbed.trials[1]
    assert state.rows[config.trial]["test_loss"] == undisturbed.rows[config.trial]["test_loss"]
    assert storage.list_files(run.root, places.ASIDE) == [f"checkpoints-{config.trial}.pt"]


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


def test_a_second_run_on_one_folder_is_told_who_holds_it(run):
    storage.write_file(run.root, "sweep.json", b"{}")
    with (
        lease.hold(run.root),
        pytest.raises(SweepError, match="is running this sweep"),
        lease.hold(run.root),
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
    older = {"transport_penalty": None, "scored_at": "2030-01-01T00:00:00+00:00"}
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
