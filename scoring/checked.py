"""JSON objects with a checksum, so that a changed byte in a file is noticed."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

CHECKSUM = "crc32"


def dump(content: Mapping[str, Any]) -> bytes:
    """A JSON object with the checksum of its other members, on one line.

    >>> dump({"a": 1})
    b'{"a": 1, "crc32": 4221669015}'
    """
    return json.dumps({**content, CHECKSUM: _checksum(content)}).encode()


def load(text: bytes) -> dict[str, Any]:
    """The members of an object from :func:`dump`, or from an earlier version without checksums.

    Raises:
        ValueError: the text is not a JSON object, or its checksum does not match.
        RecursionError: the object is nested too deeply.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    checksum = content.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(content):
        raise ValueError("its checksum does not match")
    return content


def _checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(dict(content)).encode())
