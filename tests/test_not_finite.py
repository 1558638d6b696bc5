"""Trials whose losses or states are not finite: diverged, and the same on every run."""

import math

import numpy as np
import pytest
import torch
from made_up import made_up_trial
from small_sweeps import Run, geosweep

from analysis import claims, figures, report, tables
from models import training
from models.config import TrialConfig
from scoring import handover, places, storage
from scoring.tables import read_row, read_rows
from tune_jobs import checkpoints, trial
from tune_jobs.tuning import Setup

EPOCHS = 2
CONFIG = TrialConfig(layers="fully_connected", epochs=EPOCHS, points=30, epoch_points=20)
VARIES = ("seconds", "_at", "memory")  # in the names of columns


class Killed(Exception):
    """What ends a process in these tests."""


pytestmark = pytest.mark.usefixtures("reports")


@pytest.fixture
def poison(monkeypatch):
    """A function that gives the networks of an epoch a weight which is not finite.

    The losses on its train images were measured before that and are finite.
    """

    def poison(number, value):
        def train(*arguments, **settings):
            for epoch in training.train(*arguments, **settings):
                if epoch.record["epoch"] == number:
                    with torch.no_grad():
                        next(epoch.network.parameters())[0] = value
                yield epoch

        monkeypatch.setattr(trial, "train", train)

    return poison


def run(root, config=CONFIG, **settings):
    trial.run_trial(config.model_dump(), Setup(root, {"digits": "digits"}, **settings))


def left(root, config=CONFIG):
    """Number of arrays in each archive that a trial left."""
    found = {}
    for name in storage.list_files(root, places.pending(config.trial)):
        with np.load(f"{root}/{places.pending(config.trial)}/{name}") as arrays:
            found[name] = len(arrays.files)
    return found


def finished(root, config=CONFIG):
    """The trial's row and its tracks once it is finished, without times, as text."""
    handover.finish(root, config.trial)
    rows = [read_row(root, "trials", config.trial), *read_rows(root, "tracks", config.trial)]
    return [
        {n: repr(v) for n, v in row.items() if not any(word in n for word in VARIES)}
        for row in rows
    ]


@pytest.mark.parametrize("number", range(EPOCHS + 1))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_trial_ends_where_a_state_is_not_finite_even_if_losses_on_train_images_are(
    tmp_path, poison, reports, number, value
):
    poison(number, value)
    root = str(tmp_path)
    run(root, keep="best", evaluations={"noise": {"levels": [0.0], "seed": 0}})
    assert [(r["epoch"], r["diverged"]) for r in reports] == [
        (epoch, epoch == number) for epoch in range(number + 1)
    ]
    assert all(math.isfinite(r["clean_train_loss"]) for r in reports)
    assert left(root).keys() == ({"final.npz", "initial.npz"} if number else {"final.npz"})
    assert all(left(root).values())
    row, *tracks = finished(root)
    assert (row["status"], row["epochs_done"]) == ("'diverged'", str(number))
    assert (row["lss"], row["ots"], row["evaluations"]) == ("nan", "nan", "None")
    assert row["test_loss"] == repr(reports[-1]["test_loss"])
    assert tracks[-1]["m"] == "30"  # all points, as after any last epoch
    assert tracks[-1]["ots"] == "None"
    best = checkpoints.read(root, f"{CONFIG.trial}.best")
    assert best is None if number == 0 else best["epoch"] < number


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, EPOCHS])
def test_a_diverged_trial_ends_with_the_same_row_wherever_it_was_killed(
    tmp_path, poison, monkeypatch, number
):
    poison(number, math.nan)
    writing, written = storage.writing, []

    def killing(root, path, *how, **settings):
        written.append(path)
        if len(written) == die_at:
            raise Killed
        return writing(root, path, *how, **settings)

    monkeypatch.setattr(storage, "writing", killing)
    die_at = 0
    run(str(tmp_path / "whole"))
    steps = len(written)
    wanted = finished(str(tmp_path / "whole"))
    assert steps >= 3
    for step in range(1, steps + 1):
        written, die_at = [], step
        root = str(tmp_path / f"killed{step}")
        with pytest.raises(Killed):
            run(root)
        die_at = 0
        assert not handover.handed_over(root, CONFIG.trial)
        run(root)
        assert all(left(root).values())
        assert finished(root) == wanted


@pytest.mark.parametrize("number", range(EPOCHS + 1))
def test_a_diverged_trial_has_the_same_row_when_it_is_scored_again(tmp_path, poison, number):
    poison(number, math.inf)
    root = str(tmp_path)
    run(root)
    wanted = finished(root)
    storage.delete(root, places.table_path("trials", CONFIG.trial))
    run(root)
    assert all(left(root).values())
    assert finished(root) == wanted
    assert finished(root) == wanted  # nothing is left to score


def test_losses_that_are_not_finite_before_training_leave_no_initial_problems(
    tmp_path, monkeypatch, reports
):
    standardise = training.Standardise(torch.zeros(1), torch.full((1,), 1e-44))
    for module in (training, trial):
        monkeypatch.setattr(module, "standardiser", lambda *_: standardise)
    root = str(tmp_path)
    run(root)
    assert [(r["epoch"], r["diverged"]) for r in reports] == [(0, True)]
    assert math.isnan(reports[0]["test_loss"])
    assert left(root).keys() == {"final.npz"}
    wanted = finished(root)
    storage.delete(root, places.table_path("trials", CONFIG.trial))
    run(root)
    assert left(root).keys() == {"final.npz"}
    assert finished(root) == wanted


@pytest.mark.usefixtures("svg_only")
@pytest.mark.long
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with done trials"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_trial_that_diverged_costs_no_report_figure_table_or_claim(
    tmp_path, poison, capsys, alone, number
):
    poison(number, math.nan)
    root = str(tmp_path)
    run(root)
    handover.finish(root, CONFIG.trial)
    for seed in [] if alone else range(2):
        made_up_trial(tmp_path, "resnet", 0.01, seed)
    assert report.main([root]) == claims.main([root]) == 0
    nothing_yet = 2 * alone  # one message says that no trial is done
    assert tables.main([root]) == figures.main([root, "--form", "png"]) == nothing_yet
    assert len(capsys.readouterr().err.splitlines()) == nothing_yet


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_a_trial_that_diverges_gives_one_story_however_often_the_sweep_runs(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "c.npz", x_train=noise, y_train=labels, x_test=noise, y_test=labels)
    text = f"""
dataset: {tmp_path}/c.npz
layers: fully_connected
epochs: 2
points: 30
zip:
- {{recipe: [adam, sgd], learning_rate: [1e-3, 1e6]}}
"""
    one = Run(tmp_path)
    states = [one(text) for _ in range(2)]
    rows = [state.rows[state.trials[i].trial] for state in states for i in range(2)]
    assert [row["status"] for row in rows] == ["done", "diverged"] * 2
    assert math.isnan(rows[1]["ots"])
    assert states[1].complete
    assert not states[1].worked
    assert repr(states[0].rows) == repr(states[1].rows)
    assert storage.list_files(one.root, places.PENDING) == []
    status, said = geosweep("report", one.root)
    assert (status, said.strip()) == (0, f"{one.root}/{places.PAGE}")
