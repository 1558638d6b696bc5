"""Where a sweep has both sides of a claim, and which way they differ; used by ``analysis.claims``.

Two sides are compared over seeds: the same network at two gammas, the two networks at one gamma,
two values of K, two stages of a network.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.measures.association import association
from analysis.measures.cells import as_strings, difference, varying, without_collapsed
from analysis.measures.layout import heading, network_name
from analysis.measures.robustness import COLUMNS as ROBUSTNESS
from analysis.measures.robustness import of_trials
from analysis.results import Results

COLUMNS = {
    "tracks": ["trial", "epoch", "stage", "lss", "lss_initial"],
    "robustness": ROBUSTNESS,
}
STRATUM = ["dataset", "layers", "stages", "network", "points", "setting"]
LOW = 0.5  # an OTS below it is nearer 0 than 1
STRAIGHT, OPTIMAL = 1.25, 0.9  # nearly so: the paper's LSS of 1.12 and OTS of 0.96, with a margin
HEAVY = 0.1  # the gamma above which weight decay hurts


class Comparison(NamedTuple):
    """The two sides of a claim in one place of a sweep."""

    where: str
    numbers: str  # of both sides
    agrees: bool  # whether the means go the claimed way
    sure: bool  # and the 95% interval of their difference excludes 0
    against: bool  # they go the other way, and the interval excludes 0


class Sweep(NamedTuple):
    """What the claims are about: trials that are done, and the stages of each."""

    trials: pd.DataFrame  # of robustness.of_trials; with ``setting``, whatever else varies, a text
    tracks: pd.DataFrame  # after training: LSS of each stage

    def strata(self, *without: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """Trials of each dataset, layers, K, network, m and other setting; less some of these."""
        names = [name for name in STRATUM if name not in without]
        for key, trials in self.trials.groupby(names, dropna=False):
            yield dict(zip(names, key, strict=True)), trials


Check = Callable[[Sweep], Iterator[Comparison]]


def sides(results: Results) -> Sweep:
    """Trials that are done, with whatever else varies as one text, and their stages at the end."""
    trials = without_collapsed(of_trials(results))
    others = [name for name in varying(results.trials) if name != "layers"]
    setting = [", ".join(f"{n} = {row[n]}" for n in others) for row in trials.to_dict("records")]
    tracks = as_strings(results.tracks[COLUMNS["tracks"]])
    last = tracks[tracks.epoch == tracks.groupby("trial").epoch.transform("max")]
    return Sweep(trials.assign(setting=setting), last)


def compare(
    where: str, names: tuple[str, str], a: pd.Series, b: pd.Series, sign: int, least: float = 0
) -> Iterator[Comparison]:
    """One side of a claim against the other, over the seeds of each.

    Args:
        where: what both sides share.
        names: of the two sides, as the numbers are told.
        a: values of one side, a seed each; those that are not finite are left out.
        b: values of the other side.
        sign: +1 if the claim is that b is larger than a, -1 if smaller.
        least: by how much.

    Yields:
        The comparison; nothing if a side has no finite value.
    """
    x, y = (side[np.isfinite(side)].to_numpy("float64") for side in (a, b))
    if len(x) and len(y):
        told = f"{_number(a, x.mean())} {names[0]}, {y.mean():.3g} {names[1]}"
        yield _compared(where, told, *difference(x, y), sign, least)


def _compared(
    where: str, told: str, value: float, low: float, high: float, sign: int, least: float
) -> Comparison:
    low, high = sorted((sign * low, sign * high))
    return Comparison(where, told, sign * value > least, low > least, high < least)


def _number(values: pd.Series, mean: float) -> str:
    score = str(values.name).removesuffix("_initial")
    return f"{heading(score)} {mean:.3g}"


def _where(key: Mapping[str, Any], *extra: str) -> str:
    parts = [str(key["dataset"]), *([f"K = {key['stages']}"] if "stages" in key else [])]
    parts += [network_name(key["network"])] if "network" in key else []
    parts += [f"m = {key['points']:,}"] if "ots" in extra else []
    parts += [key["setting"]] if key["setting"] else []
    return ", ".join([*parts, *(e for e in extra if e != "ots")])


def _at(trials: pd.DataFrame, gamma: Any) -> pd.DataFrame:
    return trials[trials.gamma == gamma]


def _gammas(trials: pd.DataFrame) -> list[float]:
    return sorted(trials.gamma.unique())


def decay_lowers(score: str) -> Callable[[Sweep], Iterator[Comparison]]:
    """A score at each gamma above 0, up to 0.1, against the same network without weight decay."""

    def check(sweep: Sweep) -> Iterator[Comparison]:
        for key, trials in sweep.strata():
            none = _at(trials, 0)[score]
            for gamma in _gammas(trials[trials.gamma.between(0, HEAVY, inclusive="right")]):
                here = _at(trials, gamma)[score]
                yield from compare(_where(key), ("at γ = 0", f"at {gamma:g}"), none, here, -1)

    return check


def window(sweep: Sweep) -> Iterator[Comparison]:
    """LSS and both accuracies at the ends of gamma in [1e-3, 1e-2], K = 1."""
    for key, trials in sweep.strata():
        inside = _gammas(trials[trials.gamma.between(1e-3, 1e-2)])
        if key["stages"] != 1 or len(inside) < 2:
            continue
        low, high = inside[0], inside[-1]
        names = (f"at γ = {low:g}", f"at {high:g}")
        for score, sign in (("lss", -1), ("train_accuracy", 1), ("test_accuracy", 1)):
            sides = _at(trials, low)[score], _at(trials, high)[score]
            yield from compare(_where(key), names, *sides, sign)


def heavy(sweep: Sweep) -> Iterator[Comparison]:
    """Both accuracies at the first gamma above 0.1 against the last one up to it, K = 1."""
    for key, trials in sweep.strata():
        below, above = _gammas(trials[trials.gamma <= HEAVY]), _gammas(trials[trials.gamma > HEAVY])
        if key["stages"] != 1 or not below or not above or below[-1] == 0:
            continue
        names = (f"at γ = {below[-1]:g}", f"at {above[0]:g}")
        for score in ("train_accuracy", "test_accuracy"):
            sides = _at(trials, below[-1])[score], _at(trials, above[0])[score]
            yield from compare(_where(key), names, *sides, -1)


def networks(
    score: str, sign: int, least: float = 0, several: bool = False
) -> Callable[[Sweep], Iterator[Comparison]]:
    """ResNet against plain network at the same gamma."""

    def check(sweep: Sweep) -> Iterator[Comparison]:
        for key, trials in sweep.strata("network"):
            if several and key["stages"] == 1:
                continue
            for gamma in _gammas(trials):
                here = _at(trials, gamma)
                plain, resnet = (here[here.network == n][score] for n in ("plain", "resnet"))
                where = _where(key, f"γ = {gamma:g}", *(["ots"] if "ots" in score else []))
                yield from compare(where, ("plain", "ResNet"), plain, resnet, sign, least)

    return check


def more_stages(score: str) -> Callable[[Sweep], Iterator[Comparison]]:
    """K > 1 against K = 1: the same network and gamma, at whatever m."""

    def check(sweep: Sweep) -> Iterator[Comparison]:
        for key, trials in sweep.strata("stages", "points"):
            one = trials[trials.stages == 1]
            for (stages, gamma), here in trials[trials.stages > 1].groupby(["stages", "gamma"]):
                names = ("at K = 1", f"at K = {stages}")
                sides = _at(one, gamma)[score], here[score]
                yield from compare(_where(key, f"γ = {gamma:g}"), names, *sides, -1)

    return check


def later_stages(score: str) -> Callable[[Sweep], Iterator[Comparison]]:
    """The last stage of a network against its first."""

    def check(sweep: Sweep) -> Iterator[Comparison]:
        for key, trials in sweep.strata():
            if key["stages"] == 1:
                continue
            rows = sweep.tracks.merge(trials[["trial", "gamma"]], on="trial")
            for gamma, here in rows.groupby("gamma"):
                first = here[here.stage == 1][score].rename("lss")
                last = here[here.stage == key["stages"]][score].rename("lss")
                names = ("in stage 1", f"in stage {key['stages']}")
                yield from compare(_where(key, f"γ = {gamma:g}"), names, first, last, -1)

    return check


def with_accuracy(sweep: Sweep) -> Iterator[Comparison]:
    """Rank correlation of LSS with test accuracy over gammas, for each network by itself."""
    for key, trials in sweep.strata():
        yield from _monotone(_where(key), trials, "lss", "test_accuracy")


def falling(sweep: Sweep) -> Iterator[Comparison]:
    """Rank correlation of a ResNet's OTS with train accuracy over gammas, K = 1, and how low it is.

    To fall "towards 0" takes less than half where train accuracy is highest.
    """
    for key, trials in sweep.strata():
        if key["stages"] == 1 and key["network"] == "resnet":
            cells = trials.groupby("gamma")[["ots", "train_accuracy"]].mean().dropna()
            for found in _monotone(_where(key, "ots"), trials, "ots", "train_accuracy"):
                last = float(cells.ots.iloc[int(np.argmax(cells.train_accuracy))])
                told = f"{found.numbers}, OTS {last:.3g} at the highest train accuracy"
                low = last < LOW
                yield Comparison(
                    found.where, told, found.agrees and low, found.sure and low, found.against
                )


def _monotone(where: str, trials: pd.DataFrame, x: str, y: str) -> Iterator[Comparison]:
    """Whether y falls as x rises, over means of cells."""
    cells = trials.groupby("gamma")[[x, y]].mean()
    found = association(cells[x].to_numpy(), cells[y].to_numpy(), method="spearman")
    value, p = found["value"], found["p"]
    if np.isnan(value):
        return
    told = f"Spearman ρ {value:+.2f} (n = {found['n']}" + f", p = {p:.2g}" * bool(np.isfinite(p))
    sure = bool(p < 0.05)
    yield Comparison(where, f"{told})", value < 0, sure and value < 0, sure and value > 0)


def best_gamma(sweep: Sweep) -> Iterator[Comparison]:
    """The gamma with the best test accuracy, where the paper's best and two others were tried."""
    for key, trials in sweep.strata():
        if key["stages"] not in (1, 4) or key["layers"] != "convolutional":
            continue
        several = {"resnet": 5e-3, "plain": 1e-3}.get(key["network"])
        claimed = 1e-2 if key["stages"] == 1 else several
        means = trials.groupby("gamma").test_accuracy.mean().dropna()
        if claimed not in means.index or len(means) < 3:
            continue
        best = means.drop(claimed).idxmax()
        names = (f"at γ = {best:g}, the best other", f"at {claimed:g}")
        sides = _at(trials, best).test_accuracy, _at(trials, claimed).test_accuracy
        yield from compare(_where(key), names, *sides, 1)


