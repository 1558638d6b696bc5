"""Sweep files: what they mean, and what is said of bad ones."""

import pytest

from models.config import TrialConfig
from tune_jobs.errors import SweepError
from tune_jobs.sweep import builtin, read


@pytest.fixture
def sweep(tmp_path):
    def write(text: str, *settings: str):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return read(str(path), settings)

    return write


def cells(sweep, *fields: str) -> list[tuple]:
    return [tuple(getattr(trial, name) for name in fields) for trial in sweep.trials]


def test_lists_are_combined_and_single_values_are_fixed(sweep):
    found = sweep("network: [plain, resnet]\ngamma: [0, 1e-3]\nepochs: 3")
    assert cells(found, "network", "gamma", "epochs") == [
        ("plain", 0.0, 3),
        ("plain", 1e-3, 3),
        ("resnet", 0.0, 3),
        ("resnet", 1e-3, 3),
    ]


def test_zip_groups_advance_together(sweep):
    found = sweep("gamma: [0, 1]\nzip:\n- {K: [1, 4], m: [30, 20]}")
    assert cells(found, "gamma", "stages", "points") == [
        (0.0, 1, 30),
        (0.0, 4, 20),
        (1.0, 1, 30),
        (1.0, 4, 20),
    ]


def test_exclude_drops_the_cells_that_agree_in_all_its_fields(sweep):
    text = "network: [plain, resnet]\nK: [1, 2]\nexclude:\n- {network: plain, K: 2}"
    assert cells(sweep(text), "network", "stages") == [("plain", 1), ("resnet", 1), ("resnet", 2)]


def test_axes_of_when_are_there_where_its_condition_holds(sweep):
    text = "recipe: [adam, sgd]\ngamma: [0, 1]\nwhen:\n- {if: {recipe: sgd}, warmup: [1, 2]}"
    assert cells(sweep(text), "recipe", "gamma", "warmup") == [
        ("adam", 0, 0),
        ("sgd", 0, 1),
        ("sgd", 0, 2),
        ("adam", 1, 0),
        ("sgd", 1, 1),
        ("sgd", 1, 2),
    ]


def test_groups_of_when_apply_in_order_know_defaults_and_may_share_a_field(sweep):
    text = """
network: [plain, resnet]
when:
- {if: {network: plain}, K: [1, 2]}
- {if: {K: 1, recipe: adam}, depth: [3, 4]}
- {if: {K: 2}, depth: 7}
"""
    wanted = [("plain", 1, 3), ("plain", 1, 4), ("plain", 2, 7), ("resnet", 1, 3), ("resnet", 1, 4)]
    assert cells(sweep(text), "network", "stages", "depth") == wanted
    text = "network: [plain, resnet]\nwhen:\n- {if: {network: plain}, gamma: [0, 0.1, 0.10]}"
    assert cells(sweep(text), "network", "gamma") == [("plain", 0), ("plain", 0.1), ("resnet", 0)]


def test_exclude_sees_the_axes_of_when(sweep):
    text = "network: [plain, resnet]\nwhen:\n- {if: {network: plain}, K: [1, 2]}\n"
    found = sweep(text + "exclude:\n- {K: 1}")
    assert cells(found, "network", "stages") == [("plain", 2)]


def test_set_replaces_an_axis_of_when_and_may_leave_a_group_without_cells(sweep):
    text = "network: [plain, resnet]\nwhen:\n- {if: {network: plain}, K: [1, 2]}\n"
    assert cells(sweep(text, "K=3"), "network", "stages") == [("plain", 3), ("resnet", 3)]
    assert cells(sweep(text, "network=resnet"), "network", "stages") == [("resnet", 1)]
    text = "K: [1, 2]\nwhen:\n- {if: {K: 1}, warmup: [0, 5]}\n- {if: {warmup: 5}, gamma: 1}"
    assert cells(sweep(text, "K=2"), "stages", "warmup", "gamma") == [(2, 0, 0)]


def test_exclude_knows_the_defaults(sweep):
    assert cells(
        sweep(
            "gamma: [0, 1]\nexclude: {network: resnet, gamma: 0}".replace(
                "exclude: {", "exclude:\n- {"
            )
        ),
        "gamma",
    ) == [(1.0,)]


def test_seeds_are_replicates(sweep):
    assert cells(sweep("seeds: 3"), "seed") == [(0,), (1,), (2,)]


