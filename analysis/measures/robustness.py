"""How networks respond to lesions, noise and attacks: by trial, and by cell as a table.

The experiments are those of the paper's appendix; :mod:`scoring.robustness` defines them.
Command: ``python -m analysis.tables runs/robustness --table robustness``.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from analysis.measures.cells import (
    as_strings,
    cell_columns,
    columns_of_cell,
    done,
    mean_interval,
)
from analysis.measures.layout import heading, network_name, plural, span
from analysis.measures.means import over_seeds
from analysis.results import Results

# fmt: off
COLUMNS = [  # the columns of the robustness table that are read
    "trial", "evaluation", "stage", "block", "replacement", "units", "level", "m", "accuracy",
    "variation_rate", "mixed", "mixed_initial", "mixed_matched", "mixed_matched_initial",
    "speed",
]
# fmt: on
CURVES = ("lesion", "noise", "fgsm", "pgd")  # evaluations that measure accuracy against a level
AUCS = tuple(f"{name}_auc" for name in CURVES)  # of lesions, the paper's
LESIONS = {  # lesions, by the names of their curves: units and what replaces them
    "lesion": ("top", "previous"),
    "lesion_top_mean": ("top", "mean"),
    "lesion_random_previous": ("random", "previous"),
    "lesion_random_mean": ("random", "mean"),
}
REPLACEMENTS = ["previous", "mean"]
UNITS = ["top", "random"]
RATIOS = tuple(
    f"mixed_ratio{pairs}{matched}{when}"
    for pairs in ("", "_different")
    for matched in ("", "_matched")
    for when in ("", "_initial")
)
ALL_AUCS = (*(f"{name}_auc" for name in LESIONS), *AUCS[1:])
MEASURED = ("clean_accuracy", *ALL_AUCS, *RATIOS)
FEW = 100  # With fewer mixed-up pairs, the share of close ones among them is erratic: not drawn.
TOLD = ("points", "replacement", "units", "controls")  # settings that the rows tell, like m
LEARNED = 2  # At or below this multiple of chance, a network has no accuracy to lose: NaN.


def by_cell(results: Results, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per cell of the sweep in which any trial was evaluated.

    Args:
        results: from :func:`analysis.results.load`, with ``trials``, and with at least the columns
            :data:`COLUMNS` of ``robustness``.
        trials: from :func:`of_trials`, if it is already computed.

    Returns:
        Frame with the cell (see :func:`analysis.measures.summary.summary`, without m), ``seeds``
        (those with a trial that is done and has any of these numbers), ``m`` (points behind the
        accuracies) and ``separation_m`` (points behind the pairs), each the smallest of the cell.
        Then, with the half-width of the 95% t-interval over seeds (``_ci95``): ``clean_accuracy``
        on the same points, the areas under accuracy over the levels, divided by their range
        (``lesion_auc``, ...), and the ratios of mixed-up pairs (:data:`RATIOS`), each next to its
        value in the untrained network (``_initial``). Only ``_matched`` ones are 1 where the
        distance of tracks says nothing.
        ``warning`` names evaluations that have several settings or several m in a cell: their
        numbers have no mean; null without any. No rows if nothing was evaluated.
    """
    trials = of_trials(results) if trials is None else trials
    measured = trials[[*ALL_AUCS, *RATIOS]].replace([np.inf, -np.inf], np.nan)
    trials = trials.loc[measured.notna().any(axis=1)]
    cell = cell_columns(results, points=False)
    trials = comparable(trials, cell, MEASURED)
    group = trials.groupby(cell, dropna=False)
    counts = group[["m", "separation_m"]].min().assign(seeds=group.seed.nunique())
    counts["warning"] = group.warning.first()  # the same in all trials of a cell
    table = counts.join(mean_interval(trials, cell, MEASURED)).reset_index()
    numbers = [name for score in MEASURED for name in (score, f"{score}_ci95")]
    return table[[*cell, "seeds", "m", "separation_m", *numbers, "warning"]]


