"""Search: what Optuna suggests is remembered, and goes on where it was."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_jobs import search, sweep
from tune_jobs.errors import SweepError
from tune_jobs.search import Search, Span
from tune_jobs.study import Study

SPACE = {
    "gamma": Span(low=1e-5, high=0.1),
    "network": {"plain": {"network": "plain"}, "resnet": {"network": "resnet"}},
}
FIXED = {"layers": "fully_connected", "epochs": 3}


def made_up(config) -> dict:
    """A row as if the cell had been trained; better towards gamma = 0.01 and ResNet."""
    return {
        "status": "done",
        "test_accuracy": 0.9 - abs(config.gamma - 0.01) - 0.1 * (config.network == "plain"),
        "lss": 2 + config.gamma,
    }


def run(study: Study, trials: int) -> list[str]:
    """Suggest and tell some trials, one after the other."""
    for _ in range(trials):
        config = study.suggest()
        study.tell(config.trial, made_up(config))
    return [config.trial for config in study.cells]


def test_a_study_that_was_interrupted_suggests_what_it_would_have(tmp_path):
    what = Search(trials=15, objectives=["test_accuracy", "lss"])
    whole = run(Study(str(tmp_path / "a"), what, SPACE, FIXED), 15)
    for _ in range(3):
        study = Study(str(tmp_path / "b"), what, SPACE, FIXED)
        run(study, 5)
    assert [config.trial for config in study.cells] == whole
    assert study.left == 0
    assert len(set(whole)) == 15


def test_a_suggestion_whose_driver_was_killed_is_a_cell_all_the_same(tmp_path):
    what = Search(trials=5)
    lost = Study(str(tmp_path), what, SPACE, FIXED).suggest()
    study = Study(str(tmp_path), what, SPACE, FIXED)
    assert study.cells == [lost]
    assert study.left == 4
    study.tell(lost.trial, made_up(lost))
    study.tell(lost.trial, made_up(lost))  # told twice is told once
    assert run(study, 4)[0] == lost.trial


def test_a_search_learns(tmp_path):
    study = Study(str(tmp_path), Search(trials=60), SPACE, FIXED)
    run(study, 60)
    late = study.cells[30:]
    assert sum(config.network == "resnet" for config in late) > 20


def test_a_space_without_ranges_is_used_up_and_nothing_is_suggested_twice(tmp_path):
    space = {"gamma": {str(g): {"gamma": g} for g in range(6)}, "network": SPACE["network"]}
    assert search.size(space) == 12
    study = Study(str(tmp_path), Search(trials=12), space, FIXED)
    assert len(set(run(study, 12))) == 12


def test_what_has_no_value_is_told_as_failed_and_what_may_still_have_one_waits(tmp_path):
    study = Study(str(tmp_path), Search(trials=3, objectives="ots"), SPACE, FIXED)
    for row in ({"status": "diverged"}, {"test_accuracy": 0.9}, {"status": "done", "ots": 1.0}):
        study.tell(study.suggest().trial, row)
    states = [trial.state.name for trial in study._study.trials]
    assert states == ["FAIL", "RUNNING", "COMPLETE"]


@pytest.mark.parametrize(
    ("what", "space", "fixed"),
    [
        (Search(objectives="lss"), SPACE, FIXED),
        (Search(), {"gamma": Span(low=1e-6, high=0.1)}, FIXED),
        (Search(), SPACE, FIXED | {"epochs": 4}),
    ],
)
def test_the_study_of_another_search_is_refused(tmp_path, what, space, fixed):
    Study(str(tmp_path), Search(), SPACE, FIXED).suggest()
    with pytest.raises(SweepError, match="choose another folder"):
        Study(str(tmp_path), what, space, fixed)


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
    "gamma: [0, 1]\nscheduler: {metric: ots}": "scheduler.metric = 'ots': should be",
    "gamma: [0, 1]\nseeds: 3\nsearch: optuna": "seeds: a search cannot pick a seed",
    "gamma: [0, 1]\nexclude: [{gamma: 0}]\nsearch: optuna": "exclude: a search picks",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_search_is_named(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SweepError, match=BAD[text]):
        sweep.read(str(file))


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_suggestions_lie_in_their_space(tmp_path_factory, seed, trials):
    root = str(tmp_path_factory.mktemp("study"))
    study = Study(root, Search(trials=trials, seed=seed, sampler="random"), SPACE, FIXED)
    run(study, trials)
    assert all(1e-5 <= config.gamma <= 0.1 for config in study.cells)
    assert all(config.epochs == 3 for config in study.cells)
