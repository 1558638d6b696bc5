"""The Optuna study of a search, which suggests cells one by one and remembers them.

The study is stored in ``study.log`` in the sweep's folder, in the format of Optuna's journal files,
so ``optuna-dashboard runs/NAME/study.log`` can show it. A suggested cell is treated like any other
cell: a search that was killed first trains its unfinished cells, then suggests new ones.

With several seeds, a trial of Optuna is a cell, and each seed of it is one of ours. Optuna is told
the means once all seeds have ended. :mod:`tune_jobs.racing` says which cells get no more seeds.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.config import TrialConfig
from scoring import storage
from scoring.places import STUDY
from tune_jobs import folder
from tune_jobs.errors import SweepError
from tune_jobs.journal import Journal
from tune_jobs.labels import label
from tune_jobs.picking import Picking, told
from tune_jobs.racing import clearly_worse
from tune_jobs.search import EPOCH_METRICS, Better, Rules, Search, Space, Span

if TYPE_CHECKING:
    from optuna.trial import Trial

NAME = "geosweep"  # of the study in its file
# Attributes of the study: what it searches, and how. Studies of earlier versions have no HOW, and
# these versions refuse a study with anything else in ABOUT.
ABOUT, HOW = "about", "how"
AGAIN = 20  # after this many repeated suggestions in a row, take any new cell
TOWARDS: dict[Better, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}


@dataclass
class _Cell:
    """A suggested cell with the seeds that it was given, from 0 on."""

    number: int  # of Optuna's trial
    config: TrialConfig  # with the first seed
    trials: list[str] = field(default_factory=list)  # ids of the trials so far, seed by seed
    values: dict[str, list[float]] = field(default_factory=dict)  # objectives of those that ended
    failed: set[str] = field(default_factory=set)  # trials that crashed, and may be tried again
    closed: bool = False  # nothing more is trained

    @property
    def known(self) -> bool:
        """Whether every trial so far has ended with its objectives."""
        return len(self.values) == len(self.trials)


class Study:
    """The cells that a search has suggested, and their results.

    Every suggestion depends only on the study so far and on its own seed, so an interrupted
    search continues as it would have without the interruption.

    Args:
        root: the sweep's folder.
        search: the objectives, the sampler, the seed and the number of cells.
        space: the axes of the search.
        fixed: the fields that are the same in every cell.
        known: the trials that the search has suggested so far.
        again: begin a new study with those, because the file of the study was lost.
        rules: conditional axes, exclusions and seeds.

    Raises:
        SweepError: the folder holds a study with a different space, objective, fixed field,
            sampler or seed.
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
        rules: Rules | None = None,
    ):
        import optuna
        from optuna.storages import JournalStorage

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._search, self._rules = search, rules or Rules()
        self._picking = Picking(space, fixed, self._rules)
        about = {"objectives": search.objectives, **told(space, fixed, self._rules)}
        how = {"sampler": search.sampler, "seed": search.seed}
        asked = {**about, **how}
        self._of: dict[str, _Cell] = {}  # by the id of each trial that a cell has or may get
        self._suggested: list[_Cell] = []
        self._worse: dict[str, _Cell] = {}  # first trial of a cell -> a clearly better cell
        self._order: list[TrialConfig] = []
        if known and not again and storage.read_file(root, STUDY) is None:
            raise storage.Damaged(root, STUDY, "it is missing")
        with storage.reading(root, STUDY):  # Optuna does not check the file
            self._journal: Any = Journal(root)
            self._storage = JournalStorage(self._journal)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=NAME,
                directions=[TOWARDS[better] for better in search.objectives.values()],
                load_if_exists=True,
            )
            attributes = self._study.user_attrs
            stored = {**how, **attributes.get(ABOUT, about), **attributes.get(HOW, {})}
            stored, asked = (  # as text, because 1, 1.0 and true are equal for Python
                {name: json.dumps(value, sort_keys=True) for name, value in one.items()}
                for one in (stored, asked)
            )
            names = [name for name in {**asked, **stored} if stored.get(name) != asked.get(name)]
        for what in names:
            there, here = (
                f"{what} {one[what]}" if what in one else f"no {what}" for one in (stored, asked)
            )
            raise SweepError(
                f"{root}/{STUDY}: is of a search with {there}, not {here}; "
                "choose another folder with --out"
            )
        for name, content in ((ABOUT, about), (HOW, how)):
            if name not in attributes:
                self._study.set_user_attr(name, content)
        if again:
            with self._journal.at_once():
                self._begin_with(known)
        with storage.reading(root, STUDY):
            for suggested in self._study.get_trials(deepcopy=False):
                given, ended = suggested.params, suggested.state.is_finished()
                try:
                    made = self._picking.cell(lambda name, _, given=given: given[name])
                except KeyError:
                    if ended:
                        raise
                    continue  # a driver of an earlier version was killed while Optuna suggested it
                if made and (cell := self._add(made, suggested.number)):
                    cell.closed = ended
        for trial in known:  # in the order in which they were suggested
            if trial.trial in self._of:
                self._begin(self._of[trial.trial], trial)
        begun, listed = folder.begun(root), {trial.trial for trial in known}
        for cell in self._suggested:
            if cell.config.trial not in listed:  # a driver was killed before it listed this cell
                self._begin(cell, cell.config)
                self._begin_again(cell, begun)
        lacking = [trial for trial in known if trial.trial not in self._of]
        if lacking and not again:
            raise storage.Damaged(root, STUDY, f"it lacks {len(lacking)} cells that were suggested")

    def _begin_with(self, known: Sequence[TrialConfig]) -> None:
        """Add known cells to a new study, except those that its space does not have."""
        cells = {cell.trial: cell for cell in map(self._first, known)}
        made = self._picking.parameters(cells.values())
        for trial in cells:
            if params := made.get(trial):
                self._study.enqueue_trial(params)
                self._ask()

    def _begin_again(self, cell: _Cell, begun: Collection[str]) -> None:
        """Note the seeds of a cell up to the last one that has left something in the folder.

        Only ``sweep.json`` lists the seeds that have begun. It may be damaged, and deleted then.
        """
        seeds = [cell.config.model_copy(update={"seed": n}) for n in range(self._rules.seeds)]
        last = max((n for n, trial in enumerate(seeds) if trial.trial in begun), default=0)
        for trial in seeds[1 : last + 1]:
            self._begin(cell, trial)

    @property
    def cells(self) -> list[TrialConfig]:
        """Every trial suggested so far, in order; of a cell with seeds, those that have begun."""
        return list(self._order)

    @property
    def ended(self) -> dict[str, int]:
        """Cells that get no more seeds, by their first trials, and how many they were given."""
        closed = (cell for cell in self._suggested if cell.closed and self._seeds_left(cell))
        return {cell.config.trial: len(cell.trials) for cell in closed}

    def why_ended(self, cell: str, names: Sequence[str], exact: Collection[str] = ()) -> str:
        """Say why a cell of :attr:`ended` gets no more seeds.

        Args:
            cell: its first trial.
            names: the fields in its label, besides the seed.
            exact: those of them that :func:`tune_jobs.labels.label` writes exactly.
        """
        names = [name for name in names if name != "seed"]
        ended, better = self._of[cell], self._worse.get(cell)
        given = f"{len(ended.trials)} of {self._rules.seeds} seeds"
        why = (
            f"clearly worse than {label(better.config, names, exact)}"
            if better
            else "one seed has no score"
        )
        return f"no more seeds for {label(ended.config, names, exact)} after {given}: {why}"

    @property
    def left(self) -> int:
        """How many trials are still to be suggested; with several seeds, at most.

        Cells with a trial that failed count as ended until it is trained again.
        """
        open_cells = (cell for cell in self._suggested if not cell.closed and not cell.failed)
        return self._new * self._rules.seeds + sum(map(self._seeds_left, open_cells))

    @property
    def _new(self) -> int:
        return max(0, self._search.trials - len(self._suggested))

    def _seeds_left(self, cell: _Cell) -> int:
        return self._rules.seeds - len(cell.trials)

    def suggest(self) -> TrialConfig | None:
        """Suggest a new trial. Call only while :attr:`left` is above 0.

        The next seed of a cell comes before new cells. None if what is left depends on trials
        whose results are not known yet, or if no more is left after all.
        """
        with self._journal.at_once():  # a later study has all of it, or suggests the same again
            return self._suggest()

    def _suggest(self) -> TrialConfig | None:
        for cell in self._suggested:
            if not cell.closed and not cell.failed and self._seeds_left(cell) and cell.known:
                self._look(cell)
                if not cell.closed:
                    seed = len(cell.trials)
                    return self._begin(cell, cell.config.model_copy(update={"seed": seed}))
        return self._suggest_cell() if self._new else None

    def _suggest_cell(self) -> TrialConfig:
        from optuna.trial import TrialState

        for attempt in range(AGAIN + 1):
            if attempt == AGAIN:
                self._study.enqueue_trial(self._unseen())
            asked, config = self._ask()
            if config and (cell := self._add(config, asked.number)):
                return self._begin(cell, config)
            self._study.tell(asked.number, state=TrialState.FAIL)  # known, or excluded
        raise AssertionError("a cell that was enqueued is new")

    def _ask(self) -> tuple["Trial", TrialConfig | None]:
        """Ask Optuna for a trial: the cell that it stands for, or None if that is excluded."""
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = _sampler(self._search, number)
        asked = self._study.ask()

        def pick(name: str, axis: Any) -> Any:
            if isinstance(axis, Span):
                return asked.suggest_float(name, axis.low, axis.high, log=axis.log)
            return asked.suggest_categorical(name, list(axis))

        return asked, self._picking.cell(pick)

    def _unseen(self) -> dict[str, Any]:
        """Parameters of a cell that is allowed and not suggested yet.

        Continuous axes are left out, as Optuna picks their values.
        """
        found = [p for p, made in self._picking.choices() if not made or made.trial not in self._of]
        if not found:
            raise AssertionError("there are cells left")
        if not self._picking.continuous:
            return found[0]
        number = len(self._study.get_trials(deepcopy=False))
        return found[int(np.random.default_rng([self._search.seed, number]).integers(len(found)))]

    def _look(self, cell: _Cell) -> None:
        """Close a cell that is clearly worse than the best, and tell Optuna an estimate."""
        others = [c for c in self._suggested if len(c.values) == self._rules.seeds]
        if not others:
            return
        signs = [1 if way == "max" else -1 for way in self._search.objectives.values()]
        finished = np.array([[c.values[t] for t in c.trials] for c in others]) * signs
        own = np.array([cell.values[t] for t in cell.trials]) * signs
        if verdict := clearly_worse(own, finished):
            better = self._worse[cell.config.trial] = others[verdict.better]
            told = f"worse than {better.config.trial}"
            self._study.set_user_attr(f"stopped {cell.config.trial}", told)
            self._close(cell, list(verdict.estimate * signs))

    def _close(self, cell: _Cell, values: Sequence[float]) -> None:
        """Tell Optuna the objectives of a cell. No more of it is trained."""
        cell.closed = True
        self._study.tell(cell.number, [float(value) for value in values])

    def _prune(self, cell: _Cell, row: Mapping[str, Any]) -> None:
        """Tell Optuna that a cell has ended without its objectives, which speaks against it.

        Optuna's sampler ignores trials that failed, so an area where all of them diverge would look
        unexplored. It ranks pruned trials below all complete ones. Among them, a stopped trial is
        told with its last epoch and the value there, and ranks higher the further it came, then by
        that value. Below them, all that diverged or collapsed rank equal. With several objectives
        all pruned trials rank equal, because Optuna takes no values after an epoch then.

        Args:
            cell: one of its trials has diverged, was stopped, or has collapsed.
            row: of that trial.
        """
        from optuna.trial import TrialState

        cell.closed = True
        name, *others = self._search.objectives
        epoch, value = row.get("epochs_done"), row.get(name)
        takes = row["status"] == "stopped" and name in EPOCH_METRICS and not others
        with self._journal.at_once():
            if takes and epoch is not None and value is not None and math.isfinite(value):
                study = self._storage.get_study_id_from_name(NAME)
                told = self._storage.get_trial_id_from_study_id_trial_number(study, cell.number)
                self._storage.set_trial_intermediate_value(told, epoch, float(value))
            self._study.tell(cell.number, state=TrialState.PRUNED)

    def tell(self, trial: str, row: Mapping[str, Any]) -> None:
        """Tell the study the result of a trial.

        A row that is done or has no status gives the values, if every objective is finite. A done
        row without them, and a diverged or stopped row, marks its cell as pruned in the study.
        A failed trial says nothing about its cell, as it may be the machine that failed. It may be
        trained again; until then its cell gets no more seeds. Any other row, or a second result of
        the same trial, changes nothing.
        """
        cell = self._of.get(trial)
        if cell is None or trial not in cell.trials or trial in cell.values:
            return
        status = row.get("status", "done")
        known = (row.get(name) for name in self._search.objectives)
        values = [value for value in known if value is not None and math.isfinite(value)]
        if status == "failed":
            cell.failed.add(trial)
        elif status == "done" and len(values) == len(self._search.objectives):
            cell.failed.discard(trial)
            cell.values[trial] = values
            if not cell.closed and cell.known and not self._seeds_left(cell):
                self._close(cell, np.mean([cell.values[t] for t in cell.trials], axis=0).tolist())
        elif row.get("status") in ("done", "diverged", "stopped") and not cell.closed:
            self._prune(cell, row)

    def _add(self, config: TrialConfig, number: int) -> _Cell | None:
        """Note a cell, which has no trial yet; None if it is known already."""
        if config.trial in self._of:
            return None
        cell = _Cell(number, config)
        self._suggested.append(cell)
        self._of[config.trial] = cell
        for seed in range(1, self._rules.seeds):
            self._of[config.model_copy(update={"seed": seed}).trial] = cell
        return cell

    def _begin(self, cell: _Cell, trial: TrialConfig) -> TrialConfig:
        """Note that a trial of a cell is to be trained, unless that is known."""
        if trial.trial not in cell.trials:
            cell.trials.append(trial.trial)
            self._order.append(trial)
        return trial

    def _first(self, trial: TrialConfig) -> TrialConfig:
        """The trial of the same cell with the first seed."""
        return trial.model_copy(update={"seed": 0}) if self._rules.seeds > 1 else trial


def _sampler(search: Search, number: int) -> Any:
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    return TPESampler(seed=seed) if search.sampler == "tpe" else RandomSampler(seed)
