"""Sweep files: YAML in, a list of trials out, or one message that says what is wrong.

The fields of a trial stand at the top level. One value fixes a field, and a list makes it an axis.
Axes are combined with each other (Cartesian product); those of a ``zip`` group advance together.
Those of a ``when`` group are there in some cells only. With ``search``, Optuna picks from these
axes, and from ranges, instead.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from models.callables import Code
from models.config import TrialConfig
from models.fields import Real, Text, Whole
from models.files import given_path, is_there, stream_number
from models.messages import did_you_mean, plain, several, short
from models.together import NOT_TOGETHER, OWN
from tune_jobs import code, overrides, yaml_file
from tune_jobs.axes import ALIASES, Axes, When, listed
from tune_jobs.budget import Budget, from_text
from tune_jobs.cells import DEFAULTS, MOST_CELLS, cells, in_words, space
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import PARTS as EVALUATIONS
from tune_jobs.evaluations import Evaluations, Listed
from tune_jobs.explain import Places, at, explain
from tune_jobs.picking import Picking
from tune_jobs.search import OF_VALIDATION, Asha, Rules, Search, Space, Span, Spans, spread
from tune_jobs.weights import Keep

AUTO = "auto"  # a precision: see tune_jobs.precision

ONE_FIELD = [{"K", "stages"}, {"m", "points"}, {"seed", "seeds"}]  # Give only one name of each set.

HELD_OUT = 0.1  # of the train split, where a search has neither objectives nor a validation split
BESIDE = "GEOSWEEP_BESIDE"  # variable: folder of the file that comes through a pipe
LONGEST_NAME = 200  # bytes; file names add to it, and file systems allow 255


def check_name(name: str) -> str:
    """Check a sweep's name, which is also the name of its folder.

    Every name that a file system allows is valid, also with spaces, line breaks or control
    characters. Code that prints it escapes them, with :func:`models.messages.plain`.

    Raises:
        ValueError: it is not the name of one folder.
    """
    try:
        length = len(name.encode())
    except UnicodeError:
        raise ValueError("should be UTF-8") from None
    if name in ("", ".", ".."):
        raise ValueError("should be the name of a folder")
    if "/" in name or "\0" in name:
        raise ValueError("should have no / and no NUL")
    if length > LONGEST_NAME:
        raise ValueError(f"should be at most {LONGEST_NAME} bytes long")
    return name


def _share_or_whole(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("should be a whole number above 1, as Ray gives whole GPUs then")
    return gpus


class Resources(BaseModel):
    """What one trial holds while it trains; fractions of a GPU are allowed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    cpus: Real = Field(
        default=1, ge=0.01, le=10_000, description="cores of one trial, 0.01 to 10^4"
    )
    gpus: Annotated[Real, AfterValidator(_share_or_whole)] | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="GPUs of one trial: 0, a share of one, or 1 to 1000 whole ones; by default 1 "
        "where there are any",
    )


