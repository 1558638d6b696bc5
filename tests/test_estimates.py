"""Estimates before a sweep starts: from made-up histories, and from one real timed step."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config import CIFAR, MNIST
from scoring import handover, places, storage
from scoring.tables import write_table
from tune_jobs import api, costs, estimates, folder, room, service, sweep, timing
from tune_jobs.board import Cell
from tune_jobs.commands.plan import plan
from tune_jobs.costs import Cost
from tune_jobs.estimates import Expected, Forecast, Left, Span
from tune_jobs.meter import Meter

HERE = costs.place(None, 0)
COST = Cost(epoch=2.0, other=1.0, scoring=0.5, memory=4e8, disk=1e6)


@pytest.fixture
def request_of(cache, tmp_path, monkeypatch):
    """A checked request for a built-in sweep, on a machine of two cores without a history."""
    monkeypatch.setattr(room, "cores", lambda: 2)

    def call(*settings: str) -> folder.Request:
        found = sweep.read("demo", settings)
        return service.check(found, str(tmp_path / "out"), None, None)

    return call


def remember(request: folder.Request, trials: int, cost: Cost = COST) -> None:
    """Trials of each kind of the sweep, as if they had been trained here."""
    kinds = {
        costs.kind(trial, request.images[trial.dataset], request.sweep, 0)
        for trial in request.sweep.trials
    }
    costs.add(costs.place(None, 0), [(kind, cost) for kind in kinds for _ in range(trials)])


def total(request: folder.Request) -> estimates.Estimate:
    what = estimates.left(request, folder.foreseen(request.root, request.sweep))
    return estimates.forecast(request, what).total(room.slots(None, request.sweep.resources))


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 5))
def test_the_last_trial_ends_as_in_a_simulation_step_by_step(lengths, at_once):
    waiting, running, now = list(lengths), [], 0
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(now + waiting.pop(0))
        now = min(running)
        running.remove(now)
    assert estimates.makespan(lengths, at_once) == max([now, 0])


def test_as_many_trials_train_at_once_as_fit_on_the_machine_or_on_the_cluster(monkeypatch):
    there = {"CPU": 12.0, "GPU": 2.0}
    here = {"CPU": 2, "GPU": 0}
    monkeypatch.setattr(room, "capacity", lambda address: there if address else here)
    fits = [({}, 2), ({"gpus": 0.5}, 4), ({"gpus": 0}, 12), ({"gpus": 0, "cpus": 5}, 2)]
    for asked, count in fits:
        assert room.slots("ray://head", sweep.Resources(**asked)) == count
    assert room.slots(None, sweep.Resources()) == 2
    assert room.at_once(sweep.Resources(cpus=3), {"CPU": 2}, 0) == 0
    assert room.slots(None, sweep.Resources(cpus=3)) == 1  # a cluster may get more nodes


def test_earlier_trials_give_the_time_of_a_sweep(request_of):
    request = request_of("gamma=0", "epochs=4")
    remember(request, 5)
    found = total(request)
    held = 2 * (1 + 4 * 2)  # four trials, two at once
    assert found.seconds.about == pytest.approx(held + 0.5 + estimates.AROUND)
    assert found.trials == 4
    assert found.source == "20 earlier trials on this machine"
    assert (found.memory.about, found.disk.about) == (8e8, 4e6)
    assert found.gpu_seconds is None
    assert found.lines()[0].startswith("estimate 4 trials in about 48 s (")


def test_runs_teach_what_a_run_takes_besides_its_trials(request_of):
    request = request_of("gamma=0", "epochs=4")
    remember(request, 5)
    for seconds in (12, 10, 11):
        estimates.learn(request, seconds + 100, busy=100)
    estimates.learn(request, 1000, busy=0)  # nothing was trained
    assert total(request).seconds.about == pytest.approx(18 + 0.5 + 11)


def test_the_range_grows_with_the_spread_of_earlier_trials(request_of):
    request = request_of("gamma=0", "network=plain", "K=1")
    remember(request, 5)
    narrow = total(request).seconds
    remember(request, 5, COST.model_copy(update={"epoch": 6.0}))
    wide = total(request).seconds
    assert narrow.low < narrow.about < narrow.high
    assert wide.high / wide.about > narrow.high / narrow.about


def history(*epochs: float) -> list[Cost]:
    return [COST.model_copy(update={"epoch": epoch}) for epoch in epochs]


def test_the_latest_trials_count_most_and_the_range_still_holds_the_others():
    """A machine that was busy while the first ones trained, and is not any more."""
    found = estimates._typical(history(*[6.0] * 14, *[2.0] * 6))
    assert found.cost == COST
    assert found.factor > 7 / 3  # of one epoch with the rest of a trial
    assert found.factor > estimates._typical(history(*[6.0] * 4, *[2.0] * 16)).factor
    assert estimates._typical(history(*[2.0] * 10, 20.0)).cost == COST  # one is no rule


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.floats(0.01, 100))
def test_an_estimate_is_among_the_earlier_trials_whatever_a_timed_step_says(epochs, step):
    (timed,) = history(step)
    for found in (
        estimates._typical(history(*epochs)),
        estimates._typical(history(*epochs), timed),
    ):
        assert min(epochs) <= found.cost.epoch <= max(epochs)
        assert found.factor >= estimates.FIRM


def test_trials_that_may_all_be_of_one_run_are_not_taken_for_exact():
    assert estimates._typical(history(*[2.0] * 8)).factor == estimates.SHARED
    assert estimates._typical(history(*[2.0] * 9)).factor == estimates.FIRM


def test_a_step_is_timed_again_where_earlier_trials_disagree(request_of, monkeypatch):
    request, asked = request_of("gamma=0", "network=plain", "K=1", "epochs=4"), []

    def time(request, kinds, gpus):
        asked.extend(kinds)
        return dict.fromkeys(kinds, history(5.0)[0]), {}

    monkeypatch.setattr(estimates, "_time", time)
    remember(request, 6)
    assert total(request).source == "6 earlier trials on this machine"
    assert asked == []
    remember(request, 3, *history(6.0))
    remember(request, 3)
    found = total(request)
    assert len(asked) == 1
    assert found.source.endswith("trials on this machine and one timed step of each kind of trial")
    held = 1 + 4 * 5
    assert found.seconds.about == pytest.approx(held + 0.5 + estimates.AROUND)
    monkeypatch.setattr(estimates, "_time", lambda *_: ({}, dict.fromkeys(asked, "it failed")))
    assert total(request).seconds.about == pytest.approx(1 + 4 * 2 + 0.5 + estimates.AROUND)
    assert total(request).unknown == []


def test_a_checkpoint_leaves_fewer_epochs(request_of, monkeypatch):
    request = request_of("gamma=0", "network=plain", "K=1", "epochs=4")
    remember(request, 5)
    (trial,) = request.sweep.trials
    storage.write_file(request.root, places.checkpoint(trial.trial), b"")
    monkeypatch.setattr(estimates, "last_epoch", lambda root, trial: 3)
    assert total(request).seconds.about == pytest.approx(1 + 2 + 0.5 + estimates.AROUND)


def test_only_what_decides_the_cost_tells_kinds_apart(request_of):
    request = request_of()
    trial, images = request.sweep.trials[0], request.images["digits"]

    def kind(gpus=0, **changes):
        return costs.kind(trial.model_copy(update=changes), images, request.sweep, gpus)

    free = {"gamma": 0.5, "seed": 7, "epochs": 3, "learning_rate": 0.1, "dataset": "mine.npz"}
    assert {kind(**{name: value}) for name, value in free.items()} == {kind()}
    telling = {"network": "resnet", "depth": 3, "batch_size": 7, "points": 20, "gpus": 1}
    telling |= {"precision": "bfloat16", "transport_penalty": 0.1}
    kinds = {kind(**{name: value}) for name, value in telling.items()}
    assert len(kinds - {kind()}) == len(telling)
    assert kind(transport_penalty=0.1) == kind(transport_penalty=0.2)


def test_a_history_keeps_the_latest_trials_of_each_kind(cache):
    for number in range(costs.MOST + 3):
        costs.add(HERE, [("one", COST.model_copy(update={"epoch": float(number)}))])
    costs.add(HERE, timed={"one": COST, "two": COST})
    found = costs.read(HERE)
    assert [cost.epoch for cost in found.kinds["one"].trials] == list(range(3, costs.MOST + 3))
    assert found.kinds["two"].timed == COST
    assert costs.read(costs.place("ray://head", 0)).kinds == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"kinds": 1}', b"\xff", b"[" * 10_000])
def test_a_damaged_history_counts_as_none_and_is_written_again(cache, content):
    costs.add(HERE, [("one", COST)])
    (file,) = (cache / "costs").glob("*.json")
    file.write_bytes(content)
    assert costs.read(HERE).kinds == {}
    costs.add(HERE, [("two", COST)])
    assert [*costs.read(HERE).kinds] == ["two"]


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "file"))
    costs.add(HERE, [("one", COST)])
    assert costs.read(HERE).kinds == {}


def test_without_a_history_or_a_timed_step_it_says_what_is_unknown(request_of, monkeypatch):
    request = request_of("gamma=0")
    assert total(request).lines() == [
        "estimate 4 trials; how long they take is not known",
        "unknown  4 trials: no such trial has been trained here; GEOSWEEP_TIMING is off",
    ]
    failed = dict.fromkeys(["K"], "its timed step failed: TypeError: no")
    monkeypatch.setattr(
        estimates, "_time", lambda request, kinds, gpus: ({}, dict.fromkeys(kinds, failed["K"]))
    )
    assert total(request).unknown == ["4 trials: its timed step failed: TypeError: no"]


@pytest.mark.parametrize(("name", "shown"), [("own", "own"), ("two\nlines", "'two\\nlines'")])
def test_trials_on_data_of_an_unknown_size_have_no_estimate(request_of, name, shown):
    request = replace(request_of("gamma=0"), images={})
    trials = [(trial.model_copy(update={"dataset": name}), 1) for trial in request.sweep.trials]
    known = (request.sweep.trials[0].model_copy(update={"dataset": "mnist"}), 1)
    found = estimates.forecast(request, estimates.Left([*trials, known]))
    reasons = {trial.trial: f"the size of the data set {shown} is not known" for trial, _ in trials}
    assert reasons.items() < found.unknown.items()
    assert found.total(1).unknown[0] == f"4 trials: the size of the data set {shown} is not known"
    assert found.cost(trials[0][0]) is None


def test_kinds_that_were_not_timed_cost_what_the_others_cost(request_of, monkeypatch):
    def time(request, kinds, gpus):
        return {next(iter(kinds)): COST}, {}

    monkeypatch.setattr(estimates, "_time", time)
    found = total(request_of("gamma=0"))
    assert (found.trials, found.unknown) == (4, [])
    assert found.source == "one timed step of each kind of trial"
    assert found.seconds.high / found.seconds.about > 2


def test_a_data_set_that_is_not_here_is_timed_on_random_images(cache, tmp_path, monkeypatch):
    settings = ["dataset=mnist", "network=plain", "K=1", "layers=fully_connected", "points=60"]
    found = sweep.read("demo", [*settings, "gamma=0", "epoch_points=40", "epochs=1"])
    request = service.check(found, str(tmp_path / "out"), None, None, download=False)
    assert request.images == {}
    monkeypatch.setenv("GEOSWEEP_TIMING", "on")
    there = total(request)
    assert there.unknown == []
    assert there.source == "one timed step of each kind of trial"
    monkeypatch.setattr(estimates.subprocess, "Popen", None)
    here = replace(request, images={"mnist": (60_000, 10_000, 1, 28, 28, 10)})
    assert total(here) == there  # after the download it is the same kind of trial


def test_every_data_set_that_may_be_missing_has_a_shape():
    names = {*MNIST, *CIFAR}
    assert timing.SHAPES.keys() == names
    for name in names:
        data = timing.random_images(name)
        counts = len(data.y_train), len(data.y_test)
        assert timing.SHAPES[name] == (*counts, *data.image, data.classes)


def test_trials_that_a_search_will_suggest_count_at_the_average():
    trials = sweep.read("demo", ["gamma=0", "K=1"]).trials
    dear = COST.model_copy(update={"epoch": 4.0})
    known = {t.trial: Expected(c, 1.15, 5) for t, c in zip(trials, (COST, dear), strict=True)}
    found = Forecast(Left([], to_suggest=3, epochs=10), known, {}, gpus=2).total(1)
    assert found.gpu_seconds.about == pytest.approx(2 * 3 * (1 + 10 * 3))
    assert "; about 0.052 (0.045 to 0.059) GPU hours" in found.lines()[0]


def test_trials_that_a_search_will_suggest_have_all_their_epochs(request_of, tmp_path):
    """However few epochs the begun ones have left; of several numbers it is the mean."""
    given = {"name": "x", "epochs": [4, 200], "gamma": {"low": 1e-5, "high": 0.1}}
    request = request_of()
    request = replace(request, sweep=sweep.read(given | {"search": "optuna"}))
    state = SimpleNamespace(root=request.root, missing=[], begun=[], to_suggest=16)
    what = estimates.left(request, state)
    assert (what.to_suggest, what.epochs) == (16, 102)
    one = request.sweep.trials[0]
    known = {one.trial: Expected(COST, 1.15, 5)}
    for begun in ([], [(one, 1)]):
        found = Forecast(replace(what, trials=begun), known, {}, gpus=1).total(1)
        assert found.gpu_seconds.about == pytest.approx(16 * (1 + 102 * 2) + 3 * len(begun))


def test_every_seed_of_what_a_search_will_suggest_counts(cache, tmp_path):
    given = {"name": "x", "gamma": {"low": 1e-5, "high": 0.1}, "seeds": 3, "search": "optuna"}
    request = service.check(sweep.read(given), str(tmp_path / "out"), None, None)
    state = folder.foreseen(request.root, request.sweep)
    assert estimates.left(request, state).to_suggest == 60


def test_a_plan_has_as_much_to_do_as_the_run(cache, tmp_path, monkeypatch):
    """Cells that get no more seeds, trials that wait for their scores, and failed ones."""
    given = {"name": "x", "epochs": 3, "seeds": 3, "search": {"method": "optuna", "trials": 3}}
    given |= {"gamma": {"low": 1e-5, "high": 0.1}, "layers": "fully_connected"}
    found, root = sweep.read(given), str(tmp_path / "out")
    first = found.trials[0]
    one, two = (first.model_copy(update={"gamma": gamma}) for gamma in (0.01, 0.02))
    cells = [one.model_copy(update={"seed": seed}) for seed in range(3)] + [two]
    folder.claim(root, found, cells, ended={two.trial: 1})
    for trial, status in zip(cells, ("done", "failed", "", "done"), strict=True):
        row = trial.row() | {"status": status, "epochs_done": 3}
        if status:
            write_table(root, "trials", trial.trial, [row])
    monkeypatch.setattr(handover, "waiting", lambda root: [cells[2].trial])
    for retry, to_train in ((None, 1 + 3), (True, 1), (False, 3)):
        request = service.check(found, root, None, None, retry=retry)
        state = service.chosen(folder.inspect(root), retry)
        assert len(state.missing) + state.to_suggest == to_train
        assert plan(request).estimate.trials == to_train
    (trials,) = [plan(request).trials]
    assert [trial["status"] for trial in trials] == ["done", "failed", "to score", "done"]


def test_a_plan_of_a_grid_that_has_grown_counts_what_is_new(cache, tmp_path):
    root, small = str(tmp_path / "out"), sweep.read("demo", ["gamma=0"])
    folder.claim(root, small)
    for trial in small.trials:
        write_table(root, "trials", trial.trial, [trial.row() | {"status": "done"}])
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    request = service.check(sweep.read("demo", ["gamma=0,0.1", "epochs=5"]), root, None, None)
    found = plan(request)
    assert (found.estimate.trials, len(found.trials)) == (4, 8)
    other = service.check(sweep.read("demo", ["gamma=0.1"]), root, None, None)
    assert plan(other).estimate.trials == 4
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == files
    assert {path: path.read_bytes() for path in files} == before


def test_trials_without_epochs_left_have_an_estimate(request_of):
    request = request_of("gamma=0", "network=plain", "K=1")
    remember(request, 3, COST.model_copy(update={"other": 0.0, "epoch": 0.0}))
    assert total(request).trials == 1


def test_nothing_is_said_when_nothing_is_left(request_of):
    assert total(request_of()).trials == 16
    what = Left([])
    assert estimates.forecast(request_of(), what).total(2).lines() == []


def test_a_span_holds_its_value():
    span = Span.within(10.0, 2.0).plus(Span.within(6.0, 1.5))
    assert span == (16.0, 9.0, 29.0)


def test_a_meter_tells_epochs_from_the_rest_of_a_trial():
    now = SimpleNamespace(time=100.0)
    meter = Meter(lambda: now.time)
    (config,) = sweep.read("demo", ["gamma=0", "network=plain", "K=1", "epochs=3"]).trials
    meter.start("before")
    now.time += 5
    meter.end("before")
    now.time += 1  # a slot changes hands
    meter.start(config.trial)
    for epoch, seconds in enumerate((2, 10, 10, 14)):  # evaluations follow the last epoch
        now.time += seconds
        meter.report(config.trial, epoch, 3)
    meter.end(config.trial)
    now.time += 3
    meter.scored()
    row = {"scoring_seconds": 3.0, "peak_memory": 0.5, "epochs_done": 3}
    cell = Cell(config, "", status="done", record=row, seconds=29.0, epochs=3)
    assert meter.cost(cell) == Cost(epoch=10, other=7, scoring=3, memory=5e8, disk=0)
    assert meter.busy == 45
    assert meter.epoch("before") is None
    cell.status = "failed"
    assert meter.cost(cell) is None


def test_a_trial_that_went_on_from_a_checkpoint_is_not_kept():
    now = SimpleNamespace(time=0.0)
    meter = Meter(lambda: now.time)
    (config,) = sweep.read("demo", ["gamma=0", "network=plain", "K=1", "epochs=3"]).trials
    meter.start(config.trial)
    for epoch in (2, 3):
        now.time += 1
        meter.report(config.trial, epoch, 3)
    meter.end(config.trial)
    row = {"scoring_seconds": 3.0, "peak_memory": 0.5, "epochs_done": 3}
    assert meter.cost(Cell(config, "", status="done", record=row, seconds=1.0, epochs=1)) is None


def test_a_meter_keeps_costs_with_the_disk_of_each_trial(request_of):
    request = request_of("gamma=0", "K=1", "epochs=1")
    one, other = request.sweep.trials
    meter, cells = Meter(lambda: 0.0), {}
    for trial, size in ((one, 1000), (other, 3000)):
        meter.start(trial.trial)
        meter.report(trial.trial, 0, 1)
        meter.end(trial.trial)
        row = {"scoring_seconds": 1.0, "peak_memory": None}
        cells[trial.trial] = Cell(trial, "", "done", record=row, seconds=2.0, epochs=1)
        storage.write_file(request.root, places.checkpoint(trial.trial), b"x" * size)
    storage.write_file(request.root, places.MLFLOW, b"x" * 500)
    meter.keep(request, cells)
    kept = costs.read(costs.place(None, 0)).kinds
    assert sorted(k.trials[0].disk for k in kept.values()) == [1250, 3250]
    assert total(request).seconds.about > 0


def test_a_plan_has_the_estimate_and_starts_nothing(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = api.plan("demo", ["gamma=0"])
    assert found.estimate.trials == 4
    assert found.estimate.lines()[0] in str(found)
    assert not (tmp_path / "runs").exists()


def test_one_timed_step_gives_an_estimate_that_is_kept(request_of, monkeypatch):
    monkeypatch.setenv("GEOSWEEP_TIMING", "on")
    request = request_of("gamma=0", "network=plain,resnet", "K=1", "epochs=2", "points=60")
    found = total(request)
    assert found.source == "one timed step of each kind of trial"
    assert found.unknown == []
    assert 0 < found.seconds.low < found.seconds.about < found.seconds.high < math.inf
    monkeypatch.setattr(estimates.subprocess, "Popen", None)
    assert total(request) == found


def test_code_of_a_user_that_fails_in_a_timed_step_is_unknown(request_of, tmp_path, monkeypatch):
    """It works when it is checked, on few images, and fails in a batch of the sweep."""
    monkeypatch.setenv("GEOSWEEP_TIMING", "on")
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Block(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(64, 64)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x).relu()\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.first = torch.nn.Flatten()\n"
        "        self.blocks = torch.nn.Sequential(*(Block() for _ in range(3)))\n"
        "        self.last = torch.nn.Linear(64, classes)\n"
        "    def forward(self, x):\n"
        "        assert len(x) < 50, 'too many'\n"
        "        return self.last(self.blocks(self.first(x)))\n"
        "def net(classes):\n"
        "    print('hello')\n"
        "    return Net(classes)\n"
    )
    file = tmp_path / "my.yaml"
    file.write_text(f"dataset: digits\narchitecture: {tmp_path}/mine.py:net\nepochs: 2\n")
    request = service.check(sweep.read(str(file)), str(tmp_path / "out"), None, None)
    found = total(request)
    assert found.seconds is None
    assert found.unknown == ["1 trial: its timed step failed: AssertionError: too many"]
    assert json.loads(json.dumps(found.lines())) == found.lines()
