"""Sweep files: YAML in, a list of trials out, or one message that says what is wrong.

The fields of a trial stand at the top level; one value fixes a field, a list makes it an axis.
Axes are combined with each other (Cartesian); those of a ``zip`` group advance together. With
``search`` Optuna picks from these axes, and from ranges, instead.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from models.config import DATASETS, TrialConfig
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import PARTS as EVALUATIONS
from tune_jobs.evaluations import Evaluations, Listed, did_you_mean
from tune_jobs.search import Asha, Search, Space, Span, Spans, size

Keep = Literal["final", "best", "none"]  # weights of a trial that is done

ALIASES = {"K": "stages", "m": "points"}


class Resources(BaseModel):
    """What one trial holds while it trains; fractions of a GPU are allowed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    cpus: float = Field(default=1, gt=0, description="cores of one trial, and torch's threads")
    gpus: float | None = Field(
        default=None, ge=0, description="GPUs of one trial; 1 where there are any, else 0"
    )


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise ValueError("should be a number")
    return value


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    def given(self) -> dict[str, list[Any]]:
        """The axes that were given, by field of the trial."""
        return {
            name: getattr(self, name)
            for name in TrialConfig.model_fields
            if name in self.model_fields_set
        }


def _axis(info: FieldInfo) -> Any:
    """The type of a field in a sweep file: one or more of what the trial allows."""
    check = _number if info.annotation in (int, float) else lambda value: value
    item = Annotated[info.annotation, BeforeValidator(check), *info.metadata]
    least = Field(min_length=1, validation_alias=info.validation_alias)
    return Annotated[list[item], BeforeValidator(_listed), least]


_FIELDS: dict[str, Any] = {n: (_axis(info), None) for n, info in TrialConfig.model_fields.items()}
Axes: Any = create_model("Axes", __base__=_Base, **_FIELDS)


