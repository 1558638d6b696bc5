"""Where benchmarks leave their rows."""

import os
import platform
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
