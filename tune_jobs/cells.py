"""Turns the axes of a sweep file into its cells, or into the space that a search picks from."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from models.architectures import usual_depth
from models.config import TrialConfig, completed, without_paper
from models.messages import short
from tune_jobs.errors import SweepError
from tune_jobs.explain import Places, at
from tune_jobs.search import Space, Span

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
        axes["seed"] = list(range(file.seeds))
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


def cells(where: str, file: Any, places: Places) -> Iterator[dict[str, Any]]:
    """Every combination of the axes, except those that are excluded.

    Raises:
        SweepError: there are more than ``MOST_CELLS``. Without ``exclude`` this is raised before
            the first cell; with it, when the limit is passed.
    """
    found = dimensions(where, file, places)
    excluded: list[Axes] = [group.given() for group in file.exclude]
    for number, group in enumerate(excluded):
        if not group:
            start = at(where, places, "exclude", number)
            raise SweepError(f"{start}: exclude[{number}]: has no field, so delete it")
    combinations = math.prod(len(values) for values in found)
    most = MOST_COMBINATIONS if excluded else MOST_CELLS
    if combinations > most:
        sizes = ", ".join(f"{len(v):,} of {' and '.join(v[0])}" for v in found if len(v) > 1)
        what = "combinations" if excluded else "cells"
        raise SweepError(
            f"{where}: has {combinations:,} {what} ({sizes}); should be at most {most:,}, so give "
            "fewer values"
        )
    kept = 0
    for parts in itertools.product(*found):
        cell = {name: value for part in parts for name, value in part.items()}
        if excluded and _is_excluded(cell, excluded):
            continue
        kept += 1
        if kept > MOST_CELLS:
            raise SweepError(
                f"{where}: has more than {MOST_CELLS:,} cells after exclude; give fewer values"
            )
        yield cell


DEFAULTS = {name: info.default for name, info in TrialConfig.model_fields.items()}


def _is_excluded(cell: dict[str, Any], excluded: list[Axes]) -> bool:
    full = completed(DEFAULTS | without_paper(cell))
    if full.get("architecture") is None:
        full.setdefault("depth", usual_depth(full["layers"], full["stages"]))
    found = {name: [value] for name, value in full.items()}
    found["recipe"] += [cell.get("recipe")]  # which may be paper
    return any(
        all(not set(values).isdisjoint(found.get(name, [None])) for name, values in group.items())
        for group in excluded
    )


def space(
    where: str, file: Any, places: Places, spans: Mapping[str, Span]
) -> tuple[Space, dict[str, Any]]:
    """The axes that a search picks from, and the fields that are the same in every cell.

    Args:
        where: how messages name the file.
        file: the checked content of a sweep file.
        places: where each of its values was given.
        spans: the ranges of the file, by field.

    Raises:
        SweepError: there is nothing to pick from, a search cannot pick from what is given, or
            there are ranges without a search.
    """
    if file.search is None:
        for name in spans:
            start = at(where, places, name)
            raise SweepError(f"{start}: {name}: a range needs search: optuna; else give values")
        return {}, {}
    axes: Axes = file.given()
    if file.exclude:
        raise SweepError(
            f"{at(where, places, 'exclude')}: exclude: a search picks from whole axes; leave it out"
        )
    if file.seeds is not None or len(axes.get("seed", [])) > 1:
        raise SweepError(
            f"{at(where, places, 'seeds')}: seeds: a search cannot pick a seed; give one seed"
        )
    found: Space = dict(spans)
    fixed = {}
    for name, values in axes.items():
        if name not in spans and len(values) > 1:
            found[name] = {str(value): {name: value} for value in values}
        elif name not in spans:
            fixed[name] = values[0]
    for rows in dimensions(where, file, places)[len(axes) :]:
        found[", ".join(rows[0])] = {", ".join(map(str, row.values())): row for row in rows}
    if not found:
        start = at(where, places, "search")
        raise SweepError(
            f"{start}: search: there is nothing to pick from; give an axis of several values, or a "
            "range like gamma: {low: 1e-5, high: 0.1}"
        )
    return found, fixed