def figure_3(straight: float, optimal: float) -> Check:
    """ResNet on MNIST at gamma 5e-4: nearly straight tracks, nearly the optimal map."""

    def check(sweep: Sweep) -> Iterator[Comparison]:
        for key, trials in sweep.strata():
            if key["dataset"] == "mnist" and key["network"] == "resnet":
                here = _at(trials, 5e-4)
                yield from _reaches(_where(key), here.lss, straight, -1)
                yield from _reaches(_where(key, "ots"), here.ots, optimal, 1)

    return check


def units(flat: float) -> Check:
    """A ResNet loses less than the plain network as units are eliminated, and hardly anything."""

    def check(sweep: Sweep) -> Iterator[Comparison]:
        yield from networks("lesion_lost", -1)(sweep)
        for key, trials in sweep.strata("network"):
            for gamma, here in trials[trials.network == "resnet"].groupby("gamma"):
                where = _where(key | {"network": "resnet"}, f"γ = {gamma:g}")
                yield from _reaches(where, here.lesion_lost, flat, -1)

    return check


def noise(*scores: str) -> Check:
    """Each of some scores of the noisy network is lower for a ResNet than for a plain one."""

    def check(sweep: Sweep) -> Iterator[Comparison]:
        for score in scores:
            yield from networks(score, -1)(sweep)

    return check


def mixed_first(sweep: Sweep) -> Iterator[Comparison]:
    """The closest tenth of pairs of two classes is mixed up more often than all such pairs."""
    for key, trials in sweep.strata():
        for gamma, here in trials.groupby("gamma"):
            where = _where(key, f"γ = {gamma:g}")
            yield from _reaches(where, here.mixed_ratio_different, 1, 1)


def _reaches(where: str, values: pd.Series, limit: float, sign: int) -> Iterator[Comparison]:
    """Whether a mean over seeds is above (+1) or below (-1) a limit."""
    x = values[np.isfinite(values)].to_numpy("float64")
    if len(x):
        half = np.nan if len(x) < 2 else stats.sem(x) * stats.t.ppf(0.975, len(x) - 1)
        above = float(x.mean() - limit)
        told = f"{_number(values, x.mean())} (limit {limit:g})"
        yield _compared(where, told, above, above - half, above + half, sign, 0)
