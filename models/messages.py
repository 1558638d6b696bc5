"""How messages quote what a user gave: on one line, and cut before it is formatted."""

import reprlib
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

MOST = 120  # characters of a quoted value
MOST_NAME = 200  # characters of a file name or a path


class _Brief(reprlib.Repr):
    """Python's notation, cut at every level, so a huge value costs no more than a small one."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 20, 20, 20
        self.maxstring = self.maxother = MOST

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write integers of more than 4,300 digits."""
        if x.bit_length() > 4 * MOST:
            return f"an integer of about {int(x.bit_length() * 0.30103) + 1} digits"
        return repr(x)


_brief = _Brief()


def short(value: Any, most: int = MOST) -> str:
    """A value in Python's notation, at most ``most`` characters long.

    >>> short([0, "x" * 500], 40)
    "[0, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    text = _brief.repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def plain(name: object, most: int = MOST_NAME) -> str:
    """A file name, path or field as it was typed; in quotes if it has invisible characters.

    Names that are too long lose their middle.

    >>> plain("runs/demo")
    'runs/demo'
    >>> plain("a\\nb")
    "'a\\\\nb'"
    """
    text = str(name)
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 2 :]}"
    return text if text and text.isprintable() else repr(text)


def several(names: Iterable[object], most: int = 10) -> str:
    """Names with commas between them; only the first ones if there are many.

    >>> several(range(12), 3)
    '0, 1, 2, and 9 more'
    """
    words = [plain(name, MOST // 2) for name in names]
    rest = [f"and {len(words) - most} more"] if len(words) > most else []
    return ", ".join(words[:most] + rest)


def field_name(path: Iterable[object]) -> str:
    """A field by its way from the root: keys with dots between them, indices in brackets.

    >>> field_name(["zip", 0, "K"])
    'zip[0].K'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return plain(text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has no message."""
    lines = str(error).strip().splitlines()
    return plain(lines[0], 2 * MOST_NAME) if lines else type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for the end of a message about an unknown word; empty if no known word is close.

    >>> did_you_mean("Gama", ["gamma", "seed"])
    '; did you mean gamma?'
    """
    word = word[:MOST].strip()
    by_lower_case = {one.lower(): one for one in known if one}
    plain_word = unicodedata.normalize("NFKC", word).lower()
    close = get_close_matches(plain_word, list(by_lower_case), n=1)
    if not close:
        return ""
    odd = next((letter for letter in word if not letter.isascii()), None)
    letter = f" ({odd!r} is U+{ord(odd):04X}, not a plain letter)" if odd else ""
    return f"; did you mean {by_lower_case[close[0]]}?{letter}"