def comparable(trials: pd.DataFrame, cell: list[str], scores: Sequence[str]) -> pd.DataFrame:
    """The trials with NaN for the scores that must not be averaged over their cell.

    The column ``warning`` names the evaluations behind these scores; it is null without any.
    """
    apart = _apart(trials, cell, scores)
    alone = {name: trials[name].mask(apart[name]) for name in scores}
    return trials.assign(**alone, warning=pd.Series(_warnings(apart), trials.index, "object"))


def _apart(trials: pd.DataFrame, cell: list[str], scores: Sequence[str]) -> pd.DataFrame:
    """Whether the numbers of a trial's cell must not be averaged, by score: see :func:`alike`."""
    groups = [trials[name] for name in cell]
    found = {}
    for score in scores:
        key = alike(trials, score).where(trials[score].notna())
        found[score] = key.groupby(groups, dropna=False).transform("nunique") > 1
    return pd.DataFrame(found, index=trials.index)


def _warnings(apart: pd.DataFrame) -> list[str | None]:
    """For each trial, the evaluations that :func:`_apart` marks, in words."""
    said: list[str | None] = []
    names = [evaluation_of(str(score)) or "clean accuracy" for score in apart]
    for row in apart.to_numpy("bool"):
        told = dict.fromkeys(name for name, several in zip(names, row, strict=True) if several)
        said.append(f"several settings or m: {', '.join(told)}" if told else None)
    return said


def of_trials(results: Results) -> pd.DataFrame:
    """Trials that are done, with summaries of their rows of the robustness table.

    Returns:
        Their rows of the trials table, with ``clean_accuracy`` (level 0, mean over evaluations);
        the m of each evaluation, such as ``noise_m``, and ``m``, the smallest behind accuracies;
        ``lesion_lost`` (and those of the other :data:`LESIONS`), ``noise_lost``,
        ``fgsm_lost`` and ``pgd_lost``: the share of its clean accuracy that a network loses,
        1 - AUC / clean, where AUC is the trapezoidal area under accuracy over the levels, divided
        by their range;
        ``noise_variation``, ``fgsm_variation`` and ``pgd_variation``: the variation rate at the
        end of the last stage, mean over levels above 0. NaN if it was not measured. Shares and
        rates are also NaN if clean accuracy is at most twice chance, because a network that gives
        the same answer to every input loses nothing.
    """
    trials = done(results)
    trials = trials.astype(dict.fromkeys([*ALL_AUCS, *RATIOS, "classes"], "float64"))
    trials = trials.copy()  # astype leaves a block for each column, and pandas warns of that
    rows = as_strings(results.robustness[COLUMNS])
    curves = rows[rows.evaluation.isin(CURVES)]
    whole = curves[(curves.level == 0) & curves.accuracy.notna()]
    clean = whole.groupby(["trial", "evaluation"]).accuracy.mean().unstack()
    clean = clean.reindex(index=trials.trial, columns=pd.Index(CURVES)).set_index(trials.index)
    pairs = rows[rows.evaluation.str.startswith("separation")]
    new = {
        "clean_accuracy": clean.mean(axis=1),
        "m": trials.trial.map(curves[curves.accuracy.notna()].groupby("trial").m.min()),
        "separation_m": trials.trial.map(pairs.groupby("trial").m.min()),
    }
    for name in CURVES:
        own = curves[(curves.evaluation == name) & curves.accuracy.notna()]
        new[f"{name}_m"] = trials.trial.map(own.groupby("trial").m.min())
    learned = new["clean_accuracy"] > (LEARNED / trials.classes).fillna(0)
    ends = at_the_end(curves[curves.level > 0])
    for name in LESIONS:
        new[f"{name}_lost"] = (1 - trials[f"{name}_auc"] / clean.lesion).where(learned)
    for name in CURVES:
        if name not in LESIONS:
            new[f"{name}_lost"] = (1 - trials[f"{name}_auc"] / clean[name]).where(learned)
        rates = ends[ends.evaluation == name].groupby("trial").variation_rate.mean()
        new[f"{name}_variation"] = trials.trial.map(rates).where(learned)
    added = pd.DataFrame(new, index=trials.index)
    return pd.concat([trials, added], axis=1).copy()  # one by one, pandas warns of fragments


