"""What a search may pick from: the parameters that Optuna sees, and the cell that they make."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from models.config import TrialConfig
from tune_jobs.cells import agrees, is_excluded, whole
from tune_jobs.search import Branch, Rules, Space, Span

Pick = Callable[[str, Any], Any]  # name and axis -> a value of a range, or the label of a choice


class Picking:
    """The axes of a search, of all cells and of some, and what is excluded.

    Args:
        space: the axes of all cells.
        fixed: the fields that are the same in every cell.
        rules: conditional axes and exclusions.
    """

    def __init__(self, space: Space, fixed: Mapping[str, Any], rules: Rules):
        self._parts = [Branch({}, space, dict(fixed)), *rules.branches]
        self._excluded = rules.exclude
        axes = (axis for part in self._parts for axis in part.space.values())
        self.continuous = any(isinstance(axis, Span) for axis in axes)

    def cell(self, pick: Pick) -> TrialConfig | None:
        """The cell with these values of the axes that it has; None if it is excluded.

        Args:
            pick: is asked for one axis after the other, in their order.
        """
        cell: dict[str, Any] = {}
        for part in self._parts:
            if part.condition and not agrees(whole(cell), part.condition):
                continue
            cell |= part.fixed
            for name, axis in part.space.items():
                picked = pick(name, axis)
                cell |= {field(name): picked} if isinstance(axis, Span) else axis[picked]
        if self._excluded and is_excluded(cell, self._excluded):
            return None
        return TrialConfig.model_validate(cell)

    def parameters(self, cells: Iterable[TrialConfig]) -> dict[str, dict[str, Any]]:
        """The parameters that make cells, by trial; without the cells that none make.

        Fields that stand for others, like a recipe, are the same in a cell whatever it was made of.
        So whole cells are compared, with their continuous axes set to 0.
        """
        made: dict[tuple[frozenset[str], str], tuple[dict[str, Any], dict[str, Span]]] = {}
        for params, spans, one in self._all():
            ranged = frozenset(map(field, spans))
            made.setdefault((ranged, _at_zero(one, ranged).trial), (params, spans))
        kinds, found = {ranged for ranged, _ in made}, {}
        for cell in cells:
            for ranged in kinds:
                if choice := made.get((ranged, _at_zero(cell, ranged).trial)):
                    params, spans = choice
                    own = {name: getattr(cell, field(name)) for name in spans}
                    if all(span.low <= own[name] <= span.high for name, span in spans.items()):
                        found[cell.trial] = params | own
        return found

    def choices(self) -> Iterator[tuple[dict[str, Any], TrialConfig | None]]:
        """Every choice of the parameters, with its cell if that has no continuous axis.

        Excluded cells are left out.
        """
        for params, spans, made in self._all():
            yield params, None if spans else made

    def _all(self) -> Iterator[tuple[dict[str, Any], dict[str, Span], TrialConfig]]:
        """Every choice, its continuous axes, and its cell with the low ends of these."""
        for params, spans in self._grown({}, {}, 0):
            ends = params | {name: span.low for name, span in spans.items()}
            if made := self.cell(lambda name, _, ends=ends: ends[name]):
                yield params, spans, made

    def size(self) -> float:
        """How many cells there are to pick; infinity if one of them has a continuous axis."""
        found = set()
        for _, made in self.choices():
            if made is None:
                return math.inf
            found.add(made.trial)
        return len(found)

    def _grown(
        self, params: dict[str, Any], cell: dict[str, Any], number: int
    ) -> Iterator[tuple[dict[str, Any], dict[str, Span]]]:
        """Every choice from a part on, and the continuous axes that come with it."""
        if number == len(self._parts):
            yield params, {}
            return
        part = self._parts[number]
        if part.condition and not agrees(whole(cell), part.condition):
            yield from self._grown(params, cell, number + 1)
            return
        spans = {name: axis for name, axis in part.space.items() if isinstance(axis, Span)}
        axes = {name: axis for name, axis in part.space.items() if not isinstance(axis, Span)}
        for labels in itertools.product(*axes.values()):
            named = dict(zip(axes, labels, strict=True))
            more = cell | part.fixed
            for name, label in named.items():
                more |= axes[name][label]
            for found, others in self._grown(params | named, more, number + 1):
                yield found, spans | others


def field(name: str) -> str:
    """The field of a continuous axis, from the name of Optuna's parameter."""
    return name.partition(" when ")[0]


def _at_zero(cell: TrialConfig, fields: Iterable[str]) -> TrialConfig:
    return cell.model_copy(update=dict.fromkeys(fields, 0.0))


def told(space: Space, fixed: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """The whole search space as JSON values, to recognise the study of another search."""
    found: dict[str, Any] = {"space": _told(space), "fixed": dict(fixed)}
    if rules.branches:
        found["when"] = [[b.condition, _told(b.space), b.fixed] for b in rules.branches]
    if rules.exclude:
        found["exclude"] = list(rules.exclude)
    if rules.seeds > 1:
        found["seeds"] = rules.seeds
    return found


def _told(space: Space) -> dict[str, Any]:
    return {
        name: axis.model_dump() if isinstance(axis, Span) else list(axis)
        for name, axis in space.items()
    }
