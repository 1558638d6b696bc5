"""Budgets: their grammar, and what they let a sweep do, by a clock that the tests move."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import places, storage
from scoring.tables import write_table
from tune_jobs import account, estimates, folder, sweep
from tune_jobs.account import Account
from tune_jobs.board import Cell
from tune_jobs.budget import Budget, parse
from tune_jobs.commands import ending
from tune_jobs.costs import Cost
from tune_jobs.errors import SweepError
from tune_jobs.estimates import Expected, Forecast, Left
from tune_jobs.meter import Meter
from tune_jobs.tuning import Stop

COST = Cost(epoch=10.0, other=5.0, scoring=5.0, memory=1e9, disk=1e6)


class Clock:
    """Seconds that only the test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Simulated:
    """A sweep whose trials take known times, on a machine that a simulation stands for.

    Args:
        root: the sweep's folder.
        budget: a text for --budget.
        epoch: seconds of each epoch, as it turns out.
        trials: how many there are; those in ``done`` are left out.
        known: what trials are expected to cost.
        gpus: of each trial.
    """

    def __init__(self, root, budget, epoch=10.0, trials=6, known=COST, gpus=0.0, done=None):
        self.root, self.epoch, self.clock = root, epoch, Clock()
        self.done = done if done is not None else {}  # epochs, by trial
        found = sweep.read("demo", [f"seeds={trials}", "gamma=0", "network=plain", "K=1"])
        self.trials = [t.model_copy(update={"epochs": 4}) for t in found.trials]
        self.cells = {t.trial: Cell(t, "", epoch=self.done.get(t.trial, -1)) for t in self.trials}
        self.left = [t for t in self.trials if self.done.get(t.trial, -1) < 4]
        epochs = [(t, 4 - max(0, self.done.get(t.trial, 0))) for t in self.left]
        costs = {t.trial: Expected(known, 1.15, 5) for t in self.trials} if known else {}
        self.meter = Meter(self.clock)
        forecast = Forecast(Left(epochs, epochs=4), costs, {}, gpus)
        limits = Budget().replaced(budget) if budget else Budget()
        self.account = Account(root, limits, forecast, self.meter, self.cells)

    def run(self, slots=1, kill_at=None):
        """Train side by side, epoch by epoch, until nothing more may start; seconds it took."""
        waiting, running, start = list(self.left), {}, self.clock.now
        while True:
            while waiting and len(running) < slots:
                config = waiting.pop(0)
                if self.account.fits(config):
                    self.meter.start(config.trial)
                    running[config.trial] = self.clock.now + COST.other + self.epoch
                    self.meter.report(config.trial, max(0, self.done.get(config.trial, 0)), 4)
            if not running:
                self.account.write(at_once=True)
                return self.clock.now - start
            trial = min(running, key=running.__getitem__)
            self.clock.now = running[trial]
            self.account.write()
            if kill_at is not None and self.clock.now - start >= kill_at:
                return self.clock.now - start
            epoch = self.done[trial] = max(0, self.done.get(trial, 0)) + 1
            self.cells[trial].epoch = epoch
            self.meter.report(trial, epoch, 4)
            running[trial] += self.epoch
            if self.account.pauses(trial, epoch) or epoch == 4:
                self.meter.end(trial)
                del running[trial]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("2h", {"hours": 2}),
        ("30m", {"hours": 0.5}),
        ("90min", {"hours": 1.5}),
        ("1h30m", {"hours": 1.5}),
        ("1h 30m", {"hours": 1.5}),
        ("1d 12h  30min, 8gpuh 1GB", {"hours": 36.5, "gpu_hours": 8, "disk": 1e9}),
        ("8gpuh 30m", {"gpu_hours": 8, "hours": 0.5}),
        ("1d12h", {"hours": 36}),
        (".5H", {"hours": 0.5}),
        ("36s", {"hours": 0.01}),
        ("8gpuh", {"gpu_hours": 8}),
        ("1.5GB", {"disk": 1.5e9}),
        ("500mb,2h", {"disk": 5e8, "hours": 2}),
        ("2h 8gpu-hours, 1TB", {"hours": 2, "gpu_hours": 8, "disk": 1e12}),
    ],
)
def test_a_text_gives_the_limits_that_it_names(text, fields):
    found = Budget().replaced(text).model_dump(exclude_none=True)
    assert found == pytest.approx(fields)
    assert sweep.read({"name": "x", "budget": text}).budget == Budget().replaced(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "2",
        "h",
        "2 h",
        "-2h",
        "2h 3h",
        "2h,90m",
        "2x",
        "2gb3gb",
        "1h2gb",
        "1e3h",
        "nanh",
        "0h",
        "inf h",
        "2hh",
        "1h1h",
        "1h30m15m",
        "1m1min",
        "1GB 2MB",
        "2GiB",
        "10000000h",
        "\x1b[0m",
    ],
)
def test_what_is_no_budget_is_refused_in_one_line_that_names_the_option(text, geosweep, tmp_path):
    with pytest.raises(SweepError, match="--budget") as error:
        Budget().replaced(text)
    assert "\n" not in str(error.value)
    code, said = geosweep("run", "demo", "--budget", text, "--dry-run", "--out", str(tmp_path))
    assert (code, len(said.splitlines())) == (2, 1)
    assert said.startswith("geosweep: --budget ")


