"""How sweep files are refused."""

import os

import pytest

from tune_jobs.errors import SweepError

EXAMPLES = 200 if "CI" in os.environ else 40  # of each property


def refusal(sweep_of, content: str | bytes, *settings: str) -> str:
    """The message that a file is refused with: few lines, each of which names the file."""
    with pytest.raises(SweepError) as error:
        sweep_of(content, *settings)
    lines = str(error.value).splitlines()
    assert len(lines) <= 11
    assert all("sweep.yaml" in line or line.startswith("--set") for line in lines)
    assert max(map(len, lines)) < 1500
    return str(error.value)
