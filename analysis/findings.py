"""What the numbers of a sweep say, in plain sentences, and the correlations behind them.

Every claim is counted against its null: an untrained ResNet already has a lower LSS and a
higher OTS than its plain twin, so "lower than plain" alone shows nothing about training.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.results import Results
from analysis.search import Search, search_sentence
from analysis.tables import CELL, summary, varying

STRATUM = ["dataset", "layers", "stages", "network"]
STILL = 1e-4  # a stage whose mean squared step is below this share of its spread is the identity
PROVED = 1e-9  # a share above the lower bound that is rounding
SMALL = 10  # trials: below this a correlation is not worth a conclusion
RESAMPLES = 2000
ENDS = {  # how a trial may end, in words
    "done": "done",
    "stopped": "stopped early by ASHA",
    "diverged": "diverged",
    "failed": "failed",
}


def spearman(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Spearman's rank correlation with a bootstrap interval and a permutation p value.

    Args:
        x: numbers of shape (n,); pairs with a NaN are left out.
        y: numbers of shape (n,).

    Returns:
        ``n`` pairs used; ``rho`` in [-1, 1], NaN with n < 3 or where x or y is constant;
        ``low`` and ``high``, the 95% percentile interval over resampled pairs; ``p``,
        two-sided, over permutations: both NaN with n < 4. The same numbers each time.

    >>> spearman(np.arange(6.0), np.array([1, 2, 3, 4, 6, 5]))["rho"].round(3)
    np.float64(0.943)
    """
    keep = ~(np.isnan(x) | np.isnan(y))
    x, y = x[keep], y[keep]
    n = len(x)
    found = {"n": n, "rho": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}
    if n < 3 or np.ptp(stats.rankdata(x)) == 0 or np.ptp(stats.rankdata(y)) == 0:
        return found
    rho = _correlation(stats.rankdata(x), stats.rankdata(y))
    found["rho"] = rho
    if n < 4:
        return found
    random = np.random.default_rng(0)
    draw = random.integers(n, size=(RESAMPLES, n))  # (resamples, n)
    resampled = _correlation(stats.rankdata(x[draw], axis=1), stats.rankdata(y[draw], axis=1))
    found["low"], found["high"] = np.nanpercentile(resampled, [2.5, 97.5])
    order = random.permuted(np.tile(np.arange(n), (RESAMPLES, 1)), axis=1)
    permuted = _correlation(stats.rankdata(x)[order], stats.rankdata(y))
    found["p"] = (1 + np.sum(np.abs(permuted) >= abs(rho) - 1e-12)) / (1 + RESAMPLES)
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation along the last axis; NaN where a side is constant."""
    a = a - a.mean(-1, keepdims=True)
    b = b - b.mean(-1, keepdims=True)
    norm = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(-1) / norm


def correlations(results: Results) -> pd.DataFrame:
    """Spearman correlation of test accuracy with LSS over the trials that are done.

    A row for each stratum (dataset, layers, K, network), then one with both networks pooled:
    pooling can make or reverse a correlation (Simpson's paradox), so ``warning`` says where
    the signs differ. Trials that share a gamma are replicates: ``gammas`` counts the distinct.
    """
    done = results.trials[results.trials.status == "done"]
    done = done.astype({"dataset": "str", "network": "str"})
    rows = []
    for key, group in done.groupby(STRATUM[:-1]):
        parts = [(name, part) for name, part in group.groupby("network")]
        parts += [("pooled", group)] if len(parts) > 1 else []
        found: list[dict[str, Any]] = [
            dict(zip(STRATUM, [*key, name], strict=True))
            | {"gammas": part.gamma.nunique()}
            | spearman(part.test_accuracy.to_numpy(), part.lss.to_numpy())
            for name, part in parts
        ]
        signs = {np.sign(row["rho"]) for row in found if np.isfinite(row["rho"]) and row["rho"]}
        for row in found:
            few = f"n < {SMALL}" if row["n"] < SMALL else ""
            differ = "signs differ between rows" if len(signs) > 1 else ""
            rows.append(row | {"warning": "; ".join(filter(None, [few, differ]))})
    columns = [*STRATUM, "gammas", "n", "rho", "low", "high", "p", "warning"]
    return pd.DataFrame(rows, columns=columns)


def sentences(results: Results, search: Search | None = None) -> list[str]:
    """What the sweep says, each sentence with its counts; the first one says how many trials."""
    status = results.trials.status
    done = results.trials[status == "done"]
    if not len(results.trials):
        return ["No trial is done yet: this sweep has just begun."]
    counts = {name: int((status == name).sum()) for name in ENDS}
    parts = [f"{n} {ENDS[name]}" for name, n in counts.items() if n or name != "stopped"]
    said = [f"{len(status)} trials: {', '.join(parts)}."]
    said += _stopped(results.trials)
    if search:
        said.append(search_sentence(results, search))
    if not len(done):
        said[0] += " No trial is done yet, so there is no score to show."
        return said
    said += _collapsed(done) + _still(done)
    lower = done.lss < done.lss_initial
    known = done.lss.notna() & done.lss_initial.notna()
    parts = [
        f"{_name(str(name))} {lower[rows.index].sum()} of {known[rows.index].sum()}"
        for name, rows in done.groupby("network", observed=True)
    ]
    said.append(
        f"Training lowered LSS below its value at initialisation in {lower.sum()} of "
        f"{known.sum()} trials ({', '.join(parts)})."
    )
    cells = summary(results)
    same = [*CELL, *varying(results.trials), "m"]
    said += _decay(cells, [n for n in same if n != "gamma"])
    said += _networks(cells, [n for n in same if n != "network"])
    said += _certificate(done)
    return said + _association(correlations(results))


def _stopped(trials: pd.DataFrame) -> list[str]:
    """How many trials ASHA has stopped, and what that does to the others."""
    n = int((trials.status == "stopped").sum())
    if not n:
        return []
    were, are = ("s were", "are") if n > 1 else (" was", "is")
    return [
        f"{n} trial{were} stopped early and {are} in no mean and no correlation. Those that went "
        "on were chosen by how well they began: they are no fair sample."
    ]


def _collapsed(done: pd.DataFrame) -> list[str]:
    """How many trials have collapsed, and which; they have no OTS."""
    lost = done[done.collapsed.eq(True)]
    if not len(lost):
        return []
    parts = []
    for network, rows in lost.groupby("network", observed=True):
        gammas = [f"{gamma:g}" for gamma in sorted(rows.gamma.unique())]
        shown = ", ".join(gammas[:4]) + ", …" * (len(gammas) > 4)
        parts.append(f"{_name(str(network))} {len(rows)}, at γ = {shown}")
    return [
        f"Collapsed: {len(lost)} of {len(done)} trials ({'; '.join(parts)}). All inputs or all "
        "outputs of a stage are one point there, so they have no OTS."
    ]


def _still(done: pd.DataFrame) -> list[str]:
    """How many trials hardly move their points: an OTS of 1 is no achievement there."""
    still = done[done.movement.lt(STILL)]
    if not len(still):
        return []
    gammas = ", ".join(f"{gamma:g}" for gamma in sorted(still.gamma.unique()))
    return [
        f"Hardly moving: {len(still)} of {len(done)} trials (at γ = {gammas}). A stage of theirs "
        "is nearly the identity, which is its own optimal transport: their OTS of 1 was not learnt."
    ]


def _certificate(done: pd.DataFrame) -> list[str]:
    """How far the assignments may be from the optimum, at most; nothing if it is unknown."""
    known = done[done.suboptimality.notna()]
    if not len(known):
        return []
    scored = int((done.ots.notna() | done.collapsed.eq(True)).sum())
    worst, m = known.suboptimality.max(), sorted(known.points.unique())
    every = "Every assignment"
    if len(known) < scored:
        every = f"In {len(known)} of {scored} trials every assignment"
    proved = "optimal" if worst <= PROVED else "nearly optimal"
    share = f"is at most a share of {worst:.1g} above" if worst > 0 else "is equal to"
    sizes = " to ".join(f"{int(points):,}" for points in dict.fromkeys((m[0], m[-1])))
    return [f"{every} is proved {proved}: W₂² {share} its lower bound (m = {sizes})."]


def _decay(cells: pd.DataFrame, same: list[str]) -> list[str]:
    """Whether gamma > 0 gives a lower LSS than gamma = 0, all else equal."""
    without = cells.loc[cells.gamma == 0, [*same, "lss"]]
    pairs = cells[cells.gamma > 0].merge(without, on=same, suffixes=("", "_without"))
    pairs = pairs.dropna(subset=["lss", "lss_without"])
    if not len(pairs):
        return []
    lower = pairs.lss < pairs.lss_without
    collapsed = int((pairs.collapsed > 0)[lower].sum())
    return [
        f"Weight decay: LSS is lower than at γ = 0, all else equal, in {lower.sum()} of "
        f"{len(pairs)} cells with γ > 0"
        + (f", {collapsed} of them with collapsed trials." if collapsed else ".")
    ]


def _networks(cells: pd.DataFrame, same: list[str]) -> list[str]:
    """ResNet against plain in cells that differ in nothing else, and the same untrained."""
    plain = cells[cells.network == "plain"].drop(columns="network")
    pairs = cells[cells.network == "resnet"].merge(plain, on=same, suffixes=("", "_plain"))
    said = []
    for score, word, sign in (("lss", "lower", -1), ("ots", "higher", 1)):
        both = pairs.dropna(subset=[score, f"{score}_plain"])
        if not len(both):
            continue
        counts = [
            int((sign * both[n] > sign * both[f"{n}_plain"]).sum())
            for n in (score, f"{score}_initial")
        ]
        said.append(
            f"ResNet {score.upper()} is {word} than plain {score.upper()} in {counts[0]} of "
            f"{len(both)} paired cells; before any training it is in {counts[1]} of them, so "
            "only a difference beyond that one would be learnt."
        )
    return said


def _association(table: pd.DataFrame) -> list[str]:
    """The correlations in one sentence, with what not to make of them."""
    known = table[table.rho.notna() & (table.network != "pooled")]
    if not len(known):
        return ["Too few trials in any stratum for a correlation of test accuracy with LSS."]
    many = known.dataset.nunique() > 1
    parts = [
        f"{row['dataset'] + ', ' if many else ''}K = {row['stages']}, {_name(row['network'])} "
        f"{row['rho']:+.2f} (n = {row['n']})".replace("-", "\N{MINUS SIGN}")
        for row in known.to_dict("records")
    ]
    shown = parts[:8] + ([f"{len(parts) - 8} more in the table"] if len(parts) > 8 else [])
    said = f"Spearman correlation of test accuracy with LSS: {'; '.join(shown)}."
    if known.n.min() < SMALL:
        said += f" With fewer than {SMALL} trials in a stratum these prove nothing yet."
    if table.warning.str.contains("signs differ").any():
        said += " Signs differ between networks or when pooled: do not read the pooled number."
    return [said]


def _name(network: str) -> str:
    return {"resnet": "ResNet"}.get(network, network)
