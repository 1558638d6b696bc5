"""Searches in sweep files: what they mean, what is chosen by, and what is said of bad ones."""

import pytest

from tune_jobs import sweep
from tune_jobs.errors import SweepError
from tune_jobs.search import Search
from tune_jobs.study import Study


def test_directions_go_without_saying():
    assert Search(objectives=["lss", "ots"]).objectives == {"lss": "min", "ots": "max"}
    assert Search(objectives={"lss": "max"}).objectives == {"lss": "max"}


def test_a_sweep_file_may_search(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(
        "network: [plain, resnet]\ngamma: {low: 1e-5, high: 0.1}\nlayers: fully_connected\n"
        "zip: [{points: [50, 60], batch_size: [32, 64]}]\nsearch: optuna\nscheduler: asha"
    )
    found = sweep.read(str(file), ["search.trials=7"])
    assert found.search.trials == 7
    assert found.search.objectives == {"validation_accuracy": "max"}
    assert found.scheduler.metric == "validation_accuracy"
    assert found.fixed == {"layers": "fully_connected", "validation": 0.1}
    assert {trial.validation for trial in found.trials} == {0.1}
    assert list(found.space) == ["gamma", "network", "batch_size, points"]
    assert len(found.trials) == 8  # the corners


@pytest.mark.parametrize(
    ("text", "share", "objective", "metric"),
    [
        ("search: {objectives: lss}", 0, "lss", "test_accuracy"),
        ("search: {objectives: test_accuracy}\nvalidation: 0.2", 0.2, "test_accuracy", None),
        ("search: optuna\nvalidation: 0", 0, "test_accuracy", "test_accuracy"),
        ("search: optuna\nvalidation: 0.2", 0.2, "validation_accuracy", "validation_accuracy"),
        ("seeds: 2", 0, None, "test_accuracy"),
        ("seeds: 2\nvalidation: 0.2", 0.2, None, "validation_accuracy"),
    ],
)
def test_what_is_said_about_validation_counts(tmp_path, text, share, objective, metric):
    file = tmp_path / "s.yaml"
    file.write_text(f"gamma: [0, 1]\nscheduler: asha\n{text}")
    found = sweep.read(str(file))
    assert {trial.validation for trial in found.trials} == {share}
    assert objective is None or list(found.search.objectives) == [objective]
    assert metric is None or found.scheduler.metric == metric


def test_a_study_from_before_validation_splits_goes_on_as_it_began(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("gamma: {low: 1e-5, high: 0.1}\nlayers: fully_connected\nsearch: optuna")
    now = sweep.read(str(file))
    old = sweep.as_begun(now, {"test_accuracy": "max"})
    assert old.search.objectives == {"test_accuracy": "max"}
    assert old.fixed == {"layers": "fully_connected"}
    assert {trial.validation for trial in old.trials} == {0}
    begun = Study(str(tmp_path), Search(trials=3), old.space, {"layers": "fully_connected"})
    first = begun.suggest()
    assert Study(str(tmp_path), old.search, old.space, old.fixed).cells == [first]
    for objectives in (None, {"validation_accuracy": "max"}, {"lss": "min"}):
        assert sweep.as_begun(now, objectives) is now
    file.write_text("gamma: [0, 1]\nsearch: {objectives: lss}")
    given = sweep.read(str(file))
    assert sweep.as_begun(given, {"test_accuracy": "max"}) is given


BAD = {
    "gamma: [0, 1]\nsearch: {objectives: validation_accuracy}": "line 2: search: validation_acc",
    "gamma: [0, 1]\nscheduler: {metric: validation_loss}": "scheduler: validation_loss needs",
    "gamma: {low: 0, high: 1}\nsearch: optuna": "gamma = .*: low = 0 has no logarithm",
    "gamma: {low: 1, high: 0.1}\nsearch: optuna": "low = 1 should be below high = 0.1",
    "gamma: {low: 1e-3, high: 0.1}": "gamma: a range needs search: optuna",
    "gamma: {lo: 1e-3, high: 0.1}\nsearch: optuna": "gamma.lo: no such field; did you mean low",
    "search: optuna": "there is nothing to pick from",
    "search: grid\ngamma: [0, 1]": "search.method = 'grid': should be 'optuna'",
    "gamma: [0, 1]\nsearch: {objectives: [acc]}": "search.objectives.*acc.*test_accuracy",
    "gamma: [0, 1]\nsearch: {tials: 3}": "search.tials: no such field; did you mean trials",
    "gamma: 0\nepochs: 10\nscheduler: {grace: 10}": "line 3: scheduler.grace = 10: .* epochs = 10",
    "epochs: [3, 9]\nscheduler:\n  grace: 500": "line 3: scheduler.grace = 500: should be below",
    "epochs: 50\nscheduler: {grace: 50}": "a lower one, as with --set scheduler.grace=5",
    "epochs: 1\nscheduler: {grace: 1}": "no trial is stopped early; leave the scheduler out",
    "gamma: [0, 1]\nscheduler: {metric: ots}": "scheduler.metric = 'ots': should be",
    "gamma: [0, 1]\nseed: [0, 1]\nsearch: optuna": "line 2: seed: a search cannot pick a seed",
    "gamma: [0, 1]\nseeds: 2\nexclude: [{seed: 1}]\nsearch: optuna": "leave seed out of when",
    "gamma: {low: 1, high: 2}\nexclude: [{gamma: 1}]\nsearch: optuna": "gamma is a range",
    "gamma: {low: 1, high: 2}\nwhen: [{if: {gamma: 1}, K: 2}]\nsearch: optuna": "gamma is a range",
    "K: 1\nwhen: [{if: {K: 1}, gamma: {low: 1, high: 2}}]": "gamma: a range needs search: optuna",
    "K: 1\nwhen: [{if: {K: 1}, gamma: {low: 3, high: 2}}]": r"when\[0\].gamma = .* below high = 2",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_search_is_named(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SweepError, match=BAD[text]):
        sweep.read(str(file))
