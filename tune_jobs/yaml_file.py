"""A YAML reader without the surprises of YAML 1.1, such as ``yes`` that becomes true.

PyYAML's safe parser splits the text into events. This module resolves null, true and false, and the
numbers of :mod:`models.fields`. Everything else stays text, such as ``yes``, ``012``, ``1:30`` or a
date, and its field accepts or refuses it. Keys are always text.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from models.fields import read_number
from models.files import open_text
from models.messages import field_name, first_line, plain

MOST_BYTES = 250_000
MOST_LEVELS = 20  # of nested lists and mappings
MOST_VALUES = 20_000  # after aliases are expanded

CORE = "tag:yaml.org,2002:"
NULL = ("", "~", "null", "Null", "NULL")
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
QUOTED = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'(?:[^']|'')*'""", re.DOTALL)
BREAKS = {"\x85": "U+0085", "\u2028": "U+2028", "\u2029": "U+2029"}

Place = tuple[str | int, ...]  # keys and indices from the root of the document to a value
Lines = dict[Place, int]


class YamlError(ValueError):
    """A text is not YAML, or is YAML that this program refuses.

    Args:
        problem: what is wrong, and what to write instead.
        line: the line of the problem, counted from 1; 0 if it concerns the whole file.
    """

    def __init__(self, problem: str, line: int = 0):
        super().__init__(problem)
        self.line = line


