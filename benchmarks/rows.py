"""Where benchmarks leave their rows."""

from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def report(lines: list[str]) -> None:
    """Print lines and append them to ``RESULTS.md``."""
    print(*lines, sep="\n", flush=True)
    with RESULTS.open("a") as file:
        print(*lines, sep="\n", file=file)
