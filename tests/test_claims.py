"""The paper's claims, on its own numbers and on sweeps made up to hold or to break them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_sweep, made_up_trial, paper_sweep
from scipy import stats

from analysis import claims as script
from analysis.claims import CLAIMS, claims
from analysis.measures.comparisons import equal
from analysis.measures.means import welch
from analysis.measures.two_sweeps import compare, sentence
from analysis.measures.verdicts import VERDICTS, Comparison, judge
from analysis.results import load
from scoring.tables import read_rows, write_table


def verdicts(root: Path) -> dict[str, str]:
    table = claims(load(root))
    return dict(zip(table.name, table.verdict, strict=True))


def line(root: Path, name: str) -> dict:
    """The row of one claim; to save time, the others are not checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "CLAIMS", [claim for claim in CLAIMS if claim.name == name])
        (row,) = claims(load(root)).to_dict("records")
    return row


UNDECIDED = {  # the paper's Tables 4 to 7, with one seed: comparisons, and those that agree
    "decay_straightens": (44, 35),  # Table 4, ResNet: 3.79 at 0, 3.90 at 1e-3
    "decay_straightens_resnets": (22, 14),
    "straighter_is_better": (8, 7),  # Table 7, ResNet: +0.60
    "window": (12, 12),
    "heavy": (8, 8),
    "same_gamma": (4, 4),
    "ots_falls": (4, 4),
    "resnet_straighter": (28, 28),  # 9 + 9 gammas at K = 1, 5 + 5 at K = 4
    "resnet_nearer_optimal": (10, 10),
    "stages_straighten": (20, 20),
    "stages_vary": (20, 10),
    "best_gamma": (8, 8),
}


@pytest.mark.slow
def test_the_papers_own_tables_give_directions_and_decide_nothing(tmp_path: Path) -> None:
    table = claims(load(paper_sweep(tmp_path))).set_index("name")
    assert {
        name: (row.comparisons, row.agree)
        for name, row in table.iterrows()
        if row.verdict == "undecided"
    } == UNDECIDED
    assert (table.sure == 0).all()
    assert (table.against == 0).all()
    assert set(table.verdict.drop(list(UNDECIDED))) == {"not measured"}
    found = table.loc["straighter_is_better"]
    assert found.numbers.startswith("cifar100, K = 4, ResNet: Spearman ρ +0.60 over γ (n = 5")


def test_a_claim_says_which_version_of_the_paper_makes_it() -> None:
    versions = {claim.name: claim.version for claim in CLAIMS}
    assert set(versions.values()) == {"v1", "v1, v3"}
    assert versions["decay_straightens"] == "v1"  # of all networks
    assert versions["decay_straightens_resnets"] == "v1, v3"
    assert not any(claim.name.startswith("units") and "v3" in claim.version for claim in CLAIMS)


ps = st.lists(st.tuples(st.booleans(), st.floats(0, 1) | st.just(np.nan)), max_size=6)


@given(ps, st.booleans())
def test_verdicts_follow_from_the_sure_comparisons(given: list, everywhere: bool) -> None:
    found = judge([Comparison("", "", *one) for one in given], everywhere)
    known = sorted(p for _, p in given if not np.isnan(p))
    least = known[0] * len(known) < 0.05 if known else False  # Holm's first step
    every = bool(given) and all(agrees and p < 0.05 for agrees, p in given)
    assert (found.verdict == "not measured") == (not given)
    if found.verdict == "holds":
        assert found.sure == len(given) if everywhere else found.sure
        assert not found.against
    if everywhere and every:
        assert found.verdict == "holds"
    elif given and not least:
        assert (found.verdict, found.sure, found.against) == ("undecided", 0, 0)
    assert (found.verdict == "mixed") == (found.sure > 0 < found.against)
    assert (found.verdict == "does not hold") == (found.sure == 0 < found.against)


def test_every_claim_is_a_line_whatever_there_is(tmp_path: Path) -> None:
    made_up_trial(tmp_path, status="failed")
    table = claims(load(tmp_path))
    assert table.name.tolist() == [claim.name for claim in CLAIMS]
    assert set(table.verdict) == {"not measured"}
    made_up_trial(tmp_path, seed=1)
    assert set(claims(load(tmp_path)).verdict) == {"not measured"}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((3.0, 2.0), "holds"), ((2.0, 3.0), "does not hold"), ((2.0, 2.0), "undecided")],
)
def test_weight_decay_lowers_lss_or_does_not(
    tmp_path: Path, values: tuple[float, float], verdict: str
) -> None:
    for gamma, value in zip((0.0, 0.01), values, strict=True):
        for seed in range(3):
            made_up_trial(tmp_path, gamma=gamma, seed=seed, lss=value + 0.01 * seed)
    found = line(tmp_path, "decay_straightens")
    assert found["verdict"] == verdict
    assert (found["sure"], found["against"]) == (verdict == "holds", verdict == "does not hold")
    assert found["surely"] == ("0 of 1, 1 against" if found["against"] else f"{found['sure']} of 1")