def read_text(path: Path) -> str:
    """Read the text of a regular file, or of a pipe from the shell, of at most ``MOST_BYTES``.

    Raises:
        YamlError: it is another kind of file, too large, unreadable or not UTF-8.
    """
    try:
        with open_text(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise YamlError(f"cannot be read: {plain(error.strerror or error)}") from error
    if len(content) > MOST_BYTES:
        raise YamlError(f"is larger than {MOST_BYTES:,} bytes; such a file is a short text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise YamlError("cannot be read: it is not UTF-8; save it as UTF-8", line) from error


def dump(content: Mapping[str, Any]) -> str:
    """Write a mapping of Python values, such as a sweep in a notebook, as YAML text.

    Arrays, tensors, ranges, sets and tuples become lists. Values of 16 and 32 bits get the
    fewest digits that tell them apart: the float32 nearest to 0.1 becomes 0.1, as in a file.

    >>> dump({"gamma": (0, 1e-5), "seed": range(2)})
    '{"gamma": [0, 1e-05], "seed": [0, 1]}'

    Raises:
        YamlError: a value is of a type that no file holds.
    """
    try:
        return json.dumps(dict(content), default=_as_plain, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise YamlError(f"has what no file holds: {first_line(error)}") from error


def _as_plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        kind = getattr(value, "dtype", "")  # of NumPy, pandas or torch
        name = getattr(kind, "name", str(kind)).removeprefix("torch.")
        return _as_written(value.tolist(), NARROW[name]) if name in NARROW else value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, range | set | frozenset):
        return sorted(value) if isinstance(value, set | frozenset) else list(value)
    raise TypeError(f"a value of type {type(value).__name__}")


def _as_written(value: Any, kind: Callable[[float], Any]) -> Any:
    if isinstance(value, list):
        return [_as_written(one, kind) for one in value]
    return float(str(kind(value)))


def _bfloat16(value: float) -> float:
    """The number with the fewest digits that bfloat16, with its 8 bits, rounds to this one."""

    def rounded(number: float) -> float:
        fraction, exponent = math.frexp(number)
        return math.ldexp(round(fraction * 256), exponent - 8)

    shorter = (float(f"{value:.{digits}g}") for digits in range(1, 5))
    return next((one for one in shorter if math.isfinite(one) and rounded(one) == value), value)


NARROW = {"float16": np.float16, "float32": np.float32, "bfloat16": _bfloat16}


def parse(text: str, overriding: bool = False) -> tuple[Any, Lines]:
    """Parse the one document in a text; also return the line of each of its values.

    Args:
        text: YAML.
        overriding: whether a mapping may give again what ``<<`` has given it, as in Ray's files.

    >>> parse("gamma: [0, 1e-3]\\nname: 2026-01-01")[0]
    {'gamma': [0, 0.001], 'name': '2026-01-01'}

    Raises:
        YamlError: the text is not YAML, or is YAML that this program refuses.
    """
    for letter, name in BREAKS.items():
        if letter in text:
            line = text[: text.index(letter)].count("\n") + 1
            raise YamlError(f"has the invisible line break {name}; delete it", line)
    return _Document(text, overriding).read()


def values(text: str) -> list[Any]:
    """Parse the values of a command line, separated by commas, as if they stood in a file.

    A text in quotes is one value. A list alone stands for its values, if they are several.

    >>> values("0,1e-3,plain")
    [0, 0.001, 'plain']
    >>> values("[0, 1e-3]"), values('"x, y"')
    ([0, 0.001], ['x, y'])

    Raises:
        YamlError: a value is missing, or :func:`parse` refuses it.
    """
    parts = _parts(text)
    if not all(part.strip() for part in parts):
        raise YamlError("a value is missing")
    found = [parse(part)[0] for part in parts]
    alone = len(found) == 1 and isinstance(found[0], list) and len(found[0]) > 1
    return found[0] if alone else found


def _parts(text: str) -> list[str]:
    """Split a text at its commas, except those in quotes and in brackets that begin a value."""
    parts, begin, place, depth = [], 0, 0, 0
    before = ","  # the last letter that is no space
    while place < len(text):
        letter = text[place]
        starts = before == "," or (depth and before in "[{:")
        if starts and (quoted := QUOTED.match(text, place)):
            place, before = quoted.end(), '"'
            continue
        if letter in "[{" and (starts or depth):
            depth += 1
        elif letter in "]}" and depth:
            depth -= 1
        elif letter == "," and not depth:
            parts.append(text[begin:place])
            begin = place + 1
        place, before = place + 1, before if letter.isspace() else letter
    return [*parts, text[begin:]]


class _Document:
    """The state of reading one document: the parser, anchors, and how much was read."""

    def __init__(self, text: str, overriding: bool):
        try:
            self._parser = yaml.SafeLoader(text)
        except yaml.YAMLError as error:
            raise _not_yaml(error, text) from error
        self._text = text
        self._overriding = overriding
        self._values = 0
        self._anchors: dict[str, tuple[Any, int]] = {}  # each value, and how many it contains
        self._lines: Lines = {}

    def read(self) -> tuple[Any, Lines]:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None, {}
        content = self._node(self._next(), (), 0)
        self._next()  # the end of the document
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            line = event.start_mark.line + 1
            raise YamlError("a second document begins here; a file has one, so delete ---", line)
        return content, self._lines

    def _next(self) -> yaml.Event:
        try:
            event = self._parser.get_event()
        except yaml.YAMLError as error:
            raise _not_yaml(error, self._text) from error
        except (ValueError, OverflowError) as error:
            problem = "not YAML: an escape like \\U0001F600, or a version, is out of range"
            raise YamlError(problem, self._parser.line + 1) from error
        assert event is not None
        return event

    def _node(self, event: yaml.Event, path: Place, level: int) -> Any:
        line = event.start_mark.line + 1
        self._lines.setdefault(path, line)
        self._count(1, line)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise YamlError(f"*{plain(event.anchor)} has no anchor before it", line)
            found, inside = self._anchors[event.anchor]
            self._count(inside, line)
            return found
        before = self._values
        if level == MOST_LEVELS and not isinstance(event, yaml.ScalarEvent):
            raise YamlError(f"lists and mappings go at most {MOST_LEVELS} levels deep", line)
        if isinstance(event, yaml.ScalarEvent):
            found = _scalar(event, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event.tag, "seq", line)
            found = self._sequence(path, level + 1)
        else:
            assert isinstance(event, yaml.MappingStartEvent)
            _check_tag(event.tag, "map", line)
            found = self._mapping(path, level + 1)
        if event.anchor:
            if event.anchor in self._anchors:
                raise YamlError(f"the anchor &{plain(event.anchor)} is given twice", line)
            self._anchors[event.anchor] = found, self._values - before
        return found

    def _count(self, more: int, line: int) -> None:
        self._values += more
        if self._values > MOST_VALUES:
            raise YamlError(f"more than {MOST_VALUES:,} values, aliases included", line)

    def _sequence(self, path: Place, level: int) -> list[Any]:
        found = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._node(event, (*path, len(found)), level))
        return found

    def _mapping(self, path: Place, level: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        given: dict[str, int] = {}  # the line of each key of this mapping, "<<" included
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise YamlError("a key should be a word", line)
            _check_tag(event.tag, "str", line)
            self._count(1, line)
            key = event.value
            merges = key == "<<" and event.style is None
            self._once(given, path, key, line)
            content = self._node(self._next(), (*path, key), level)
            for part in _merged(content, line) if merges else [{key: content}]:
                for name, inner in part.items():
                    if merges and not self._overriding:
                        self._once(given, path, name, line)
                    if not merges or name not in found:
                        found[name] = inner
        return found

    def _once(self, given: dict[str, int], path: Place, key: str, line: int) -> None:
        if key in given:
            lines = f"in line {given[key]} already" if given[key] != line else "twice in this line"
            raise YamlError(f"{field_name((*path, key))} is given {lines}; give it once", line)
        given[key] = line
        self._lines[(*path, key)] = line


def _merged(content: Any, line: int) -> list[dict[str, Any]]:
    """The mappings that ``<<`` merges into its own mapping."""
    parts = content if isinstance(content, list) else [content]
    if not all(isinstance(part, dict) for part in parts):
        raise YamlError("<< merges a mapping, or a list of mappings", line)
    return parts


def _scalar(event: yaml.ScalarEvent, line: int) -> Any:
    try:
        event.value.encode()
    except UnicodeEncodeError:
        raise YamlError("a \\u escape here is half of a character", line) from None
    resolved = _resolve(event.value)
    if event.tag is None:
        return resolved if event.style is None else event.value
    kind = event.tag.removeprefix(CORE)
    if kind == "float" and type(resolved) is int:
        return resolved
    names = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}
    _check_tag(event.tag, "str" if kind == "str" else names[type(resolved)], line)
    return event.value if kind == "str" else resolved


def _resolve(text: str) -> Any:
    """What a plain scalar stands for."""
    if text in NULL:
        return None
    if text in TRUE or text in FALSE:
        return text in TRUE
    found = read_number(text)
    return text if found is None else found


def _check_tag(tag: str | None, kind: str, line: int) -> None:
    if tag not in (None, CORE + kind):
        shown = plain(tag).replace(CORE, "!!")
        raise YamlError(f"the tag {shown} is not allowed; delete it", line)


def _not_yaml(error: yaml.YAMLError, text: str) -> YamlError:
    """Turn PyYAML's error into plain words, with its line."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem, line = getattr(error, "problem", None) or "cannot be parsed", mark.line + 1
    elif isinstance(error, yaml.reader.ReaderError):
        problem = f"the character U+{error.character:04X} is not allowed"
        line = text[: error.position].count("\n") + 1
    else:
        problem, line = first_line(error), 0
    if "'\\t'" in problem:
        problem = "there is a tab where YAML allows only spaces; indent with spaces"
    return YamlError(f"not YAML: {plain(problem)}", line)
