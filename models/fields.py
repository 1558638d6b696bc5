"""The types of fields that users fill in: numbers as people write them, and text.

YAML 1.1 reads ``012`` as 10 and ``1:30`` as 90, and Python takes true for 1. None of that is
what people mean, so number fields refuse it and say how to write the number.
"""

import math
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator

LONGEST = 400  # characters of a number
LARGEST = 1e25  # larger ones that have a point or an exponent stay floats
EXACT = 2**53  # from here on floats skip integers

_INTEGER = re.compile(r"[-+]?(0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|\d[\d_]*)", re.ASCII)
_DECIMAL = re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?", re.ASCII)
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OCTAL = re.compile(r"[-+]?0[0-7_]*[1-7][0-7_]*", re.ASCII)
_HINTS = (
    (r"[-+]?\d+(:\d+)+(\.\d*)?", "; YAML 1.1 reads this in sixties, so write a plain number"),
    (r"\d{4}-\d{1,2}-\d{1,2}.*", "; this is a date"),
    (r"[-+]?[\d.]+\s*%", "; write a percentage as a fraction, like 0.05"),
    (r"[-+]?[\d.]+,\d+", "; write a decimal point, like 0.5, or a list, like [0, 5]"),
    (r"[-+.\deE]+([,\s]+[-+.\deE]+)+", "; write a list, like [0, 5]"),
    (r"[-+]?(nan|inf|infinity)", "; it should be finite"),
)


def read_number(text: str) -> int | float | None:
    """The number that a text stands for, or None if it is none or can be read in two ways.

    >>> [read_number(text) for text in ("1e-3", "5.", "1_000", "0x10", "0o12", "08")]
    [0.001, 5.0, 1000, 16, 10, 8]
    >>> [read_number(text) for text in ("012", "1:30", "1e999", "1__0", "yes")]
    [None, None, None, None, None]
    """
    if len(text) > LONGEST:
        return None
    try:
        if _INTEGER.fullmatch(text):
            return _integer(text)
        if _SPECIAL.fullmatch(text):
            return float(text.replace(".", ""))
        if _DECIMAL.fullmatch(text):
            value = float(text)
            digits = re.split("[eE]", text)[0]
            if math.isinf(value) or (value == 0 and re.search("[1-9]", digits)):
                return None
            exact = Decimal(text.replace("_", ""))
            return int(exact) if EXACT <= abs(value) < LARGEST and exact % 1 == 0 else value
    except ValueError:  # underscores that do not stand between digits
        pass
    return None


def _integer(text: str) -> int | None:
    leading_zero = re.match(r"[-+]?0[\d_]", text)
    if not leading_zero:
        return int(text, 0)
    value = int(text, 10)
    return None if _OCTAL.fullmatch(text) and int(text, 8) != value else value


def number(value: Any) -> Any:
    """What a number field was given, as a number if it is one.

    Raises:
        ValueError: true or false, or a text that is no number or an ambiguous one.
    """
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    if not isinstance(value, str):
        return value
    found = read_number(value.strip())
    if found is None:
        raise ValueError(f"should be a number, like 20 or 0.001{_hint(value.strip())}")
    return found


def _hint(text: str) -> str:
    if len(text) > LONGEST:
        return f", of at most {LONGEST} characters"
    if _OCTAL.fullmatch(text):
        value, octal = int(text, 10), int(text, 8)
        return f"; YAML 1.1 reads a leading zero as octal: write {value}, or {octal}"
    if _DECIMAL.fullmatch(text.replace("_", "")):
        if re.search(r"_(?!\d)|(?<!\d)_", text):
            return "; an underscore stands between two digits"
        return "; this one is outside of the range of a 64-bit float"
    if not text.isascii():
        odd = next(letter for letter in text if not letter.isascii())
        return f"; {odd!r} is U+{ord(odd):04X}"
    return next((hint for form, hint in _HINTS if re.fullmatch(form, text, re.I)), "")


def _whole(value: Any) -> Any:
    value = number(value)
    if isinstance(value, float) and EXACT <= abs(value) < math.inf:
        if abs(value) < 2**63:
            raise ValueError("should be written with all its digits, without a point or exponent")
        return int(value)
    return value


def _real(value: Any) -> Any:
    value = number(value)
    try:
        return float(value) if isinstance(value, int) else value
    except OverflowError:
        raise ValueError("is outside of the range of a 64-bit float") from None


def scalar(value: Any) -> bool | int | float | str:
    """A single value that is passed on as it is; a text that is a number becomes that number.

    Raises:
        ValueError: it is a list, a mapping or nothing, not finite, or an integer of over 64 bits.
    """
    if isinstance(value, str):
        found = read_number(value.strip())
        value = value if found is None else found
    if not isinstance(value, bool | int | float | str) or value in (math.inf, -math.inf):
        raise ValueError("should be one number or text, or true or false")
    if value != value:
        raise ValueError("should be a number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("should be an integer of 64 bits, or a text")
    return value


def _text(value: Any) -> Any:
    if isinstance(value, (bool, int, float)):
        raise ValueError("should be a string; put it in quotes")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_real)]
Text = Annotated[str, BeforeValidator(_text)]
