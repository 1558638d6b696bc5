"""One claim of the paper in a sweep, without the others."""

from pathlib import Path

import pytest

from analysis import claims as script
from analysis.claims import CLAIMS, claims
from analysis.results import Results, load


def line(root: Path, name: str) -> dict:
    """The row of one claim in a folder."""
    return row_of(load(root), name)


def row_of(results: Results, name: str) -> dict:
    """The row of one claim; to save time, the others are not checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "CLAIMS", [claim for claim in CLAIMS if claim.name == name])
        (row,) = claims(results).to_dict("records")
    return row
