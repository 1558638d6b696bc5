"""Evaluations of a sweep's networks, end to end: with the sweep, later, killed half-way."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from older import make_older
from rich.console import Console
from small_sweeps import SWEEP, Run

from models import datasets
from models.config import TrialConfig
from models.errors import DataError
from models.training import standardiser, train
from scoring import handover, places, storage
from scoring.history import read_history, write_history
from scoring.robustness.areas import summary
from scoring.robustness.noise import mixing
from scoring.robustness.subject import draws
from scoring.tables import read_row, read_rows, read_table
from tune_jobs import checkpoints, evaluations, folder, measuring, service, sweep, trial
from tune_jobs.board import Board, cells
from tune_jobs.commands.ending import robustness_table
from tune_jobs.errors import SweepError
from tune_jobs.tuning import Setup

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.usefixtures("ray_here")]

LESION = {
    "levels": [0.0, 1.0],
    "block": 3,
    "replacement": ["previous"],
    "units": ["top"],
    "seed": 0,
}
FEW = {"lesion": LESION, "noise": {"levels": [0.0, 64.0], "seed": 0}}
ASKED = f"evaluations: {json.dumps(FEW)}\n"
CONFIG = TrialConfig(layers="fully_connected", epochs=1, points=30)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("evaluated"))
    return run, run(SWEEP + ASKED)


def evaluate(run: Run, wanted: dict) -> folder.State:
    asked = replace(folder.as_sweep(run.root), evaluations=wanted)
    request = service.check(asked, run.root, None, None)
    return service.evaluate(request, Console(file=run.output, width=120))


def trained(root: str, monkeypatch, wanted: dict | None = None, keep: str = "final") -> None:
    """Train one tiny trial without Ray."""
    monkeypatch.setattr(trial.tune, "report", lambda record: None)
    setup = Setup(root, {"digits": "digits"}, evaluations=wanted or {}, keep=keep)
    trial.run_trial(CONFIG.model_dump(), setup)


def names(root: str) -> list[str]:
    rows = read_table(root, "robustness").to_pylist()
    return list(dict.fromkeys(row["evaluation"] for row in rows))


def test_an_evaluated_sweep_has_a_row_for_each_level_and_block(evaluated):
    run, state = evaluated
    table = read_table(run.root, "robustness").to_pandas()
    assert table.trial.nunique() == 2
    assert set(table.m) == {60}
    sizes = table.groupby("evaluation").size() / 2
    # of noise: two accuracies, and six states at two levels
    assert sizes.to_dict() == {"lesion": 2, "skip": 5, "swap": 4, "noise": 2 + 6 * 2}
    assert set(table[table.of == "noise"].settings.map(json.loads).map(str)) == {str(FEW["noise"])}
    assert state.complete


def test_the_trials_table_sums_an_evaluation_up(evaluated):
    run, state = evaluated
    for name, row in state.rows.items():
        rows = read_rows(run.root, "robustness", name)
        assert {k: row[k] for k in ("lesion_auc", "noise_auc")} == summary(rows)
        assert json.loads(row["evaluations"]) == FEW
        assert row["fgsm_auc"] is None
        (clean,) = [
            r for r in rows if r["evaluation"] == "noise" and r["accuracy"] and not r["level"]
        ]
        samples = read_table(run.root, "samples").to_pandas().query("trial == @name")
        assert clean["accuracy"] == pytest.approx((samples.label == samples.prediction).mean())


def test_mlflow_has_the_areas_and_the_table(evaluated):
    run, state = evaluated
    client = MlflowClient(f"sqlite:///{run.root}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    found = {r.data.tags["geosweep.trial"]: r for r in runs if "geosweep.trial" in r.data.tags}
    assert found.keys() == state.rows.keys()
    for name, one in found.items():
        assert one.data.metrics["noise_auc"] == state.rows[name]["noise_auc"]
        assert len(one.data.metrics) <= 16
        kept = {item.path for item in client.list_artifacts(one.info.run_id, "results/robustness")}
        assert kept == {places.table_path("robustness", name)}


def test_the_table_at_the_end_has_the_areas_beside_the_accuracy(evaluated):
    _, state = evaluated
    console = Console(file=io.StringIO(), width=120)
    console.print(robustness_table(state))
    shown = console.file.getvalue()
    told, head, *rows = shown.splitlines()
    assert told == (
        "robustness: mean accuracy over the levels of lesion, noise (area under the curve)"
    )
    assert head.split() == ["trial", "test", "acc.", "lesion", "noise", "m"]
    assert len(rows) == 2


def test_what_is_evaluated_is_not_evaluated_again(evaluated, monkeypatch):
    run, state = evaluated
    monkeypatch.setattr(service, "_run", None)
    assert run(SWEEP + ASKED).rows == state.rows
    assert evaluate(run, {"noise": FEW["noise"]}).rows == state.rows


def test_a_finished_sweep_is_evaluated_without_training_and_scores_stay(tmp_path, plain_finished):
    run = Run(tmp_path, plain_finished)
    before = run(SWEEP, "network=plain").rows
    kept = {n: storage.read_file(run.root, f"checkpoints/{n}.pt") for n in before}
    after = evaluate(run, {"noise": FEW["noise"]})
    assert "0 to train" in run.output.getvalue()
    assert names(run.root) == ["noise"]
    changed = {"scored_at", "evaluations", "noise_auc"}
    for name, row in before.items():
        now = after.rows[name]
        assert {k for k in row if row[k] != now[k]} == changed
        assert now["scored_at"] > row["scored_at"]
        assert storage.read_file(run.root, f"checkpoints/{name}.pt") == kept[name]
    assert after.complete
    assert after.worked
    (one,) = MlflowClient(f"sqlite:///{run.root}/mlflow.db").search_runs(
        ["1"], "metrics.noise_auc > 0"
    )
    assert one.info.status == "FINISHED"


def test_other_settings_take_the_place_of_earlier_ones(run, monkeypatch):
    folder.claim(run.root, sweep.Sweep("tiny", "", [CONFIG], sweep.Resources(), "tiny"))
    trained(run.root, monkeypatch, FEW)
    handover.finish(run.root, CONFIG.trial)
    scored_at = read_row(run.root, "trials", CONFIG.trial)["scored_at"]
    first = read_rows(run.root, "robustness", CONFIG.trial)
    other = {"noise": {"levels": [0.0, 1.0, 2.0], "seed": 1}}
    trained(run.root, monkeypatch, other)
    handover.finish(run.root, CONFIG.trial)
    rows = read_rows(run.root, "robustness", CONFIG.trial)
    assert [r for r in rows if r["of"] == "lesion"] == [r for r in first if r["of"] == "lesion"]
    assert {r["level"] for r in rows if r["of"] == "noise"} == {0, 1, 2}
    row = read_row(run.root, "trials", CONFIG.trial)
    assert json.loads(row["evaluations"]) == FEW | other
    assert row["scored_at"] > scored_at
    assert folder.inspect(run.root, FEW).unevaluated == [CONFIG]
    assert folder.inspect(run.root, other).unevaluated == []
    evaluate(run, FEW)
    told, starting = run.output.getvalue().splitlines()[:2]
    assert told == "noise replaces the earlier one of 1 trial (levels = 0, 1, 2, seed = 1)"
    assert "starting Ray" in starting


def test_an_evaluation_that_is_killed_goes_on_with_the_next_one(run, monkeypatch):
    """Training is over by then: neither it nor what was evaluated is done again."""
    real, made = measuring.evaluate, []

    def killed(name, subject, settings):
        made.append(name)
        if name == "noise" and made.count("noise") == 1:
            raise KeyboardInterrupt  # no exception that a trial could survive
        return real(name, subject, settings)

    monkeypatch.setattr(measuring, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(run.root, monkeypatch, FEW)
    assert names(run.root) == ["lesion", "skip", "swap"]
    assert handover.waiting(run.root) == []
    weights = storage.read_file(run.root, f"checkpoints/{CONFIG.trial}.pt")
    trained(run.root, monkeypatch, FEW)
    assert made == ["lesion", "noise", "noise"]
    assert storage.read_file(run.root, f"checkpoints/{CONFIG.trial}.pt") == weights
    handover.finish(run.root, CONFIG.trial)
    row = read_row(run.root, "trials", CONFIG.trial)
    assert (row["status"], row["epochs_done"]) == ("done", 1)
    assert json.loads(row["evaluations"]) == FEW


def test_an_evaluation_that_fails_costs_the_trial_nothing_and_is_made_up_for(run, monkeypatch):
    real = measuring.evaluate

    def broken(name, subject, settings):
        raise MemoryError("no room for noise")

    folder.claim(run.root, sweep.Sweep("tiny", "", [CONFIG], sweep.Resources(), "tiny"))
    monkeypatch.setattr(measuring, "evaluate", broken)
    trained(run.root, monkeypatch, FEW)
    handover.finish(run.root, CONFIG.trial)
    row = read_row(run.root, "trials", CONFIG.trial)
    assert (row["status"], row["evaluations"]) == ("done", None)
    told = storage.read_file(run.root, places.error(CONFIG.trial)).decode()
    assert told.endswith("MemoryError: no room for noise\n")
    assert folder.inspect(run.root, FEW).unevaluated == [CONFIG]
    monkeypatch.setattr(measuring, "evaluate", real)
    trained(run.root, monkeypatch, FEW)
    handover.finish(run.root, CONFIG.trial)
    assert folder.inspect(run.root, FEW).unevaluated == []


def test_evaluations_are_those_of_the_final_weights_whenever_they_are_made(run, monkeypatch):
    folder.claim(run.root, sweep.Sweep("tiny", "", [CONFIG], sweep.Resources(), "tiny"))
    trained(run.root, monkeypatch, FEW)
    handover.finish(run.root, CONFIG.trial)
    at_once = read_rows(run.root, "robustness", CONFIG.trial)
    storage.delete(run.root, places.table_path("robustness", CONFIG.trial))
    trained(run.root, monkeypatch, FEW)
    assert read_rows(run.root, "robustness", CONFIG.trial) == at_once


def test_without_weights_nothing_can_be_evaluated_and_nothing_is_kept(run):
    state = run(SWEEP + "keep: none\nevaluations: {noise: {levels: [8]}}\n", "network=resnet")
    assert storage.list_files(run.root, "checkpoints") == []
    assert [row["status"] for row in state.rows.values()] == ["done"]
    assert names(run.root) == ["noise"]
    assert state.complete
    with pytest.raises(
        SweepError, match=r"no weights were kept .*: fgsm of 1 trial cannot be added"
    ):
        evaluate(run, {"fgsm": {"levels": [0.0, 1.0]}})
    assert folder.inspect(run.root).weightless == []  # it was not written down either


def test_the_weights_of_the_best_epoch_are_kept_beside_the_last(run, monkeypatch):
    config = CONFIG.model_copy(update={"epochs": 4, "learning_rate": 0.05})
    monkeypatch.setattr(trial.tune, "report", lambda record: None)
    setup = Setup(run.root, {"digits": "digits"}, keep="best")
    trial.run_trial(config.model_dump(), setup)
    history = read_history(run.root, config.trial, 4)
    accuracies = [record["test_accuracy"] for record in history["epochs"]]
    best = checkpoints.read(run.root, f"{config.trial}.best")
    assert best["epoch"] == int(np.argmax(accuracies))
    data = datasets.load("digits")
    network = trial.build(config, data.image, data.classes).eval()
    network.load_state_dict(best["network"])
    images = standardiser(data, "cpu")(torch.from_numpy(data.x_test))
    with torch.no_grad():
        right = (network(images).argmax(1).numpy() == data.y_test).mean()
    assert right == pytest.approx(max(accuracies))


def test_a_trial_does_not_go_on_with_other_images_than_it_began_with(run, monkeypatch):
    trained(run.root, monkeypatch, {})
    history = read_history(run.root, CONFIG.trial, 1)
    history["summary"]["data_checksum"] = "another"
    write_history(run.root, CONFIG.trial, history)
    handover.finish(run.root, CONFIG.trial)
    storage.delete(run.root, places.table_path("trials", CONFIG.trial))
    with pytest.raises(DataError, match=r"began with another digits .*checksum another"):
        trained(run.root, monkeypatch, {})


def test_mixed_pairs_are_compared_with_the_network_before_training(run, monkeypatch):
    settings = {"level": 64.0, "points": 30, "seed": 0, "controls": True}
    trained(run.root, monkeypatch, {"separation": settings})
    rows = read_rows(run.root, "robustness", CONFIG.trial)
    data = datasets.load("digits")
    first = next(train(CONFIG, data)).network
    job = measuring.Job(run.root, CONFIG, data, "cpu", {})
    few = mixing(replace(measuring._subject(job, first), untrained=None), 64, 30)
    for name in ("mixed", "mixed_matched"):
        assert [row[f"{name}_initial"] for row in rows] == pytest.approx([r[name] for r in few])
    assert summary(rows)["mixed_ratio_initial"] == pytest.approx(summary(few)["mixed_ratio"])


def test_a_sweep_evaluated_by_an_earlier_version_is_complete_until_more_is_asked_for(
    run, monkeypatch
):
    old = {"lesion": {"levels": [0.0, 1.0], "block": 3}}
    folder.claim(
        run.root, sweep.Sweep("tiny", "", [CONFIG], sweep.Resources(), "tiny", evaluations=old)
    )
    trained(run.root, monkeypatch, old)
    handover.finish(run.root, CONFIG.trial)
    assert json.loads(read_row(run.root, "trials", CONFIG.trial)["evaluations"]) == old
    assert folder.inspect(run.root).complete
    assert folder.inspect(run.root, {"lesion": LESION}).complete
    wanted = evaluations.read(["lesion"], [], folder.as_sweep(run.root).evaluations)
    assert wanted["lesion"]["levels"] == [0.0, 1.0]
    assert folder.inspect(run.root, wanted).unevaluated == [CONFIG]


def test_a_sweep_with_nothing_done_cannot_be_evaluated(run):
    folder.claim(run.root, sweep.Sweep("tiny", "", [CONFIG], sweep.Resources(), "tiny"))
    with pytest.raises(SweepError, match="no trial is done yet"):
        evaluate(run, FEW)


def test_the_board_counts_what_is_to_be_evaluated_and_estimates_it(evaluated):
    run, _ = evaluated
    state = folder.inspect(run.root, evaluations.read(["fgsm"]))
    board = Board(run.root, cells(state), lambda: 2, Console(file=io.StringIO()))
    first, second = board.cells
    assert board.snapshot()["counts"] == {"to evaluate": 2}
    assert board.seconds_left() is None
    board.change(first, "evaluating")
    board.cells[first].evaluating_since -= 10
    board.change(first, "done")
    assert board.seconds_left() == pytest.approx(10, rel=0.1)
    board.change(second, "evaluating")
    board.change(second, "done")
    assert board.seconds_left() == 0


def test_levels_are_in_pixel_values_of_images_whose_white_is_255(run, monkeypatch):
    """White is 16 in the digits: noise of 64 is of 64 * 16 / 255 there."""
    trained(run.root, monkeypatch, FEW)
    data = datasets.load("digits")
    assert data.x_train.max() == 16
    network = trial.build(CONFIG, data.image, data.classes).eval()
    network.load_state_dict(checkpoints.read(run.root, CONFIG.trial)["network"])
    images = torch.from_numpy(data.x_test[:30]).float()
    noisy = images + 64 * 16 / 255 * draws("normal", 0, range(30), images)
    with torch.no_grad():
        predicted = network(standardiser(data, "cpu")(noisy)).argmax(1).numpy()
    rows = read_rows(run.root, "robustness", CONFIG.trial)
    (row,) = [r for r in rows if r["evaluation"] == "noise" and r["level"] == 64 and r["loss"]]
    assert row["accuracy"] == pytest.approx((predicted == data.y_test[:30]).mean())


def test_an_older_sweep_gets_the_later_scores_in_its_tables_and_in_mlflow(tmp_path, evaluated):
    run = Run(tmp_path, evaluated[0].file.parent)
    make_older(run.root)
    earlier = folder.inspect(run.root).rows
    state = evaluate(run, {"scores": {}})
    assert state.complete
    assert json.loads(Path(run.root, places.SWEEP).read_text())["evaluations"] == (
        FEW | {"scores": {}}
    )
    for name, row in state.rows.items():
        assert row["lss_scaled"] > 1
        assert row["geodesic_excess"] > 1
        for same in ("lss", "ots", "evaluations", "noise_auc", "trained_at"):
            assert row[same] == earlier[name][same]
    client = MlflowClient(f"sqlite:///{run.root}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    found = {r.data.tags["geosweep.trial"]: r for r in runs if "geosweep.trial" in r.data.tags}
    for name, one in found.items():
        assert one.data.tags["geosweep.scored_at"] == str(state.rows[name]["scored_at"])
        assert one.data.tags["geosweep.lss_scaled"] == f"{state.rows[name]['lss_scaled']:.6g}"
    assert evaluate(run, {"scores": {}}).rows == state.rows  # nothing is left to add
