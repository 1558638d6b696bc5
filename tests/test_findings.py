"""Results to sentences, on sweeps made up for the purpose."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, made_up_trial

from analysis import report
from analysis.claims import claims_sentence
from analysis.measures.cells import varying
from analysis.measures.factors import factor_sentences
from analysis.measures.findings import Headline, geodesic_sentence, headline, sentences
from analysis.measures.layout import fold, readable
from analysis.measures.planned import extra_sentence, missing, planned
from analysis.measures.robustness import lost_sentence
from analysis.measures.summary import summary
from analysis.results import load
from scoring.schemas import CONFIG, KEY, TABLES

LIMITS = "LSS at most 1.25 and OTS from 0.9"
NEAR: dict[str, Any] = {"lss": 1.2, "ots": 0.95, "lss_initial": 2.5, "ots_initial": 1.0}
ALONE = " One seed decides nothing."


def headline_of(folder: Path) -> Headline:
    results = load(folder)
    return headline(summary(results), results)


def test_findings_are_counted_against_their_nulls(tmp_path: Path) -> None:
    for gamma, lss in ((0.0, 3.3), (0.01, 2.0)):
        made_up_trial(tmp_path, "resnet", gamma, lss=lss, lss_initial=3.2, ots=0.1)
        made_up_trial(tmp_path, "plain", gamma, lss=3 * lss, lss_initial=10.0, ots=0.2)
    made_up_trial(tmp_path, "plain", 0.01, 1, status="failed")
    said = sentences(load(tmp_path))
    assert said[0] == "5 trials: 4 done, 0 diverged, 1 failed."
    assert "in 3 of 4 trials (plain 2 of 2, ResNet 1 of 2)" in said[1]
    assert "in 2 of 2 cells with γ > 0" in said[2]
    assert "ResNet LSS is lower than plain LSS in 2 of 2 paired cells" in said[3]
    assert "ResNet OTS is higher than plain OTS in 0 of 2" in said[4]
    assert "before training it already is in 2 of them" in said[4]


def test_trials_that_hardly_move_their_points_are_not_praised_for_their_ots(tmp_path: Path) -> None:
    made_up_trial(tmp_path, "resnet", 0.0, movement=0.1)
    made_up_trial(tmp_path, "resnet", 10.0, movement=1e-8, ots=1.0)
    assert sentences(load(tmp_path))[1].startswith("Hardly moving: 1 of 2 trials (at γ = 10).")


def test_decoupled_weight_decay_is_said_to_be_no_penalty_and_has_cells_of_its_own(
    tmp_path: Path,
) -> None:
    for seed, recipe in enumerate(("adam", "adam", "adamw", "adamw")):
        for gamma in (0.0, 0.1):
            given = {"recipe": recipe, "decoupled": recipe == "adamw"}
            made_up_trial(tmp_path, gamma=gamma, seed=seed, **given)
    results = load(tmp_path)
    assert len(summary(results)) == 4
    (said,) = [one for one in sentences(results) if "decoupled" in one]
    assert said.startswith("In 2 trials (adamw) γ is decoupled weight decay: each step takes")
    earlier = results.trials[results.trials.recipe == "adam"].assign(decoupled=None)
    assert not [one for one in sentences(results._replace(trials=earlier)) if "decoupled" in one]


def test_trials_from_before_there_was_a_warm_up_had_none(tmp_path: Path) -> None:
    made_up_trial(tmp_path, seed=0)
    made_up_trial(tmp_path, seed=1, warmup=0.0)
    assert "warmup" not in varying(load(tmp_path).trials)
    made_up_trial(tmp_path, seed=2, warmup=5.0)
    assert load(tmp_path).trials.warmup.tolist() == [0.0, 0.0, 5.0]


def test_trials_from_before_clean_train_images_could_be_left_out_saw_them_in_every_epoch(
    tmp_path: Path,
) -> None:
    made_up_trial(tmp_path, seed=0)
    made_up_trial(tmp_path, seed=1, clean_train_every=1)
    assert "clean_train_every" not in varying(load(tmp_path).trials)


def test_collapsed_trials_are_named_and_said_to_have_no_ots(tmp_path: Path) -> None:
    for gamma in (0.0, 0.5, 1.0):
        made_up_trial(tmp_path, "plain", gamma, collapsed=gamma > 0, lss=2 - gamma)
        made_up_trial(tmp_path, "resnet", gamma, collapsed=gamma == 1)
    said = sentences(load(tmp_path))
    assert said[1].startswith(
        "Collapsed: 3 of 6 trials (plain 2, at γ = 0.5, 1; ResNet 1, at γ = 1)."
    )
    assert said[1].endswith("they have no OTS.")
    (decay,) = [sentence for sentence in said if sentence.startswith("Weight decay")]
    assert re.search(r"of 4 cells with γ > 0, [23] of them with collapsed trials\.", decay)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.0, 0.0), "proved optimal: W₂² equals its lower bound (m = 1,000)."),
        ((1e-17, 3e-16), "proved optimal: W₂² exceeds its lower bound by at most a share of 3e-16"),
        (
            (0.0, 2e-4),
            "proved nearly optimal: W₂² exceeds its lower bound by at most a share of 0.0002",
        ),
    ],
)
def test_the_certificate_is_the_weakest_of_all_trials(
    tmp_path: Path, shares: tuple[float, float], said: str
) -> None:
    for seed, share in enumerate(shares):
        made_up_trial(tmp_path, seed=seed, suboptimality=share)
    (sentence,) = [s for s in sentences(load(tmp_path)) if "proved" in s]
    assert sentence.startswith(f"Every assignment is {said}")


def factors(straightness: tuple[float, float], transport: tuple[float, float]) -> dict[str, Any]:
    """Columns of a trial with these factors, before training and after."""
    columns: dict[str, Any] = {}
    for when, one, other in zip(("_initial", ""), straightness, transport, strict=True):
        columns |= {f"straightness_factor{when}": one, f"transport_factor{when}": other}
        columns[f"geodesic_excess{when}"] = one * other
    return columns


def of_factors(folder: Path) -> list[str]:
    results = load(folder)
    return factor_sentences(results, summary(results))


def test_the_headline_is_the_excess_and_one_seed_decides_nothing_about_its_factors(
    tmp_path: Path,
) -> None:
    made_up_trial(tmp_path, gamma=0, **factors((10, 8), (1.0, 1.01)))  # type: ignore[arg-type]
    made_up_trial(tmp_path, gamma=1e-2, **factors((10, 2), (1.0, 1.01)))  # type: ignore[arg-type]
    told = headline_of(tmp_path)
    assert told.number == "Geodesic excess 4.04"
    assert "(geometric mean of 2 cells); before training 10.00" in told.baseline
    assert told.baseline.endswith("the geodesic has 1; m = 1,000, 1 seed per cell")
    (resnet,) = of_factors(tmp_path)
    assert resnet.startswith(
        "ResNet: geodesic excess 10.00 before training, 4.04 after (m = 1,000, 1 seed per cell). "
        "Straightness factor went from 10.00 to 4.00 (lower in 2 of 2 cells, surely in 0): "
        "undecided. Transport factor was 1.00 before training and is 1.01: free. OTS 0."
    )
    assert "(m = 1,000); before training 1.000, of shuffled displacements 0.800" in resnet


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([8, 7, 8.5], "from 10.00 to 7.81 (lower in 1 of 1 cell, surely in 1): learned in part."),
        ([1, 1.04, 1], "from 10.00 to 1.01 (lower in 1 of 1 cell, surely in 1): learned."),
        ([9.7, 9.8, 9.75], "(lower in 1 of 1 cell, surely in 1): hardly changed."),
        ([12, 13, 12], "(lower in 0 of 1 cell, surely in 0, surely higher in 1): away from the"),
        ([4, 9, 14], "from 10.00 to 7.96 (lower in 1 of 1 cell, surely in 0): undecided."),
        ([8, 8, 8], "from 10.00 to 8.00 (lower in 1 of 1 cell, surely in 0): undecided."),
    ],
)
def test_a_factor_is_learned_if_its_fall_is_sure_over_seeds(
    tmp_path: Path, ends: list[float], told: str
) -> None:
    for seed, end in enumerate(ends):
        made_up_trial(tmp_path, seed=seed, **factors((10, end), (1.2, 1.2)))  # type: ignore[arg-type]
    (said,) = of_factors(tmp_path)
    assert told in said
    assert "m = 1,000, 3 seeds per cell" in said
    assert "Transport factor went from 1.20 to 1.20 (lower in 0 of 1 cell, surely in 0): un" in said


def test_a_factor_is_free_only_if_every_trial_had_and_has_it(tmp_path: Path) -> None:
    for seed, end in enumerate((1.0, 1.0, 1.1)):
        made_up_trial(tmp_path, seed=seed, **factors((10, 10), (1.0, end)))  # type: ignore[arg-type]
    assert "Transport factor went from 1.00 to 1.03" in of_factors(tmp_path)[0]
    made_up_trial(tmp_path, seed=2, **factors((10, 10), (1.0, 1.05)))  # type: ignore[arg-type]
    assert "Transport factor was 1.00 before training and is 1.02: free." in of_factors(tmp_path)[0]


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.0, "free."),
        (0.5, "free."),
        (np.nan, "free."),  # earlier versions did not measure it
        (
            0.55,  # the factor of a random matching is 1.055, so not within 5% of 1
            "within 5% of 1, but nearer to a random matching than to the optimal one (share 0.55).",
        ),
    ],
)
def test_a_map_that_is_nearer_to_a_random_matching_is_not_free(
    tmp_path: Path, share: float, told: str
) -> None:
    for seed in range(2):
        given = factors((1, 1), (1.03, 1.03)) | {"transport_share": share}  # type: ignore[arg-type]
        made_up_trial(tmp_path, seed=seed, **given)
    (said,) = of_factors(tmp_path)
    assert f"Transport factor was 1.03 before training and is 1.03: {told}" in said
    assert "Straightness factor was 1.00 before training and is 1.00: free." in said


def test_a_factor_that_falls_in_one_cell_and_rises_in_another_is_told_as_both(
    tmp_path: Path,
) -> None:
    for gamma, ends in ((0, (8, 7, 8)), (0.1, (12, 13, 12))):
        for seed, end in enumerate(ends):
            made_up_trial(tmp_path, "plain", gamma, seed, **factors((10, end), (1, 1)))  # type: ignore[arg-type]
    (said,) = of_factors(tmp_path)
    assert (
        "(lower in 1 of 2 cells, surely in 1, surely higher in 1): learned in some cells, " in said
    )


@pytest.mark.parametrize(
    ("sure", "noisy", "told"),
    [
        ((9.9, 9.91, 9.92), (5, 40, 60), "surely in 1): learned in some cells only."),
        ((5, 5.1, 5.2), (5, 20, 60), "surely in 1): learned in some cells only."),
        ((9.7, 9.8, 9.75), (7, 9, 16), "surely in 1): hardly changed."),
        ((5, 5.1, 5.2), (7, 9, 16), "surely in 1): learned in part."),
        ((5, 5.1, 5.2), (8, 20, 50), "surely in 1): learned in some cells only."),
        ((12, 12.1, 12.2), (1, 5, 20), "away from the geodesic in some cells only."),
        ((12, 12.1, 12.2), (7, 9, 16), "surely higher in 1): away from the geodesic."),
    ],
)
def test_one_sure_cell_does_not_speak_for_cells_that_go_the_other_way(
    tmp_path: Path, sure: tuple[float, ...], noisy: tuple[float, ...], told: str
) -> None:
    for gamma, ends in ((0, sure), (0.1, noisy)):
        for seed, end in enumerate(ends):
            made_up_trial(tmp_path, gamma=gamma, seed=seed, **factors((10, end), (1, 1)))  # type: ignore[arg-type]
    assert told in of_factors(tmp_path)[0]


def test_means_of_the_factors_multiply_to_that_of_the_excess(tmp_path: Path) -> None:
    pairs = [((5, 4), (1.1, 1.0)), ((5, 3), (1.2, 1.0)), ((100, 140), (4.0, 3.0))]
    for seed, (straightness, transport) in enumerate(pairs):
        made_up_trial(tmp_path, seed=seed, **factors(straightness, transport))  # type: ignore[arg-type]
    (said,) = of_factors(tmp_path)
    ends = [
        [np.exp(np.mean([np.log(pair[factor][when]) for pair in pairs])) for when in (0, 1)]
        for factor in (0, 1)
    ]
    before, after = np.prod(ends, axis=0)
    top = headline_of(tmp_path)
    assert f"its excess is {after:.2f}, before training {before:.2f}." in top.verdict
    assert (top.number, f"training {before:.2f};" in top.baseline) == (
        f"Geodesic excess {after:.2f}",
        True,
    )
    assert f"excess {before:.2f} before training, {after:.2f} after (× {after / before:.2f}" in said
    assert "geometric means over seeds; m = 1,000, 3 seeds per cell)" in said
    for (first, last), name in zip(ends, ("Straightness", "Transport"), strict=True):
        assert f"{name} factor went from {first:.2f} to {last:.2f} (" in said


def test_trials_without_an_excess_are_no_seeds_of_its_means(tmp_path: Path) -> None:
    nothing = dict.fromkeys(["geodesic_excess", "transport_factor"], np.nan)
    for gamma in (0, 0.1):
        for seed in range(3):
            lost = nothing if (gamma, seed) == (0.1, 2) else {}
            made_up_trial(
                tmp_path, gamma=gamma, seed=seed, **factors((10, 8 + seed), (1, 1)) | lost
            )  # type: ignore[arg-type]
    (said,) = of_factors(tmp_path)
    assert "after (geometric means over seeds; m = 1,000, 2 to 3 seeds per cell)" in said


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_without_an_excess_the_headline_is_the_line_shape_as_before(tmp_path: Path) -> None:
    later = ("_factor", "_drift", "_share", "_shuffled", "_excess")
    later += tuple(f"{end}_initial" for end in later)
    names = [name for name in TABLES["trials"].names if name.endswith(later)]
    made_up_trial(tmp_path, **dict.fromkeys(names))  # type: ignore[arg-type]
    results = load(tmp_path)
    told = headline(summary(results), results)
    assert told.number.startswith("LSS ")
    assert factor_sentences(results, summary(results)) == []
    shown = set(readable(fold(summary(results))[0]))
    assert not {text for text in shown if re.search("factor|excess|share|shuffled", text)}
    html = report.build(tmp_path).read_text()
    assert "learned, or was it free" not in html
    assert "Straightness factor during training" not in html


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_cell_whose_excess_is_not_finite_is_in_no_headline(tmp_path: Path, broken: float) -> None:
    made_up_trial(tmp_path, gamma=0, geodesic_excess=broken, transport_factor=broken)
    assert headline_of(tmp_path).number.startswith("LSS ")
    made_up_trial(tmp_path, gamma=1.0, **factors((4, 2), (1, 1)))  # type: ignore[arg-type]
    assert headline_of(tmp_path).number == "Geodesic excess 2.00"


def test_a_geodesic_takes_both_scores_and_not_before_training(tmp_path: Path) -> None:
    made_up_trial(tmp_path, gamma=0.5, status="failed")
    assert geodesic_sentence(summary(load(tmp_path))) == ""
    straight = {"lss": 1.2, "ots": 0.95}
    made_up_trial(tmp_path, gamma=0, **straight, lss_initial=2.5, ots_initial=1.0)
    made_up_trial(tmp_path, gamma=1e-3, **straight, lss_initial=1.1, ots_initial=1.0)
    made_up_trial(tmp_path, gamma=1e-2, lss=1.2, ots=0.85, lss_initial=2.5, ots_initial=1.0)
    made_up_trial(tmp_path, "plain", lss=3.0, ots=0.0, lss_initial=3.0, ots_initial=0.0)
    said = geodesic_sentence(summary(load(tmp_path)))
    assert "ResNet: 1 of 3 (LSS 1.20, before training 1.10 to 2.50; OTS 0.850 to 0.950" in said
    assert "Plain: 0 of 1 (LSS 3.00, before training 3.00; OTS 0.000, before" in said
    assert said.startswith(
        f"Came near the geodesic in training ({LIMITS}): 1 of 4 cells, m = 1,000, 1 seed per cell."
    )


def verdict_of(folder: Path) -> str:
    return headline_of(folder).verdict


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ({"collapsed": True}, "collapsed trials"),
        ({"ots": np.nan}, "trials without OTS"),
    ],
)
def test_a_cell_is_not_counted_as_near_by_the_trials_that_have_an_ots(
    tmp_path: Path, lost: dict, why: str
) -> None:
    for seed in range(3):
        more = factors((4, 2), (1, 1)) | (lost if seed else {})
        made_up_trial(tmp_path, gamma=0, seed=seed, **NEAR | more)
    told = f" 1 cell is within these limits, but not counted: it has {why}."
    assert verdict_of(tmp_path) == (
        f"Whether the cell came near the geodesic in training ({LIMITS}) is unknown: it is within "
        f"these limits, but has {why}."
    )
    said = geodesic_sentence(summary(load(tmp_path)))
    assert said.startswith(
        f"Came near the geodesic in training ({LIMITS}): 0 of 1 cell, m = 1,000, 3 seeds per "
    )
    assert f"3 seeds per cell.{told} ResNet: 0 of 1 (" in said
    made_up_trial(tmp_path, gamma=0.1, **NEAR | factors((8, 3), (1, 1)))
    made_up_trial(tmp_path, gamma=1.0, **NEAR | {"lss": 2.0})
    assert verdict_of(tmp_path) == (
        f"1 of 3 cells came near the geodesic in training ({LIMITS}); its excess is 3.00, before "
        f"training 8.00.{ALONE}{told}"
    )
    assert f"{LIMITS}): 1 of 3 cells, " in geodesic_sentence(summary(load(tmp_path)))


@pytest.mark.parametrize(
    ("statuses", "why"),
    [
        (["diverged"], "diverged trials"),
        (["failed"], "failed trials"),
        (["stopped"], "trials that were stopped early"),
        (["diverged", "stopped"], "diverged trials or trials that were stopped early"),
    ],
)
def test_a_cell_is_not_counted_as_near_by_the_trials_that_came_through(
    tmp_path: Path, statuses: list[str], why: str
) -> None:
    made_up_trial(tmp_path, **NEAR)
    for seed, status in enumerate(statuses, 1):
        made_up_trial(tmp_path, seed=seed, status=status)
    assert verdict_of(tmp_path) == (
        f"Whether the cell came near the geodesic in training ({LIMITS}) is unknown: it is within "
        f"these limits, but has {why}.{ALONE}"
    )
    made_up_trial(tmp_path, gamma=0.1, **NEAR)
    said = geodesic_sentence(summary(load(tmp_path)))
    assert f"{LIMITS}): 1 of 2 cells, " in said
    assert f" 1 cell is within these limits, but not counted: it has {why}." in said


def test_a_cell_with_collapsed_trials_does_not_count_before_training_either(tmp_path: Path) -> None:
    near = NEAR | {"lss_initial": 1.1}
    for gamma in (0, 0.1):
        for seed in range(2):
            made_up_trial(tmp_path, gamma=gamma, seed=seed, **near, collapsed=gamma > 0 < seed)
    verdict = verdict_of(tmp_path)
    assert verdict.startswith(
        f"None of the 2 cells came near the geodesic in training ({LIMITS}); "
    )
    assert verdict.endswith(
        " 1 cell was near the geodesic before training already. 1 cell is within these limits, "
        "but not counted: it has collapsed trials."
    )


def test_a_cell_within_the_limits_before_training_is_told_apart(tmp_path: Path) -> None:
    before = {"lss_initial": 1.1} | factors((1.1, 1.1), (1, 1))
    made_up_trial(tmp_path, gamma=0, **NEAR | before)
    assert verdict_of(tmp_path) == (
        f"The cell did not come near the geodesic in training ({LIMITS}); its excess is 1.10, "
        f"before training 1.10.{ALONE} It was near the geodesic before training already."
    )
    made_up_trial(tmp_path, gamma=1e-3, **NEAR | factors((4, 1.2), (1, 1)))
    assert verdict_of(tmp_path) == (
        f"1 of 2 cells came near the geodesic in training ({LIMITS}); its excess is 1.20, before "
        f"training 4.00.{ALONE} 1 cell was near the geodesic before training already."
    )
    made_up_trial(tmp_path, gamma=0.1, **NEAR | factors((4, np.nan), (1, 1)))
    assert "2 of 3 cells came near the geodesic in training" in verdict_of(tmp_path)
    assert "; the excess of 1 of them is 1.20, before training 4.00." in verdict_of(tmp_path)


@pytest.mark.parametrize(
    ("seeds", "warned"),
    [
        ((1, 1), " Each of these cells has one seed, which decides nothing."),
        ((1, 2), " Some of these cells have one seed, which decides nothing."),
        ((2, 2), ""),
    ],
)
def test_a_headline_from_one_seed_says_so(
    tmp_path: Path, seeds: tuple[int, ...], warned: str
) -> None:
    for gamma, count in zip((0, 0.1), seeds, strict=True):
        for seed in range(count):
            made_up_trial(tmp_path, gamma=gamma, seed=seed, **NEAR | factors((9, 2), (1, 1)))
    assert verdict_of(tmp_path) == (
        f"All 2 cells came near the geodesic in training ({LIMITS}); their excess is 2.00, before "
        f"training 9.00 (geometric means).{warned}"
    )


def test_without_an_excess_the_headline_has_its_count_alone(tmp_path: Path) -> None:
    for seed in range(2):
        lost = dict.fromkeys(["geodesic_excess", "transport_factor"], np.nan)
        made_up_trial(tmp_path, gamma=0, seed=seed, **NEAR | lost)
    assert verdict_of(tmp_path) == (f"The cell came near the geodesic in training ({LIMITS}).")


def test_only_the_test_over_seeds_says_learned(tmp_path: Path) -> None:
    for seed, end in enumerate((1, 1.04, 1)):
        made_up_trial(tmp_path, seed=seed, **NEAR | factors((10, end), (1, 1)))
    (said,) = of_factors(tmp_path)
    assert "learned." in said
    results = load(tmp_path)
    others = [verdict_of(tmp_path), geodesic_sentence(summary(results)), *sentences(results)]
    assert not [text for text in others if "learn" in text]


def test_claims_that_hold_are_told_with_how_surely_and_whether_training_did_it() -> None:
    columns = ["claim", "verdict", "comparisons", "sure", "null"]
    rows = [
        ("a", "holds", 2, 2, ""),
        ("b", "holds", 2, 1, "2 of 2"),
        ("c", "holds", 2, 0, "1 of 2"),
    ]
    rows += [("d: e", "does not hold", 1, 0, ""), ("f", "undecided", 1, 0, "1 of 1")]
    assert claims_sentence(pd.DataFrame(rows, columns=columns)) == (
        "Of the paper's 5 claims 5 can be checked here: 3 hold (1 of them surely in every "
        "comparison, 1 also before training), 1 is undecided, 1 does not hold (d)."
    )


def test_what_robustness_is_lost_is_told_where_it_was_measured(tmp_path: Path) -> None:
    assert lost_sentence(load(made_up_sweep(tmp_path / "none"))) == ""
    made_up_trial(tmp_path, tried=["noise"])
    made_up_trial(tmp_path, "plain", tried=["noise"], fragile=2.0)
    said = lost_sentence(load(tmp_path))
    size = r"\(m = 500, 1 seed, 2 trials\)"
    assert re.search(rf"to random noise plain 0\.\d\d, ResNet 0\.\d\d {size}\.$", said)
    made_up_trial(tmp_path, seed=1, tried=["noise"])
    assert re.search(
        r"ResNet 0\.\d\d ± 0\.\d\d \(m = 500, 2 seeds, 3 trials\)", lost_sentence(load(tmp_path))
    )
    assert "lesions" not in said


def test_trials_of_another_sweep_in_the_folder_are_counted_and_told_apart(tmp_path: Path) -> None:
    made_up_sweep(tmp_path)
    results = load(tmp_path)
    assert extra_sentence(planned(tmp_path), results) == ""
    fields = [field.name for field in (*KEY, *CONFIG) if field.name != "trial"]
    cells = json.loads(results.trials[fields][1:].to_json(orient="records"))
    write = tmp_path / "sweep.json"
    write.write_text(json.dumps({"trials": [cell | {"epochs": 7} for cell in cells]}))
    said = extra_sentence(planned(tmp_path), results)
    assert said.startswith("18 of these trials belong to another sweep")
    assert "(epochs = 6)" in said
    write.write_text(json.dumps({"trials": cells}))
    assert extra_sentence(planned(tmp_path), results).startswith(
        "1 of these trials belongs to another sweep"
    )


def test_a_planned_depth_is_missing_where_old_trials_have_none(tmp_path: Path) -> None:
    made_up_trial(tmp_path)  # no depth, so Table 1's: 10
    results = load(tmp_path)
    fields = [field.name for field in (*KEY, *CONFIG) if field.name != "trial"]
    (cell,) = json.loads(results.trials[fields].to_json(orient="records"))
    cells = [cell | {"depth": depth} for depth in (None, 10, 20)]
    left = missing(cells, results)
    assert isinstance(left, pd.DataFrame)
    assert left.depth.tolist() == [20]
    assert extra_sentence(cells[:1], results) == extra_sentence(cells[1:], results) == ""
    assert extra_sentence(cells[2:], results).startswith("1 of these trials belongs")