@pytest.mark.parametrize(
    ("given", "setting", "limits"),
    [
        ("8h, 10GB", "budget.hours=2", {"hours": 7200, "disk": 1e10}),
        ({"hours": 8, "disk": "10GB"}, "budget.hours=2", {"hours": 7200, "disk": 1e10}),
        ("8h", "budget.disk=1GB", {"hours": 28800, "disk": 1e9}),
        ("8h, 3gpuh", "budget=2h,10GB", {"hours": 7200, "disk": 1e10}),
        ("8h, 3gpuh", "budget=2h", {"hours": 7200}),
        ("8h", "budget={hours: 2, disk: 10GB}", {"hours": 7200, "disk": 1e10}),
        (None, "budget.hours=2", {"hours": 7200}),
    ],
)
def test_a_setting_replaces_the_whole_budget_or_one_part_of_it(given, setting, limits):
    content = {"name": "x"} | ({"budget": given} if given else {})
    assert sweep.read(content, [setting]).budget.limits == pytest.approx(limits)


def test_a_setting_does_not_hide_what_is_no_budget():
    with pytest.raises(SweepError, match=r"^--set budget.hours=2: the budget .* has '8x', but"):
        sweep.read({"name": "x", "budget": "8x"}, ["budget.hours=2"])
    with pytest.raises(SweepError, match=r"budget = \['2h', 10\]: has '10', but"):
        sweep.read({"name": "x"}, ["budget=2h,10"])


@given(st.text(max_size=12))
def test_a_text_is_read_or_refused(text):
    with suppress(ValueError):
        assert parse(text)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"hours": 0}, "budget.hours = 0"),
        ({"hours": "x"}, "budget.hours = 'x'"),
        ({"disk": 10}, "budget.disk = 10: should be a size with its unit"),
        ({"days": 1}, "budget.days: no such field"),
        ("2 hours of rest", "budget = '2 hours of rest': has"),
        ([1], "budget"),
    ],
)
def test_a_bad_budget_in_a_file_is_refused_with_its_field(given, told):
    with pytest.raises(SweepError) as error:
        sweep.read({"name": "x", "budget": given})
    assert told in str(error.value)


def test_the_option_replaces_what_it_names_and_keeps_the_rest_of_the_file(tmp_path):
    content = {"name": "x", "budget": {"hours": 1, "disk": "10 GB"}}
    found = sweep.read(content).budget.replaced("3h")
    assert found.limits == {"hours": 3 * 3600, "disk": 1e10}
    assert sweep.read(content, ["budget.hours=5"]).budget.limits == {"hours": 18000, "disk": 1e10}
    trials = sweep.read({"name": "x"}).trials
    assert [t.trial for t in sweep.read(content).trials] == [t.trial for t in trials]


def test_only_trials_that_can_finish_are_started(tmp_path):
    """Each takes 45 s and 5 s of scoring; 120 s are enough for two of them one by one."""
    simulated = Simulated(str(tmp_path), "120s")
    assert simulated.run() == pytest.approx(90)
    assert sorted(simulated.done.values()) == [4, 4]
    assert simulated.account.over.startswith("1 min 30 s of 2 min 00 s used; what is next takes")


@given(st.integers(1, 400), st.floats(1, 60), st.floats(1, 60), st.integers(1, 3), st.booleans())
def test_a_budget_is_kept_to_within_an_epoch(tmp_path_factory, limit, epoch, guess, slots, known):
    """Whatever was expected, and however long epochs turn out to be."""
    root = str(tmp_path_factory.mktemp("sweep"))
    cost = COST.model_copy(update={"epoch": guess}) if known else None
    simulated = Simulated(root, f"{limit}s", epoch, known=cost)
    assert simulated.run(slots) <= limit + epoch + COST.other + 1e-6


