"""Where benchmarks leave their rows."""

import os
import platform
import re
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def report(lines: list[str]) -> None:
    """Print lines and append them to ``RESULTS.md``."""
    print(*lines, sep="\n", flush=True)
    with RESULTS.open("a") as file:
        print(*lines, sep="\n", file=file)


def machine() -> str:
    """The processor's name, or the architecture where it is unknown, and the number of cores."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {os.cpu_count()} cores"


def tables(title: str) -> list[tuple[str, list[dict[str, str]]]]:
    """The tables under headings ``TITLE, date...``, the oldest first: heading, and rows."""
    found = []
    for section in re.split(r"^## ", RESULTS.read_text(), flags=re.MULTILINE):
        if section.startswith(f"{title}, 2"):  # the century
            lines = [line for line in section.splitlines() if line.startswith("|")]
            heads, _, *rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
            about = section.partition("\n")[0]
            found.append((about, [dict(zip(heads, row, strict=True)) for row in rows]))
    return found


def number(cell: str | None) -> float:
    """The number in a cell, NaN if there is none."""
    try:
        return float((cell or "").replace(",", ""))
    except ValueError:
        return float("nan")
