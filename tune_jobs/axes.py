"""The fields of a trial as axes of a sweep file: each has one or more values."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from models.config import ARGUMENT, Argument, Scalar, TrialConfig

ALIASES = {"K": "stages", "m": "points"}


def listed(value: Any) -> Any:
    """Turn a single value into a list."""
    return value if isinstance(value, list) else [value]


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def given(self) -> dict[str, list[Any]]:
        """The axes that the file gives, by field of the trial or ``model.NAME``."""
        axes = {}
        for name in TrialConfig.model_fields:
            if name not in self.model_fields_set:
                continue
            if name == "model":
                axes |= {f"{ARGUMENT}{one}": values for one, values in self.model.items()}  # type: ignore[attr-defined]
            else:
                axes[name] = getattr(self, name)
        return axes


def _axis(info: FieldInfo) -> Any:
    """The type of a field in a sweep file: one or more values of the type in the trial."""
    item: Any = info.annotation
    for rule in info.metadata:
        item = Annotated[item, rule]
    least = Field(min_length=1, validation_alias=info.validation_alias)
    return Annotated[list[item], BeforeValidator(listed), least]


_FIELDS: dict[str, Any] = {n: (_axis(info), None) for n, info in TrialConfig.model_fields.items()}
_VALUES = Annotated[list[Scalar], BeforeValidator(listed), Field(min_length=1)]
_FIELDS["model"] = (Annotated[dict[Argument, _VALUES], Field(min_length=1)], None)
Axes: Any = create_model("Axes", __base__=_Base, **_FIELDS)

_IF: Any = (Axes, Field(description="the cells that have the axes beside it"))
When: Any = create_model("When", __base__=Axes, **{"if": _IF})
"""Axes that only some cells have: those that agree with all fields of its ``if``."""
