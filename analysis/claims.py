"""Each claim of the paper as a line: whether it holds in a sweep, and the numbers it rests on.

A claim is a direction, checked wherever a sweep has the two sides of it: the same network at two
gammas, the two networks at one gamma, two values of K. A line counts in how many of these
comparisons the means over seeds go the claimed way, and in how many the 95% interval of their
difference (Welch's, over seeds) excludes 0, so that chance does not explain it.

Command: ``python -m analysis.claims runs/demo``.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.measures import comparisons, paper
from analysis.measures.comparisons import COLUMNS, OPTIMAL, STRAIGHT, Check, sides
from analysis.measures.layout import as_text
from analysis.results import Results, ResultsError, load, script

FAR = 0.5  # "far above", for an OTS, which is a fraction
FLAT = 0.05  # "hardly changes", of the share of its accuracy that a network loses
VERDICTS = ("holds", "holds in part", "does not hold", "not measured")

WORDS = {  # of one claim, and of several
    "holds": ("holds", "hold"),
    "holds in part": ("holds in part", "hold in part"),
    "does not hold": ("does not hold", "do not hold"),
}


class Claim(NamedTuple):
    """What the paper says, and how a sweep is asked about it."""

    name: str
    text: str
    place: str  # in the paper
    check: Check
    null: Check | None = None  # the same before training


CLAIMS = (
    Claim(
        "decay_straightens",
        "Weight decay lowers LSS: with γ up to 0.1 tracks end straighter than without",
        "5.2, Fig. 2",
        comparisons.decay_lowers("lss"),
    ),
    Claim(
        "decay_lowers_energy",
        "Weight decay lowers the kinetic energy of the blocks (its mechanism, not measured there)",
        "2.3, eqs 9 to 12",
        comparisons.decay_lowers("energy"),
    ),
    Claim(
        "straighter_is_better",
        "Straighter tracks go with higher test accuracy: over γ, LSS and accuracy move oppositely",
        "5.3, Fig. 4",
        comparisons.with_accuracy,
    ),
    Claim(
        "window",
        "From γ = 1e-3 to 1e-2 at K = 1, LSS drops and both accuracies rise",
        "5.3, Fig. 4",
        comparisons.window,
    ),
    Claim("heavy", "γ above 0.1 hurts both accuracies (K = 1)", "5.3, Fig. 4", comparisons.heavy),
    Claim(
        "ots_falls",
        "A ResNet's OTS falls towards 0 as its train accuracy rises (K = 1)",
        "5.3, Fig. 4",
        comparisons.falling,
    ),
    Claim(
        "resnet_straighter",
        "A ResNet's LSS is below the plain network's",
        "5.4, Figs 4 to 6",
        comparisons.networks("lss", -1),
        comparisons.networks("lss_initial", -1),
    ),
    Claim(
        "resnet_nearer_optimal",
        f"With several stages a ResNet's OTS is far above the plain network's (by {FAR} or more)",
        "5.4, Fig. 6 (K = 4)",
        comparisons.networks("ots", 1, FAR, several=True),
        comparisons.networks("ots_initial", 1, FAR, several=True),
    ),
    Claim(
        "stages_straighten",
        "With several stages LSS is lower than with one",
        "5.4, Fig. 5 (K = 4)",
        comparisons.more_stages("lss"),
        comparisons.more_stages("lss_initial"),
    ),
    Claim(
        "later_straighter",
        "Later stages are straighter than early ones",
        "5.4, Fig. 5",
        comparisons.later_stages("lss"),
        comparisons.later_stages("lss_initial"),
    ),
    Claim(
        "best_gamma",
        "The best γ is 1e-2 at K = 1; at K = 4 it is 5e-3 for a ResNet, 1e-3 for a plain network",
        "5.4, Tables 4 to 7",
        comparisons.best_gamma,
    ),
    Claim(
        "mnist",
        "On MNIST at γ = 5e-4 a ResNet's tracks are nearly straight and its map nearly optimal "
        f"(LSS {paper.FIGURE_3['lss']}, OTS {paper.FIGURE_3['ots']}; here {STRAIGHT} and {OPTIMAL} "
        "are enough)",
        "5.2, Fig. 3",
        comparisons.figure_3(STRAIGHT, OPTIMAL),
    ),
    Claim(
        "units",
        "As units are eliminated a ResNet's accuracy hardly changes (a mean loss below "
        f"{FLAT:.0%} of it); the plain network's falls",
        "7.1, Fig. 7",
        comparisons.units(FLAT),
    ),
    Claim(
        "noise",
        "Under random and adversarial noise a ResNet's accuracy falls more slowly",
        "7.2, Fig. 8",
        comparisons.noise("noise_lost", "fgsm_lost", "pgd_lost"),
    ),
    Claim(
        "variation",
        "Noise moves the end of a ResNet's tracks less (variation rate at l = n, eq. 49)",
        "7.2, Fig. 8",
        comparisons.noise("noise_variation", "fgsm_variation", "pgd_variation"),
    ),
    Claim(
        "mixed_first",
        "Points whose tracks come close are the first to be mixed up by noise (pairs of two "
        "classes, the closest tenth against all)",
        "4.2, Fig. 1E",
        comparisons.mixed_first,
    ),
)


def claims(results: Results) -> pd.DataFrame:
    """What the paper claims, and what a sweep says to it.

    Args:
        results: of :func:`analysis.results.load`; trials that are done count.

    Returns:
        A row for each claim: ``claim``; ``paper``, where it stands there; ``verdict``, one of
        :data:`VERDICTS`: all comparisons go the claimed way, some, none, or there are none;
        ``comparisons``, ``agree``, ``sure`` (the 95% interval over seeds excludes 0; there is
        none with one seed) and ``against`` (it excludes 0 the other way); ``null``, how often
        the same is true before training; ``numbers``, those of up to three comparisons.
    """
    sweep = sides(results)
    return pd.DataFrame([_line(claim, sweep) for claim in CLAIMS])


def _line(claim: Claim, sweep: comparisons.Sweep) -> dict[str, Any]:
    found = list(claim.check(sweep))
    agree = sum(c.agrees for c in found)
    verdict = VERDICTS[3 if not found else 0 if agree == len(found) else 1 if agree else 2]
    before = list(claim.null(sweep)) if claim.null and found else []
    shown = [c for c in found if not c.agrees][:2]
    shown += [c for c in found if c.agrees][: 3 - len(shown)]
    more = f"; {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return {
        "name": claim.name,
        "claim": claim.text,
        "paper": claim.place,
        "verdict": verdict,
        "comparisons": len(found),
        "agree": agree,
        "sure": sum(c.sure for c in found),
        "against": sum(c.against for c in found),
        "null": f"{sum(c.agrees for c in before)} of {len(before)}" if before else "",
        "numbers": "; ".join(f"{c.where}: {c.numbers}" for c in shown) + more,
    }


def claims_sentence(table: pd.DataFrame) -> str:
    """How many of the paper's claims hold here, how surely, and which do not.

    Args:
        table: of :func:`claims`.
    """
    counts = table.verdict.value_counts()
    measured = len(table) - int(counts.get("not measured", 0))
    if not measured:
        return f"None of the paper's {len(table)} claims can be checked with these trials."
    told = f"Of the paper's {len(table)} claims {measured} can be checked here: "
    parts = [
        f"{n} {words[int(n > 1)]}" for verdict, words in WORDS.items() if (n := counts.get(verdict))
    ]
    holds = table[table.verdict == "holds"]
    if len(holds):
        sure = int((holds.sure == holds.comparisons).sum()) or "none"
        before = int(holds.null.map(_all).sum()) or "none"
        parts[0] += f" ({sure} of them surely in every comparison, {before} before training, too)"
    against = table.claim[table.verdict == "does not hold"]
    names = " (" + "; ".join(c.partition(":")[0] for c in against) + ")" if len(against) else ""
    return f"{told}{', '.join(parts)}{names}."


def _all(null: str) -> bool:
    """Whether what is claimed is so before training wherever it is compared: "4 of 4"."""
    agree, _, compared = null.partition(" of ")
    return bool(null) and agree == compared


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the paper claims and whether it holds. Exit status 2 with one message if not."""
    parser = argparse.ArgumentParser(prog="python -m analysis.claims", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="a sweep's folder, or an MLflow experiment")
    parser.add_argument("--format", default="md", choices=["csv", "md", "latex", "json"])
    parser.add_argument("--tracking-uri", help="MLflow's address, to read an experiment")
    given = parser.parse_args(arguments)
    try:
        results = load(
            given.folder, given.tracking_uri, ("trials", "tracks", "robustness"), COLUMNS
        )
    except ResultsError as error:
        print(f"analysis.claims: {error}", file=sys.stderr)
        return 2
    print(as_text(claims(results), given.format), end="")
    return 0


if __name__ == "__main__":
    script(main)