def lesions(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a robustness table with ``replacement`` and ``units`` as ordered categories.

    Earlier versions did not write them: their lesions were the paper's.
    """
    kinds = {"replacement": REPLACEMENTS, "units": UNITS}
    old = rows.evaluation.eq("lesion")
    known = {
        name: pd.Categorical(
            rows[name].astype("object").mask(old & rows[name].isna(), kinds[name][0]),
            kinds[name],
            ordered=True,
        )
        for name in kinds
    }
    return rows.assign(**known)


def at_the_end(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last state (l = n) of each trial's last stage that have a variation rate."""
    rows = rows[rows.variation_rate.notna()]
    rows = rows[rows.stage == rows.groupby("trial").stage.transform("max")]
    return rows[rows.block == rows.groupby("trial").block.transform("max")]


def evaluation_of(score: str) -> str:
    """The evaluation that a score is from; empty if there is none.

    >>> [evaluation_of(score) for score in ("lesion_top_mean_lost", "mixed_ratio", "lss")]
    ['lesion', 'separation', '']
    """
    first = score.partition("_")[0]
    if first == "mixed":
        return "separation"
    return first if first in (*CURVES, "curve") else ""


@lru_cache(maxsize=1024)  # most trials of a sweep have the same settings
def settings_of(text: Any, name: str) -> str:
    """The settings of an evaluation as a text, which is ``null`` if they are unknown.

    The text is the same for settings that measure the same. Settings that only say which results
    there are (:data:`TOLD`) are not in it: ``points`` is a limit, and m says how many there were.

    Args:
        text: the settings of all evaluations of a trial, from the column ``evaluations``.
        name: of the evaluation, as in a sweep file.

    >>> settings_of('{"noise": {"seed": 3, "levels": [1.0, 0.5]}}', "noise")
    '{"levels": [0, 0.5, 1], "seed": 3}'
    """
    found = _settings(text, name)
    if found and name == "lesion" and "random" not in found.get("units", ()):
        found["seed"] = 0  # it does nothing; earlier versions had none
    kept = found and {key: value for key, value in found.items() if key not in TOLD}
    return json.dumps(kept, sort_keys=True)


def alike(trials: pd.DataFrame, score: str) -> pd.Series:
    """What has to be equal in trials whose scores are compared or averaged, as a text.

    These are the settings and m of the evaluation behind the score. Scores of training depend on
    neither: all trials have the same text then. The clean accuracy has no settings, but the m of
    every evaluation that it is a mean over.
    """
    texts = [""] * len(trials)
    if name := evaluation_of(score):
        pairs = zip(trials.evaluations, trials[f"{name}_m"], strict=True)
        texts = [f"{settings_of(settings, name)} m = {m:g}" for settings, m in pairs]
    elif score == "clean_accuracy":
        sizes = trials[[f"{name}_m" for name in CURVES]].to_numpy("float64")
        texts = [str(sorted({*m[np.isfinite(m)]})) for m in sizes]
    return pd.Series(texts, trials.index, "object")


def _settings(text: Any, name: str) -> dict[str, Any] | None:
    """The settings of an evaluation, None if they are unknown; equal ones are written alike."""
    try:
        found = dict(json.loads(text, parse_float=_number)[name])
    except (TypeError, ValueError, KeyError):
        return None
    if "levels" in found:  # under noise and attacks level 0 is always measured
        zero = set() if name == "lesion" else {0}
        found["levels"] = sorted(zero | set(found["levels"]))
    return found


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def lost_sentence(results: Results, trials: pd.DataFrame | None = None) -> str:
    """The accuracy that networks lose to lesions, noise and attacks; empty if not evaluated.

    Args:
        results: as for :func:`of_trials`.
        trials: from that function, if it is already computed.

    Returns:
        The sentence. A mean is over trials that were evaluated with the same settings and m. If
        these differ, there is no mean, and a second sentence says so.
    """
    trials = of_trials(results) if trials is None else trials
    parts, left, names = [], [], []
    for name in (f"{kind}_lost" for kind in (*LESIONS, *CURVES[1:])):
        told = heading(name).removeprefix("lost ")
        if several(trials, name):
            left.append(told)
        elif each := _by_network(trials, name):
            parts.append(f"{told} {', '.join(each)}")
            names.append(name)
    said = []
    if parts:
        known = trials[trials[names].notna().any(axis=1)]
        said.append(
            "Share of its accuracy that a network loses, by the area under accuracy over the "
            "levels, mean over trials: "
            f"{'; '.join(parts)} {_sample(known, *{f'{evaluation_of(n)}_m' for n in names})}."
        )
    if left:
        said.append(
            f"The accuracy that networks lose {', '.join(left)} has no mean: it was measured with "
            "several settings or m."
        )
    return " ".join(said)


def several(trials: pd.DataFrame, score: str) -> bool:
    """Whether the trials with a score were evaluated with several settings or m."""
    return alike(trials[trials[score].notna()], score).nunique() > 1


def mixed_sentence(trials: pd.DataFrame) -> str:
    """Whether close tracks are mixed up first, beyond the distance of their ends.

    Args:
        trials: from :func:`of_trials`.

    Returns:
        The sentence; empty if it was not measured.
    """
    name = "mixed_ratio_different_matched"
    if not trials.mixed_ratio_different_initial.notna().any():
        return ""
    known = trials.dropna(subset=[name, f"{name}_initial"])
    if several(known, name):
        return (
            "How often noise mixes up the closest tracks has no mean over trials: it was measured "
            "with several settings or m."
        )
    few = len(trials.dropna(subset="mixed_ratio_different_initial")) - len(known)
    after, before = (", ".join(_by_network(known, f"{name}{when}")) for when in ("", "_initial"))
    told = (
        "Of pairs of two classes with equally distant ends, noise mixes up the closest tenth of "
        f"tracks this many times as often as all of them: {after}; before training {before} "
        f"{_sample(known, 'separation_m')}. 1 says that the distance of tracks adds nothing to "
        "that of their ends."
    )
    what = "noise mixes up too few pairs to say whether close tracks go first."
    lacks = f"In {plural(few, 'trial')} {what}"
    return " ".join(([told] if len(known) else []) + ([lacks] if few else []))


def _by_network(trials: pd.DataFrame, column: str) -> list[str]:
    """The mean of a column for each network, with its interval: ["plain 0.81 ± 0.03"]."""
    told = []
    for network, rows in trials.dropna(subset=column).groupby("network"):
        mean, half = over_seeds(rows, column, columns_of_cell(trials))
        around = f" ± {half:.2f}" if np.isfinite(half) else ""
        told.append(f"{network_name(network)} {round(mean, 2) + 0.0:.2f}{around}")
    return told


def _sample(trials: pd.DataFrame, *m: str) -> str:
    """The points, seeds and trials behind some means, in words; ``m`` are columns of points."""
    seeds = plural(trials.seed.nunique(), "seed")
    points = span(pd.Series(trials[[*m]].to_numpy("float64").ravel()))
    return f"(m = {points}, {seeds}, {plural(len(trials), 'trial')})"


def settings_sentence(results: Results) -> str:
    """The settings of each evaluation, with all variants that occur; empty without evaluations."""
    found: dict[str, set[str]] = {}
    for text in sorted(set(done(results).evaluations.dropna())):
        for name in (*CURVES, "separation"):
            if settings := _settings(text, name):
                told = [f"{key} {_short(value)}" for key, value in settings.items()]
                found.setdefault(name, set()).add(", ".join(told))
    if not found:
        return ""
    parts = [f"{name} with {' and others with '.join(sorted(found[name]))}" for name in found]
    return f"Evaluated: {'; '.join(parts)}."


def _short(value: Any) -> str:
    if isinstance(value, list):
        return (" and " if isinstance(value[0], str) else " ").join(map(_short, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
