"""The ``search:`` and ``scheduler:`` sections of a sweep file, checked by pydantic."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from models.config import LARGEST
from models.fields import Real, Whole

Better = Literal["max", "min"]
EPOCH_METRICS: dict[str, Better] = {  # known after every epoch, with the direction to optimize
    "test_accuracy": "max",
    "validation_accuracy": "max",
    "clean_train_accuracy": "max",
    "test_loss": "min",
    "validation_loss": "min",
    "lss": "min",
    "inverse_lss": "max",
    "lsr": "min",
}
OF_VALIDATION = ("validation_accuracy", "validation_loss")  # known where there is such a split
METRICS = EPOCH_METRICS | {  # the added ones need a scored trial
    "ots": "max",
    "gap": "max",
    "geodesic_excess": "min",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Span(_Strict):
    """A continuous axis of a search, like ``gamma: {low: 1e-5, high: 0.1}``."""

    low: Real = Field(ge=0, le=LARGEST, description="least value, 0 to 1e6")
    high: Real = Field(gt=0, le=LARGEST, description="largest value, up to 1e6")
    log: bool = Field(default=True, description="uniform on a logarithmic scale")

    @model_validator(mode="after")
    def _is_one(self) -> "Span":
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} should be below high = {self.high:g}")
        if self.log and self.low == 0:
            raise ValueError("low = 0 has no logarithm; give a small number, or log: false")
        return self


class Spans(_Strict):
    """The fields of a trial that can be ranges."""

    gamma: Span | None = None
    learning_rate: Span | None = None

    def spans(self) -> dict[str, Span]:
        """Those that are given, by field."""
        return {name: getattr(self, name) for name in RANGED if getattr(self, name) is not None}


RANGED = tuple(Spans.model_fields)


class Spread(Spans):
    """All ranges of a sweep file: those of all cells, and those of each group of ``when``."""

    when: list[Spans] = []


def spread(content: Mapping[str, Any]) -> tuple[Spread, dict[str, Any]]:
    """The ranges in the content of a file, and the content with their two ends as values.

    Raises:
        pydantic.ValidationError: a range is not one.
    """
    groups = content.get("when")
    groups = groups if isinstance(groups, list) else []
    given = [g if isinstance(g, Mapping) else {} for g in (content, *groups)]
    first, *others = [{n: g[n] for n in RANGED if isinstance(g.get(n), dict)} for g in given]
    found = Spread.model_validate({**first, "when": others})
    ends = [
        {name: [span.low, span.high] for name, span in one.spans().items()}
        for one in (found, *found.when)
    ]
    changed = {**content, **ends[0]}
    if groups:
        changed["when"] = [g | e if e else g for g, e in zip(groups, ends[1:], strict=True)]
    return found, changed


def _objectives(given: Any) -> Any:
    """Turn a name or a list of names into a mapping from names to the direction to optimize."""
    names = [given] if isinstance(given, str) else given
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return {name: METRICS.get(name, "max") for name in names}
    return given


class Search(_Strict):
    """``search:`` of a sweep file; ``search: optuna`` is all of these defaults."""

    method: Literal["optuna"] = "optuna"
    sampler: Literal["tpe", "random"] = Field(
        default="tpe", description="tree-structured Parzen estimator, or at random"
    )
    trials: Whole = Field(default=20, ge=1, le=100_000, description="cells to suggest, 1 to 10^5")
    objectives: Annotated[
        dict[Literal[tuple(METRICS)], Better],  # type: ignore[valid-type]
        BeforeValidator(_objectives),
        Field(min_length=1, description=f"one or more of {', '.join(METRICS)}"),
    ] = {"test_accuracy": "max"}
    seed: Whole = Field(
        default=0, ge=0, lt=2**63, description="seed of the suggestions, 0 to 2^63 - 1"
    )


class Asha(_Strict):
    """``scheduler:`` of a sweep file; ``scheduler: asha`` is all of these defaults."""

    method: Literal["asha"] = "asha"
    metric: Literal[tuple(EPOCH_METRICS)] = Field(  # type: ignore[valid-type]
        default="test_accuracy", description="the metric by which trials are compared"
    )
    grace: Whole | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="epochs that every trial gets, 1 to 10^6; by default a tenth of them",
    )
    factor: Real = Field(  # a factor close to 1 would mean millions of rungs
        default=3,
        ge=1.01,
        le=1000,
        description="f, 1.01 to 1000: one in f trials goes on at 1, f, f^2, ... times the grace",
    )


Choices = dict[str, dict[str, Any]]  # maps the label of a choice to the fields that it sets
Space = dict[str, Span | Choices]


@dataclass(frozen=True)
class Branch:
    """Axes that only some cells of a search have.

    Attributes:
        condition: the cells that have them: fields, with the values that each may have.
        space: the axes that the search picks from, by the names of Optuna's parameters. A name
            begins with the field of its axis.
        fixed: fields with one value.
    """

    condition: dict[str, list[Any]]
    space: Space
    fixed: dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """What a search does besides picking from its axes.

    Attributes:
        branches: axes of some cells, in the order in which they are added.
        exclude: groups of fields with values; a cell that agrees with one of them is not trained.
        seeds: how many seeds a cell is trained with, from 0 on; the objectives are means over them.
    """

    branches: tuple[Branch, ...] = ()
    exclude: tuple[dict[str, list[Any]], ...] = ()
    seeds: int = 1