def _method(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class SweepFile(Axes):
    """What may stand in a sweep file besides the fields of a trial."""

    name: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    description: str = ""
    seeds: int | None = Field(default=None, ge=1, description="replicates: seeds 0, 1, ...")
    zip: list[Axes] = Field(default_factory=list)  # type: ignore[valid-type]
    exclude: list[Axes] = Field(default_factory=list)  # type: ignore[valid-type]
    resources: Resources = Resources()
    search: Annotated[Search, BeforeValidator(_method)] | None = None
    scheduler: Annotated[Asha, BeforeValidator(_method)] | None = None
    evaluations: Listed = Evaluations()
    keep: Keep = "final"


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: its cells, and what each of them holds while it trains."""

    name: str
    description: str
    trials: list[TrialConfig]  # of a search the corners of its space, and no cells
    resources: Resources
    source: str  # file, or name of a built-in sweep
    search: Search | None = None
    scheduler: Asha | None = None
    space: Space = field(default_factory=dict)  # of a search
    fixed: dict[str, Any] = field(default_factory=dict)  # of a search: the other fields
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)  # with their settings
    keep: Keep = "final"


def builtin() -> dict[str, Path]:
    """Built-in sweeps by name."""
    folder = resources.files("tune_jobs") / "sweeps"
    files = sorted(Path(str(f)) for f in folder.iterdir() if f.name.endswith(".yaml"))
    return {file.stem: file for file in files}


def read(source: str, settings: Sequence[str] = ()) -> Sweep:
    """A sweep from a file or the name of a built-in one.

    Args:
        source: path of a YAML file, or a name from :func:`builtin`.
        settings: ``field=value`` or ``field=v1,v2``, each in place of what the file has.

    Raises:
        SweepError: with everything that is wrong with it, a line each.
    """
    path = _find(source)
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise SweepError(f"{source}: cannot be read: {said}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise SweepError(f"{source}{line}: not YAML: {problem}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SweepError(
            f"{source}: should be a mapping of fields to values, like gamma: [0, 1e-3]"
        )
    for setting in settings:
        content = _with(content, setting)
    ranges = {n: content[n] for n in Spans.model_fields if isinstance(content.get(n), dict)}
    try:
        spans = {n: s for n, s in Spans.model_validate(ranges) if s is not None}
        content |= {name: [span.low, span.high] for name, span in spans.items()}
        file = SweepFile.model_validate(content)
    except ValidationError as error:
        raise SweepError(_explain(source, error, content)) from None
    space, fixed = _space(source, file, spans)
    search = file.search
    if search and size(space) < search.trials:
        search = search.model_copy(update={"trials": int(size(space))})
    cells = list(_cells(source, file))
    if not cells:
        raise SweepError(f"{source}: exclude leaves no cell")
    trials: dict[str, TrialConfig] = {}
    for cell in cells:
        try:
            config = TrialConfig.model_validate(cell)
        except ValidationError as error:
            raise SweepError(f"{_explain(source, error)} (in the cell {_short(cell)})") from None
        trials.setdefault(config.trial, config)
    return Sweep(
        name=file.name or path.stem,
        description=file.description.strip(),
        trials=[*trials.values()],
        resources=file.resources,
        source=source,
        search=search,
        scheduler=file.scheduler,
        space=space,
        fixed=fixed,
        evaluations=file.evaluations.asked(),
        keep=file.keep,
    )


def _find(source: str) -> Path:
    known = builtin()
    if source in known:
        return known[source]
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or os.sep in source:
        raise SweepError(f"{source}: no such file")
    hint = did_you_mean(source, known)
    raise SweepError(f"{source}: no such sweep or file{hint} (built in: {', '.join(known)})")


def _with(content: dict[str, Any], setting: str) -> dict[str, Any]:
    """The content of a file with one setting of the command line in place of its own."""
    name, equals, value = setting.partition("=")
    name = name.strip()
    if not equals or not name:
        raise SweepError(f"--set {setting}: should be field=value or field=v1,v2")
    try:
        values = [yaml.safe_load(v) for v in value.split(",")]
    except yaml.YAMLError:
        raise SweepError(f"--set {setting}: {value!r} is not a value or v1,v2") from None
    values = [v for v in values if v is not None]
    single = values[0] if len(values) == 1 else values
    outer, _, inner = name.partition(".")
    if inner:
        old = content.get(outer)
        return content | {outer: (old if isinstance(old, dict) else {}) | {inner: single}}
    same = {name, ALIASES.get(name, name)} | {a for a, field in ALIASES.items() if field == name}
    same |= {"seed", "seeds"} if name in ("seed", "seeds") else set()
    content = {key: v for key, v in content.items() if key not in same}
    if isinstance(content.get("zip"), list):  # an axis that is set no longer advances with others
        groups = [
            {k: v for k, v in group.items() if k not in same} if isinstance(group, dict) else group
            for group in content["zip"]
        ]
        content["zip"] = [group for group in groups if group]
    return content | {name: single}


def _space(source: str, file: Any, spans: dict[str, Span]) -> tuple[Space, dict[str, Any]]:
    """The axes that a search picks from, and the fields that it leaves alone."""
    if file.search is None:
        for name in spans:
            raise SweepError(f"{source}: {name}: a range needs search: optuna; else give values")
        return {}, {}
    axes: dict[str, list[Any]] = file.given()
    if file.exclude:
        raise SweepError(f"{source}: exclude: a search picks from whole axes; leave it out")
    if file.seeds is not None or len(axes.get("seed", [])) > 1:
        raise SweepError(f"{source}: seeds: are no axis to search; give one seed")
    space: Space = dict(spans)
    fixed = {}
    for name, values in axes.items():
        if name not in spans and len(values) > 1:
            space[name] = {str(value): {name: value} for value in values}
        elif name not in spans:
            fixed[name] = values[0]
    for group in file.zip:
        together = group.given()
        rows = [dict(zip(together, row, strict=True)) for row in zip(*together.values())]  # noqa: B905
        space[", ".join(together)] = {", ".join(map(str, r.values())): r for r in rows}
    if not space:
        raise SweepError(
            f"{source}: search: there is nothing to pick from; give an axis of several values, "
            "or a range like gamma: {low: 1e-5, high: 0.1}"
        )
    return space, fixed


def _cells(source: str, file: Any) -> Iterable[dict[str, Any]]:
    """Every combination of the axes, less what is excluded."""
    axes: dict[str, list[Any]] = file.given()
    if file.seeds is not None:
        if "seed" in axes:
            raise SweepError(
                f"{source}: has both seed and seeds; seeds: 5 is short for five of them"
            )
        axes["seed"] = list(range(file.seeds))
    dimensions = [[{name: value} for value in values] for name, values in axes.items()]
    for number, group in enumerate(file.zip):
        together = group.given()
        lengths = {name: len(values) for name, values in together.items()}
        if len(set(lengths.values())) > 1:
            raise SweepError(f"{source}: zip[{number}]: lists of one length each, not {lengths}")
        twice = [name for name in together if name in axes]
        if twice:
            raise SweepError(f"{source}: zip[{number}]: {', '.join(twice)} is an axis already")
        axes |= together
        names = list(together)
        rows = zip(*together.values(), strict=True)
        dimensions.append([dict(zip(names, row, strict=True)) for row in rows])
    excluded = [group.given() for group in file.exclude]
    for parts in itertools.product(*dimensions):
        cell = {name: value for part in parts for name, value in part.items()}
        full = {name: f.default for name, f in TrialConfig.model_fields.items()} | cell
        if not any(all(full[n] in values for n, values in group.items()) for group in excluded):
            yield cell


def _explain(source: str, error: ValidationError, content: dict[str, Any] | None = None) -> str:
    """pydantic's errors as lines that name the field, what it is and what it should be."""
    lines = []
    for problem in error.errors(include_url=False):
        where, loc = "", problem["loc"]
        if content and loc[1:] == (0,) and not isinstance(content.get(str(loc[0])), list):
            loc = loc[:1]  # one value, not the first of a list
        for part in loc:
            where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
        if problem["type"] == "extra_forbidden":
            *outer, name = map(str, problem["loc"])
            inner = next((PARTS[part] for part in reversed(outer) if part in PARTS), SweepFile)
            text = _no_such_field(name, inner)
        elif problem["type"] == "missing":
            text = "is missing"
        elif problem["type"] == "too_short":
            text = "is empty; an axis has at least one value"
        else:
            where += f" = {_short(problem['input'])}" if where else ""
            text = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            if "dataset" in problem["loc"]:
                text += did_you_mean(str(problem["input"]), DATASETS)
        lines.append(f"{source}: {where}: {text}" if where else f"{source}: {text}")
    return "\n".join(lines)


PARTS: dict[str, Any] = {"resources": Resources, "search": Search, "scheduler": Asha}
PARTS |= dict.fromkeys(Spans.model_fields, Span)
PARTS |= {"evaluations": Evaluations, **EVALUATIONS}


def _no_such_field(name: str, model: Any) -> str:
    for short, full in ALIASES.items():
        if name in (short, full):
            return f"{short} and {full} are one field; give one of them"
    fields = sorted(model.model_fields) + (sorted(ALIASES) if model is SweepFile else [])
    return f"no such field{did_you_mean(name, fields)} (fields: {', '.join(fields)})"


def _short(value: Any, most: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