def test_a_claim_with_sure_comparisons_of_both_kinds_is_mixed(tmp_path: Path) -> None:
    for gamma, value in ((0.0, 3.0), (0.01, 2.0), (0.1, 4.0)):
        for seed in range(3):
            made_up_trial(tmp_path, gamma=gamma, seed=seed, lss=value + 0.01 * seed)
    found = line(tmp_path, "decay_straightens")
    assert (found["verdict"], found["surely"]) == ("mixed", "1 of 2, 1 against")


@pytest.mark.parametrize("name", ["decay_straightens", "training_straightens", "stages_vary"])
def test_seeds_that_do_not_differ_are_no_evidence(tmp_path: Path, name: str) -> None:
    for gamma, value in ((0.0, 3.0), (0.01, 2.0)):
        for seed in range(3):
            made_up_trial(
                tmp_path, gamma=gamma, seed=seed, stages=2, lss=value, lss_initial=3.0, lss_std=1.0
            )
    found = line(tmp_path, name)
    assert (found["verdict"], found["agree"]) == ("undecided", found["comparisons"])


def test_a_claim_about_everywhere_needs_every_comparison_sure(tmp_path: Path) -> None:
    for spread, verdict in ((0.01, "holds"), (3.0, "undecided")):
        for gamma in (0.0, 0.01):
            for seed in range(3):
                lss = 5 + (spread if gamma else 0.01) * seed
                made_up_trial(tmp_path, "plain", gamma, seed, lss=lss)
                made_up_trial(tmp_path, "resnet", gamma, seed, lss=3 + 0.01 * seed)
        assert line(tmp_path, "resnet_straighter")["verdict"] == verdict


def test_one_seed_is_never_sure(tmp_path: Path) -> None:
    made_up_trial(tmp_path, gamma=0.0, lss=3.0)
    made_up_trial(tmp_path, gamma=0.01, lss=2.0)
    found = line(tmp_path, "decay_straightens")
    assert (found["verdict"], found["sure"], found["against"]) == ("undecided", 0, 0)


def test_what_untrained_networks_do_as_well_stands_beside(tmp_path: Path) -> None:
    for network in ("plain", "resnet"):
        for gamma in (0.0, 0.01):
            made_up_trial(tmp_path, network, gamma)
    assert line(tmp_path, "resnet_straighter")["null"] == "2 of 2"


def test_far_above_is_more_than_above(tmp_path: Path) -> None:
    for seed in range(3):
        for network, ots in (("plain", 0.1), ("resnet", 0.5)):
            made_up_trial(tmp_path, network, 0.01, seed, stages=4, ots=ots + 0.01 * seed)
    assert line(tmp_path, "resnet_nearer_optimal")["verdict"] == "does not hold"


def test_mnist_needs_both_a_straight_track_and_an_optimal_map(tmp_path: Path) -> None:
    place = {"dataset": "mnist", "layers": "fully_connected"}
    for ots, verdict in ((0.96, "holds"), (0.5, "mixed")):
        for seed in range(3):
            given = {"lss": 1.12 + 0.01 * seed, "ots": ots + 0.01 * seed}
            made_up_trial(tmp_path, gamma=5e-4, seed=seed, **given, **place)
        assert line(tmp_path, "mnist")["verdict"] == verdict


def test_infinite_and_missing_scores_decide_nothing(tmp_path: Path) -> None:
    for gamma, value in ((0.0, np.inf), (0.01, 2.0), (0.1, np.nan)):
        made_up_trial(tmp_path, gamma=gamma, lss=value)
    assert line(tmp_path, "decay_straightens")["verdict"] == "not measured"


def test_the_interval_of_a_difference_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        x, y = rng.normal(0, 1, 5), rng.normal(0.5, 3, 4)
        change, half, _ = welch(x, y)
        covered += abs(change - 0.5) <= half
    assert 0.90 <= covered / 400 <= 0.99


