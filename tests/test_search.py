"""Search: what Optuna suggests is remembered, and goes on where it was."""

import math
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import Study as OptunaStudy
from optuna.trial import TrialState
from studies import FIXED, SPACE, asked, made_up, run, study_of

from models.config import TrialConfig
from scoring import storage
from tune_jobs import search
from tune_jobs.driver import Driver
from tune_jobs.errors import SweepError
from tune_jobs.picking import Picking, told
from tune_jobs.search import Search, Span
from tune_jobs.study import ABOUT, HOW, Study


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
    assert Picking(space, FIXED, search.Rules()).size() == 12
    study = Study(str(tmp_path), Search(trials=12), space, FIXED)
    assert len(set(run(study, 12))) == 12


def by_earlier_version(root: str, what: Search) -> Study:
    """A study that does not say which sampler and seed it had."""
    real = OptunaStudy.set_user_attr
    with mock.patch.object(
        OptunaStudy, "set_user_attr", lambda *named: named[1] == HOW or real(*named)
    ):
        study = Study(root, what, SPACE, FIXED)
    assert study._study.user_attrs.keys() == {ABOUT}
    return study


def test_a_study_of_an_earlier_version_goes_on(tmp_path):
    """Cells without a value failed in it."""
    root, what = str(tmp_path), Search(trials=4)
    study = by_earlier_version(root, what)
    cells = [study.suggest() for _ in range(3)]
    study._study.tell(0, state=TrialState.FAIL)
    again = Study(root, what.model_copy(update={"seed": 5}), SPACE, FIXED, cells)
    again.tell(cells[0].trial, {"status": "diverged"})
    again.tell(cells[1].trial, {"status": "diverged"})
    assert [trial.state.name for trial in again._study.trials] == ["FAIL", "PRUNED", "RUNNING"]
    assert (again.cells, again.left) == (cells, 1)


@pytest.mark.parametrize("change", [{"seed": 5}, {"sampler": "random"}])
def test_a_study_of_an_earlier_version_keeps_the_sampler_and_seed_that_it_goes_on_with(
    tmp_path, change
):
    root, what = str(tmp_path), Search(trials=4)
    cells = [by_earlier_version(root, what).suggest()]
    other = what.model_copy(update=change)
    Study(root, other, SPACE, FIXED, cells)
    Study(root, other, SPACE, FIXED, cells)
    with pytest.raises(SweepError, match="choose another folder"):
        Study(root, what, SPACE, FIXED, cells)


def test_an_earlier_version_finds_in_a_new_study_what_it_compares(tmp_path):
    """It compares all of this attribute with what it would write there, and refuses any more."""
    study = Study(str(tmp_path), Search(seed=3), SPACE, FIXED)
    known = told(SPACE, FIXED, search.Rules())
    assert study._study.user_attrs[ABOUT] == {"objectives": Search().objectives, **known}


def test_what_has_no_value_is_told_as_pruned_and_what_may_still_have_one_waits(tmp_path):
    study = Study(str(tmp_path), Search(trials=5, objectives="ots"), SPACE, FIXED)
    for row in (
        {"status": "diverged"},
        {"test_accuracy": 0.9},
        {"status": "done", "ots": 1.0},
        {"status": "done", "ots": None},
        {"status": "failed"},
    ):
        study.tell(study.suggest().trial, row)
    states = [trial.state.name for trial in study._study.trials]
    assert states == ["PRUNED", "RUNNING", "COMPLETE", "PRUNED", "RUNNING"]


@pytest.mark.parametrize("objectives", [["test_accuracy"], ["ots"], ["test_accuracy", "lss"]])
def test_a_stopped_trial_is_told_with_its_last_value_if_the_objective_has_one(tmp_path, objectives):
    study = Study(str(tmp_path), Search(trials=2, objectives=objectives), SPACE, FIXED)
    row = {"status": "stopped", "epochs_done": 2, "test_accuracy": 0.4, "lss": 3.0, "ots": None}
    study.tell(study.suggest().trial, row)
    study.tell(study.suggest().trial, row | {"status": "diverged", "test_accuracy": math.nan})
    one, other = study._study.trials
    assert {one.state.name, other.state.name} == {"PRUNED"}
    assert one.intermediate_values == ({2: 0.4} if objectives == ["test_accuracy"] else {})
    assert other.intermediate_values == {}


