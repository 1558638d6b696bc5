"""The ``search:`` and ``scheduler:`` sections of a sweep file, checked by pydantic."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Better = Literal["max", "min"]
EPOCH_METRICS: dict[str, Better] = {  # known when an epoch ends, and which way is better
    "test_accuracy": "max",
    "clean_train_accuracy": "max",
    "test_loss": "min",
    "lss": "min",
    "inverse_lss": "max",
    "lsr": "min",
}
METRICS = EPOCH_METRICS | {"ots": "max", "gap": "max"}  # these when the trial is scored


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Span(_Strict):
    """A continuous axis of a search, like ``gamma: {low: 1e-5, high: 0.1}``."""

    low: float = Field(ge=0, description="least value")
    high: float = Field(gt=0, description="largest value")
    log: bool = Field(default=True, description="even on a logarithmic scale")

    @model_validator(mode="after")
    def _is_one(self) -> "Span":
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} should be below high = {self.high:g}")
        if self.log and self.low == 0:
            raise ValueError("low = 0 has no logarithm; give a small number, or log: false")
        return self


class Spans(_Strict):
    """The fields of a trial that can be continuous."""

    gamma: Span | None = None
    learning_rate: Span | None = None


def _objectives(given: Any) -> Any:
    """A name or a list of them, each with the direction that is better."""
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
    trials: int = Field(default=20, ge=1, description="cells to suggest")
    objectives: Annotated[
        dict[Literal[tuple(METRICS)], Better],  # type: ignore[valid-type]
        BeforeValidator(_objectives),
        Field(min_length=1, description=f"one or more of {', '.join(METRICS)}"),
    ] = {"test_accuracy": "max"}
    seed: int = Field(default=0, ge=0, description="of the suggestions")


class Asha(_Strict):
    """``scheduler:`` of a sweep file; ``scheduler: asha`` is all of these defaults."""

    method: Literal["asha"] = "asha"
    metric: Literal[tuple(EPOCH_METRICS)] = Field(  # type: ignore[valid-type]
        default="test_accuracy", description="what trials are compared by"
    )
    grace: int | None = Field(
        default=None, ge=1, description="epochs every trial gets; by default a tenth"
    )
    factor: float = Field(
        default=3, gt=1, description="one in this many goes on at 1, f, f^2, ... times the grace"
    )


Choices = dict[str, dict[str, Any]]  # by what they are called: the fields that a choice sets
Space = dict[str, Span | Choices]


def size(space: Space) -> float:
    """How many cells a space has; infinity with a range."""
    return math.prod(math.inf if isinstance(axis, Span) else len(axis) for axis in space.values())
