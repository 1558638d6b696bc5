"""The ``evaluations:`` section of a sweep file: what to try on every trained network."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from models.messages import did_you_mean, plain, several, short
from tune_jobs import yaml_file
from tune_jobs.errors import SweepError
from tune_jobs.explain import LIMITS, limits
from tune_jobs.labels import trials_of


class _Strict(BaseModel):
    # Without strict mode, pydantic would accept true as 1 and "8" as 8.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


MOST_LEVELS = 1000
ORDERED = AfterValidator(lambda levels: sorted(set(levels)))
LISTED = BeforeValidator(lambda given: given if isinstance(given, list) else [given])

Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[float, Field(ge=0, le=255)]  # in pixel values, from 0 (black) to 255 (white)
Shares = Annotated[
    list[Share],
    LISTED,
    ORDERED,
    Field(min_length=1, max_length=MOST_LEVELS),
    # Written down, because lesions of earlier versions had no level 0 unless it was given.
    AfterValidator(lambda levels: sorted({0.0, *levels})),
]
Levels = Annotated[list[Pixels], LISTED, ORDERED, Field(min_length=1, max_length=MOST_LEVELS)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


Replacement = Literal["previous", "mean"]
Unit = Literal["top", "random"]
REPLACEMENTS, UNITS = get_args(Replacement), get_args(Unit)
Replacements = Annotated[
    list[Replacement],
    LISTED,
    AfterValidator(lambda given: [name for name in REPLACEMENTS if name in given]),
    Field(min_length=1, max_length=MOST_LEVELS),
]
Units = Annotated[
    list[Unit],
    LISTED,
    AfterValidator(lambda given: [name for name in UNITS if name in given]),
    Field(min_length=1, max_length=MOST_LEVELS),
]


class Lesion(_Strict):
    """Fig. 7: units of a block are replaced; blocks are left out and swapped."""

    levels: Shares = Field(
        default=[0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1],
        description="k/d, shares of units, 0 to 1",
    )
    block: int = Field(
        default=3, ge=1, le=1000, description="l, 1 to 1000; the middle one where there are fewer"
    )
    replacement: Replacements = Field(
        default=list(REPLACEMENTS),
        description="what takes a unit's place: its value in the previous state, its mean",
    )
    units: Units = Field(
        default=list(UNITS), description="top: the most active for a point's class; random"
    )
    seed: Seed = Field(default=0, description="seed of the random units, 0 to 2^63 - 1")


class Noise(_Strict):
    """Fig. 8, left: Gaussian noise."""

    levels: Levels = Field(
        default=[0, 8, 16, 32, 64, 128], description="sigma in pixel values, 0 to 255"
    )
    seed: Seed = Field(default=0, description="seed of the noise, 0 to 2^63 - 1")


class Fgsm(_Strict):
    """Fig. 8, right: the fast gradient sign method."""

    levels: Levels = Field(
        default=[0, 1, 2, 4, 8, 16], description="budgets in pixel values, 0 to 255"
    )


class Pgd(Fgsm):
    """Projected gradient descent from a random start: stronger than FGSM."""

    steps: int = Field(
        default=10, ge=1, le=10_000, description="gradients per point and budget, 1 to 10^4"
    )
    seed: Seed = Field(default=0, description="seed of the starts, 0 to 2^63 - 1")


class Separation(_Strict):
    """Section 4.2: does noise first mix up the points whose tracks come close?"""

    level: Pixels = Field(default=32, description="sigma in pixel values, 0 to 255")
    points: int = Field(
        default=1000, ge=2, le=100_000, description="the first scored images, at most; 2 to 10^5"
    )
    seed: Seed = Field(default=0, description="seed of the noise, 0 to 2^63 - 1")
    controls: bool = Field(
        default=True, description="also among pairs of equally distant ends, and before training"
    )


class Curve(_Strict):
    """The curve of measures in Wasserstein space; ``curve: 500`` is short for its points."""

    points: int = Field(
        default=1000, ge=2, le=100_000, description="m, the first scored images, at most; 2 to 10^5"
    )


def _points(given: Any) -> Any:
    """Turn a number of points into a mapping."""
    return {"points": given} if type(given) is int else given


class Scores(_Strict):
    """Scores that a trial lacks because an earlier version trained it."""


class Evaluations(_Strict):
    """What to try on trained networks. An evaluation that is None is skipped."""

    lesion: Lesion | None = None
    noise: Noise | None = None
    fgsm: Fgsm | None = None
    pgd: Pgd | None = None
    separation: Separation | None = None
    curve: Annotated[Curve | None, BeforeValidator(_points)] = None
    scores: Scores | None = None

    def asked(self) -> dict[str, dict[str, Any]]:
        """All settings of each requested evaluation, as JSON values."""
        return self.model_dump(exclude_none=True)


PARTS: dict[str, Any] = {  # the model of the settings of each evaluation
    name: get_args(field.annotation)[0] for name, field in Evaluations.model_fields.items()
}
NAMES = tuple(PARTS)


WITHIN = ("lesion",)  # evaluations that continue from a state inside a network


EARLIER: dict[str, dict[str, Any]] = {
    "lesion": {"replacement": ["previous"], "units": ["top"], "seed": 0},
    "separation": {"controls": False},
}
"""Settings that earlier versions did not have, with the values that say what they measured."""


def measured(name: str, settings: Mapping[str, Any], m: int | None = None) -> dict[str, Any]:
    """All settings of an evaluation, in one form for all settings that measure the same.

    An earlier version may have recorded fewer settings. Level 0 is always measured under noise and
    attacks. The seed of lesions does nothing without random units. No more points are measured than
    the m that the trial has, if that is known.

    >>> measured("separation", {"level": 32.0, "points": 500, "seed": 0})["controls"]
    False
    >>> measured("fgsm", {"levels": [4]}) == measured("fgsm", {"levels": [4.0, 0, 4]})
    True
    """
    found = EARLIER.get(name, {}) | dict(settings)
    if "levels" in found:
        zero = set() if name == "lesion" else {0.0}
        found["levels"] = sorted(zero | set(found["levels"]))
    if "random" not in found.get("units", UNITS):
        found["seed"] = 0
    if m is not None and "points" in found:
        found["points"] = min(m, found["points"])
    return found


def lacking(done: Mapping[str, Any], wanted: Mapping[str, Any], m: int | None = None) -> list[str]:
    """The wanted evaluations that are not done, or were done with other settings.

    Args:
        done: settings of the evaluations of a trial, by name.
        wanted: settings of those that should be there.
        m: the number of points of the trial, if it is known.
    """
    return [
        name
        for name, settings in wanted.items()
        if name not in done or measured(name, done[name], m) != measured(name, settings, m)
    ]


def earlier(
    name: str, done: Mapping[str, Any], wanted: Mapping[str, Any], m: int | None = None
) -> bool:
    """Whether an evaluation lacks only what the version that made it did not have.

    Earlier versions lacked the settings in :data:`EARLIER`, and did not add level 0 to lesions.

    Args:
        name: of the evaluation.
        done: its recorded settings.
        wanted: the settings it should have.
        m: the number of points of the trial, if it is known.

    >>> earlier("separation", {"level": 32.0}, {"level": 32.0, "controls": True})
    True
    >>> earlier("lesion", {"levels": [0.5]}, {"levels": [0, 0.5]})
    True
    """
    has, could = measured(name, done, m), measured(name, wanted, m)
    if not EARLIER.get(name, {}).keys() & done.keys():
        could |= EARLIER.get(name, {})
    if name == "lesion" and 0 not in has.get("levels", [0]):
        could["levels"] = [level for level in could["levels"] if level]
    return could != measured(name, wanted, m) and has == could


def beyond(
    done: Iterable[Mapping[str, Any]],
    wanted: Mapping[str, Any],
    points: Iterable[int | None] = repeat(None),
) -> list[str]:
    """Describe what trials without weights lack of the wanted evaluations, and what they have.

    Args:
        done: settings of the evaluations of each trial, by name.
        wanted: settings of those that should be there.
        points: m of each trial, if it is known.

    >>> beyond([{"pgd": {"steps": 5}}] * 2, {"pgd": {"steps": 9}, "noise": {"seed": 0}})
    ['pgd of 2 trials stays as measured (steps = 5); steps = 9 cannot be added', \
'noise of 2 trials cannot be added']
    """
    found: Counter[str] = Counter()
    for has, m in zip(done, points, strict=False):
        for name in lacking(has, wanted, m):
            if name in has:
                old, new = _differences(name, has[name], wanted[name])
                rest = f"stays as measured ({old}); {new} cannot be added"
            else:
                rest = "cannot be added"
            found[f"{name} of {{}} {rest}"] += 1
    return [line.format(trials_of(n)) for line, n in found.items()]


def as_settings(given: Any) -> Any:
    """Turn ``all``, a name, a list of names or a mapping into a mapping from names to settings."""
    if given is None:
        return {}
    if given == "all":
        return {name: {} for name in NAMES}
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return {name: {} for name in given}
    if isinstance(given, dict):
        return {name: {} if settings is None else settings for name, settings in given.items()}
    raise ValueError(f"should be all, or names of {', '.join(NAMES)}")


Listed = Annotated[Evaluations, BeforeValidator(as_settings)]


def read(
    names: Sequence[str],
    settings: Sequence[str] = (),
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Read the evaluations that a command line asks for.

    Args:
        names: names of evaluations; all of them if empty.
        settings: ``name.setting=v1,v2``; each replaces a known setting or a default.
        known: the settings that were asked for before.

    Returns:
        The settings by name, as :meth:`Evaluations.asked` gives them.

    Raises:
        SweepError: there is no such evaluation or setting, or the value is not allowed; the
            message says what is.

    >>> read(["noise"], ["noise.levels=0,16"])
    {'noise': {'levels': [0.0, 16.0], 'seed': 0}}
    """
    content = {name: dict((known or {}).get(name, {})) for name in names or NAMES}
    earlier: set[str] = set()
    for setting in settings:
        shown = f"--set {plain(setting)}"
        path, equals, value = setting.partition("=")
        name, dot, field = path.strip().partition(".")
        if not equals or not dot:
            have = [one for one in content if one in PARTS and name in PARTS[one].model_fields]
            meant = f"{have[0]}.{plain(setting).strip()}" if have and equals else ""
            hint = f"; did you mean {meant}?" if meant else ""
            raise SweepError(f"{shown}: should be like noise.levels=0,8,16{hint}")
        if name not in content:
            raise SweepError(
                f"{shown}: {plain(name)} is not among {several(content)}"
                f"{did_you_mean(name, content)}"
            )
        if path.strip() in earlier:
            raise SweepError(f"{shown}: an earlier --set sets it already; give one of them")
        earlier.add(path.strip())
        try:
            values = yaml_file.values(value)
        except yaml_file.YamlError as error:
            problem = f"{plain(value)!r} is not a value or v1,v2: {error}"
            raise SweepError(f"{shown}: {problem}") from None
        content[name][field] = values if len(values) > 1 else values[0]
    try:
        return Evaluations.model_validate(content).asked()
    except ValidationError as error:
        raise SweepError(*map(_line, error.errors(include_url=False))) from None