def test_a_trial_with_epochs_longer_than_expected_stops_and_keeps_them(tmp_path):
    simulated = Simulated(str(tmp_path), "100s", epoch=30)
    assert simulated.run() == pytest.approx(95)  # 5 + 3 x 30; the fourth would end at 125
    assert [*simulated.done.values()] == [3]
    (trial,) = simulated.done
    assert simulated.account.paused(trial)


def test_time_of_earlier_runs_counts_and_a_larger_budget_goes_on(tmp_path):
    root, done = str(tmp_path), {}
    Simulated(root, "120s", done=done).run()
    again = Simulated(root, "120s", done=done)
    assert again.run() == 0
    assert again.account.used()["hours"] == pytest.approx(90)
    more = Simulated(root, "300s", done=done)
    assert more.run() == pytest.approx(180)
    assert [*done.values()] == [4] * 6


def test_a_kill_loses_a_few_seconds_at_most_and_counts_nothing_twice(tmp_path):
    root, done, spent = str(tmp_path), {}, 0.0
    for kill_at in (37, 52, 11):
        simulated = Simulated(root, "1h", done=done)
        spent += simulated.run(kill_at=kill_at)
        assert simulated.account.used()["hours"] == pytest.approx(spent)
    assert sum(run["hours"] for run in account.read(root).values()) == pytest.approx(spent)
    simulated = Simulated(root, "1h", done=done)
    simulated.account.write(at_once=True)
    simulated.account.write(at_once=True)
    assert sum(run["hours"] for run in account.read(root).values()) == pytest.approx(spent)


def test_gpu_hours_count_every_gpu_that_is_held(tmp_path):
    """Three at once take 45 s of two GPUs each: 270 s of GPUs, so no fourth fits into 300."""
    simulated = Simulated(str(tmp_path), "0.0834gpuh", gpus=2)
    assert simulated.run(slots=3) == pytest.approx(45)
    assert simulated.account.used()["gpu_hours"] == pytest.approx(270)
    assert simulated.account.over.startswith("0.075 GPU hours of 0.0834 GPU hours")


def test_trials_that_run_reserve_their_part_of_gpu_hours_and_disk(tmp_path):
    simulated = Simulated(str(tmp_path), "1000gpuh,2500kB")
    first, second, third, *_ = simulated.trials
    for config in (first, second):
        assert simulated.account.fits(config)
        simulated.meter.start(config.trial)
    assert not simulated.account.fits(third)  # 3 MB of 2.5 MB


def test_a_trial_that_did_not_fit_is_looked_at_again_when_another_has_ended(tmp_path):
    # Each is expected to take two GPU hours, and takes one. All ten fit into ten.
    hours = COST.model_copy(update={"epoch": 1800.0, "other": 0.0})
    run = Simulated(str(tmp_path), "10gpuh", epoch=900.0, trials=10, known=hours, gpus=1.0)
    running: list[str] = []
    started = 0
    for config in run.account.fitting(run.trials, lambda: len(running) == 8):
        if config is not None:
            run.meter.start(config.trial)
            run.meter.report(config.trial, 0, 4)
            running.append(config.trial)
            started += 1
            continue
        for epoch in range(1, 5):
            run.clock.now += 900
            for trial in running:
                run.cells[trial].epoch = epoch
                run.meter.report(trial, epoch, 4)
        for trial in running:
            run.meter.end(trial)
        running.clear()
    assert started == 10


def test_a_full_folder_stops_running_trials_at_the_next_epoch(tmp_path):
    simulated = Simulated(str(tmp_path), "2MB")
    trial = simulated.trials[0]
    assert simulated.account.fits(trial)
    simulated.meter.start(trial.trial)
    assert not simulated.account.pauses(trial.trial, 1)
    storage.write_file(str(tmp_path), places.checkpoint("x"), b"x" * 2_500_000)
    assert not simulated.account.pauses(trial.trial, 1)  # the folder is measured now and then
    simulated.clock.now += account.EVERY
    assert simulated.account.pauses(trial.trial, 2)
    assert simulated.account.spent


def test_the_last_epoch_of_a_trial_is_no_pause(tmp_path):
    simulated = Simulated(str(tmp_path), "1s")
    trial = simulated.trials[0].trial
    simulated.meter.start(trial)
    simulated.clock.now += 100
    assert not simulated.account.pauses(trial, 4)
    assert not simulated.account.stops({"trial": trial})  # it was only evaluated
    assert simulated.account.stops({"trial": trial, "epoch": 3})
    assert simulated.account.pauses(trial, 3)


def test_without_a_budget_everything_fits_and_time_is_written_down(tmp_path):
    simulated = Simulated(str(tmp_path), "")
    assert simulated.run(slots=2) == pytest.approx(3 * 45)
    assert len(simulated.done) == 6
    assert not simulated.account.spent
    (entry,) = account.read(str(tmp_path)).values()
    assert entry["hours"] == pytest.approx(135)


