"""``evaluations:`` of a sweep file: what is tried on every trained network, and how much of it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)  # true is no 1


ORDERED = AfterValidator(lambda levels: sorted(set(levels)))

Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[float, Field(ge=0, le=255)]  # pixel values; black is 0, white 255
Shares = Annotated[list[Share], ORDERED, Field(min_length=1)]
Levels = Annotated[list[Pixels], ORDERED, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Lesion(_Strict):
    """Fig. 7: units of a block set back to what they were before it; blocks left out, swapped."""

    levels: Shares = Field(
        default=[0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1],
        description="k/d, shares of units",
    )
    block: int = Field(default=3, ge=1, description="l; the middle one where there are fewer")


class Noise(_Strict):
    """Fig. 8, left: Gaussian noise."""

    levels: Levels = Field(default=[0, 8, 16, 32, 64, 128], description="sigma, pixel values")
    seed: Seed = Field(default=0, description="of the noise")


class Fgsm(_Strict):
    """Fig. 8, right: the fast gradient sign method."""

    levels: Levels = Field(default=[0, 1, 2, 4, 8, 16], description="budgets, pixel values")


class Pgd(Fgsm):
    """Projected gradient descent from a random start: stronger than FGSM."""

    steps: int = Field(default=10, ge=1, description="gradients a point and budget")
    seed: Seed = Field(default=0, description="of the starts")


class Separation(_Strict):
    """Section 4.2: are points whose tracks come close the first that noise mixes up?"""

    level: Pixels = Field(default=32, description="sigma, pixel values")
    points: int = Field(default=1000, ge=2, description="the first test images, at most")
    seed: Seed = Field(default=0, description="of the noise")


class Evaluations(_Strict):
    """What to try on trained networks; those that are None are not tried."""

    lesion: Lesion | None = None
    noise: Noise | None = None
    fgsm: Fgsm | None = None
    pgd: Pgd | None = None
    separation: Separation | None = None

    def asked(self) -> dict[str, dict[str, Any]]:
        """The settings of each one that is to be tried, complete: JSON values."""
        return self.model_dump(exclude_none=True)


NAMES = tuple(Evaluations.model_fields)
PARTS: dict[str, Any] = {
    "lesion": Lesion,
    "noise": Noise,
    "fgsm": Fgsm,
    "pgd": Pgd,
    "separation": Separation,
}


class EvaluationError(ValueError):
    """No such evaluation or setting, or a value that it cannot have."""


def listed(given: Any) -> Any:
    """``all``, a name or a list of names as a mapping to settings; nothing said is the default."""
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


Listed = Annotated[Evaluations, BeforeValidator(listed)]


def read(
    names: Sequence[str],
    settings: Sequence[str] = (),
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """What a command line asks for: evaluations by name, and ``name.setting=v1,v2``.

    Args:
        names: of evaluations; all of them if there is none.
        settings: in place of those that are known, or the defaults.
        known: what was asked for before.

    Returns:
        As :meth:`Evaluations.asked`.

    Raises:
        EvaluationError: with what is allowed.

    >>> read(["noise"], ["noise.levels=0,16"])
    {'noise': {'levels': [0.0, 16.0], 'seed': 0}}
    """
    content = {name: dict((known or {}).get(name, {})) for name in names or NAMES}
    for setting in settings:
        path, equals, value = setting.partition("=")
        name, dot, field = path.strip().partition(".")
        if not equals or not dot:
            have = [one for one in content if one in PARTS and name in PARTS[one].model_fields]
            hint = f"; did you mean {have[0]}.{setting.strip()}?" if have and equals else ""
            raise EvaluationError(f"--set {setting}: should be like noise.levels=0,8,16{hint}")
        if name not in content:
            raise EvaluationError(
                f"--set {setting}: {name} is not among {', '.join(content)}"
                f"{did_you_mean(name, content)}"
            )
        try:
            values = [yaml.safe_load(part) for part in value.split(",")]
        except yaml.YAMLError:
            raise EvaluationError(f"--set {setting}: {value!r} is not a value or v1,v2") from None
        many = field == "levels" or len(values) > 1
        content[name][field] = values if many else values[0]
    try:
        return Evaluations.model_validate(content).asked()
    except ValidationError as error:
        raise EvaluationError("\n".join(map(_line, error.errors(include_url=False)))) from None


def replaced(rows: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any]) -> list[str]:
    """What evaluations take the place of, in words: how many trials, and other settings.

    Args:
        rows: of the trials table.
        wanted: evaluations that are to be made of them, as :meth:`Evaluations.asked`.

    >>> replaced([{"evaluations": '{"fgsm": {"levels": [0, 8]}}'}], {"fgsm": {"levels": [4]}})
    ['fgsm replaces the earlier one of 1 trial (levels = 0, 8)']
    """
    found: Counter[str] = Counter()
    for row in rows:
        has = json.loads(row["evaluations"] or "{}")
        for name in (name for name in wanted if has.get(name, wanted[name]) != wanted[name]):
            old = {n: v for n, v in has[name].items() if wanted[name].get(n) != v}
            found[f"{name} replaces the earlier one of {{}} ({_told(old)})"] += 1
    return [line.format(f"{n} trial{'s' * (n > 1)}") for line, n in found.items()]


def changed(asked: Mapping[str, Mapping[str, Any]]) -> str:
    """Evaluations in words, with the settings that are not the defaults.

    >>> changed(read(["noise", "pgd"], ["pgd.steps=5"]))
    'noise, pgd (steps = 5)'
    """
    words = []
    for name, settings in asked.items():
        default = PARTS[name]().model_dump()
        other = {field: value for field, value in settings.items() if default[field] != value}
        words.append(f"{name} ({_told(other)})" if other else name)
    return ", ".join(words)


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} = {', '.join(f'{v:g}' for v in (value if isinstance(value, list) else [value]))}"
        for name, value in settings.items()
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about a word that is not among those known: which one is nearest."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _line(problem: Any) -> str:
    """One of pydantic's errors in words."""
    first, *rest = map(str, problem["loc"])
    if problem["type"] == "extra_forbidden":
        model = PARTS[first] if rest else Evaluations
        word, allowed = (rest or [first])[0], ", ".join(model.model_fields)
        hint = did_you_mean(word, model.model_fields)
        return f"{first + ': ' if rest else ''}no {word!r}; should be one of {allowed}{hint}"
    told = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{'.'.join([first, *rest[:1]])} = {problem['input']!r}: {told}"
