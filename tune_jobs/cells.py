"""Turns the axes of a sweep file into its cells, or into the space that a search picks from."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from models.architectures import usual_depth
from models.config import ARGUMENT, TrialConfig, completed, without_paper
from models.messages import plain, short
from tune_jobs.axes import ALIASES
from tune_jobs.errors import SweepError
from tune_jobs.explain import Places, at
from tune_jobs.search import Branch, Choices, Rules, Space, Spans, Spread

MOST_CELLS = 100_000
MOST_COMBINATIONS = 1_000_000  # the limit before exclude removes some of them

Axes = dict[str, list[Any]]


def dimensions(where: str, file: Any, places: Places) -> list[list[dict[str, Any]]]:
    """The dimensions of a sweep: one list per axis or zip group, with an entry for each value.

    Args:
        where: how messages name the file.
        file: the checked content of a sweep file.
        places: where each of its values was given.

    Raises:
        SweepError: a field is given twice, or a group is empty or its lists differ in length.
    """
    axes: Axes = file.given()
    if file.seeds is not None:
        if "seed" in axes:
            start = at(where, places, "seeds")
            raise SweepError(
                f"{start}: has both seed and seeds; give one, seeds: 5 stands for seeds 0 to 4"
            )
        axes["seed"] = list(range(file.seeds)) if file.search is None else [0]
    found = [[{name: value} for value in values] for name, values in axes.items()]
    for number, group in enumerate(file.zip):
        together: Axes = group.given()
        start = at(where, places, "zip", number)
        if not together:
            raise SweepError(f"{start}: zip[{number}]: has no field, so delete it")
        lengths = {name: len(values) for name, values in together.items()}
        if len(set(lengths.values())) > 1:
            raise SweepError(
                f"{start}: zip[{number}]: lists should be of one length, not {short(lengths)}"
            )
        if twice := [name for name in together if name in axes]:
            raise SweepError(
                f"{start}: zip[{number}]: {', '.join(twice)} is an axis already; give it once"
            )
        axes |= together
        rows = zip(*together.values(), strict=True)
        found.append([dict(zip(together, row, strict=True)) for row in rows])
    return found


def branches(
    where: str, file: Any, places: Places, ranged: Collection[str] = ()
) -> list[tuple[Axes, Axes]]:
    """The groups of ``when``: the condition of each, and the axes that it adds.

    Args:
        where: how messages name the file.
        file: the checked content of a sweep file.
        places: where each of its values was given.
        ranged: fields that a search picks from a range; no condition can ask for their values.

    Raises:
        SweepError: a group has no condition or no axis, or one that is given elsewhere already.
    """
    given = [*dimensions(where, file, places), [{}]]
    taken = {name for values in given for name in values[0]}
    found = []
    for number, group in enumerate(file.when):
        start = at(where, places, "when", number)
        asked, axes = getattr(group, "if").given(), group.given()
        if not asked or not axes:
            what = "its if has no field" if axes else "has no axis beside its if"
            raise SweepError(f"{start}: when[{number}]: {what}; give one, or delete the group")
        if twice := [name for name in axes if name in taken or name in asked]:
            raise SweepError(
                f"{start}: when[{number}]: {_called(twice)} is given already, outside of when or "
                "in its own if; give it once"
            )
        _no_range(f"{start}: when[{number}]", asked, ranged)
        found.append((asked, axes))
    for number, later in itertools.combinations(range(len(found)), 2):
        _in_order(at(where, places, "when", number), number, later, found)
    return found


def _in_order(start: str, number: int, later: int, groups: list[tuple[Axes, Axes]]) -> None:
    """Refuse a group of ``when`` with a condition on an axis that a later group adds."""
    (asked, axes), (others_if, others) = groups[number], groups[later]
    if early := [name for name in asked if name in others]:
        advice = f"put when[{later}] before it"
        if any(name in axes for name in others_if):
            advice = "they ask for each other, so take one of them out"
        raise SweepError(
            f"{start}: when[{number}]: its if asks for {_called(early)}, an axis of when[{later}] "
            f"below; {advice}"
        )


def _no_range(start: str, asked: Axes, ranged: Collection[str]) -> None:
    """Refuse to ask for a value of a field that a search picks from a range."""
    if lost := [name for name in asked if name in ranged]:
        raise SweepError(f"{start}: {_called(lost)} is a range, so ask for another field")


def cells(
    where: str, file: Any, places: Places, ranged: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Every combination of the axes, with those of ``when``, except what is excluded.

    The arguments are those of :func:`branches`.

    Raises:
        SweepError: there are more than ``MOST_CELLS`` cells, or a group of ``when`` applies to
            none. Without ``when`` and ``exclude`` the cells are counted before the first one is
            yielded, otherwise the error comes when the limit is passed.
    """
    found = dimensions(where, file, places)
    groups = branches(where, file, places, ranged)
    excluded: list[Axes] = [group.given() for group in file.exclude]
    for number, group in enumerate(excluded):
        start = f"{at(where, places, 'exclude', number)}: exclude[{number}]"
        if not group:
            raise SweepError(f"{start}: has no field, so delete it")
        _no_range(start, group, ranged)
    what = "combinations" if excluded or groups else "cells"
    most = MOST_COMBINATIONS if excluded or groups else MOST_CELLS
    combinations = math.prod(len(values) for values in found)
    if combinations > most:
        sizes = ", ".join(f"{len(v):,} of {' and '.join(v[0])}" for v in found if len(v) > 1)
        raise SweepError(
            f"{where}: has {combinations:,} {what} ({sizes}); should be at most {most:,}, so give "
            "fewer values"
        )
    kept, applied = 0, Counter[int]()
    for count, (cell, active) in enumerate(_combined(where, found, groups), 1):
        if count > most:
            raise SweepError(f"{where}: has more than {most:,} {what}; give fewer values")
        if excluded and is_excluded(cell, excluded):
            continue
        kept += 1
        if kept > MOST_CELLS:
            after = " after exclude" if excluded else ""
            raise SweepError(
                f"{where}: has more than {MOST_CELLS:,} cells{after}; give fewer values"
            )
        applied.update(active)
        yield cell
    # With --set fewer cells are wanted on purpose, so a group may be left over.
    narrowed = any(isinstance(place, str) for place in places.values())
    for number, (asked, axes) in enumerate(groups):
        if kept and not applied[number] and not narrowed:
            raise SweepError(
                f"{at(where, places, 'when', number)}: when[{number}]: no cell has "
                f"{plain(_asked(asked))}, so {_called(axes)} would never apply; change its if, or "
                "delete the group"
            )


