"""The ``budget:`` of a sweep: hours, GPU hours and disk, as fields or as one text.

The text of ``--budget`` has parts with commas or spaces between them: a time (``2h``, ``90m``,
``1h30m``, ``1d``), GPU hours (``8gpuh``) and a size of the sweep's folder (``10GB``).
"""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from rich.filesize import decimal

from models.fields import Real
from models.messages import plain
from tune_jobs.errors import SweepError
from tune_jobs.labels import duration

LARGEST = 1e6  # hours, and TB
NUMBER = r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
TIME = {"d": 24.0, "h": 1.0, "m": 1 / 60, "min": 1 / 60, "s": 1 / 3600}  # in hours
TIME_GOES_ON = re.compile(r"(\d(?:[dhm]|min))\s+(?=[\d.]+(?:h|m|min|s)(?:[,\s]|$))")  # 1h 30m
GPU = ("gpuh", "gpu-h", "gpuhours", "gpu-hours")
SIZE = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}  # in bytes
HINT = "a budget is a time, GPU hours or a size, like 2h, 1h30m, 8gpuh or 10GB"


def parse(text: str) -> dict[str, Any]:
    """The fields of a budget that a text gives.

    >>> parse("1h30m, 8gpuh 10GB"), parse("1h 30m")
    ({'hours': 1.5, 'gpu_hours': 8.0, 'disk': '10gb'}, {'hours': 1.5})

    Raises:
        ValueError: the text is no budget, or gives one of them twice.
    """
    found: dict[str, Any] = {}
    joined = TIME_GOES_ON.sub(r"\1", text.strip().lower())
    parts = [part for part in re.split(r"[,\s]+", joined) if part]
    if not parts:
        raise ValueError(f"is empty; {HINT}")
    for part in parts:
        pieces = re.findall(rf"{NUMBER}([a-z-]+)", part)
        units = [unit for _, unit in pieces]
        times = {TIME[unit] for unit in units if unit in TIME}
        value: Any = part
        if "".join(number + unit for number, unit in pieces) != part:
            name = ""
        elif len(times) == len(units):  # each unit at most once
            name, value = "hours", sum(float(number) * TIME[unit] for number, unit in pieces)
        elif len(units) == 1 and units[0] in GPU:
            name, value = "gpu_hours", float(pieces[0][0])
        else:
            name = "disk" if len(units) == 1 and units[0] in SIZE else ""
        if not name:
            raise ValueError(f"has {part!r}, but {HINT}")
        if name in found:
            raise ValueError(f"gives {name.replace('_', ' ')} twice")
        found[name] = value
    return found


def _bytes(given: Any) -> Any:
    text = given.strip().lower() if isinstance(given, str) else ""
    found = re.fullmatch(rf"{NUMBER}\s*([a-z]+)", text)
    if not found or found[2] not in SIZE:
        raise ValueError("should be a size with its unit (kB, MB, GB or TB), like 10GB")
    return float(found[1]) * SIZE[found[2]]


class Budget(BaseModel):
    """What a sweep may use in all its runs together; None is without a limit."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    hours: Real | None = Field(
        default=None, gt=0, le=LARGEST, description="in which it trains and scores; up to 1e6"
    )
    gpu_hours: Real | None = Field(
        default=None, gt=0, le=LARGEST, description="that trials hold their GPUs; up to 1e6"
    )
    disk: Annotated[float, BeforeValidator(_bytes)] | None = Field(
        default=None, gt=0, le=LARGEST * 1e12, description="of the folder, with its unit, like 10GB"
    )

    @property
    def limits(self) -> dict[str, float]:
        """What is limited, by name, in seconds and bytes."""
        given = self.model_dump(exclude_none=True)
        return {name: value * (1 if name == "disk" else 3600) for name, value in given.items()}

    def replaced(self, text: str) -> "Budget":
        """This budget with the parts that a text of the command line gives.

        Raises:
            SweepError: the text is no budget.
        """
        try:
            given = Budget.model_validate(parse(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            said = f"{first['loc'][0]}: {first['msg'].removeprefix('Input ')}"
            raise SweepError(f"--budget {plain(text)}: {said}") from None
        except ValueError as error:
            raise SweepError(f"--budget {plain(text)}: {error}") from None
        return self.model_copy(update=given.model_dump(exclude_none=True))


def from_text(given: Any) -> Any:
    """Let a sweep file have ``budget: 2h``, and the command line ``--set budget=2h,10GB``.

    Raises:
        ValueError: a text is no budget.
    """
    if isinstance(given, list):
        given = ", ".join(map(str, given))
    return parse(given) if isinstance(given, str) else given


def words(name: str, value: float) -> str:
    """An amount of a budget, in seconds or bytes, as a message shows it.

    >>> words("hours", 5400), words("gpu_hours", 5400), words("disk", 1e9)
    ('1 h 30 min', '1.5 GPU hours', '1.0 GB')
    """
    if name == "hours":
        return duration(value)
    return decimal(round(value)) if name == "disk" else f"{value / 3600:.3g} GPU hours"
