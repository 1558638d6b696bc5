"""ASHA over several runs: a sweep that was interrupted stops the trials that it would have."""

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_jobs import sweep, tuning

EPOCHS = 30
START = datetime(2026, 6, 1, tzinfo=UTC)


class Runs:
    """Trials with known curves that take turns, each in steps of one epoch.

    Args:
        qualities: of each trial, the accuracy that its curve tends to.
        order: the trial whose turn it is; those that have ended are passed over.
    """

    def __init__(self, qualities: list[float], order: list[int]):
        content = {"name": "x", "seeds": len(qualities), "epochs": EPOCHS}
        self.sweep = sweep.read(content | {"scheduler": {"grace": 3, "factor": 3}})
        self.trials = self.sweep.trials
        self.qualities, self.order = qualities, order

    def row(self, number: int, epoch: int, turn: int) -> dict:
        accuracy = self.qualities[number] * (1 - 0.5 ** (epoch / 4))
        at = START + timedelta(seconds=turn)
        return {"epoch": epoch, "test_accuracy": accuracy, "finished_at": at}

    def stopped(self, kills: set[int], monkeypatch) -> dict[int, int]:
        """The epochs after which trials are stopped, if the driver is killed before some turns."""
        rows: dict[int, list[dict]] = {n: [] for n in range(len(self.trials))}
        ended: dict[int, int] = {}
        found = self.begin(rows, ended, monkeypatch)
        for turn, number in enumerate(self.order):
            if turn in kills:
                found = self.begin(rows, ended, monkeypatch)
            if number in ended or len(rows[number]) > EPOCHS:
                continue
            trial = SimpleNamespace(trial_id=f"ray {turn}", config=self.trials[number].model_dump())
            row = self.row(number, len(rows[number]), turn)
            rows[number].append(row)
            if found.on_trial_result(None, trial, row) == found.STOP:
                ended[number] = row["epoch"]
        return ended

    def begin(self, rows, ended, monkeypatch):
        """A new driver: some trials have their tables, others a history beside a checkpoint."""
        known = {self.trials[n].trial: rows for n, rows in rows.items() if rows}
        done = [self.trials[n].trial for n in ended]
        texts = {
            trial: {"epochs": [r | {"finished_at": r["finished_at"].isoformat()} for r in own]}
            for trial, own in known.items()
            if trial not in done
        }
        monkeypatch.setattr(tuning, "read_history", lambda root, trial: texts.get(trial))
        monkeypatch.setattr(
            tuning, "read_rows", lambda root, table, trial: known[trial] if trial in done else []
        )
        begun = [trial for trial in known if trial not in done]
        state = SimpleNamespace(ids=lambda *statuses: done, scoring=[], begun=begun)
        found = tuning.scheduler(self.sweep, "", state)
        for trial in self.trials:
            found.on_trial_add(None, SimpleNamespace(config=trial.model_dump()))
        return found


TRIALS = 5
QUALITIES = st.lists(st.integers(1, 99).map(lambda n: n / 100), min_size=TRIALS, max_size=TRIALS)
ORDERS = st.lists(st.integers(0, TRIALS - 1), min_size=30, max_size=150)


@given(QUALITIES, ORDERS, st.sets(st.integers(0, 149), max_size=5))
def test_a_sweep_that_was_killed_stops_the_trials_that_it_would_have(qualities, order, kills):
    runs = Runs(qualities, order)
    with pytest.MonkeyPatch.context() as patch:
        assert runs.stopped(kills, patch) == runs.stopped(set(), patch)


def test_a_trial_that_goes_on_is_compared_by_its_value_at_the_rung(monkeypatch):
    """The second one is better than the first; it was killed at epoch 8, between two rungs."""
    order = [0] * 31 + [1] * 9 + [1] * 22 + [2] * 31
    runs = Runs([0.5, 0.6, 0.55], order)
    assert runs.stopped({40}, monkeypatch) == {0: 30, 1: 30, 2: 3}


