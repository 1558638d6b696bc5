"""Each claim of the paper as a line: the verdict of a sweep on it, and the numbers behind it.

A claim says in which direction two sides differ: the same network at two gammas, the two networks
at one gamma, or two values of K. Every place in a sweep that has both sides gives one comparison.
It is sure if a test over seeds gives p < 0.05 after Holm's correction for all comparisons of the
claim. A claim holds if some comparison surely agrees and none surely disagrees, is mixed if both
occur, does not hold if some surely disagree only, and is undecided if none is sure, as with one
seed. A claim about all places together holds only if each comparison is sure, and does not hold if
one of them surely disagrees.

Command: ``python -m analysis.claims runs/demo``.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.measures import checks, comparisons, paper
from analysis.measures.checks import EQUAL
from analysis.measures.comparisons import COLUMNS, OPTIMAL, STRAIGHT, Check
from analysis.measures.layout import as_text
from analysis.measures.markup import visible
from analysis.measures.verdicts import (
    FAILS,
    HOLDS,
    MIXED,
    NOT_MEASURED,
    UNDECIDED,
    Comparison,
    judge,
)
from analysis.results import Results, ResultsError, load, script

FAR = 0.5  # An OTS higher by this or more is "far above" another.
FLAT = 0.05  # "Hardly changes": the network loses less than this share of its accuracy.
SPREAD = 0.1  # A deviation over stages above this share of the mean is "large".
FIRST, BOTH = "v1", "v1, v3"  # versions of the paper: February 2021, and June 2026
WORDS = {  # wording of a verdict for one claim, and for several
    HOLDS: ("holds", "hold"),
    MIXED: ("is mixed", "are mixed"),
    UNDECIDED: ("is undecided", "are undecided"),
    FAILS: ("does not hold", "do not hold"),
}


class Claim(NamedTuple):
    """A claim of the paper, and how it is checked."""

    name: str
    text: str
    place: str  # section and figure or table in the paper's first version
    check: Check
    baseline: Check | None = None  # the same check before training
    version: str = FIRST  # of the paper; the later one makes the main claims for ResNets only
    everywhere: bool = False  # it is about all places together, so each comparison has to be sure


CLAIMS = (
    Claim(
        "decay_straightens",
        "Weight decay lowers LSS: with γ up to 0.1 tracks end straighter than without",
        "5.2, Fig. 2",
        checks.decay_lowers("lss"),
    ),
    Claim(
        "decay_straightens_resnets",
        "Weight decay lowers the LSS of ResNets: with γ up to 0.1 their tracks end straighter than "
        "without",
        "5.2, Fig. 2",
        checks.decay_lowers("lss", "resnet"),
        version=BOTH,
    ),
    Claim(
        "training_straightens",
        "With weight decay (γ up to 0.1) LSS falls during training",
        "5.2, Fig. 2",
        checks.training_lowers("lss"),
    ),
    Claim(
        "training_straightens_resnets",
        "With weight decay (γ up to 0.1) the LSS of ResNets falls during training",
        "5.2, Fig. 2",
        checks.training_lowers("lss", "resnet"),
        version=BOTH,
    ),
    Claim(
        "curve_shortens",
        "With weight decay (γ up to 0.1) the curve of measures comes nearer to a geodesic "
        "during training: its W₂ length over that of the geodesic falls",
        "2.2",
        checks.training_lowers("curve_length_ratio"),
    ),
    Claim(
        "curve_shortens_resnets",
        "With weight decay (γ up to 0.1) the curve of measures of ResNets comes nearer to a "
        "geodesic during training: its W₂ length over that of the geodesic falls",
        "2.2",
        checks.training_lowers("curve_length_ratio", "resnet"),
        version=BOTH,
    ),
    Claim(
        "constant_speed",
        "With weight decay (γ up to 0.1) the curve of measures comes nearer to constant speed "
        "during training: W₂ varies less over blocks (the paper does not measure it)",
        "2.2, eq. 4",
        checks.training_lowers("curve_speed_variation"),
    ),
    Claim(
        "constant_speed_resnets",
        "With weight decay (γ up to 0.1) the curve of measures of ResNets comes nearer to constant "
        "speed during training: W₂ varies less over blocks (the paper does not measure it)",
        "2.2, eq. 4",
        checks.training_lowers("curve_speed_variation", "resnet"),
        version=BOTH,
    ),
    Claim(
        "decay_lowers_energy",
        "Weight decay lowers the kinetic energy of the blocks (the mechanism; the paper does not "
        "measure it)",
        "2.3, eqs 9 to 12",
        checks.decay_lowers("energy"),
    ),
    Claim(
        "plain_degrades",
        "Plain networks degrade: with the most blocks the train loss ends higher than with the "
        "fewest",
        "3.2, eq. 26",
        checks.more_blocks("clean_train_loss", "plain", 1),
    ),
    Claim(
        "resnet_deepens",
        "ResNets do not degrade: with the most blocks the train loss ends lower than with the "
        "fewest",
        "1, 3.3",
        checks.more_blocks("clean_train_loss", "resnet", -1),
    ),
    Claim(
        "decay_against_degradation",
        "Weight decay (γ up to 0.1) acts against degradation: it lowers the train loss of plain "
        "networks with the most blocks",
        "3.3",
        checks.decay_helps_deep("clean_train_loss", "plain"),
    ),
    Claim(
        "straighter_is_better",
        "Straighter tracks go with higher test accuracy: over γ, accuracy rises as LSS falls",
        "5.3, Fig. 4",
        checks.with_accuracy,
    ),
    Claim(
        "window",
        "From γ = 1e-3 to 1e-2 at K = 1, LSS drops and both accuracies rise",
        "5.3, Fig. 4",
        checks.window,
        everywhere=True,
    ),
    Claim(
        "heavy",
        "γ above 0.1 hurts both accuracies (K = 1)",
        "5.3, Fig. 4",
        checks.heavy,
        everywhere=True,
    ),
    Claim(
        "same_gamma",
        "The best train and the best test accuracy occur at nearly the same γ (the γ of the best "
        f"train accuracy costs less than {EQUAL} of test accuracy)",
        "4.2, Fig. 4",
        checks.same_gamma(EQUAL),
    ),
    Claim(
        "ots_falls",
        "A ResNet's OTS falls towards 0 as its train accuracy rises (K = 1)",
        "5.3, Fig. 4",
        checks.falling,
        everywhere=True,
    ),
    Claim(
        "resnet_straighter",
        "A ResNet's LSS is below the plain network's everywhere",
        "5.4, Figs 4 to 6",
        checks.networks("lss", -1),
        checks.networks("lss_initial", -1),
        version=BOTH,
        everywhere=True,
    ),
    Claim(
        "resnet_nearer_optimal",
        f"With several stages a ResNet's OTS is far above the plain network's (by {FAR} or more)",
        "5.4, Fig. 6 (K = 4)",
        checks.networks("ots", 1, FAR, several=True),
        checks.networks("ots_initial", 1, FAR, several=True),
        version=BOTH,
    ),
    Claim(
        "equal_training",
        "With several stages both networks fit the train split equally well (accuracies within "
        f"{EQUAL}), but the ResNet is better on the test split",
        "5.4, Tables 6 and 7 (K = 4)",
        checks.equal_training(EQUAL),
        everywhere=True,
    ),
    Claim(
        "stages_straighten",
        "With several stages LSS is lower than with one",
        "5.4, Fig. 5 (K = 4)",
        checks.more_stages("lss"),
        checks.more_stages("lss_initial"),
    ),
    Claim(
        "later_straighter",
        "Later stages are straighter than early ones: each stage than the one before it",
        "5.4, Fig. 5",
        checks.later_stages("lss"),
        checks.later_stages("lss_initial"),
        everywhere=True,
    ),
    Claim(
        "stages_vary",
        "The variance of scores over stages is large (deviations of LSS over stages above "
        f"{SPREAD:.0%} of the mean)",
        "5.4, Tables 6 and 7",
        checks.stages_vary("lss", SPREAD),
    ),
    Claim(
        "best_gamma",
        "The best γ is 1e-2 at K = 1; at K = 4 it is 5e-3 for a ResNet, 1e-3 for a plain network",
        "5.4, Tables 4 to 7",
        checks.best_gamma,
    ),
    Claim(
        "mnist",
        "On MNIST at γ = 5e-4 a ResNet's tracks are nearly straight and its map nearly optimal "
        f"(the paper has LSS {paper.FIGURE_3['lss']} and OTS {paper.FIGURE_3['ots']}; here LSS up "
        f"to {STRAIGHT} and OTS from {OPTIMAL} are enough)",
        "5.2, Fig. 3",
        checks.figure_3(STRAIGHT, OPTIMAL),
        everywhere=True,
    ),
    Claim(
        "units",
        "As the most active units are set back to the previous state a ResNet's accuracy hardly "
        f"changes (a mean loss below {FLAT:.0%} of it); the plain network's falls",
        "7.1, Fig. 7",
        checks.units(FLAT),
        everywhere=True,
    ),
    Claim(
        "units_to_mean",
        "The same as the most active units are set to their means (a control that the paper lacks: "
        "in a ResNet the previous state differs little, whatever was learned)",
        "7.1, Fig. 7",
        checks.units(FLAT, "lesion_top_mean_lost"),
        everywhere=True,
    ),
    Claim(
        "noise",
        "Under random and adversarial noise a ResNet's accuracy falls more slowly",
        "7.2, Fig. 8",
        checks.noise("noise_lost", "fgsm_lost", "pgd_lost"),
    ),
    Claim(
        "variation",
        "Noise moves the end of a ResNet's tracks less (variation rate at l = n, eq. 49)",
        "7.2, Fig. 8",
        checks.noise("noise_variation", "fgsm_variation", "pgd_variation"),
    ),
    Claim(
        "mixed_first",
        "Noise first mixes up points whose tracks come close: of pairs of two classes with equally "
        "distant ends it mixes up the closest tenth of tracks more often than all, and than in the "
        "untrained network",
        "4.2, Fig. 1E",
        checks.mixed_first,
        checks.mixed_first_untrained,
    ),
)


def claims(results: Results, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """Check the paper's claims on a sweep.

    Args:
        results: from :func:`analysis.results.load`; only trials that are done are used.
        trials: from :func:`analysis.measures.robustness.of_trials`, if it is already computed.

    Returns:
        One row per claim: ``name``; ``claim``, its text; ``version`` of the paper that makes it;
        ``paper``, its place there; ``verdict``, one of
        :data:`analysis.measures.verdicts.VERDICTS`; ``surely``, in how many of its comparisons it
        is surely true and, if any, in how many surely false, as a text. Then the counts
        ``comparisons``, ``agree`` (in the claimed direction), ``sure`` (surely so) and ``against``
        (surely in the other direction), see :func:`analysis.measures.verdicts.judge`; ``null``, the
        baseline: in how many comparisons the same is true before training; ``numbers`` of up to
        three comparisons, those that disagree first, and then what was not compared, and why.
    """
    evidence = comparisons.evidence(results, trials)
    return pd.DataFrame([_line(claim, evidence) for claim in CLAIMS])


def _line(claim: Claim, evidence: comparisons.Evidence) -> dict[str, Any]:
    every = list(claim.check(evidence))
    verdict = judge(every, claim.everywhere)
    found, notes = ([c for c in every if c.compared == known] for known in (True, False))
    before = list(claim.baseline(evidence)) if claim.baseline and found else []
    before = [c for c in before if c.compared]
    shown = [c for c in found if not c.agrees][:2]
    shown += [c for c in found if c.agrees][: 3 - len(shown)]
    surely = f"{verdict.sure} of {len(found)}" if found else ""
    counts = verdict._asdict()
    return {
        "name": claim.name,
        "claim": claim.text,
        "version": claim.version,
        "paper": claim.place,
        "verdict": counts.pop("verdict"),
        "surely": f"{surely}, {verdict.against} against" if verdict.against else surely,
        **counts,
        "null": f"{sum(c.agrees for c in before)} of {len(before)}" if before else "",
        "numbers": "; ".join(_told(shown, found) + _told(notes[:2], notes)),
    }


def _told(shown: list[Comparison], found: list[Comparison]) -> list[str]:
    """The numbers of some comparisons, and how many more there are."""
    more = [f"{len(found) - len(shown)} more"] if len(found) > len(shown) else []
    return [f"{c.where}: {c.numbers}" for c in shown] + more


def claims_sentence(table: pd.DataFrame) -> str:
    """Sum up the claims: how many get which verdict, and which do not hold.

    Args:
        table: from :func:`claims`.
    """
    counts = table.verdict.value_counts()
    measured = len(table) - int(counts.get(NOT_MEASURED, 0))
    if not measured:
        return f"None of the paper's {len(table)} claims can be checked with these trials."
    parts = []
    for verdict, (one, several) in WORDS.items():
        if n := counts.get(verdict):
            parts.append(f"{n} {one if n == 1 else several}")
    holds = table[table.verdict == HOLDS]
    if len(holds):
        sure = int((holds.sure == holds.comparisons).sum()) or "none"
        before = int(holds.null.map(_everywhere).sum()) or "none"
        parts[0] += f" ({sure} of them surely in every comparison, {before} also before training)"
    told = f"Of the paper's {len(table)} claims {measured} can be checked here: {', '.join(parts)}"
    against = [text.partition(":")[0] for text in table.claim[table.verdict == FAILS]]
    return f"{told} ({'; '.join(against)})." if against else f"{told}."


def _everywhere(baseline: str) -> bool:
    """Whether a claim is true before training in every comparison: "4 of 4"."""
    agree, _, compared = baseline.partition(" of ")
    return bool(baseline) and agree == compared


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the paper's claims and the verdicts on them.

    Returns:
        Exit status: 2, with one message, if the results cannot be read.
    """
    parser = argparse.ArgumentParser(prog="python -m analysis.claims", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument(
        "--format",
        default="md",
        choices=["csv", "md", "latex", "json"],
        help="md (default) and latex are laid out for reading; csv and json have all columns",
    )
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    given = parser.parse_args(arguments)
    try:
        results = load(given.folder, given.tracking_uri, ("trials", *COLUMNS), COLUMNS)
    except ResultsError as error:
        print(f"analysis.claims: {visible(str(error))}", file=sys.stderr)
        return 2
    print(as_text(claims(results), given.format), end="")
    return 0


if __name__ == "__main__":
    script(main)
