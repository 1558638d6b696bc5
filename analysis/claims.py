"""Check the paper's claims on a sweep: a row for each, with its verdict and the numbers behind it.

    python -m analysis.claims runs/demo
    python -m analysis.claims --list      # needs no sweep: what is compared for each claim

A claim says in which direction two sides differ: the same network at two gammas, the two networks
at one gamma, or two values of K. Every place in a sweep that has both sides is compared. Such a
comparison is sure if a test over seeds gives p < 0.05 after Holm's correction for all comparisons
of the claim. With one seed none is sure.

    holds           some comparison surely agrees, and none surely disagrees
    mixed           some surely agree, and others surely disagree
    does not hold   some surely disagree, and none surely agrees
    undecided       none is sure
    not measured    the sweep has no comparison for the claim

A claim about all places together holds only if each comparison agrees with p < 0.05 before the
correction, and if both sides of every place can be compared. It does not hold if one comparison
surely disagrees.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.measures import comparisons
from analysis.measures.comparisons import COLUMNS
from analysis.measures.layout import as_text, plural
from analysis.measures.markup import markdown_text
from analysis.measures.paper_claims import CLAIMS, Claim
from analysis.measures.verdicts import (
    FAILS,
    HOLDS,
    MIXED,
    NOT_MEASURED,
    UNDECIDED,
    Comparison,
    judge,
)
from analysis.results import Results, ResultsError, load
from analysis.scripts import FOLDER, TRACKING_URI, parser, refuse, script

COMMAND = "python -m analysis.claims --list > docs/claims.md"
WORDS = {  # wording of a verdict for one claim, and for several
    HOLDS: ("holds", "hold"),
    MIXED: ("is mixed", "are mixed"),
    UNDECIDED: ("is undecided", "are undecided"),
    FAILS: ("does not hold", "do not hold"),
}


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
        three comparisons, those that disagree first, and then what was not compared, and why, and
        how many collapsed trials were left out. These do not count in claims about tracks.
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
    left_out = frozenset().union(*(c.left_out for c in every))
    lost = [f"{plural(len(left_out), 'collapsed trial')} left out"] if left_out else []
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
        "numbers": "; ".join(_told(shown, found) + _told(notes[:2], notes) + lost),
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


PAGE = """# The paper's claims

The [report](results.md) and `python -m analysis.claims DIR` check these claims of the paper on a
sweep. Written by `{command}`.

Each comparison has two sides, and the claim says which one is higher, or that they are equal. All
other settings of both sides are equal, and a result of an evaluation is compared at equal settings
and m only. Every place in a sweep that has both sides is compared, once for each score that the
claim is about. A comparison is *sure* if a test over seeds gives p < 0.05 after Holm's correction
for all comparisons of the claim. With one seed nothing is sure.
[More on these tests](numbers.md#verdicts-and-statistics).

A claim *holds if*

- **some** comparison surely agrees with it and none surely disagrees. It is mixed if both occur. It
  does not hold if some surely disagree and none surely agrees. It is undecided if none is sure.
- **all** comparisons agree, each with p < 0.05 before the correction. One comparison that surely
  disagrees after Holm's correction refutes the claim. In all other cases the claim is undecided,
  also if there is a place whose sides cannot be compared, because all trials of one collapsed or
  were evaluated differently.

A claim is not measured if a sweep has no comparison for it.

`python -m analysis.claims DIR` prints a line for each claim, with these columns:

- `version`: the versions of the paper that make the claim; `paper`: its place there.
- `verdict`, as above. `surely`: in how many comparisons the claim is surely true, such as 3 of 8,
  and in how many it is surely false, if in any.
- `comparisons`: their number. `agree`: how many of them agree with the claim, surely or not.
  `sure`: how many surely agree. `against`: how many surely disagree.
- `null`, the baseline: how many comparisons agreed before training already, such as 5 of 8. It is
  empty if this is not checked for the claim.
- `numbers`: both sides of up to three comparisons, those that disagree first; then what was not
  compared, and why; then how many collapsed trials were left out. In a collapsed stage all points
  begin or end at one point, so straight tracks are no merit there. Such trials do not count in
  claims about tracks.

Versions: v1 is the paper of February 2021, v3 that of June 2026. Sections, figures, tables and
equations are those of v1. Names of scores are those of the report's tables.

"""


def claims_page() -> str:
    """Every claim of the paper in Markdown, with what is compared and when it holds."""
    rows = [["name", "claim", "place in the paper", "versions", "compared", "holds if"]]
    rows.append(["---"] * len(rows[0]))
    for claim in CLAIMS:
        scope = "all" if claim.everywhere else "some"
        row = [claim.name, claim.text, claim.place, claim.version, claim.compared, scope]
        rows.append([f"`{claim.name}`", *map(markdown_text, row[1:])])
    return PAGE.format(command=COMMAND) + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the paper's claims and the verdicts on them.

    Returns:
        Exit status: 2, with one message, if the results cannot be read.
    """
    reader = parser("claims", __doc__)
    reader.add_argument("folder", nargs="?", **FOLDER)
    reader.add_argument(
        "--list", action="store_true", help="list the claims and what is compared for each"
    )
    reader.add_argument(
        "--format",
        default="md",
        choices=["csv", "md", "latex", "json"],
        help="md (default) and latex are laid out for reading; csv and json have all columns",
    )
    reader.add_argument("--tracking-uri", **TRACKING_URI)
    given = reader.parse_args(arguments)
    if given.list:
        print(claims_page(), end="")
        return 0
    if given.folder is None:
        reader.error("the following arguments are required: DIR")
    try:
        results = load(given.folder, given.tracking_uri, ("trials", *COLUMNS), COLUMNS)
    except ResultsError as error:
        return refuse("claims", error)
    print(as_text(claims(results), given.format), end="")
    return 0


if __name__ == "__main__":
    script(main)
