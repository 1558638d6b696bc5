"""How often a claim holds in simulated sweeps: rarely without an effect, mostly with a clear one.

Many sweeps are checked at once: they differ in ``setting``, which comparisons never mix.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest

from analysis.measures.checks import EQUAL, LOW, SPREAD
from analysis.measures.comparisons import OPTIMAL, STRAIGHT, Evidence, halves
from analysis.measures.means import welch
from analysis.measures.paper_claims import CLAIMS, FAR, FLAT
from analysis.measures.robustness import CURVES
from analysis.measures.verdicts import Comparison, judge

SWEEPS = 150 if "CI" in os.environ else 50  # fewer while somebody waits
MEANS = {  # at the edge of every claim with a limit; nothing else makes a difference
    "lss": STRAIGHT,
    "lss_initial": STRAIGHT,
    **dict.fromkeys(["curve_length_ratio", "curve_length_ratio_initial"], 2.0),
    **dict.fromkeys(["curve_speed_variation", "curve_speed_variation_initial"], 0.5),
    "ots": OPTIMAL,
    "energy": 5.0,
    "train_accuracy": 0.8,
    "clean_train_loss": 0.5,
    "test_accuracy": 0.8,
    "relative_std": SPREAD,
    **dict.fromkeys(["lesion_lost", "lesion_top_mean_lost"], FLAT),
    "mixed_ratio_different_matched": 1.0,
    "mixed_ratio_different_matched_initial": 1.0,
    **dict.fromkeys(["noise_lost", "fgsm_lost", "pgd_lost"], 0.5),
    **dict.fromkeys(["noise_variation", "fgsm_variation", "pgd_variation"], 0.5),
}
STEP = EQUAL / 3  # standard deviation of every number between seeds
Shift = Callable[[pd.DataFrame], dict[str, pd.Series]]  # what to add to the columns
names = pytest.mark.parametrize("name", [claim.name for claim in CLAIMS])


def simulated(
    seeds: int,
    stages: Sequence[int],
    gammas: Sequence[float],
    shift: Shift,
    later: float = 0,
    depths: Sequence[float] = (np.nan,),
) -> Evidence:
    """Sweeps of both networks on MNIST, with noise of one size in every number of a trial.

    LSS falls by ``later`` from stage to stage.
    """
    axes = [range(SWEEPS), ["plain", "resnet"], stages, depths, gammas, range(seeds)]
    columns = ["setting", "network", "stages", "depth", "gamma", "seed"]
    trials = pd.MultiIndex.from_product(axes, names=columns).to_frame(index=False)
    trials = trials.assign(trial=trials.index.astype(str), layers="convolutional", points=1000)
    for size in ("separation_m", "curve_m", *(f"{name}_m" for name in CURVES)):
        trials[size] = 1000
    trials = trials.assign(dataset="mnist", evaluations="{}", collapsed=False)
    trials = trials.assign(setting=trials.setting.map("sweep {}".format))
    random = np.random.default_rng(0)
    noise = random.normal(0, STEP, (len(trials), len(MEANS)))
    numbers = pd.DataFrame(noise, columns=list(MEANS)) + MEANS
    for name, change in shift(trials).items():
        numbers[name] += change
    trials = trials.join(numbers)
    trials["lss_std"] = trials.lss * trials.relative_std
    tracks = trials.loc[trials.index.repeat(trials.stages), ["trial", "stages"]]
    stage = tracks.groupby("trial").cumcount() + 1
    lss = random.normal(size=len(tracks)) * STEP - later * stage
    tracks = tracks.assign(stage=stage, lss=lss, lss_initial=0.0).reset_index(drop=True)
    points = pd.DataFrame(columns=["trial", "point", "correct"])
    return Evidence(trials.copy(), tracks, points)  # a copy joins the numbers: rows are fast then


def share_that_holds(name: str, evidence: Evidence) -> float:
    (claim,) = (claim for claim in CLAIMS if claim.name == name)
    by_sweep: dict[str, list[Comparison]] = {}
    for found in claim.check(evidence):
        sweep = next(part for part in found.where.split(", ") if part.startswith("sweep"))
        by_sweep.setdefault(sweep, []).append(found)
    assert len(by_sweep) == SWEEPS
    return float(
        np.mean([judge(f, claim.everywhere).verdict == "holds" for f in by_sweep.values()])
    )


def without_effect(name: str) -> Shift:
    """What to add so that the truth is at the edge of a claim."""

    def shift(trials: pd.DataFrame) -> dict[str, pd.Series]:
        resnet, gamma = trials.network == "resnet", trials.gamma
        if name == "resnet_nearer_optimal":
            return {"ots": FAR * resnet}
        if name == "equal_training":
            return {"train_accuracy": EQUAL * resnet}
        if name == "same_gamma":
            return {"train_accuracy": 0.1 * (gamma == 1e-3), "test_accuracy": EQUAL * (gamma == 0)}
        if name == "ots_falls":
            return {"ots": LOW - OPTIMAL + 0 * gamma}
        return {}

    return shift


CLEAR = 3 * STEP
EFFECTS: dict[str, Callable[[pd.Series, pd.Series, pd.Series], dict[str, pd.Series]]] = {
    # columns of the trials -> what to add: gamma, whether it is a ResNet, number of stages
    "decay_straightens": lambda g, r, k: {"lss": -CLEAR * (g > 0)},
    "decay_straightens_resnets": lambda g, r, k: {"lss": -CLEAR * (g > 0)},
    "training_straightens": lambda g, r, k: {"lss": -CLEAR * (g > 0)},
    "training_straightens_resnets": lambda g, r, k: {"lss": -CLEAR * (g > 0)},
    **dict.fromkeys(
        ["curve_shortens", "curve_shortens_resnets"],
        lambda g, r, k: {"curve_length_ratio": -CLEAR * (g > 0)},
    ),
    **dict.fromkeys(
        ["constant_speed", "constant_speed_resnets"],
        lambda g, r, k: {"curve_speed_variation": -CLEAR * (g > 0)},
    ),
    "decay_lowers_energy": lambda g, r, k: {"energy": -CLEAR * (g > 0)},
    "plain_degrades": lambda g, r, k: {},
    "resnet_deepens": lambda g, r, k: {},
    "decay_against_degradation": lambda g, r, k: {"clean_train_loss": -CLEAR * (g > 0)},
    "straighter_is_better": lambda g, r, k: {
        "lss": -CLEAR * g.rank(method="dense"), "test_accuracy": CLEAR * g.rank(method="dense")
    },
    "window": lambda g, r, k: {
        "lss": -CLEAR * (g > 1e-3), "train_accuracy": CLEAR * (g > 1e-3),
        "test_accuracy": CLEAR * (g > 1e-3),
    },
    "heavy": lambda g, r, k: dict.fromkeys(
        ["train_accuracy", "test_accuracy"], -CLEAR * (g > 0.1)
    ),
    "same_gamma": lambda g, r, k: dict.fromkeys(
        ["train_accuracy", "test_accuracy"], CLEAR * (g == 1e-2)
    ),
    "ots_falls": lambda g, r, k: {
        "ots": LOW - OPTIMAL + 2 * CLEAR - CLEAR * g.rank(method="dense"),
        "train_accuracy": CLEAR * g.rank(method="dense"),
    },
    "resnet_straighter": lambda g, r, k: {"lss": -CLEAR * r},
    "resnet_nearer_optimal": lambda g, r, k: {"ots": (FAR + CLEAR) * r},
    "equal_training": lambda g, r, k: {"test_accuracy": CLEAR * r},
    "stages_straighten": lambda g, r, k: {"lss": -CLEAR * (k > 1)},
    "later_straighter": lambda g, r, k: {},
    "stages_vary": lambda g, r, k: {"relative_std": CLEAR + 0 * g},
    "best_gamma": lambda g, r, k: {"test_accuracy": CLEAR * (g == 1e-2)},
    "mnist": lambda g, r, k: {"lss": -CLEAR + 0 * g, "ots": CLEAR + 0 * g},
    "units": lambda g, r, k: {"lesion_lost": -CLEAR * r},
    "units_to_mean": lambda g, r, k: {"lesion_top_mean_lost": -CLEAR * r},
    "noise": lambda g, r, k: {"noise_lost": -CLEAR * r, "fgsm_lost": -CLEAR * r},
    "variation": lambda g, r, k: {"noise_variation": -CLEAR * r},
    "mixed_first": lambda g, r, k: {"mixed_ratio_different_matched": CLEAR + 0 * g},
}  # fmt: skip
SWEPT = {  # numbers of stages, and gammas, of the claims that need others than most
    "resnet_nearer_optimal": ((2,), (1e-3,)),
    "equal_training": ((2,), (1e-3,)),
    "stages_straighten": ((1, 2), (1e-3, 1e-2)),
    "later_straighter": ((2,), (1e-3,)),
    "stages_vary": ((2,), (1e-3,)),
    "mnist": ((1,), (5e-4,)),
    "heavy": ((1,), (1e-2, 0.2)),
    "units": ((1,), (1e-3,)),
    "units_to_mean": ((1,), (1e-3,)),
    "window": ((1,), (1e-3, 1e-2)),
}


DEEPER = ("plain_degrades", "resnet_deepens", "decay_against_degradation")
DEPTHS = dict.fromkeys(DEEPER, (2, 20))


def swept(name: str) -> tuple[Sequence[int], Sequence[float]]:
    """The numbers of stages and the gammas that a claim needs."""
    return SWEPT.get(name, ((1,), (0.0, 1e-3, 1e-2)))


@pytest.mark.slow
@names
def test_without_an_effect_a_claim_holds_in_at_most_a_twentieth_of_sweeps(name: str) -> None:
    depths = DEPTHS.get(name, (np.nan,))
    evidence = simulated(4, *swept(name), without_effect(name), depths=depths)
    assert share_that_holds(name, evidence) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / SWEEPS)


@pytest.mark.slow
@names
def test_a_difference_of_three_standard_deviations_is_found_with_five_seeds(name: str) -> None:
    def shift(trials: pd.DataFrame) -> dict[str, pd.Series]:
        resnet = trials.network == "resnet"
        deeper = CLEAR * (trials.depth > 2) * np.where(resnet, -1, 1)
        more = {"clean_train_loss": deeper} if name in DEEPER[:2] else {}
        return more | EFFECTS[name](trials.gamma, resnet, trials.stages)

    later = CLEAR if name == "later_straighter" else 0
    depths = DEPTHS.get(name, (np.nan,))
    evidence = simulated(5, *swept(name), shift, later, depths)
    assert share_that_holds(name, evidence) >= 0.8


def sure_best(random: np.random.Generator, gammas: int = 9, seeds: int = 6) -> bool:
    """Whether the best of several equal gammas is surely better than the first."""
    rows = [(g, s, random.normal()) for g in range(gammas) for s in range(seeds)]
    trials = pd.DataFrame(rows, columns=["gamma", "seed", "test_accuracy"])
    chosen, judged = halves(trials, pd.DataFrame())
    best = chosen[chosen.gamma > 0].groupby("gamma").test_accuracy.mean().idxmax()
    first, other = (judged.test_accuracy[judged.gamma == g].to_numpy() for g in (0, best))
    change, _, p = welch(first, other)
    return change > 0 and p < 0.05


def test_what_is_best_on_one_half_of_the_seeds_is_rarely_sure_on_the_other() -> None:
    random = np.random.default_rng(1)
    sure = np.mean([sure_best(random) for _ in range(300)])
    assert sure <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 300)  # without halves it is 0.1


def test_one_seed_is_judged_on_other_points_than_it_was_chosen_on() -> None:
    trials = pd.DataFrame({"trial": ["a", "b"], "gamma": [0.0, 0.1], "seed": 0})
    trials["test_accuracy"] = 0.5
    points = pd.DataFrame({"trial": ["a"] * 4 + ["b"] * 4, "point": [0, 1, 2, 3] * 2})
    points["correct"] = [True, False, True, True, False, True, False, True]
    chosen, judged = halves(trials, points)
    assert chosen.test_accuracy.tolist() == [0.5, 1.0]
    assert judged.test_accuracy.tolist() == [1.0, 0.0]
    for half in halves(trials, points[points.trial == "a"]):
        pd.testing.assert_frame_equal(half, trials)