def test_a_cell_given_twice_is_one_trial(sweep):
    assert len(sweep("gamma: [0.001, 1e-3, 0.0010]").trials) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["gamma=0.5"], [(0.5, 1)]),
        (["gamma=1e-3,1e-2"], [(1e-3, 1), (1e-2, 1)]),
        (["K=2"], [(0.0, 2), (1.0, 2)]),
        (["stages=2"], [(0.0, 2), (1.0, 2)]),
    ],
)
def test_set_replaces_what_the_file_has(sweep, settings, expected):
    assert cells(sweep("gamma: [0, 1]\nK: 1", *settings), "gamma", "stages") == expected


def test_set_takes_an_axis_out_of_its_zip_group(sweep):
    text = "zip:\n- {K: [1, 2], points: [10, 20]}"
    assert cells(sweep(text, "m=7"), "stages", "points") == [(1, 7), (2, 7)]


def test_set_reaches_into_resources(sweep):
    assert sweep("gamma: 0", "resources.gpus=0.25").resources.gpus == 0.25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gama: 1", ["gama", "no such field", "did you mean gamma?"]),
        ("gamma: lots", ["gamma", "'lots'", "number"]),
        ("gamma: true", ["gamma", "True", "number"]),
        ("gamma: .nan", ["gamma", "nan", "finite"]),
        ("epochs: 1.5", ["epochs", "1.5", "integer"]),
        ("epochs: 0", ["epochs", "0", "should be 1 to 1000000"]),
        ("gamma: []", ["gamma", "empty"]),
        ("gamma: [0, -0.1]", ["gamma[1]", "-0.1", "should be 0 to 1000000"]),
        ("K: 7", ["K", "7", "should be 1 to 4"]),
        ("network: [plain, plan]", ["network[1]", "'plan'", "'plain' or 'resnet'"]),
        ("dataset: mnits", ["dataset", "mnits", "digits, mnist", "did you mean mnist?"]),
        ("dataset: [digits, cifar]", ["dataset[1] = 'cifar'", "did you mean cifar10?"]),
        ("dataset: mnist\nK: 2", ["K = 2", "convolutional"]),
        ("stages: 1\nK: 2", ["K and stages are one field"]),
        ("seed: 1\nseeds: 2", ["both seed and seeds"]),
        ("seeds: 0", ["seeds", "should be 1 to 100000"]),
        ("zip:\n- {K: [1, 2], m: [5]}", ["zip[0]", "one length"]),
        ("gamma: 1\nzip:\n- {gamma: [1, 2]}", ["zip[0]", "gamma", "already"]),
        ("zip: 3", ["zip", "list"]),
        ("exclude:\n- {network: resnet}", ["no cell"]),
        (
            "K: [1, 2]\nwhen:\n- {if: {recipe: sgd}, warmup: 1}",
            ["line 3: when[0]: no cell has recipe = sgd, so warmup would never apply"],
        ),
        (
            "K: [1, 2]\nwhen:\n- {if: {K: 2}, warmup: 1}\nexclude:\n- {K: 2}",
            ["line 3: when[0]: no cell has K = 2, so warmup would never apply"],
        ),
        ("when:\n- {warmup: 1}", ["when[0].if: is missing"]),
        ("when:\n- {if: {K: 1}}", ["when[0]: has no axis beside its if"]),
        ("when:\n- {if: {}, warmup: 1}", ["when[0]: its if has no field"]),
        ("when:\n- {if: {k: 1}, warmup: 1}", ["when[0].if.k: no such field; did you mean K?"]),
        ("gamma: 1\nwhen:\n- {if: {K: 1}, gamma: 2}", ["when[0]: gamma is given already"]),
        ("seeds: 2\nwhen:\n- {if: {K: 1}, seed: 2}", ["when[0]: seed is given already"]),
        ("zip:\n- {gamma: 1}\nwhen:\n- {if: {K: 1}, gamma: 2}", ["gamma is given already"]),
        (
            "when:\n- {if: {K: 1}, gamma: 2}\n- {if: {network: resnet}, gamma: 2}",
            ["when[1]: gamma comes from an earlier group already in the cell"],
        ),
        (
            "when:\n- {if: {warmup: 0}, gamma: 1}\n- {if: {recipe: adam}, warmup: [0, 5]}",
            ["line 2: when[0]: its if asks for warmup", "when[1] below; put when[1] before it"],
        ),
        (
            "when:\n- {if: {warmup: 0}, gamma: 1}\n- {if: {gamma: 1}, warmup: [0, 5]}",
            ["an axis of when[1] below; they ask for each other, so take one of them out"],
        ),
        ("resources: {cpu: 1}", ["resources.cpu", "did you mean cpus?"]),
        ("resources: {gpus: -1}", ["resources.gpus", "should be 0 to 1000"]),
        ("name: a/b", ["name", "'a/b'"]),
        ("[1, 2]", ["mapping"]),
        ("", ["mapping"]),
        ("gamma: [1", ["line 1", "not YAML"]),
        ("gamma: {a: 1}", ["gamma.low: is missing", "gamma.a"]),
        (
            "evaluations: blur",
            ["evaluations.blur: no such field (fields: curve, fgsm, lesion, noise"],
        ),
        ("evaluations: 3", ["evaluations = 3: should be all, or names of lesion"]),
        ("evaluations: {noise: {step: 3}}", ["noise.step: no such field (fields: levels, seed)"]),
        ("evaluations: {pgd: {levels: [300]}}", ["levels[0] = 300: should be 0 to 255"]),
        ("keep: all", ["keep = 'all': should be 'final', 'best', 'none' or {best: k}"]),
    ],
)
def test_a_bad_sweep_file_is_named_with_its_field_and_what_is_allowed(sweep, text, words):
    with pytest.raises(SweepError) as caught:
        sweep(text)
    message = str(caught.value)
    assert "sweep.yaml" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("setting", ["gamma", "=1", "gamma=", "gamma=[1", "gama=1"])
