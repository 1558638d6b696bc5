"""Search: what Optuna suggests is remembered, and goes on where it was."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring import storage
from tune_jobs import folder, search, sweep
from tune_jobs.errors import SweepError
from tune_jobs.picking import Picking
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
    assert Picking(space, FIXED, search.Rules()).size() == 12
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


def asked(tmp_path, text: str, *settings: str):
    (tmp_path / "s.yaml").write_text(text)
    return sweep.read(str(tmp_path / "s.yaml"), settings)


def study_of(root: str, found, known=(), again: bool = False) -> Study:
    return Study(root, found.search, found.space, found.fixed, known, again, found.rules)


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


SEEDS = """
layers: fully_connected
network: [plain, resnet]
gamma: {low: 1e-5, high: 0.1}
epochs: 3
seeds: 3
search: {objectives: test_accuracy, trials: 8}
"""


def with_noise(config) -> dict:
    """A row like :func:`made_up`, that depends on the seed, too."""
    seed, own = 0.05 * config.seed, int(config.trial, 16) % 100 * 1e-5
    row = made_up(config)
    return row | {"test_accuracy": row["test_accuracy"] + seed + own}


def story(study: Study) -> list:
    """What a study holds of each of its cells, and our trials."""
    cells = [(t.params, t.values, t.state.name) for t in study._study.trials]
    return [cells, [trial.trial for trial in study.cells], study.ended]


def finish(study: Study, rows: dict, most: int = 1000) -> bool:
    """Train one trial after the other, as a driver does; whether the study ended."""
    while study.left and most:
        for config in study.cells:  # of a driver that was killed
            if config.trial not in rows:
                break
        else:
            config = study.suggest()
        if config is not None:
            most -= 1
            rows[config.trial] = with_noise(config)
            study.tell(config.trial, rows[config.trial])
    return not study.left


def test_a_search_compares_means_over_seeds_and_stops_what_is_clearly_worse(tmp_path):
    found = asked(tmp_path, SEEDS)
    assert (found.rules.seeds, found.search.trials) == (3, 8)
    study, rows = study_of(str(tmp_path), found), {}
    assert study.left == 24
    assert finish(study, rows)
    seeds: dict[str, list[int]] = {}
    for config in study.cells:
        seeds.setdefault(config.model_copy(update={"seed": 0}).trial, []).append(config.seed)
    assert len(seeds) == 8
    assert all(own == [0, 1, 2][: len(own)] for own in seeds.values())
    assert len(rows) < 24  # some were stopped
    assert study.ended == {cell: len(own) for cell, own in seeds.items() if len(own) < 3}
    best = max(seeds, key=lambda cell: rows[cell]["test_accuracy"])
    assert len(seeds[best]) == 3
    for cell, trial in zip(study._suggested, study._study.trials, strict=True):
        values = [rows[own]["test_accuracy"] for own in cell.trials]
        if len(values) == 3:
            assert trial.values == pytest.approx([sum(values) / 3])
        else:  # the mean of the seeds that it lacks is estimated
            assert trial.values == pytest.approx([sum(values) / len(values) + 0.05], abs=0.03)


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


@settings(max_examples=10)
@given(st.lists(st.integers(1, 6), max_size=4), st.booleans())
def test_a_search_with_seeds_that_was_killed_ends_with_the_same_study(
    tmp_path_factory, runs, suggested
):
    whole, parts = (tmp_path_factory.mktemp("study") for _ in range(2))
    found = asked(whole, SEEDS)
    study = study_of(str(whole), found)
    finish(study, {})
    rows: dict = {}
    known: list = []
    for most in (*runs, 1000):
        again = study_of(str(parts), found, known)
        for trial in sorted(rows):  # a table has an order of its own
            again.tell(trial, rows[trial])
        finish(again, rows, most)
        if suggested and again.left:
            again.suggest()
        known = again.cells
    assert story(again) == story(study)


def test_a_seed_that_failed_holds_its_cell_up_until_it_is_trained_again(tmp_path):
    found = asked(tmp_path, SEEDS, "search.trials=2")
    study = study_of(str(tmp_path), found)
    first = study.suggest()
    assert study.suggest().seed == 0  # of the second cell, as the first may be a bad one
    assert study.suggest() is None
    study.tell(first.trial, {"status": "failed"})
    assert study.left == 2
    study.tell(first.trial, with_noise(first))
    assert study.left == 4
    assert study.suggest().seed == 1
    study.tell(study.cells[-1].trial, {"status": "diverged"})
    assert study.ended == {first.trial: 2}
    folder.claim(str(tmp_path), found, study.cells, ended=study.ended)
    assert folder.inspect(str(tmp_path)).to_suggest == study.left == 2


@pytest.mark.parametrize("change", ["seeds=4", "exclude=[]", "when=[]"])
def test_a_search_with_other_rules_is_another_search(tmp_path, change):
    text = SEEDS + "exclude: [{network: plain, K: 1}]\nwhen: [{if: {network: resnet}, K: 1}]"
    study_of(str(tmp_path), asked(tmp_path, text)).suggest()
    name = change.partition("=")[0]
    text = text.replace("seeds: 3", "seeds: 4") if name == "seeds" else text.replace(name, "#")
    with pytest.raises(SweepError, match=f"is of a search with {name} .* choose another folder"):
        study_of(str(tmp_path), asked(tmp_path, text))


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_suggestions_lie_in_their_space(tmp_path_factory, seed, trials):
    root = str(tmp_path_factory.mktemp("study"))
    study = Study(root, Search(trials=trials, seed=seed, sampler="random"), SPACE, FIXED)
    run(study, trials)
    assert all(1e-5 <= config.gamma <= 0.1 for config in study.cells)
    assert all(config.epochs == 3 for config in study.cells)