def test_what_trials_of_this_run_took_comes_before_the_forecast(tmp_path):
    """The first trial takes 125 s instead of 45, so a second one does not fit into 200 s."""
    simulated = Simulated(str(tmp_path), "200s", epoch=30)
    assert simulated.run() == pytest.approx(125)
    assert [*simulated.done.values()] == [4]


def test_what_a_search_will_suggest_costs_what_this_run_has_measured(tmp_path):
    """On average over its kinds: 5 + 4 x 30 s and 5 s of scores are known of one of two kinds."""
    given = {"name": "x", "network": ["plain", "resnet"], "epochs": 4, "search": "optuna"}
    found = sweep.read(given | {"gamma": {"low": 1e-5, "high": 0.1}})
    plain, clock = next(t for t in found.trials if t.network == "plain"), Clock()
    known = {t.trial: Expected(COST, 1.15, 5) for t in found.trials}
    forecast = Forecast(Left([], 10, 4), known, {}, 0.0, cells=found.trials)
    config = plain.model_copy(update={"gamma": 0.01})
    row = {"scoring_seconds": 5.0, "peak_memory": 1.0}
    cell = Cell(config, "", status="done", record=row, seconds=125.0, epochs=4)
    meter = Meter(clock)
    budget = Budget().replaced("1000s")
    used = Account(str(tmp_path), budget, forecast, meter, {config.trial: cell})
    assert used._cost(None) == COST
    meter.start(config.trial)
    clock.now += 5
    for epoch in range(5):
        meter.report(config.trial, epoch, 4)
        clock.now += 30 if epoch < 4 else 0
    meter.end(config.trial)
    assert used._cost(None).epoch == pytest.approx((30 + 10) / 2)
    clock.now = 2000 - 89  # 1 of 4 epochs more than the forecast says
    assert not used.fits(None)
    clock.now = 2000 - 91
    assert used.fits(None)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b'{"a": {"hours": "x"}}', b"\xff"])
def test_a_damaged_account_counts_as_empty(tmp_path, content):
    storage.write_file(str(tmp_path), places.USED, content)
    assert account.read(str(tmp_path)) == {}


def test_trials_side_by_side_count_once_on_the_clock_and_each_on_its_gpu(tmp_path):
    root, found = str(tmp_path), sweep.read("demo", ["gamma=0", "resources.gpus=0.5"])
    folder.claim(root, found)
    for config, start in zip(found.trials, (0, 50, 200, 300), strict=True):
        row = config.row() | {"seconds": 90.0, "scoring_seconds": 10.0, "device": "NVIDIA H200"}
        row |= {"status": "done", "started_at": datetime.fromtimestamp(1e9 + start, UTC)}
        write_table(root, "trials", config.trial, [row])
    expected = {"hours": 350.0, "gpu_hours": 0.5 * 4 * 90}
    assert account.read(root) == {account.BEFORE: pytest.approx(expected)}
    simulated = Simulated(root, "400s")
    assert simulated.account.used()["hours"] == pytest.approx(350)
    simulated.run()
    kept = folder.used(root)
    assert len(kept) == 2  # it stays, beside this run
    assert kept[account.BEFORE] == pytest.approx(expected)


def test_a_stop_asks_about_each_trial():
    stop = Stop(None, print, lambda result: result["epoch"] == 3)
    assert [stop("x", {"epoch": epoch}) for epoch in (2, 3)] == [False, True]
    assert not stop.asked


def test_the_end_says_what_remains_and_which_budget_is_enough(tmp_path, geosweep, capsys):
    found = sweep.read("demo", ["budget=36s", "gamma=0"])
    root = str(tmp_path / "out")
    folder.claim(root, found)
    storage.write_file(
        root, places.USED, json.dumps({"a": {"hours": 30.0, "gpu_hours": 0.0}}).encode()
    )
    state = folder.inspect(root)

    request = folder.Request(found, root, None, None, {}, {})
    left = replace(state, over_budget="30 s of 36 s used")
    more = ending._more(request, left)
    assert more == "run the same command again with a larger --budget"
    epochs = 4 * found.trials[0].epochs
    assert f"remains  4 trials, {epochs} epochs\n" in capsys.readouterr().out
    seconds = estimates.Span(60, 50, 90)
    known = estimates.Estimate(4, seconds=seconds, disk=estimates.Span(1e6, 1e6, 1e6))
    assert account.enough(root, found.budget, known) == "2m"
    assert account.told(root, found.budget) == "36 s (30 s used)"