def test_a_bad_setting_is_refused(sweep, setting):
    with pytest.raises(SweepError, match=r"gam|field=value|mean|empty|value"):
        sweep("gamma: 1", setting)


def test_an_unknown_sweep_is_answered_with_the_nearest():
    with pytest.raises(SweepError, match="did you mean table4"):
        read("tabel4")


@pytest.mark.parametrize("name", builtin())
def test_built_in_sweeps_are_complete_and_described(name):
    found = read(name)
    assert found.description
    assert found.name == name
    assert len({trial.trial for trial in found.trials}) == len(found.trials)


def test_the_built_in_tables_have_the_papers_cells():
    table4, table6 = read("table4").trials, read("table6").trials
    assert {t.gamma for t in table4} == {0, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 2e-1}
    assert {(t.dataset, t.stages, t.points) for t in table4} == {("cifar10", 1, 10_000)}
    assert {t.gamma for t in table6} == {0, 5e-4, 1e-3, 5e-3, 1e-2}
    assert {(t.dataset, t.stages, t.points) for t in table6} == {("cifar10", 4, 1000)}


def test_the_demo_has_both_networks_four_gammas_and_two_values_of_k():
    trials = read("demo").trials
    assert len(trials) >= 16
    axes = [{getattr(t, name) for t in trials} for name in ("network", "gamma", "stages")]
    assert [len(axis) for axis in axes] == [2, 4, 2]


def test_a_trial_of_a_sweep_has_the_id_of_the_same_configuration(sweep):
    (trial,) = sweep("dataset: digits\ngamma: 1e-3\nK: 2\nepochs: 5").trials
    assert trial.trial == TrialConfig(gamma=0.001, stages=2, epochs=5).trial


def test_evaluations_are_of_the_sweep_and_make_no_other_trials(sweep):
    plain, evaluated = sweep("gamma: [0, 1]"), sweep("gamma: [0, 1]\nevaluations: [noise, pgd]")
    assert evaluated.trials == plain.trials
    assert (plain.evaluations, plain.keep) == ({}, "final")
    assert list(evaluated.evaluations) == ["noise", "pgd"]
    settings = ("evaluations=fgsm", "keep=best")
    changed = sweep("evaluations: [noise, pgd]", *settings)
    assert (list(changed.evaluations), changed.keep) == (["fgsm"], "best")


def test_penalties_are_axes(sweep):
    found = sweep("transport_penalty: [0, 1e-3]\nstraightness_penalty: [0, 0.1]")
    assert cells(found, "transport_penalty", "straightness_penalty") == [
        (0.0, 0.0),
        (0.0, 0.1),
        (1e-3, 0.0),
        (1e-3, 0.1),
    ]