def test_the_difference_of_two_samples_is_welchs() -> None:
    x, y = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0])
    interval = stats.ttest_ind(y, x, equal_var=False).confidence_interval()
    change, half, p = welch(x, y)
    np.testing.assert_allclose(change, y.mean() - x.mean())
    np.testing.assert_allclose([change - half, change + half], interval)
    np.testing.assert_allclose(p, stats.ttest_ind(x, y, equal_var=False).pvalue)
    np.testing.assert_allclose(welch(np.ones(2), np.ones(3)), (0, np.nan, np.nan))


def test_a_side_whose_seeds_all_agree_has_an_interval_without_a_warning() -> None:
    x, y = np.full(3, 0.1), np.array([0.3, 0.4, 0.5])
    half = stats.t.ppf(0.975, 2) * stats.sem(y)
    np.testing.assert_allclose(welch(x, y)[:2], [0.3, half])
    nearly = x + np.array([0, 1e-16, -1e-16])
    np.testing.assert_allclose(welch(nearly, x + 0.2), [0.2, np.nan, np.nan])


def pair_of_networks(root: Path, plain: float, resnet: float, **change: object) -> None:
    """Two networks that are fragile to these degrees, in three seeds."""
    tried = ("lesion", "noise", "fgsm", "separation")
    for seed in range(3):
        for network, fragile in (("plain", plain), ("resnet", resnet)):
            given = fragile * (1 + 0.1 * seed)
            made_up_trial(root, network, 1e-3, seed, tried=tried, fragile=given, **change)


def test_a_resnet_that_lesions_hardly_change_and_a_steep_plain_network(tmp_path: Path) -> None:
    pair_of_networks(tmp_path, plain=4.0, resnet=0.01)
    found = line(tmp_path, "units")
    assert (found["verdict"], found["comparisons"], found["sure"]) == ("holds", 2, 2)
    assert found["numbers"].startswith("digits, K = 1, γ = 0.001, m = 500: lost to lesions 0.7")
    assert "(limit 0.05)" in found["numbers"]


def test_a_resnet_that_is_less_steep_but_not_flat_is_mixed(tmp_path: Path) -> None:
    pair_of_networks(tmp_path, plain=4.0, resnet=1.0)
    found = line(tmp_path, "units")
    assert (found["verdict"], found["agree"], found["against"]) == ("mixed", 1, 1)
    place = "digits, K = 1, ResNet, γ = 0.001, m = 500"
    assert found["numbers"].startswith(f"{place}: lost to lesions 0.4")


@pytest.mark.slow
@pytest.mark.parametrize(("plain", "verdict"), [(4.0, "holds"), (0.2, "does not hold")])
def test_noise_is_compared_for_each_kind_that_was_tried(
    tmp_path: Path, plain: float, verdict: str
) -> None:
    pair_of_networks(tmp_path, plain, resnet=1.0)
    for name in ("noise", "variation"):
        found = line(tmp_path, name)
        assert (found["verdict"], found["comparisons"]) == (verdict, 2)  # not PGD
        assert found["sure"] == (2 if verdict == "holds" else 0)
    assert "lost to random noise" in line(tmp_path, "noise")["numbers"]
    assert "variation rate under FGSM" in line(tmp_path, "variation")["numbers"]


def test_each_stage_is_compared_with_the_one_before_it(tmp_path: Path) -> None:
    for seed in range(3):
        made_up_trial(tmp_path, seed=seed, stages=3)
    found = line(tmp_path, "later_straighter")
    assert (found["verdict"], found["surely"], found["null"]) == ("holds", "2 of 2", "2 of 2")
    assert "in stage 2" in found["numbers"]


@pytest.mark.parametrize(
    ("shift", "agrees", "sure"),
    [(0.0, True, True), (0.004, True, True), (0.0095, True, False), (0.03, False, True)],
)
def test_sides_are_surely_equal_if_the_whole_interval_is_within_the_margins(
    shift: float, agrees: bool, sure: bool
) -> None:
    x = pd.Series([0.5, 0.502, 0.504], name="train_accuracy")
    for a, b in ((x, x + shift), (x + shift, x)):
        (found,) = equal("", ("plain", "ResNet"), a, b, 0.01)
        assert (found.agrees, found.p < 0.05) == (agrees, sure)
        change, half, _ = welch(a.to_numpy(), b.to_numpy())
        inside = abs(change) + half < 0.01
        assert (found.agrees and found.p < 0.05) == inside


