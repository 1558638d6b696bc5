"""Damage to a file: parts of it are changed, or another thing is in its place."""

import io
import json

import numpy as np
from hypothesis import strategies as st

SHARE = st.floats(0, 1, exclude_max=True)
OTHER = st.sampled_from([b"[]", b"3", b"null", b'"x"', b"{}", b"[" * 50_000, b"PK\3\4", b"\0\xff"])


class Made(tuple):
    """What a fixture made, with a short name for Hypothesis, which prints it."""

    def __new__(cls, *parts):
        return super().__new__(cls, parts)

    def __repr__(self):
        return f"Made({self[0]})"


@st.composite
def damages(draw):
    """A function that damages a file, and how."""
    how = draw(st.sampled_from(["truncate", "flip", "replace", "folder", "delete", "inside"]))
    share, bit, other = draw(SHARE), draw(st.integers(0, 7)), draw(OTHER)

    def damage(path):
        content = bytearray(path.read_bytes())
        if how == "truncate":
            content = content[: int(share * len(content))]
        elif how == "flip":
            content[int(share * len(content))] ^= 1 << bit
        elif how == "replace":
            content = other
        elif how == "inside":
            content = change(content, share, bit)
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how != "delete":
            path.write_bytes(content)

    damage.__name__ = f"{how} {share:.3g} {bit} {other[:4]}"
    return damage


def change(content, share, bit):
    """Drop something inside a JSON file or an archive, or give it another type."""
    if content[:1] == b"{":
        lines = content.splitlines()
        at = int(share * len(lines))
        here = json.loads(lines[at])
        spot = here
        while True:
            name = list(spot)[int(share * len(spot))]
            if not (isinstance(spot[name], dict) and spot[name]) or bit == 0:
                break
            spot = spot[name]
        if bit % 2:
            del spot[name]
        else:
            spot[name] = [{}, "x"][bit % 4 // 2]
        lines[at] = json.dumps(here).encode()
        return b"\n".join(lines)
    try:
        with np.load(io.BytesIO(content)) as found:
            arrays = dict(found)
    except Exception:  # weights, or a table
        return content[::-1]
    name = sorted(arrays)[int(share * len(arrays))]
    if bit % 2:
        del arrays[name]
    else:
        name = "history" if "history" in arrays else name
        arrays[name] = np.array("{}")
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()