def test_a_stop_that_a_killed_driver_did_not_carry_out_is_made_up_for(monkeypatch):
    runs = Runs([0.9, 0.1], [])
    rows = {n: [runs.row(n, e, 10 * n + e) for e in range(4)] for n in range(2)}
    found = runs.begin(rows, {}, monkeypatch)
    trials = [SimpleNamespace(config=trial.model_dump()) for trial in runs.trials]
    said = [found.on_trial_result(None, t, runs.row(n, 4, 50)) for n, t in enumerate(trials)]
    assert said == [found.CONTINUE, found.STOP]


def test_a_trial_that_is_due_to_stop_and_begins_again_is_stopped_at_the_same_epoch(monkeypatch):
    runs = Runs([0.9, 0.1], [])
    rows = {n: [runs.row(n, e, 10 * n + e) for e in range(4)] for n in range(2)}
    found = runs.begin(rows, {}, monkeypatch)
    trial = SimpleNamespace(config=runs.trials[1].model_dump())
    said = [found.on_trial_result(None, trial, runs.row(1, e, 50 + e)) for e in range(4)]
    assert said == [found.CONTINUE] * 3 + [found.STOP]
    assert found.on_trial_result(None, trial, {"set_aside": ["a file"]}) == found.CONTINUE


@pytest.mark.parametrize("epoch", [3, 9])
def test_the_last_epoch_of_a_trial_that_a_budget_pauses_counts(monkeypatch, epoch):
    """Ray Tune tells the scheduler of it once, as that of a trial that has ended."""
    runs = Runs([0.9, 0.1], [])
    found = runs.begin({}, {}, monkeypatch)
    good, bad = (SimpleNamespace(config=trial.model_dump()) for trial in runs.trials)
    for before in range(epoch):
        found.on_trial_result(None, good, runs.row(0, before, before))
    for _ in range(2):  # told twice is told once
        found.on_trial_complete(None, good, runs.row(0, epoch, epoch))
    for before in range(0 if epoch == 3 else 4, epoch):
        assert found.on_trial_result(None, bad, runs.row(0, before, 50)) == found.CONTINUE
    assert found.on_trial_result(None, bad, runs.row(1, epoch, 60)) == found.STOP


@pytest.mark.parametrize("result", [{}, {"epoch": 3}, {"epoch": 3, "test_accuracy": math.nan}])
def test_a_trial_that_ends_without_a_value_counts_at_no_rung(monkeypatch, result):
    runs = Runs([0.9, 0.1], [])
    found = runs.begin({}, {}, monkeypatch)
    first, second = (SimpleNamespace(config=trial.model_dump()) for trial in runs.trials)
    found.on_trial_complete(None, first, result)
    assert found.on_trial_result(None, second, runs.row(1, 3, 50)) == found.CONTINUE


def test_a_trial_that_went_on_after_a_rung_is_not_stopped_there_later(monkeypatch):
    """The driver had the result of the second trial first, although it came a little later."""
    runs = Runs([0.9, 0.1], [])
    rows = {n: [runs.row(n, e, 10 * e + n) for e in range(6)] for n in range(2)}
    found = runs.begin(rows, {}, monkeypatch)
    trial = SimpleNamespace(config=runs.trials[1].model_dump())
    assert found.on_trial_result(None, trial, runs.row(1, 6, 70)) == found.CONTINUE


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_trial_that_diverged_counts_with_the_values_that_it_had(monkeypatch, value):
    runs = Runs([0.9, 0.5], [])
    rows = {0: [runs.row(0, epoch, epoch) for epoch in range(4)]}
    rows[0].append(rows[0][-1] | {"epoch": 9, "test_accuracy": value})
    found = runs.begin(rows, {0: 9}, monkeypatch)
    trial = SimpleNamespace(config=runs.trials[1].model_dump())
    assert found.on_trial_result(None, trial, runs.row(1, 3, 50)) == found.STOP
    assert found.on_trial_result(None, trial, {"epoch": 9, "test_accuracy": value}) == "CONTINUE"
