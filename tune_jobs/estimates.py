"""How long a sweep takes, and which memory and disk, before it starts.

Costs of trials come from earlier ones of the same kind, see :mod:`tune_jobs.costs`, otherwise from
a timed step, see :mod:`tune_jobs.timing`.
"""

import heapq
import json
import math
import os
import pickle
import subprocess
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import NamedTuple

from rich.filesize import decimal

from models.config import TrialConfig
from models.messages import plain
from scoring.cores import cores
from scoring.history import last_epoch
from tune_jobs import costs, processes, room, timing
from tune_jobs.costs import Cost, Known
from tune_jobs.folder import Request, State
from tune_jobs.labels import duration, last_line, trials_of

OFF = "GEOSWEEP_TIMING"  # this variable turns timed steps off if it is "off"
LONGEST = 30.0  # seconds for all timed steps together, on a machine that is very busy
ROUGH = 2.0  # a timed step is right within this factor
FIRM = 1.15  # earlier trials are right within this factor at best
FEW = 8  # Up to this many trials may come from one run and share its load: then they are
SHARED = 1.3  # right within this factor at best
HALF = 3  # a trial counts half as much as one that ended this many trials later
TORN = 1.5  # above this factor trials disagree, and a step is timed again
# Weight of the timed step over that of all trials: below 1, the median stays in their range.
VOTE = 0.9
SIZES = 1.5  # memory and disk are right within this factor at least
OTHERS = 3.0  # the same for a kind that there was no time to time, from the other kinds
AROUND = 30.0  # seconds of a run besides its trials, where none has been measured
SCORERS = 8  # at most, see scoring.actors


class Span(NamedTuple):
    """An estimate and its range."""

    about: float
    low: float
    high: float

    @classmethod
    def within(cls, about: float, factor: float) -> "Span":
        """A value that is right within a factor."""
        return cls(about, about / factor, about * factor)

    def plus(self, other: "Span") -> "Span":
        """The sum of two estimates that may be wrong together."""
        return Span(*(a + b for a, b in zip(self, other, strict=True)))


class Expected(NamedTuple):
    """The cost of a trial, and within which factor it is right."""

    cost: Cost
    factor: float
    earlier: int = 0  # trials of its kind that it comes from
    timed: bool = False  # whether it comes from a timed step, too


@dataclass(frozen=True)
class Left:
    """What a sweep has still to do."""

    trials: Sequence[tuple[TrialConfig, int]]  # to train, with the epochs left
    to_suggest: int = 0  # trials that a search has yet to suggest
    epochs: int = 1  # of each of those, on average