def test_the_paper_s_equal_training_needs_train_accuracies(tmp_path: Path) -> None:
    for seed in range(3):
        for network, test in (("plain", 0.8), ("resnet", 0.9)):
            given = {"train_accuracy": 0.99 + 0.0001 * seed, "test_accuracy": test + 0.001 * seed}
            made_up_trial(tmp_path, network, seed=seed, stages=4, **given)
    assert line(tmp_path, "equal_training")["surely"] == "2 of 2"
    made_up_trial(tmp_path / "without", "plain", stages=4, train_accuracy=np.nan)
    made_up_trial(tmp_path / "without", "resnet", stages=4, train_accuracy=np.nan)
    assert line(tmp_path / "without", "equal_training")["verdict"] == "not measured"


def test_networks_at_chance_are_not_compared(tmp_path: Path) -> None:
    for network, accuracy in (("plain", 0.12), ("resnet", 0.9)):
        trial = made_up_trial(tmp_path, network, tried=["noise"], noise_auc=0.1)
        changed = read_rows(str(tmp_path), "robustness", trial)
        for row in changed:
            row |= {"accuracy": row["accuracy"] and accuracy}
        write_table(str(tmp_path), "robustness", trial, changed)
    assert line(tmp_path, "noise")["verdict"] == "not measured"
    assert line(tmp_path, "variation")["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("ratio", "untrained", "verdict", "null"),
    [
        (1.45, 1.0, "holds", "0 of 1"),
        (1.45, 1.4, "holds", "1 of 1"),
        (1.45, 1.6, "does not hold", "1 of 1"),  # less than it was before anything was learned
        (0.9, 0.8, "does not hold", "0 of 1"),  # less often than all pairs
    ],
)
def test_close_tracks_are_mixed_up_more_often_than_all_and_than_in_the_untrained_network(
    tmp_path: Path, ratio: float, untrained: float, verdict: str, null: str
) -> None:
    name = "mixed_ratio_different_matched"
    for seed in range(2):
        mixed = {name: ratio + 0.001 * seed, f"{name}_initial": untrained}
        made_up_trial(tmp_path, seed=seed, tried=["separation"], **mixed)
    made_up_trial(tmp_path, gamma=0.1, tried=["separation"], **{name: np.nan})
    found = line(tmp_path, "mixed_first")
    assert (found["verdict"], found["comparisons"]) == (verdict, 1)
    assert found["sure"] + found["against"] == 1
    assert found["null"].startswith(null[:1])
    assert ", m = 300: " in found["numbers"]
    assert found["numbers"].endswith(", 2 seeds)")


def test_without_controls_nothing_is_said_about_mixed_pairs(tmp_path: Path) -> None:
    name = "mixed_ratio_different_matched"
    for seed in range(2):
        old = {f"{name}{when}": np.nan for when in ("", "_initial")}
        made_up_trial(tmp_path, seed=seed, tried=["separation"], **old)
    assert line(tmp_path, "mixed_first")["verdict"] == "not measured"


def test_what_replaces_units_has_a_claim_of_its_own(tmp_path: Path) -> None:
    """A network may be flat under the paper's lesions and steep where units get their means."""
    for seed in range(3):
        for network, lost in (("plain", 0.5), ("resnet", 0.02)):
            change = {"lesion_auc": 0.9 * (1 - lost) + 0.001 * seed, "lesion_top_mean_auc": 0.45}
            made_up_trial(tmp_path, network, 1e-3, seed, tried=["lesion"], **change)
    assert line(tmp_path, "units")["verdict"] == "holds"
    assert line(tmp_path, "units_to_mean")["verdict"] != "holds"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "md", "latex", "json"])
def test_the_command_prints_every_claim(tmp_path: Path, capsys, form: str) -> None:
    made_up_sweep(tmp_path)
    assert script.main([str(tmp_path), "--format", form]) == 0
    told = capsys.readouterr().out
    assert all(verdict in told for verdict in VERDICTS[:1])
    if form == "json":
        assert len(json.loads(told)) == len(CLAIMS)


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, capsys) -> None:
    assert script.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_sweep_compared_with_itself_differs_nowhere(tmp_path: Path) -> None:
    results = load(made_up_sweep(tmp_path))
    table = compare(results, results)
    assert len(table) == 8 * 3
    assert table.difference.eq(0).all()
    assert (table.seeds.eq(2) & table.seeds_there.eq(2)).all()
    assert "8 cells in both" in sentence(table, "other")
    assert "in 0 of 8" in sentence(table, "other")


