"""Settings of the command line, ``--set field=v1,v2``, which replace fields of a file."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from models.config import ARGUMENT
from models.messages import plain
from tune_jobs import yaml_file
from tune_jobs.budget import from_text
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import as_settings
from tune_jobs.explain import Places, Way, at


def split(setting: str) -> tuple[str, list[Any]]:
    """Split a setting into its name and its values.

    >>> split("gamma=0,1e-3")
    ('gamma', [0, 0.001])

    Raises:
        SweepError: the text does not look like a setting, or a value cannot be read.
    """
    name, equals, text = setting.partition("=")
    shown = f"--set {plain(setting)}"
    if not equals or not name.strip():
        raise SweepError(f"{shown}: should be field=value or field=v1,v2")
    try:
        return name.strip(), yaml_file.values(text)
    except yaml_file.YamlError as error:
        raise SweepError(f"{shown}: {error}; should be field=value or field=v1,v2") from None


def gathered(
    where: str, content: Mapping[str, Any], places: Places
) -> tuple[dict[str, Any], Places]:
    """Gather ``model.NAME`` in a mapping ``model``, at the top level and in groups.

    Raises:
        SweepError: an argument is given in both forms.
    """
    content, places = _gather(where, dict(content), dict(places), ())
    for section in ("zip", "exclude", "when"):
        groups = content.get(section)
        for number, group in enumerate(groups if isinstance(groups, list) else []):
            if isinstance(group, dict):
                way: Way = (section, number)
                group, places = _gather(where, dict(group), places, way)
                if isinstance(asked := group.get("if"), dict):
                    group["if"], places = _gather(where, dict(asked), places, (*way, "if"))
                groups = list(content[section])
                groups[number] = group
                content[section] = groups
    return content, places


def _gather(
    where: str, content: dict[str, Any], places: Places, way: Way
) -> tuple[dict[str, Any], Places]:
    flat = [name for name in content if isinstance(name, str) and name.startswith(ARGUMENT)]
    if not flat:
        return content, places
    whole = content.get("model", {})
    for name in flat:
        inner = name.removeprefix(ARGUMENT)
        if not isinstance(whole, dict) or inner in whole:
            raise SweepError(f"{at(where, places, *way, name)}: {name}: model has it, too")
        whole = whole | {inner: content.pop(name)}
        start = (*way, name)
        places = {
            (*way, "model", inner, *key[len(start) :]) if key[: len(start)] == start else key: line
            for key, line in places.items()
        }
    return content | {"model": whole}, places


def apply(
    content: Mapping[str, Any], places: Places, settings: Sequence[str], aliases: Sequence[set[str]]
) -> tuple[dict[str, Any], Places]:
    """Apply settings to the content of a file, and note where each value comes from.

    Args:
        content: the content of the file.
        places: the lines of its values.
        settings: the settings of the command line.
        aliases: sets of names that stand for one field, such as K and stages.

    Raises:
        SweepError: a setting cannot be read, or an earlier one already sets the same field.
    """
    content, places = dict(content), dict(places)
    earlier: list[str] = []
    for setting in settings:
        name, values = split(setting)
        way = tuple(name.split("."))
        outer, inner = way[0], way[1:]
        same = next((names for names in aliases if name in names), {name})
        for before in earlier:
            if before in same or before.startswith(f"{name}."):
                raise SweepError(
                    f"--set {plain(setting)}: an earlier --set {plain(before)} sets it already; "
                    "give one of them"
                )
        earlier.append(name)
        single = values[0] if len(values) == 1 else values
        if inner:
            if outer == "model":
                argument = ".".join(inner)
                content, places = _regrouped(content, places, partial(_without_argument, argument))
            content[outer] = _with(_expanded(outer, content.get(outer), setting), inner, single)
        else:
            content, places = _without(content, places, same)
            content[name] = single
        said = f"--set {setting}"
        places = {way[:2]: said, **places, way: said}
    return content, places


def _with(old: Any, way: Sequence[str], value: Any) -> Any:
    """A mapping with a new value for a part of it, or for a part of a part."""
    if not way:
        return value
    known = old if isinstance(old, dict) else {}
    return known | {way[0]: _with(known.get(way[0]), way[1:], value)}


def _expanded(name: str, value: Any, setting: str) -> Any:
    """The value of a field with parts as a mapping, if a text or a list stands for one.

    Raises:
        SweepError: it stands for no budget or names no evaluations.
    """
    try:
        return {"evaluations": as_settings, "budget": from_text}.get(name, lambda v: v)(value)
    except ValueError as error:
        raise SweepError(
            f"--set {plain(setting)}: the {name} that it changes {error}; correct that first"
        ) from None


def _without(
    content: dict[str, Any], places: Places, names: set[str]
) -> tuple[dict[str, Any], Places]:
    """Remove a field from the content, and from groups of zip and when, but not from an if."""

    def left(group: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in group.items() if key not in names}

    places = {way: place for way, place in places.items() if not way or way[0] not in names}
    return _regrouped(left(content), places, left)


def _without_argument(name: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """A group without an argument of the architecture."""
    model = group.get("model")
    if not isinstance(model, dict) or name not in model:
        return dict(group)
    kept = {key: value for key, value in model.items() if key != name}
    others = {key: value for key, value in group.items() if key != "model"}
    return others | ({"model": kept} if kept else {})


def _regrouped(
    content: dict[str, Any], places: Places, left: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> tuple[dict[str, Any], Places]:
    """Replace each group by what ``left`` returns, and drop a changed group without any axis."""
    for section in ("zip", "when"):
        groups = content.get(section)
        if not isinstance(groups, list):
            continue
        found = [left(group) if isinstance(group, dict) else group for group in groups]
        if found == groups:
            continue
        pairs = zip(found, groups, strict=True)
        kept = [group for group, old in pairs if group == old or {*group} - {"if"}]
        places = {way: place for way, place in places.items() if way[:1] != (section,)}
        content = content | {section: kept}
    return content, places
