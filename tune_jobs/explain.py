"""Explains what is wrong with a sweep file: pydantic's errors in plain words, one line each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from models.messages import did_you_mean, field_name, plain, short

MOST_LINES = 10
KINDS = {  # type of a pydantic error -> its message here
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "float_type": "should be one number",
    "int_type": "should be one whole number",
    "list_type": "should be a list: [a, b], or lines that start with -",
    "model_type": "should be a mapping: {field: value}, or lines like field: value",
    "string_type": "should be one string",
    "too_short": "is empty; should have at least one value",
}
LIMITS = {"greater_than_equal": "ge", "greater_than": "gt", "less_than_equal": "le"}
LIMITS |= {"less_than": "lt"}  # type of a pydantic error -> the rule that a number breaks

Way = tuple[str | int, ...]  # keys and indices from the root of the content to a value
Places = dict[
    Way, int | str
]  # where a value comes from: line of a file, 0 without file, or a --set


def at(source: str, places: Places, *way: str | int) -> str:
    """The start of a message: the file, and the line or the setting that a value comes from.

    >>> places = {("gamma",): 3, ("K",): "--set K=7"}
    >>> at("my.yaml", places, "gamma", 1), at("my.yaml", places, "K"), at("my.yaml", places)
    ('my.yaml, line 3', 'my.yaml, --set K=7', 'my.yaml')
    """
    place = places.get(_known(places, way))
    if not place:
        return source
    return f"{source}, line {place}" if isinstance(place, int) else f"{source}, {plain(place)}"


def _known(places: Places, way: Way) -> Way:
    """The longest prefix of a way that has a place; empty if there is none."""
    lengths = range(len(way), 0, -1)
    return next((way[:length] for length in lengths if way[:length] in places), ())


def explain(
    source: str,
    error: ValidationError,
    places: Places,
    models: Mapping[str, Any],
    aliases: Mapping[str, str],
) -> list[str]:
    """Explain errors in lines that name the file, the field, its value and what it should be.

    Args:
        source: how messages name the file.
        error: the errors that pydantic found.
        places: where each value of the content was given.
        models: section -> the model that lists its fields; "" is the whole file.
        aliases: short name -> full name of a field.
    """
    problems = error.errors(include_url=False)
    lines = [_line(source, problem, places, models, aliases) for problem in problems[:MOST_LINES]]
    if len(problems) > MOST_LINES:
        lines.append(f"{source}: and {len(problems) - MOST_LINES} more problems like these")
    return lines


def _line(
    source: str,
    problem: Any,
    places: Places,
    models: Mapping[str, Any],
    aliases: Mapping[str, str],
) -> str:
    way: Way = tuple(part for part in problem["loc"] if part != "[key]")
    start = at(source, places, *way)
    if way[-1:] == (0,) and _known(places, way) == way[:-1]:
        way = way[:-1]  # the file has a single value here, not a list
    name, kind, given = field_name(way), problem["type"], problem["input"]
    if kind == "extra_forbidden":
        *outer, word = map(str, problem["loc"])
        model = next((models[part] for part in reversed(outer) if part in models), models[""])
        return f"{start}: {name}: {_no_such_field(word, model, aliases)}"
    if kind == "missing":
        return f"{start}: {name}: is missing"
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    text = str(KINDS.get(kind, text))
    if kind in LIMITS:
        text = limits(problem["loc"], models, aliases) or text
    if kind == "too_long":
        counts = problem["ctx"]
        text = f"is {counts['actual_length']} long; should be at most {counts['max_length']} long"
    if not way:  # about fields together: the message begins with one of them
        word = text.partition(" ")[0]
        same = [word, aliases.get(word, word), *(a for a, full in aliases.items() if full == word)]
        start = at(source, places, next((name for name in same if (name,) in places), word))
    if given is None:
        text += "; leave the line out for the default"
    elif isinstance(given, str):
        text += did_you_mean(given, _choices(problem))
    return f"{start}: {name} = {short(given)}: {text}" if way else f"{start}: {text}"


def limits(way: Sequence[Any], models: Mapping[str, Any], aliases: Mapping[str, str]) -> str:
    """What a number should be, if its field has two limits; empty if it has not.

    Args:
        way: from the root of the content to the number.
        models: as for :func:`explain`.
        aliases: likewise.

    >>> from tune_jobs.search import Asha
    >>> limits(["scheduler", "factor"], {"": Asha}, {})
    'should be 1.01 to 1000'
    """
    *sections, name = ["", *(part for part in way if isinstance(part, str))]
    model = next((models[part] for part in reversed(sections) if part in models), models[""])
    rules = dict(_rules(model.model_fields.get(aliases.get(name, name))))
    if {"ge", "le"} <= rules.keys():
        return f"should be {rules['ge']} to {rules['le']}"
    low = [f"{rules['ge']} or more"] if "ge" in rules else []
    low += [f"above {rules['gt']}"] if "gt" in rules else []
    high = [f"at most {rules['le']}"] if "le" in rules else []
    high += [f"below {rules['lt']}"] if "lt" in rules else []
    return f"should be {low[0]} and {high[0]}" if low and high else ""


def _rules(part: Any) -> Iterator[tuple[str, str]]:
    """The limits of numbers in a field, in its type or in an annotation of that."""
    for rule in LIMITS.values():
        if (limit := getattr(part, rule, None)) is not None:
            yield rule, str(int(limit)) if limit == int(limit) else str(limit)
    field = isinstance(part, FieldInfo)
    for inner in (part.annotation, *part.metadata) if field else get_args(part):
        yield from _rules(inner)


def _choices(problem: Any) -> list[str]:
    """The words that are allowed, from pydantic's error or from a message of our own."""
    listed = str(problem.get("ctx", {}).get("expected", ""))
    words = [word for number, word in enumerate(listed.split("'")) if number % 2]
    return words or [w.strip() for w in problem["msg"].partition("one of ")[2].split(",")]


def _no_such_field(word: str, model: Any, aliases: Mapping[str, str]) -> str:
    names = set(model.model_fields)
    for short_name, full in aliases.items():
        if full in names:
            if word in (short_name, full):
                return f"{short_name} and {full} are one field; give one of them"
            names.add(short_name)
    hint = did_you_mean(word, names)
    return f"no such field{hint} (fields: {', '.join(sorted(names))})"
