"""The Optuna study of a search, which suggests cells one by one and remembers them.

The study is stored in ``study.log`` in the sweep's folder, in the format of Optuna's journal files,
so ``optuna-dashboard runs/NAME/study.log`` can show it. A suggested cell is treated like any other
cell: a search that was killed first trains its unfinished cells, then suggests new ones.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.config import TrialConfig
from scoring import checked, storage
from scoring.places import STUDY
from tune_jobs.errors import SweepError
from tune_jobs.search import Better, Search, Space, Span

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

AGAIN = 20  # after so many repeated suggestions in a row take any new cell; before, ask again
TOWARDS: dict[Better, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}


class Study:
    """The cells that a search has suggested, and their results.

    Every suggestion depends only on the study so far and on its own seed, so an interrupted
    search continues as it would have without the interruption.

    Args:
        root: the sweep's folder.
        search: the objectives, the sampler, the seed and the number of cells.
        space: the axes of the search.
        fixed: the fields that are the same in every cell.
        known: the cells that the search has suggested so far.
        again: begin a new study with those cells, because the file of the study was lost.

    Raises:
        SweepError: the folder holds a study with a different space, objective or fixed field.
        storage.Damaged: the file of the study is damaged or missing, or it lacks known cells.
    """

    def __init__(
        self,
        root: str,
        search: Search,
        space: Space,
        fixed: Mapping[str, Any],
        known: Sequence[TrialConfig] = (),
        again: bool = False,
    ):
        import optuna
        from optuna.storages import JournalStorage

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._search, self._space, self._fixed = search, space, dict(fixed)
        self._distributions = _distributions(space)
        about = {"objectives": search.objectives, "space": _told(space), "fixed": self._fixed}
        self._numbers: dict[str, int] = {}  # number of Optuna's trial, by our trial ID
        self._cells: list[TrialConfig] = []
        if known and not again and storage.read_file(root, STUDY) is None:
            raise storage.Damaged(root, STUDY, "it is missing")
        with storage.reading(root, STUDY):  # Optuna believes what the file says
            self._study = optuna.create_study(
                storage=JournalStorage(_journal(root)),
                study_name="geosweep",
                directions=[TOWARDS[better] for better in search.objectives.values()],
                load_if_exists=True,
            )
            stored = self._study.user_attrs.get("about", about)
            differs = [(what, stored[what]) for what in about if stored[what] != about[what]]
        for what, other in differs:
            raise SweepError(
                f"{root}/{STUDY}: is of a search with {what} {other}, not {about[what]}; "
                "choose another folder with --out"
            )
        if "about" not in self._study.user_attrs:
            self._study.set_user_attr("about", about)
        if again:
            self._begin_with(known)
        with storage.reading(root, STUDY):
            for suggested in self._study.get_trials(deepcopy=False):
                self._add(self._config(suggested.params), suggested.number)
        lacking = [cell.trial for cell in known if cell.trial not in self._numbers]
        if lacking and not again:
            raise storage.Damaged(root, STUDY, f"it lacks {len(lacking)} cells that were suggested")

    def _begin_with(self, known: Sequence[TrialConfig]) -> None:
        """Suggest cells to a new study, as far as its space has them."""
        for cell in known:
            fields = cell.model_dump()
            params: dict[str, Any] = {}
            for name, axis in self._space.items():
                if isinstance(axis, Span):
                    params[name] = fields[name]
                    continue
                for choice, values in axis.items():
                    if values.items() <= fields.items():
                        params[name] = choice
            if params.keys() == self._space.keys() and self._config(params) == cell:
                self._study.enqueue_trial(params)
                self._study.ask(self._distributions)

    @property
    def cells(self) -> list[TrialConfig]:
        """Every cell suggested so far, in order."""
        return list(self._cells)

    @property
    def left(self) -> int:
        """How many cells are still to be suggested."""
        return max(0, self._search.trials - len(self._cells))

    def suggest(self) -> TrialConfig:
        """Suggest a new cell. Call only while :attr:`left` is above 0."""
        from optuna.trial import TrialState

        for attempt in range(AGAIN + 1):
            number = len(self._study.get_trials(deepcopy=False))
            self._study.sampler = _sampler(self._search, number)
            if attempt == AGAIN:
                self._study.enqueue_trial(self._unseen())
            asked = self._study.ask(self._distributions)
            config = self._config(asked.params)
            if self._add(config, asked.number):
                return config
            self._study.tell(asked.number, state=TrialState.FAIL)  # the cell exists already
        raise AssertionError("a cell that was enqueued is new")

    def _unseen(self) -> dict[str, Any]:
        """Parameters of a cell not suggested yet. The space must have no continuous axis."""
        for choice in itertools.product(*self._space.values()):
            params = dict(zip(self._space, choice, strict=True))
            if self._config(params).trial not in self._numbers:
                return params
        raise AssertionError("there are cells left")

    def tell(self, trial: str, row: Mapping[str, Any]) -> None:
        """Tell the study the result of a cell.

        A row that is done or has no status gives the values, if every objective is finite. A done
        row without them, and a diverged or stopped row, marks the cell as failed in the study.
        Any other row, or a second result of the same cell, changes nothing.
        """
        from optuna.trial import TrialState

        number = self._numbers.get(trial)
        if number is None or self._study.get_trials(deepcopy=False)[number].state.is_finished():
            return
        status = row.get("status", "done")
        known = (row.get(name) for name in self._search.objectives)
        values = [value for value in known if value is not None and math.isfinite(value)]
        if status == "done" and len(values) == len(self._search.objectives):
            self._study.tell(number, values)
        elif row.get("status") in ("done", "diverged", "stopped"):  # ended without a value
            self._study.tell(number, state=TrialState.FAIL)

    def _add(self, config: TrialConfig, number: int) -> bool:
        if config.trial in self._numbers:
            return False
        self._numbers[config.trial] = number
        self._cells.append(config)
        return True

    def _config(self, params: Mapping[str, Any]) -> TrialConfig:
        cell = dict(self._fixed)
        for name, axis in self._space.items():
            cell |= {name: params[name]} if isinstance(axis, Span) else axis[params[name]]
        return TrialConfig.model_validate(cell)


def _distributions(space: Space) -> dict[str, "BaseDistribution"]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: FloatDistribution(axis.low, axis.high, log=axis.log)
        if isinstance(axis, Span)
        else CategoricalDistribution(list(axis))
        for name, axis in space.items()
    }


def _sampler(search: Search, number: int) -> Any:
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    return TPESampler(seed=seed) if search.sampler == "tpe" else RandomSampler(seed)


def _told(space: Space) -> dict[str, Any]:
    return {
        name: axis.model_dump() if isinstance(axis, Span) else list(axis)
        for name, axis in space.items()
    }


def _journal(root: str) -> Any:
    """Optuna's journal in a sweep's folder, local or not. Only the driver writes to it."""
    from optuna.storages.journal import BaseJournalBackend

    class Journal(BaseJournalBackend):
        def __init__(self) -> None:
            self._content = storage.read_file(root, STUDY) or b""

        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            return [checked.load(line) for line in self._content.splitlines()[log_number_from:]]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            if self._content and not self._content.endswith(b"\n"):
                self._content += b"\n"
            self._content += b"".join(checked.dump(log) + b"\n" for log in logs)
            storage.write_file(root, STUDY, self._content)

    return Journal()