def _method(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class SweepFile(Axes):
    """The fields of a sweep file, besides those of a trial."""

    name: Annotated[Text, AfterValidator(check_name)] | None = None
    description: Annotated[Text, Field(max_length=5000)] = ""
    seeds: Whole | None = Field(
        default=None, ge=1, le=MOST_CELLS, description="replicates: seeds 0, 1, ...; 1 to 10^5"
    )
    zip: list[Axes] = Field(default_factory=list)  # type: ignore[valid-type]
    exclude: list[Axes] = Field(default_factory=list)  # type: ignore[valid-type]
    when: list[When] = Field(default_factory=list)  # type: ignore[valid-type]
    resources: Resources = Resources()
    precision: Annotated[
        list[Literal["float32", "bfloat16", "auto"]],
        BeforeValidator(listed),
        Field(min_length=1, default_factory=lambda: ["float32"]),
    ]
    search: Annotated[Search, BeforeValidator(_method)] | None = None
    scheduler: Annotated[Asha, BeforeValidator(_method)] | None = None
    evaluations: Listed = Evaluations()
    keep: Keep = "final"
    budget: Annotated[Budget, BeforeValidator(from_text)] = Budget()


SECTIONS: dict[str, Any] = {"": SweepFile, "zip": Axes, "exclude": Axes, "when": When, "if": Axes}
SECTIONS |= {"resources": Resources, "budget": Budget, "search": Search, "scheduler": Asha}
SECTIONS |= dict.fromkeys(Spans.model_fields, Span)
SECTIONS |= {"evaluations": Evaluations, **EVALUATIONS}


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: its cells, and the resources that each of them holds while it trains."""

    name: str
    description: str
    trials: list[TrialConfig]  # cells; for a search, combinations with the ends of ranges
    resources: Resources
    source: str  # file, or name of a built-in sweep
    search: Search | None = None
    scheduler: Asha | None = None
    space: Space = field(default_factory=dict)  # the axes and ranges of a search
    fixed: dict[str, Any] = field(default_factory=dict)  # the fields that a search does not vary
    rules: Rules = field(default_factory=Rules)  # of a search: conditional axes, seeds and more
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)  # with their settings
    keep: Keep = "final"
    budget: Budget = field(default_factory=Budget)
    code: Mapping[str, Code] = field(default_factory=dict)  # callables, by the text in the file
    precision: str = ""  # of all trials if it was auto, which it is until it is resolved
    implied: bool = False  # the search named neither objectives nor a validation split
    text: str = ""  # content of the file, which can be read once only if it is a pipe
    beside: str = ""  # the folder of the file; empty if it has none of its own


def builtin() -> dict[str, Path]:
    """Built-in sweeps by name."""
    folder = resources.files("tune_jobs") / "sweeps"
    files = sorted(Path(str(f)) for f in folder.iterdir() if f.name.endswith(".yaml"))
    return {file.stem: file for file in files}


def read(source: str | Mapping[str, Any], settings: Sequence[str] = ()) -> Sweep:
    """Read a sweep from a file, or a built-in one by its name.

    Args:
        source: path of a YAML file, ``-`` for standard input, or a name from :func:`builtin`; or
            the content of such a file, of which ``name`` is a part.
        settings: ``field=value`` or ``field=v1,v2``; each replaces the field in the file.

    Raises:
        SweepError: the sweep is not valid. The message lists what is wrong, one problem per line.
    """
    given = _find(source) if isinstance(source, str) else source
    called = source if isinstance(source, str) else "the mapping"
    called = "standard input" if called == "-" else called
    where = plain(called)
    text, content, places = _content(given, where)
    content, places = overrides.gathered(where, content, places)
    content, places = overrides.apply(content, places, settings, ONE_FIELD)
    try:
        ranges, content = spread(content)
        file = SweepFile.model_validate(content)
    except ValidationError as error:
        raise SweepError(*explain(where, error, places, SECTIONS, ALIASES)) from None
    own = given if isinstance(given, Path) and called not in builtin() else None
    streamed = own is not None and stream_number(own) is not None
    beside = os.environ.get(BESIDE, "") if streamed else str(own.parent) if own else ""
    files = code.resolve(where, file, places, beside or ".")
    _of_one_kind(where, file, places)
    implied = _hold_out(where, file, places)
    precision = _taken_out(where, file, places)
    name = file.name or _stem(given, where)
    axes, fixed, rules = space(where, file, places, ranges)
    ranged = {name for one in (ranges, *ranges.when) for name in one.spans()}
    trials = _trials(where, file, places, ranged)
    _refuse_grace(where, file, places, trials)
    search = file.search
    there = Picking(axes, fixed, rules).size() if search and ranged else len(trials)
    if search and there < search.trials:
        search = search.model_copy(update={"trials": int(there)})
    return Sweep(
        name=name,
        description=file.description.strip(),
        trials=trials,
        resources=file.resources,
        source=called,
        text=text,
        beside=beside,
        search=search,
        scheduler=file.scheduler,
        implied=implied,
        code=files,
        space=axes,
        fixed=fixed,
        rules=rules,
        evaluations=file.evaluations.asked(),
        keep=file.keep,
        budget=file.budget,
        precision=precision,
    )


def _of_one_kind(where: str, file: Any, places: Places) -> None:
    """Refuse an architecture together with fields of Table 1's networks, naming their lines.

    Raises:
        SweepError: some are given.
    """
    groups = [((), file), *((("zip", n), group) for n, group in enumerate(file.zip))]
    if not any("architecture" in group.given() for _, group in groups):
        return
    for way, group in groups:
        for name in group.given():
            if name in OWN:
                short_names = [one for one, full in ALIASES.items() if full == name]
                said = next((n for n in short_names if (*way, n) in places), name)
                raise SweepError(f"{at(where, places, *way, said)}: {said}: {NOT_TOGETHER}")


def _hold_out(where: str, file: Any, places: Places) -> bool:
    """Let a search and ASHA choose by validation accuracy, unless the file says otherwise.

    Returns:
        Whether both the objectives of a search and its validation split are implied.

    Raises:
        SweepError: a metric needs a validation split that some cell does not have.
    """
    given = file.given() | {n: v for group in file.zip for n, v in group.given().items()}
    for name, values in (item for group in file.when for item in group.given().items()):
        given[name] = [*given.get(name, [DEFAULTS[name]] if name in DEFAULTS else []), *values]
    search, scheduler = file.search, file.scheduler
    implied = search is not None and "objectives" not in search.model_fields_set
    added = implied and "validation" not in given
    if added:
        file.validation = given["validation"] = [HELD_OUT]
    split = min(given.get("validation", [0])) > 0
    if search and implied and split:
        file.search = search.model_copy(update={"objectives": {"validation_accuracy": "max"}})
    if scheduler and split and "metric" not in scheduler.model_fields_set:
        file.scheduler = scheduler.model_copy(update={"metric": "validation_accuracy"})
    chosen = {"search": file.search.objectives} if file.search else {}
    chosen |= {"scheduler": [file.scheduler.metric]} if file.scheduler else {}
    for section, metrics in chosen.items():
        if (lost := [name for name in metrics if name in OF_VALIDATION]) and not split:
            raise SweepError(
                f"{at(where, places, section)}: {section}: {lost[0]} needs a validation split in "
                f"every cell; add validation: {HELD_OUT}"
            )
    seldom = max(given.get("clean_train_every", [1])) > 1
    if seldom and scheduler and file.scheduler.metric.startswith("clean_train"):
        raise SweepError(
            f"{at(where, places, 'scheduler')}: scheduler: {file.scheduler.metric} has to be known "
            "after every epoch; leave clean_train_every out"
        )
    return added


def _refuse_grace(where: str, file: Any, places: Places, trials: Collection[TrialConfig]) -> None:
    """Refuse a scheduler that would stop nothing, as every trial ends within its grace.

    Raises:
        SweepError: it is one.
    """
    grace, longest = file.scheduler and file.scheduler.grace, max(t.epochs for t in trials)
    if grace is not None and grace >= longest:
        instead = "leave the scheduler out, which changes no result"
        if longest > 1:
            lower = max(1, longest // 10)
            instead = f"give a lower one, as with --set scheduler.grace={lower}, or {instead}"
        raise SweepError(
            f"{at(where, places, 'scheduler', 'grace')}: scheduler.grace = {grace}: should be "
            f"below epochs = {longest}, or no trial is stopped early; {instead}"
        )


def _taken_out(where: str, file: Any, places: Places) -> str:
    """Take ``precision: auto`` out of a file; :func:`tune_jobs.precision.resolved` puts it back.

    Returns:
        ``auto``, or nothing if the file does not have it.

    Raises:
        SweepError: the file gives other precisions, too.
    """
    if AUTO not in file.given().get("precision", []):
        return ""
    others = [*file.exclude, *file.when, *(getattr(group, "if") for group in file.when)]
    if len(file.precision) > 1 or any("precision" in group.given() for group in others):
        raise SweepError(
            f"{at(where, places, 'precision')}: precision: auto stands alone, as a sweep with it "
            "has one precision; give auto, or float32 and bfloat16"
        )
    file.precision = ["float32"]
    return AUTO


def as_begun(sweep: Sweep, objectives: Mapping[str, str] | None) -> Sweep:
    """A search as an earlier run in its folder began it, before searches had validation splits.

    Those without objectives optimised test accuracy then.

    Args:
        sweep: from :func:`read`.
        objectives: those of the search in the folder; None if there is none.
    """
    before = {"test_accuracy": "max"}
    if not (sweep.implied and sweep.search) or objectives != before:
        return sweep
    scheduler = sweep.scheduler
    if scheduler and scheduler.metric == "validation_accuracy":
        scheduler = scheduler.model_copy(update={"metric": "test_accuracy"})
    return replace(
        sweep,
        search=sweep.search.model_copy(update={"objectives": before}),
        scheduler=scheduler,
        fixed={name: value for name, value in sweep.fixed.items() if name != "validation"},
        trials=[trial.model_copy(update={"validation": 0.0}) for trial in sweep.trials],
        implied=False,
    )


def _find(source: str) -> Path:
    """Find the file of a sweep.

    Raises:
        SweepError: there is none.
    """
    known = builtin()
    if source in known:
        return known[source]
    path = given_path("/dev/stdin" if source == "-" else source)
    if is_there(path):
        return path
    if path.suffix in (".yaml", ".yml") or os.sep in source:
        raise SweepError(f"{plain(source)}: no such file")
    hint = did_you_mean(source, known)
    raise SweepError(
        f"{plain(source)}: no such sweep or file{hint} (built in: {several(known, 20)})"
    )


def _content(given: Path | Mapping[str, Any], where: str) -> tuple[str, dict[str, Any], Places]:
    """Read a file: its text, the mapping in it, and the line of each of its values.

    A given mapping is written as text first, so that all rules for files hold for it, too.
    """
    try:
        text = yaml_file.read_text(given) if isinstance(given, Path) else yaml_file.dump(given)
        content, lines = yaml_file.parse(text)
        lines = lines if isinstance(given, Path) else dict.fromkeys(lines, 0)
    except yaml_file.YamlError as error:
        start = f"{where}, line {error.line}" if error.line else where
        raise SweepError(f"{start}: {error}") from error
    if not isinstance(content, dict):
        nothing = "is empty; " if content is None else ""
        space_missing = isinstance(content, str) and ":" in content
        hint = ", with a space after each colon" if space_missing else ""
        raise SweepError(
            f"{where}: {nothing}should be a mapping of fields to values, "
            f"like gamma: [0, 1e-3]{hint}"
        )
    return text, content, {**lines}


def _stem(given: Path | Mapping[str, Any], where: str) -> str:
    """Name a sweep after its file, if the file has no ``name`` field.

    One that comes through a pipe, or is a mapping, is named by ``GEOSWEEP_NAME``, if that is set.
    """
    if isinstance(given, Path) and stream_number(given) is None:
        stem = given.stem
    else:
        stem = os.environ.get("GEOSWEEP_NAME")
    if not stem:
        raise SweepError(
            f"{where}: the sweep has no name; give it a name: field, or --set name=NAME"
        )
    try:
        return check_name(stem)
    except ValueError as error:
        raise SweepError(
            f"{where}: name = {short(stem)}, from the name of the file: {error}; "
            "rename the file, or give it a name: field"
        ) from None


def _trials(where: str, file: Any, places: Places, ranged: Collection[str]) -> list[TrialConfig]:
    """The cells of a sweep without duplicates."""
    trials: dict[str, TrialConfig] = {}
    for cell in cells(where, file, places, ranged):
        try:
            config = TrialConfig.model_validate(cell)
        except ValidationError as error:
            *lines, last = explain(where, error, places, SECTIONS, ALIASES)
            raise SweepError(*lines, f"{last} (in the cell with {in_words(cell)})") from None
        trials.setdefault(config.trial, config)
    if not trials:
        start = at(where, places, "exclude")
        raise SweepError(f"{start}: exclude leaves no cell; take a group out of it")
    return [*trials.values()]
