"""The paper's claims, on its own numbers and on sweeps made up to hold or to break them."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_sweep, made_up_trial, paper_sweep, scored_at_another_m
from made_up_evaluations import EVALUATIONS
from one_claim import line, row_of

from analysis import claims as script
from analysis.claims import CLAIMS, claims
from analysis.measures.verdicts import VERDICTS, Comparison, judge
from analysis.results import load

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
    if everywhere:  # one counterexample refutes it
        assert found.verdict != "mixed"
        assert (found.verdict == "does not hold") == (found.against > 0)
        return
    assert (found.verdict == "mixed") == (found.sure > 0 < found.against)
    assert (found.verdict == "does not hold") == (found.sure == 0 < found.against)


@given(ps, st.booleans())
def test_what_cannot_be_compared_only_keeps_a_claim_about_everywhere_from_holding(
    given: list, everywhere: bool
) -> None:
    found = [Comparison("", "", *one) for one in given]
    notes = [Comparison("", "", False, np.nan, compared=False)]
    wanted = judge(found, everywhere)
    if everywhere and wanted.verdict == "holds":  # not in every place
        wanted = wanted._replace(verdict="undecided")
    assert judge(notes + found, everywhere) == wanted


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


def test_one_sure_counterexample_refutes_a_claim_about_everywhere(tmp_path: Path) -> None:
    for gamma, resnet in ((0.0, 3.0), (0.01, 3.0), (0.1, 7.0)):
        for seed in range(3):
            made_up_trial(tmp_path, "plain", gamma, seed, lss=5 + 0.01 * seed)
            made_up_trial(tmp_path, "resnet", gamma, seed, lss=resnet + 0.01 * seed)
    found = line(tmp_path, "resnet_straighter")
    assert (found["verdict"], found["surely"]) == ("does not hold", "2 of 3, 1 against")


@pytest.mark.parametrize(
    ("ots", "spread", "rise", "verdict", "agree"),
    [
        (1.0, 0.0, 0.1, "undecided", 0),  # no spread over seeds is no evidence
        (0.95, 0.01, 0.0, "does not hold", 0),  # train accuracy is the same in all trials
        (0.1, 0.01, 0.0, "undecided", 1),  # near 0, but it did not fall
        (0.1, 0.0, 0.1, "undecided", 1),
    ],
)
def test_an_ots_that_is_the_same_everywhere_does_not_fall(
    tmp_path: Path, ots: float, spread: float, rise: float, verdict: str, agree: int
) -> None:
    for place, gamma in enumerate((0.0, 0.01, 0.1)):
        for seed in range(3):
            given = {"ots": ots + spread * seed, "train_accuracy": 0.6 + rise * place}
            made_up_trial(tmp_path, gamma=gamma, seed=seed, **given)
    found = line(tmp_path, "ots_falls")
    assert (found["verdict"], found["comparisons"], found["agree"]) == (verdict, 2, agree)
    what = "running train accuracy is 0.6" if spread else f"OTS is {ots:g}"
    assert f"{what} in all 9 trials" in found["numbers"]
    assert "(limit 0.5), 3 seeds" in found["numbers"]


def test_one_gamma_says_nothing_about_a_fall_of_ots(tmp_path: Path) -> None:
    for seed in range(3):
        made_up_trial(tmp_path, seed=seed, ots=1.0)
    assert line(tmp_path, "ots_falls")["verdict"] == "not measured"


def test_one_seed_is_never_sure(tmp_path: Path) -> None:
    made_up_trial(tmp_path, gamma=0.0, lss=3.0)
    made_up_trial(tmp_path, gamma=0.01, lss=2.0)
    found = line(tmp_path, "decay_straightens")
    assert (found["verdict"], found["sure"], found["against"]) == ("undecided", 0, 0)


@pytest.mark.slow
def test_one_seed_is_never_sure_however_many_m_it_was_scored_at(tmp_path: Path) -> None:
    for stages in (1, 2, 4):
        for network in ("plain", "resnet"):
            for gamma in (0.0, 1e-3, 5e-3, 1e-2, 0.5):
                given = {"stages": stages, "tried": [*EVALUATIONS], "epochs": 2}
                made_up_trial(tmp_path, network, gamma, **given)
    table = claims(scored_at_another_m(load(tmp_path)))
    assert (table.comparisons > 0).sum() > 15
    assert set(table.verdict) == {"undecided", "not measured"}


def test_a_network_that_was_scored_at_two_m_counts_once_per_seed(tmp_path: Path) -> None:
    for stages, lss in ((1, 3.0), (4, 2.0)):
        for seed in range(3):
            made_up_trial(tmp_path, seed=seed, stages=stages, lss=lss + 0.1 * seed)
    results = load(tmp_path)
    once, twice = (
        row_of(each, "stages_straighten") for each in (results, scored_at_another_m(results))
    )
    assert once == twice
    assert (once["verdict"], once["surely"]) == ("holds", "1 of 1")
    assert once["numbers"].endswith(", 3 seeds)")


@pytest.mark.parametrize(
    ("name", "comparisons", "left_out"),
    [
        ("decay_straightens", 1, 3),
        ("training_straightens", 1, 3),
        ("decay_lowers_energy", 1, 3),
        ("straighter_is_better", 1, 3),
        ("stages_vary", 2, 3),
        ("later_straighter", 2, 3),
        ("heavy", 0, 0),
    ],
)
def test_collapsed_networks_are_not_straight_and_the_line_says_so(
    tmp_path: Path, name: str, comparisons: int, left_out: int
) -> None:
    for gamma in (0.0, 0.01, 0.1):
        for seed in range(3):
            given = {"lss": 3.0 - 10 * gamma + 0.1 * seed, "energy": 1 + seed, "lss_std": 1 + seed}
            lost = gamma == 0.1
            made_up_trial(tmp_path, gamma=gamma, seed=seed, stages=2, collapsed=lost, **given)
    found = line(tmp_path, name)
    assert found["comparisons"] == comparisons
    told = f"; {left_out} collapsed trials left out"
    assert found["numbers"].endswith(told) if left_out else "collapsed" not in found["numbers"]


def test_what_heavy_decay_costs_includes_networks_that_collapsed(tmp_path: Path) -> None:
    for gamma, accuracy in ((0.1, 0.8), (1.0, 0.1)):
        for seed in range(3):
            given = dict.fromkeys(["train_accuracy", "test_accuracy"], accuracy + 0.01 * seed)
            made_up_trial(tmp_path, gamma=gamma, seed=seed, collapsed=gamma == 1, **given)
    found = line(tmp_path, "heavy")
    assert (found["verdict"], found["surely"]) == ("holds", "2 of 2")


def test_a_claim_that_only_collapsed_networks_could_decide_is_not_measured(tmp_path: Path) -> None:
    for network in ("plain", "resnet"):
        for seed in range(3):
            made_up_trial(tmp_path, network, 0.1, seed, collapsed=network == "plain")
    found = line(tmp_path, "resnet_straighter")
    assert found["verdict"] == "not measured"
    assert found["numbers"] == (
        "digits, K = 1, γ = 0.1: LSS (plain, ResNet) not compared: 3 trials collapsed; "
        "3 collapsed trials left out"
    )


@pytest.mark.parametrize("name", ["window", "resnet_straighter"])
def test_a_claim_about_everywhere_does_not_hold_by_its_other_parts(
    tmp_path: Path, name: str
) -> None:
    """LSS rises in networks that collapse, so only the rest of the claim can be compared."""
    for seed in range(4):
        for network, gamma in product(("plain", "resnet"), (1e-3, 1e-2)):
            more = 0.01 * seed
            given = dict.fromkeys(["train_accuracy", "test_accuracy"], 0.8 + 5 * gamma + more)
            given["lss"] = 1.5 + 150 * gamma + 5 * (network == "plain") + more
            made_up_trial(tmp_path, network, gamma, seed, collapsed=gamma == 1e-2, **given)
    found = line(tmp_path, name)
    assert (found["verdict"], found["sure"]) == ("undecided", found["comparisons"])
    assert "not compared: " in found["numbers"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("decay_straightens", "ResNet: LSS (at γ = 0, at 0.01) not compared: 1 trial collapsed"),
        (
            "training_straightens",
            "γ = 0.01: LSS (before training, after it) not compared: 1 trial collapsed",
        ),
        (
            "straighter_is_better",
            "LSS not compared: 1 trial collapsed; the others have no correlation",
        ),
    ],
)
def test_a_note_says_which_sides_had_only_collapsed_trials(
    tmp_path: Path, name: str, told: str
) -> None:
    for gamma in (0.0, 1e-3, 1e-2):
        made_up_trial(tmp_path, gamma=gamma, collapsed=gamma == 1e-2)
    assert told in line(tmp_path, name)["numbers"]


def test_a_correlation_of_too_few_trials_is_not_for_want_of_collapsed_ones(tmp_path: Path) -> None:
    for gamma in (0.0, 1e-2):
        made_up_trial(tmp_path, gamma=gamma, collapsed=gamma == 1e-2)
    assert line(tmp_path, "straighter_is_better")["numbers"] == ""


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
    for ots, verdict in ((0.96, "holds"), (0.5, "does not hold")):
        for seed in range(3):
            given = {"lss": 1.12 + 0.01 * seed, "ots": ots + 0.01 * seed}
            made_up_trial(tmp_path, gamma=5e-4, seed=seed, **given, **place)
        assert line(tmp_path, "mnist")["verdict"] == verdict


def test_infinite_and_missing_scores_decide_nothing(tmp_path: Path) -> None:
    for gamma, value in ((0.0, np.inf), (0.01, 2.0), (0.1, np.nan)):
        made_up_trial(tmp_path, gamma=gamma, lss=value)
    assert line(tmp_path, "decay_straightens")["verdict"] == "not measured"


def test_each_stage_is_compared_with_the_one_before_it(tmp_path: Path) -> None:
    for seed in range(3):
        made_up_trial(tmp_path, seed=seed, stages=3)
    found = line(tmp_path, "later_straighter")
    assert (found["verdict"], found["surely"], found["null"]) == ("holds", "2 of 2", "2 of 2")
    assert "in stage 2" in found["numbers"]


def test_the_paper_s_equal_training_needs_train_accuracies(tmp_path: Path) -> None:
    for seed in range(3):
        for network, test in (("plain", 0.8), ("resnet", 0.9)):
            given = {"train_accuracy": 0.99 + 0.0001 * seed, "test_accuracy": test + 0.001 * seed}
            made_up_trial(tmp_path, network, seed=seed, stages=4, **given)
    assert line(tmp_path, "equal_training")["surely"] == "2 of 2"
    made_up_trial(tmp_path / "without", "plain", stages=4, train_accuracy=np.nan)
    made_up_trial(tmp_path / "without", "resnet", stages=4, train_accuracy=np.nan)
    assert line(tmp_path / "without", "equal_training")["verdict"] == "not measured"


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