def _asked(asked: Axes) -> str:
    """A condition in words.

    >>> _asked({"stages": [2], "gamma": [0.0, 0.1]})
    'K = 2 and gamma = 0 or 0.1'
    """
    values = {
        name: [str(one).removesuffix("" if name.startswith(ARGUMENT) else ".0") for one in v]
        for name, v in asked.items()
    }
    return " and ".join(f"{_called([name])} = {' or '.join(v)}" for name, v in values.items())


def _called(names: Iterable[str]) -> str:
    """Fields as people write them.

    >>> _called(["stages", "gamma"])
    'K, gamma'
    """
    shorter = {full: name for name, full in ALIASES.items()}
    return ", ".join(shorter.get(name, name) for name in names)


def _combined(
    where: str, found: list[list[dict[str, Any]]], groups: list[tuple[Axes, Axes]]
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Every combination, with the numbers of those groups of ``when`` that apply to it.

    Groups apply in their order, so one can ask for a field that an earlier one gives.
    """

    def grown(cell: dict[str, Any], number: int) -> Iterator[tuple[dict[str, Any], list[int]]]:
        if number == len(groups):
            yield cell, []
            return
        asked, axes = groups[number]
        if not agrees(whole(cell), asked):
            yield from grown(cell, number + 1)
            return
        if twice := [name for name in axes if name in cell]:
            raise SweepError(
                f"{where}: when[{number}]: {_called(twice)} comes from an earlier group already "
                f"in the cell with {in_words(cell, asked)}; let their conditions exclude each other"
            )
        for values in itertools.product(*axes.values()):
            added = cell | dict(zip(axes, values, strict=True))
            for full, active in grown(added, number + 1):
                yield full, [number, *active]

    for parts in itertools.product(*found):
        yield from grown({name: value for part in parts for name, value in part.items()}, 0)


DEFAULTS = {name: info.default for name, info in TrialConfig.model_fields.items()}


def whole(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with the defaults of the fields that it does not give.

    ``recipe: paper`` is replaced by its fields; :func:`agrees` still knows it, as ``shorthand``.
    """
    full = completed(DEFAULTS | without_paper(cell)) | {"shorthand": cell.get("recipe")}
    if full.get("architecture") is None:
        full.setdefault("depth", usual_depth(full["layers"], full["stages"]))
    return full


NAMED = ("architecture", "network", "stages", "layers")  # the fields that messages name a cell by


def in_words(cell: dict[str, Any], also: Iterable[str] = ()) -> str:
    """Which cell it is: its network, and other fields that matter.

    >>> in_words({"stages": 2, "gamma": 0.1, "seed": 3}, ["gamma"])
    'network = resnet, K = 2, layers = convolutional, gamma = 0.1'
    """
    full = whole(cell)
    names = [name for name in dict.fromkeys((*NAMED, *also)) if full.get(name) is not None]
    return ", ".join(f"{_called([name])} = {plain(full[name])}" for name in names)


def agrees(full: dict[str, Any], group: Axes) -> bool:
    """Whether a cell from :func:`whole` has, in every field of a group, one of its values.

    1, 1.0 and true are three values of an argument of an architecture, which may differ for it.
    """
    return all(
        _is_among(full.get(name), values, exactly=name.startswith(ARGUMENT))
        or (name == "recipe" and full["shorthand"] in values)
        for name, values in group.items()
    )


def _is_among(value: Any, values: list[Any], exactly: bool) -> bool:
    if not exactly:
        return value in values
    return json.dumps(value) in map(json.dumps, values)


def is_excluded(cell: dict[str, Any], excluded: Iterable[Axes]) -> bool:
    """Whether a cell agrees with one of the groups of ``exclude``."""
    full = whole(cell)
    return any(agrees(full, group) for group in excluded)


def space(
    where: str, file: Any, places: Places, ranges: Spread
) -> tuple[Space, dict[str, Any], Rules]:
    """The axes that a search picks from, the fields that are the same in every cell, its rules.

    Args:
        where: how messages name the file.
        file: the checked content of a sweep file.
        places: where each of its values was given.
        ranges: the ranges of the file.

    Raises:
        SweepError: there is nothing to pick from, a search cannot pick from what is given, or
            there are ranges without a search.
    """
    spans = ranges.spans()
    if file.search is None:
        ways = [(name,) for name in spans]
        ways += [("when", n, name) for n, one in enumerate(ranges.when) for name in one.spans()]
        for way in ways:
            start = at(where, places, *way)
            raise SweepError(f"{start}: {way[-1]}: a range needs search: optuna; else give values")
        return {}, {}, Rules()
    axes: Axes = file.given()
    if len(axes.get("seed", [])) > 1:
        raise SweepError(
            f"{at(where, places, 'seed')}: seed: a search cannot pick a seed; give one seed, or "
            "seeds: 3 to compare means over the seeds 0, 1 and 2"
        )
    asked = [getattr(group, "if") for group in file.when] + file.exclude
    if file.seeds is not None and any("seed" in group.given() for group in (*asked, *file.when)):
        raise SweepError(
            f"{at(where, places, 'seeds')}: seeds: a search compares cells by the same seeds; "
            "leave seed out of when and exclude"
        )
    found, fixed = _picked(axes, spans)
    for rows in dimensions(where, file, places)[len(axes) + (file.seeds is not None) :]:
        found[", ".join(rows[0])] = _choices(rows)
    groups = branches(where, file, places)
    shared = Counter(name for _, axes in groups for name in axes)
    parts = []
    for (condition, axes), one in zip(groups, _each(ranges, len(groups)), strict=True):
        inner, same = _picked(axes, one.spans())
        called = f" when {_asked(condition)}"  # Optuna wants one name for each set of values
        named = {n + called if shared[n] > 1 else n: axis for n, axis in inner.items()}
        parts.append(Branch(condition, named, same))
    if not found and not any(part.space for part in parts):
        start = at(where, places, "search")
        raise SweepError(
            f"{start}: search: there is nothing to pick from; give an axis of several values, or a "
            "range like gamma: {low: 1e-5, high: 0.1}"
        )
    excluded = [group.given() for group in file.exclude]
    return found, fixed, Rules(tuple(parts), tuple(excluded), file.seeds or 1)


def _each(ranges: Spread, count: int) -> list[Spans]:
    """The ranges of each group of ``when``; those without any may be missing at the end."""
    return [*ranges.when, *(Spans() for _ in range(count - len(ranges.when)))]


def _picked(axes: Axes, spans: dict[str, Any]) -> tuple[Space, dict[str, Any]]:
    """Which axes there is a choice in, and which have one value."""
    found: Space = dict(spans)
    fixed = {}
    for name, values in axes.items():
        if name not in spans and len(values) > 1:
            found[name] = _choices([{name: value} for value in values])
        elif name not in spans:
            fixed[name] = values[0]
    return found, fixed


def _choices(rows: list[dict[str, Any]]) -> Choices:
    """The rows of an axis or of a ``zip`` group by the labels that Optuna gets.

    >>> list(_choices([{"K": 1, "m": 10}, {"K": 2, "m": 20}]))
    ['1, 10', '2, 20']
    >>> list(_choices([{"model.a": 1}, {"model.a": "1"}]))  # these look alike
    ['[1]', '["1"]']
    """
    short_ones = [", ".join(map(str, row.values())) for row in rows]
    exact = [json.dumps([*row.values()]) for row in rows]
    clear = len(set(short_ones)) == len(set(exact))
    return dict(zip(short_ones if clear else exact, rows, strict=True))
