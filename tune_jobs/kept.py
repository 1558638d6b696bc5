"""Which folders have a sweep, and what they keep about it: ``sweep.json``, ``progress.json``.

Files are checked when they are read, so that a changed one is named and costs no traceback.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pyarrow.fs import FileType
from pydantic import BaseModel, ConfigDict, ValidationError

from models.config import TrialConfig
from models.messages import field_name
from scoring import places, storage
from scoring.places import argument
from tune_jobs.sweep import Resources
from tune_jobs.weights import Keep


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Search(_Part):
    trials: int
    objectives: dict[str, str] | None = None


class Description(_Part):
    """The content of ``sweep.json``, as far as it is used; earlier versions lack some of it."""

    name: str
    description: str = ""
    trials: list[TrialConfig]
    extra: list[TrialConfig]
    search: _Search | None = None
    seeds: int = 1
    ended: dict[str, int] = {}
    scheduler: dict[str, Any] | None = None
    evaluations: dict[str, dict[str, Any]] = {}
    resources: Resources = Resources()
    keep: Keep = "final"
    precision: Literal["", "float32", "bfloat16"] = ""  # what auto stands for

    @property
    def suggested(self) -> list[TrialConfig]:
        """The cells that the search has suggested; empty without a search."""
        return self.trials if self.search else []

    @property
    def objectives(self) -> Mapping[str, str] | None:
        """The objectives of the search; None without a search."""
        return self.search.objectives if self.search else None

    @property
    def to_suggest(self) -> int:
        """How many trials the search is still to suggest; 0 without a search."""
        search = self.search
        return to_suggest(search.trials, self.trials, self.seeds, self.ended) if search else 0


class _Running(_Part):
    label: str
    epoch: int
    epochs: int


class Progress(_Part):
    """The content of ``progress.json``."""

    running: dict[str, _Running]
    seconds_left: float | None


def to_suggest(
    wanted: int, trials: Sequence[TrialConfig], seeds: int = 1, ended: Mapping[str, int] = {}
) -> int:
    """How many trials a search is still to suggest; with several seeds, at most.

    Args:
        wanted: cells that the search should have.
        trials: the trials that it has suggested.
        seeds: of each cell.
        ended: as for :func:`tune_jobs.folder.claim`.
    """
    if seeds == 1:
        return max(0, wanted - len(trials))
    cells = max(wanted, sum(trial.seed == 0 for trial in trials))
    dropped = sum(seeds - count for count in ended.values())
    return max(0, cells * seeds - dropped - len(trials))


def wrong(error: ValidationError) -> str:
    """The first thing that is wrong with a file, in a few words."""
    first = error.errors(include_url=False)[0]
    return f"{field_name(first['loc'])}: {first['msg'].lower()}" if first["loc"] else first["msg"]


def below(parent: str) -> list[str]:
    """The sweeps' folders in a folder, sorted by name; empty if that is a sweep's folder itself.

    It is also empty for a folder that cannot be read; ``geosweep status`` says why.
    """
    try:
        found = [] if _is_sweep(parent) else storage.infos(parent, "")
    except (OSError, storage.StoreError):
        return []
    names = sorted(info.base_name for info in found if info.type == FileType.Directory)
    return [each for name in names if _is_sweep(each := storage.subfolder(parent, name))]


def _is_sweep(folder_: str) -> bool:
    try:
        return storage.read_file(folder_, places.SWEEP) is not None
    except OSError:  # it cannot be read
        return False
    except storage.Damaged:  # ``geosweep status`` says what is wrong
        return True


def instead(root: str, there: bool) -> str:
    """What to do about a folder without a sweep.

    Args:
        root: the folder, an absolute path or a URI.
        there: whether the folder exists.
    """
    parent = root.rpartition("/")[0] or "/"
    near = [root] if parent.endswith(":/") else [root, parent]
    if found := next(filter(below, near), None):
        return f"is it another folder? geosweep status {argument(found)} lists the sweeps there"
    if around := next(filter(_is_sweep, _parents(root)), None):
        return f"is it another folder? geosweep status {argument(around)} shows the sweep there"
    return "is it another folder?" if there else f"geosweep run SWEEP --out {argument(root)}"


def _parents(root: str) -> Iterator[str]:
    """The nearest folders that a folder is in; no part of a sweep's folder is deeper in it."""
    for _ in range(2):
        root = root.rpartition("/")[0]
        if not root or root.endswith(":/"):
            return
        yield root