@dataclass(frozen=True)
class Estimate:
    """What a sweep is expected to take from now on.

    Attributes:
        trials: how many are left to train.
        seconds: from the command to the report; None if nothing is known.
        gpu_seconds: seconds that GPUs are held, times their number; None without GPUs.
        memory: bytes of the processes that train at once.
        disk: bytes that the sweep's folder grows by.
        at_once: trials that train side by side.
        source: where it comes from, in words.
        unknown: why the cost of some trials is not known.
    """

    trials: int
    seconds: Span | None = None
    gpu_seconds: Span | None = None
    memory: Span | None = None
    disk: Span | None = None
    at_once: int = 1
    source: str = ""
    unknown: Sequence[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The lines to print; none if nothing is left to train."""
        if not self.trials:
            return []
        named = trials_of(self.trials)
        lines = [f"unknown  {reason}" for reason in self.unknown]
        if self.seconds is None:
            return [f"estimate {named}; how long they take is not known", *lines]
        text = f"estimate {named} in {in_words(self.seconds, duration)}, {self.at_once} at once"
        if self.gpu_seconds:
            hours = Span(*(seconds / 3600 for seconds in self.gpu_seconds))
            text += f"; {in_words(hours, lambda value: f'{value:.2g}')} GPU hours"
        parts = {"memory": self.memory, "disk": self.disk}
        room = "; ".join(
            f"{n} {in_words(s, lambda value: decimal(round(value)))}" for n, s in parts.items() if s
        )
        return [text, f"{'':9}{room}", f"{'':9}from {self.source}", *lines]


@dataclass(frozen=True)
class Forecast:
    """What trials that are left are expected to cost.

    Attributes:
        left: what is left.
        costs: by trial; for a search, also those of the cells of its sweep file.
        unknown: why the costs of other trials are not known.
        gpus: of each trial.
        around: seconds that earlier runs spent outside their trials.
        cells: what a search picks from, with the ends of ranges; empty if it suggests no more.
    """

    left: Left
    costs: Mapping[str, Expected]
    unknown: Mapping[str, str]
    gpus: float
    around: Sequence[float] = ()
    cells: Sequence[TrialConfig] = ()

    def cost(self, trial: TrialConfig | None) -> Expected | None:
        """The cost of a trial, or of an average one; None if it is not known."""
        if trial is not None and trial.trial in self.costs:
            return self.costs[trial.trial]
        if not self.costs or (trial is not None and trial.trial in self.unknown):
            return None
        every = [*self.costs.values()]
        worst = max(one.factor for one in every)
        return Expected(mean([one.cost for one in every]), worst, sum(o.earlier for o in every))

    def total(self, at_once: int) -> Estimate:
        """The estimate for all trials, with this many of them side by side."""
        found = [(self.cost(trial), epochs) for trial, epochs in self.left.trials]
        if self.left.to_suggest:
            found += [(self.cost(None), self.left.epochs)] * self.left.to_suggest
        known = [(one, epochs) for one, epochs in found if one]
        told = _reasons(self.unknown)
        if not known:
            return Estimate(len(found), at_once=at_once, unknown=told)
        held = [one.cost.seconds(epochs) or 1e-9 for one, epochs in known]
        scored = [one.cost.scoring for one, _ in known]
        scorers = min(SCORERS, cores())
        ends = max(makespan(held, at_once) + scored[-1], sum(scored) / scorers + held[0])
        factor = sum(h * one.factor for h, (one, _) in zip(held, known, strict=True)) / sum(held)
        besides = median(self.around) if self.around else AROUND
        seconds = Span.within(ends, factor).plus(
            Span.within(besides, FIRM if self.around else ROUGH)
        )
        most = sorted((one.cost.memory for one, _ in known), reverse=True)[:at_once]
        disk = sum(one.cost.disk for one, _ in known)
        return Estimate(
            trials=len(found),
            seconds=seconds,
            gpu_seconds=Span.within(self.gpus * sum(held), factor) if self.gpus else None,
            memory=Span.within(sum(most), min(factor, SIZES)),
            disk=Span.within(disk, min(factor, SIZES)),
            at_once=min(at_once, len(found)),
            source=_source([*self.costs.values()]),
            unknown=told,
        )


def in_words(span: Span, words: Callable[[float], str]) -> str:
    """An estimate with its range, as text."""
    about, low, high = map(words, span)
    return f"about {about} ({low} to {high})"


def left(request: Request, state: State) -> Left:
    """What a sweep in its folder has still to do."""
    trials = [*_with_epochs(state.root, state.missing, state.begun)]
    epochs = round(fmean(trial.epochs for trial in request.sweep.trials))
    return Left(trials, state.to_suggest, epochs)


def _with_epochs(
    root: str, trials: Iterable[TrialConfig], begun: Container[str]
) -> Iterator[tuple[TrialConfig, int]]:
    """Trials with the epochs that they have left."""
    for trial in trials:
        done = last_epoch(root, trial.trial) if trial.trial in begun else None
        yield trial, trial.epochs - (done or 0)


def forecast(request: Request, what: Left) -> Forecast:
    """What trials are expected to cost, from earlier ones or from a timed step."""
    sweep = request.sweep
    gpus = room.gpus_of_trial(sweep.resources)
    where = costs.place(request.address, gpus)
    past = costs.read(where)
    kinds: dict[str, list[TrialConfig]] = {}
    unknown = {}
    cells = sweep.trials if what.to_suggest else ()
    for trial in {t.trial: t for t in [*(trial for trial, _ in what.trials), *cells]}.values():
        if images := request.images.get(trial.dataset) or timing.SHAPES.get(trial.dataset):
            kinds.setdefault(costs.kind(trial, images, sweep, gpus), []).append(trial)
        else:
            unknown[trial.trial] = f"the size of the data set {plain(trial.dataset)} is not known"
    known = {name: past.kinds.get(name, Known()) for name in kinds}
    found = {name: _typical(kept.trials) for name, kept in known.items() if kept.trials}
    new = [name for name, kept in known.items() if not (kept.trials or kept.timed)]
    torn = [name for name, one in found.items() if one.factor > TORN]
    asked = {name: kinds[name][0] for name in (*new, *torn)}
    timed, reasons = _time(request, asked, gpus) if asked else ({}, {})
    if timed:
        costs.add(where, timed=timed)
    for name, kept in known.items():
        if name in torn and name in timed:
            found[name] = _typical(kept.trials, timed[name])
        elif not kept.trials and (cost := timed.get(name) or kept.timed):
            found[name] = Expected(cost, ROUGH, timed=True)
    others = mean([one.cost for one in found.values()]) if found else None
    for name, same in kinds.items():
        if name not in found and (name in reasons or not others):
            unknown |= dict.fromkeys((t.trial for t in same), reasons.get(name, "was not timed"))
        elif name not in found and others:
            found[name] = Expected(others, OTHERS, timed=True)
    by_trial = {trial.trial: found[name] for name in found for trial in kinds[name]}
    return Forecast(what, by_trial, unknown, gpus, past.around, cells)


def learn(request: Request, seconds: float, busy: float) -> None:
    """Keep how long a run took besides its trials; nothing if it had none.

    On a cluster it may have waited for others.
    """
    if busy and room.is_here(request.address):
        where = costs.place(request.address, room.gpus_of_trial(request.sweep.resources))
        costs.add(where, around=max(0.0, seconds - busy))


def makespan(seconds: Iterable[float], at_once: int) -> float:
    """When the last of some trials ends; they start in order, ``at_once`` side by side.

    >>> makespan([3, 1, 1, 1, 2], 2)
    5
    """
    ends: list[float] = [0] * at_once
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def _typical(trials: Sequence[Cost], timed: Cost | None = None) -> Expected:
    """What earlier trials of a kind cost: medians in which the latest trials count most.

    Args:
        trials: the latest last.
        timed: from a step just now, which votes on how fast the machine is today.

    Returns:
        The range comes from the spread of their logarithms, with the same weights.
    """
    weights = [0.5 ** (age / HALF) for age in reversed(range(len(trials)))]
    names = Cost.model_fields
    middle = {n: _median([getattr(cost, n) for cost in trials], weights) for n in names}
    logs = [math.log(max(cost.seconds(1), 1e-9)) for cost in trials]
    centre, total = _median(logs, weights), sum(weights)
    factor = SHARED if len(trials) <= FEW else FIRM
    if len(logs) > 2:
        free = total - sum(w * w for w in weights) / total  # n - 1 if they were equal
        square = sum(w * (log - centre) ** 2 for w, log in zip(weights, logs, strict=True))
        factor = max(factor, math.exp(2 * math.sqrt(square / free)))
    if timed:
        for name in ("epoch", "other"):
            votes = [*(getattr(cost, name) for cost in trials), getattr(timed, name)]
            middle[name] = _median(votes, [*weights, VOTE * total])
        if min(logs) <= math.log(max(timed.seconds(1), 1e-9)) <= max(logs):
            factor = min(factor, ROUGH)
    return Expected(Cost(**middle), factor, len(trials), timed is not None)


def _median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The smallest value that, with all smaller ones, has half of the weight.

    >>> _median([3.0, 1.0, 2.0], [1, 1, 1]), _median([3.0, 1.0, 2.0], [5, 1, 1])
    (2.0, 3.0)
    """
    half, so_far = sum(weights) / 2, 0.0
    for value, weight in sorted(zip(values, weights, strict=True)):
        so_far += weight
        if so_far >= half:
            return value
    return max(values)


def mean(found: Sequence[Cost], weights: Sequence[float] | None = None) -> Cost:
    """The average of costs, of which there is at least one."""
    return Cost(
        **{n: fmean([getattr(cost, n) for cost in found], weights) for n in Cost.model_fields}
    )


def _source(known: Sequence[Expected]) -> str:
    earlier = {id(one): one.earlier for one in known if one.earlier}
    parts = []
    if earlier:
        count = sum(earlier.values())
        parts.append(f"{trials_of(count, 'earlier')} on this machine")
    if any(one.timed for one in known):
        parts.append("one timed step of each kind of trial")
    return " and ".join(parts)


def _reasons(unknown: Mapping[str, str]) -> list[str]:
    """Each reason once, with the number of trials that it is about."""
    return [f"{trials_of(n)}: {reason}" for reason, n in Counter(unknown.values()).items()]


def _time(
    request: Request, kinds: Mapping[str, TrialConfig], gpus: float
) -> tuple[dict[str, Cost], dict[str, str]]:
    """Time one trial of each kind in a process that imports torch: costs, and why some failed."""
    if os.environ.get(OFF) == "off":
        return {}, dict.fromkeys(kinds, f"no such trial has been trained here; {OFF} is off")
    asked = timing.Asked(
        trials=[*kinds.values()],
        sources=dict(request.sources),
        folder=request.data,
        files=dict(request.code),
        threads=max(1, round(request.sweep.resources.cpus)),
        device="cuda" if gpus and room.gpus_here() else "cpu",
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with processes.child(processes.python("-m", "tune_jobs.timing"), **pipes) as process:
        try:
            printed, errors = process.communicate(pickle.dumps(asked), timeout=LONGEST)
            late = False
        except subprocess.TimeoutExpired:
            process.kill()
            (printed, errors), late = process.communicate(), True
    lines = [json.loads(line) for line in printed.splitlines() if line.endswith(b"}")]
    by_trial = {line.pop("trial"): line for line in lines}
    found, reasons = {}, {}
    for name, trial in kinds.items():
        line = by_trial.get(trial.trial)
        if line and "unknown" not in line:
            found[name] = Cost(**line)
        elif line:
            reasons[name] = f"its timed step failed: {line['unknown']}"
    if not lines:
        said = "it took too long" if late else last_line(errors.decode(errors="replace"))
        reasons = dict.fromkeys(kinds, f"the timed step failed: {said}")
    return found, reasons