@pytest.mark.parametrize("objectives", [["test_accuracy"], ["test_accuracy", "lss"]])
@pytest.mark.parametrize("status", ["diverged", "stopped"])
def test_a_search_leaves_an_area_where_trials_end_without_a_value(tmp_path, objectives, status):
    """Only the lower half of the range of learning rates trains to the end; 1e-3 is best."""
    space = {"learning_rate": Span(low=1e-4, high=1)}
    late, count = 0, 40
    for seed in range(3):
        what = Search(trials=count, objectives=objectives, seed=seed)
        study = Study(str(tmp_path / str(seed)), what, space, FIXED)
        for _ in range(count):
            config = study.suggest()
            lost = config.learning_rate > 1e-2
            row = {"status": status, "epochs_done": 1, "test_accuracy": 0.1, "lss": 9.0}
            off = abs(math.log10(config.learning_rate) + 3)
            good = {"status": "done", "test_accuracy": 0.9 - 0.1 * off, "lss": 2.0 + off}
            study.tell(config.trial, row if lost else good)
        late += sum(config.learning_rate > 1e-2 for config in study.cells[count // 2 :])
    assert late < 3 * count / 2 / 6  # half of them would be there at random


@pytest.mark.parametrize(("retry", "suggests"), [(True, False), (False, True), (None, True)])
def test_a_run_that_trains_failed_cells_again_suggests_none(monkeypatch, retry, suggests):
    driver = object.__new__(Driver)
    left = [TrialConfig(architecture="torchvision:resnet18", model=(("a", 1.0),))]
    suggested = [*left] if suggests else []
    monkeypatch.setattr(Driver, "at_once", lambda self: 1)
    monkeypatch.setattr(Driver, "_claim", lambda self, study: None)
    driver._request = SimpleNamespace(retry=retry, address=None)
    driver._state = SimpleNamespace(missing=["a"], unevaluated=["b"])
    driver.account = SimpleNamespace(
        fitting=lambda trials, busy: iter(trials), fits=lambda trial: True, limited=False
    )
    driver._varying, driver._exact, driver._board = ["model.a"], {"model.a"}, mock.MagicMock()
    study = driver._study = mock.MagicMock()
    type(study).left = mock.PropertyMock(side_effect=lambda: len(left))
    study.suggest.side_effect = left.pop
    assert [*driver.cells()] == ["a", "b", *suggested]
    added = [call.args[0].label for call in driver._board.add.call_args_list]
    assert added == ["model.a=1.0" for _ in suggested]  # another trial has 1


@pytest.mark.parametrize("objectives", [["test_accuracy"], ["test_accuracy", "lss"]])
def test_a_search_whose_trials_all_diverge_goes_on(tmp_path, objectives):
    study = Study(str(tmp_path), Search(trials=15, objectives=objectives), SPACE, FIXED)
    while study.left:
        study.tell(study.suggest().trial, {"status": "diverged"})
    assert {trial.state.name for trial in study._study.trials} == {"PRUNED"}


@pytest.mark.parametrize(
    ("what", "space", "fixed"),
    [
        (Search(objectives="lss"), SPACE, FIXED),
        (Search(), {"gamma": Span(low=1e-6, high=0.1)}, FIXED),
        (Search(), SPACE, FIXED | {"epochs": 4}),
        (Search(sampler="random"), SPACE, FIXED),
        (Search(seed=1), SPACE, FIXED),
    ],
)
def test_the_study_of_another_search_is_refused(tmp_path, what, space, fixed):
    Study(str(tmp_path), Search(), SPACE, FIXED).suggest()
    with pytest.raises(SweepError, match="choose another folder"):
        Study(str(tmp_path), what, space, fixed)


@pytest.mark.parametrize("line", ["model.a: {}", "exclude: [{{model.b: {}}}]"])
@pytest.mark.parametrize("other", ["1.0", "true", "2"])
def test_equal_arguments_of_other_types_make_another_search(tmp_path, line, other):
    given = "architecture: torchvision:resnet18\nmodel.b: [1, 2, 3]\nsearch: {trials: 1}\n"
    study = study_of(str(tmp_path), asked(tmp_path, given + line.format(1)))
    study.suggest()
    changed = asked(tmp_path, given + line.format(other))
    with pytest.raises(SweepError, match="choose another folder"):
        study_of(str(tmp_path), changed, study.cells)
    again = study_of(str(tmp_path), asked(tmp_path, given + line.format(1)), study.cells)
    assert again.cells == study.cells


CONDITIONAL = """
layers: fully_connected
recipe: [adam, sgd, adamw]
gamma: [0, 0.1]
epochs: 3
when:
- {if: {recipe: sgd}, learning_rate: {low: 1e-3, high: 1}}
- {if: {recipe: [adam, adamw]}, learning_rate: [1e-4, 1e-3]}
- {if: {recipe: sgd, gamma: 0}, warmup: [0, 1]}
exclude:
- {recipe: adamw, gamma: 0}
- {learning_rate: 1e-4, gamma: 0.1}
search: {sampler: random, objectives: test_accuracy, trials: 40}
"""


def test_a_search_picks_conditional_axes_and_nothing_excluded(tmp_path):
    text = CONDITIONAL.replace("{learning_rate: 1e-4, gamma: 0.1}", "{recipe: adam, gamma: 0.1}")
    found = asked(tmp_path, text)
    study = study_of(str(tmp_path), found)
    run(study, 40)
    assert len({config.trial for config in study.cells}) == 40
    for config in study.cells:
        assert (config.recipe, config.gamma) not in {("adamw", 0), ("adam", 0.1)}
        if config.recipe == "sgd":
            assert 1e-3 <= config.learning_rate <= 1
            assert config.warmup in ((0, 1) if config.gamma == 0 else (0,))
        else:
            assert config.learning_rate in (1e-4, 1e-3)
            assert config.warmup == 0
    assert {config.warmup for config in study.cells} == {0, 1}
    assert study_of(str(tmp_path), found, study.cells).cells == study.cells
    (tmp_path / "study.log").unlink()
    assert study_of(str(tmp_path), found, study.cells, again=True).cells == study.cells


TWICE = [  # spaces with fields that stand for others, or values that others have, too
    "recipe: [adam, paper]\ngamma: [0, 0.1]",
    "recipe: [paper, sgd, adam]\ngamma: {low: 1e-4, high: 0.1}",
    "zip: [{recipe: [sgd, adam], learning_rate: [0.1, 0.001]}]\ngamma: {low: 1e-4, high: 0.1}",
    "recipe: [sgd, paper]\nwhen: [{if: {recipe: sgd}, learning_rate: {low: 1e-3, high: 1}}]",
    "gamma: [0, 0.1]\nwhen: [{if: {gamma: 0}, learning_rate: [0.1, 0.2]}]",
]


@pytest.mark.parametrize("text", TWICE)
def test_a_lost_study_has_all_its_cells_again(tmp_path, text):
    found = asked(tmp_path, f"{text}\nsearch: {{objectives: lss, trials: 8}}")
    study = study_of(str(tmp_path), found)
    run(study, found.search.trials)
    (tmp_path / "study.log").unlink()
    again = study_of(str(tmp_path), found, study.cells, again=True)
    assert again.cells == study.cells
    assert again.left == 0
    params = [trial.params for trial in again._study.trials]
    assert params == [
        trial.params for trial in study._study.trials if trial.state == TrialState.COMPLETE
    ]


def test_a_lost_study_leaves_out_what_its_space_does_not_have(tmp_path):
    cells = [
        TrialConfig(layers="fully_connected", epochs=3, gamma=gamma, network=network)
        for gamma, network in ((0.01, "plain"), (0.5, "plain"), (0.1, "resnet"))
    ]
    cells.append(cells[0].model_copy(update={"epochs": 4}))
    study = Study(str(tmp_path), Search(trials=4), SPACE, FIXED, cells, again=True)
    assert study.cells == [cells[0], cells[2]]


def test_a_range_is_no_value_to_exclude_wherever_it_stands(tmp_path):
    with pytest.raises(SweepError, match=r"exclude\[1\]: learning_rate is a range"):
        asked(tmp_path, CONDITIONAL)


def test_a_search_of_few_cells_suggests_each_of_them_once(tmp_path):
    text = CONDITIONAL.replace("{low: 1e-3, high: 1}", "[0.01, 0.1]")
    found = asked(tmp_path, text)
    assert found.search.trials == len(found.trials) == 10  # sgd 6, adam 3, adamw 1
    study = study_of(str(tmp_path), found)
    assert {*run(study, 10)} == {trial.trial for trial in found.trials}
    assert study.left == 0


def test_a_cell_that_is_hard_to_meet_is_found(tmp_path):
    """Of a hundred combinations one is allowed; its gamma is continuous."""
    values = ", ".join(map(str, range(1, 101)))
    others = ", ".join(map(str, range(2, 101)))
    text = f"epochs: [{values}]\nexclude: [{{epochs: [{others}]}}]\nlayers: fully_connected\n"
    found = asked(tmp_path, text + "gamma: {low: 1, high: 2}\nsearch: {trials: 3, objectives: lss}")
    study = study_of(str(tmp_path), found)
    run(study, 3)
    assert [config.epochs for config in study.cells] == [1, 1, 1]
    assert len({config.gamma for config in study.cells}) == 3


def test_a_search_of_whose_ranges_none_applies_suggests_the_cells_that_there_are(tmp_path):
    text = "network: [plain, resnet]\nK: [1, 2]\nsearch: {objectives: lss}\n"
    text += "when: [{if: {network: plain}, gamma: {low: 1, high: 2}}]"
    assert asked(tmp_path, text).search.trials == 20
    found = asked(tmp_path, text, "network=resnet")
    assert found.search.trials == 2
    assert len({*run(study_of(str(tmp_path), found), 2)}) == 2


def test_a_suggestion_is_written_as_a_whole(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(storage, "write_file", lambda root, path, text: written.append(text))
    study = study_of(
        str(tmp_path), asked(tmp_path, CONDITIONAL.split("exclude")[0] + "search: optuna")
    )
    before = len(written)
    study.suggest()
    assert len(written) == before + 1
    assert written[-1].count(b"\n") > written[-2].count(b"\n") + 3  # a trial and its parameters


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_suggestions_lie_in_their_space(tmp_path_factory, seed, trials):
    root = str(tmp_path_factory.mktemp("study"))
    study = Study(root, Search(trials=trials, seed=seed, sampler="random"), SPACE, FIXED)
    run(study, trials)
    assert all(1e-5 <= config.gamma <= 0.1 for config in study.cells)
    assert all(config.epochs == 3 for config in study.cells)