def test_sweeps_are_compared_over_seeds_at_equal_configuration(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for seed in range(3):
        made_up_trial(here, seed=seed, test_accuracy=0.9 + 0.001 * seed)
        made_up_trial(there, seed=seed + 3, test_accuracy=0.8 + 0.001 * seed)
        made_up_trial(there, seed=seed, points=500, test_accuracy=0.1)
    table = compare(load(here), load(there)).set_index("score")
    row = table.loc["test_accuracy"]
    np.testing.assert_allclose([row.difference, row.here, row.there], [0.1, 0.901, 0.801])
    assert row.low > 0
    assert row.m == 1000
    assert isinstance(table, pd.DataFrame)


def test_sweeps_without_a_common_cell_say_so(tmp_path: Path) -> None:
    made_up_trial(tmp_path / "a", gamma=0.1)
    made_up_trial(tmp_path / "b", gamma=0.2)
    table = compare(load(tmp_path / "a"), load(tmp_path / "b"))
    assert not len(table)
    assert "no finished cell" in sentence(table, "b")


def test_a_depth_that_is_not_given_equals_that_of_table_1(tmp_path: Path) -> None:
    made_up_trial(tmp_path / "old")  # one stage of convolutional layers: 10 blocks
    for depth in (10, 20):
        made_up_trial(tmp_path / "new", depth=depth)
    table = compare(load(tmp_path / "old"), load(tmp_path / "new"))
    assert table.depth.tolist() == [10] * 3


def test_a_sweep_of_an_earlier_version_shares_cells_with_one_of_this(tmp_path: Path) -> None:
    later = {"warmup": 0.0, "clean_train_every": 1, "validation": 0.0, "transport_penalty": 0.0}
    made_up_trial(tmp_path / "old")
    made_up_trial(tmp_path / "new", **later)
    assert len(compare(load(tmp_path / "old"), load(tmp_path / "new"))) == 3


def depth_sweep(root: Path, plain: tuple[float, float], resnet: tuple[float, float]) -> None:
    """Train losses of both networks with 2 and 20 blocks, at two gammas and in three seeds."""
    for network, losses in (("plain", plain), ("resnet", resnet)):
        for depth, loss in zip((2, 20), losses, strict=True):
            for gamma in (0.0, 0.1):
                for seed in range(3):
                    value = loss - gamma * (depth == 20) + 0.01 * seed
                    made_up_trial(
                        root, network, gamma, seed, depth=depth, clean_train_loss=value, samples=0
                    )


def test_plain_networks_degrade_with_depth_and_resnets_do_not(tmp_path: Path) -> None:
    depth_sweep(tmp_path, plain=(0.3, 2.3), resnet=(0.3, 0.1))
    for name in ("plain_degrades", "resnet_deepens"):
        found = line(tmp_path, name)
        assert (found["verdict"], found["surely"]) == ("holds", "2 of 2")
        assert "with 2 blocks" in found["numbers"]
    found = line(tmp_path, "decay_against_degradation")
    assert (found["verdict"], found["surely"]) == ("holds", "1 of 1")
    assert found["numbers"].startswith("digits, K = 1, plain, 20 blocks: ")
    found = line(tmp_path, "resnet_straighter")  # at an equal number of blocks only
    assert found["comparisons"] == 4
    assert "20 blocks" in found["numbers"]


def test_one_number_of_blocks_says_nothing_about_degradation(tmp_path: Path) -> None:
    for seed in range(3):
        made_up_trial(tmp_path, "plain", seed=seed, clean_train_loss=0.3 + seed)
        made_up_trial(tmp_path, "plain", seed=seed, stages=2, clean_train_loss=0.5 + seed)
    for name in ("plain_degrades", "resnet_deepens", "decay_against_degradation"):
        assert line(tmp_path, name)["verdict"] == "not measured"


def test_trials_without_a_depth_have_the_blocks_of_table_1(tmp_path: Path) -> None:
    for depth in (None, 2):
        change = {} if depth is None else {"depth": depth}
        made_up_trial(tmp_path, "plain", **change)
        made_up_trial(tmp_path, "plain", stages=2, **change)
    trials = load(tmp_path).trials
    assert sorted(zip(trials.stages, trials.depth, strict=True)) == [
        (1, 2),
        (1, 10),
        (2, 2),
        (2, 5),
    ]