def replaced(rows: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[str]:
    """Describe the earlier evaluations that will be replaced: old settings and trial counts.

    Args:
        rows: rows of the trials table.
        wanted: the evaluations to come, as :meth:`Evaluations.asked` gives them.

    >>> replaced([{"evaluations": '{"fgsm": {"levels": [0, 8]}}'}], {"fgsm": {"levels": [4]}})
    ['fgsm replaces the earlier one of 1 trial (levels = 0, 8)']
    """
    found: Counter[str] = Counter()
    for row in rows:
        has = json.loads(row["evaluations"] or "{}")
        for name in (n for n in lacking(has, wanted, row.get("points")) if n in has):
            old, _ = _differences(name, has[name], wanted[name])
            found[f"{name} replaces the earlier one of {{}} ({old})"] += 1
    return [line.format(trials_of(n)) for line, n in found.items()]


def _differences(name: str, done: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, str]:
    """The settings in which an evaluation differs from the wanted one: what it has, what not."""
    before, after = measured(name, done), measured(name, wanted)
    other = [field for field, value in before.items() if after.get(field) != value]
    return _told({f: before[f] for f in other}), _told({f: after[f] for f in other if f in after})


def changed(asked: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe evaluations, with the settings that differ from the defaults.

    >>> changed(read(["noise", "pgd"], ["pgd.steps=5"]))
    'noise, pgd (steps = 5)'
    """
    words = []
    for name, settings in asked.items():
        default = measured(name, PARTS[name]().model_dump())
        own = measured(name, settings)
        other = {field: own[field] for field in settings if default[field] != own[field]}
        words.append(f"{name} ({_told(other)})" if other else name)
    return ", ".join(words)


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} = {', '.join(map(_value, value if isinstance(value, list) else [value]))}"
        for name, value in settings.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"{value:g}"


def _line(problem: Any) -> str:
    """Describe one of pydantic's errors."""
    first, *rest = map(str, problem["loc"])
    if problem["type"] == "extra_forbidden":
        model = PARTS[first] if rest else Evaluations
        word, allowed = (rest or [first])[0], ", ".join(model.model_fields)
        hint = did_you_mean(word, model.model_fields)
        start = f"{first}: " if rest else ""
        if not allowed:
            return f"{start}no {short(word)}; {first} has no settings"
        return f"{start}no {short(word)}; should be one of {allowed}{hint}"
    told = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if problem["type"] in LIMITS:
        told = limits(problem["loc"], {"": Evaluations, **PARTS}, {}) or told
    return f"{'.'.join([first, *rest[:1]])} = {short(problem['input'])}: {told}"
