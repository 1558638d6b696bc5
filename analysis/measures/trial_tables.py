"""Tables of the trials themselves: their configurations, failures and provenance."""

from importlib.metadata import version
from typing import Any

import pandas as pd

from analysis.measures.cells import (
    as_strings,
    configuration,
    gamma_meaning,
    without_collapsed,
)
from analysis.results import Results

KEY = ["dataset", "network", "stages", "gamma", "seed"]
# fmt: off
OUTCOME = [
    "status", "epochs_done", "clean_train_accuracy", "test_accuracy", "geodesic_excess",
    "lss", "ots", "collapsed",
    "ties", "seconds", "scoring_seconds",
]
# fmt: on


def trials_table(results: Results) -> pd.DataFrame:
    """One row per trial: its configuration, how it ended, its scores, and how long it took."""
    columns = ["trial", *_folder(results), *KEY, *configuration(results.trials), *OUTCOME]
    table = without_collapsed(as_strings(results.trials))[columns]
    order = ["dataset", "stages", "layers", "network", "gamma", "seed"]
    return table.rename(columns={"points": "m"}).sort_values(order, ignore_index=True)


def unfinished(results: Results) -> pd.DataFrame:
    """Trials that are not done: how each ended, after how many epochs, and with which error."""
    trials = results.trials[results.trials.status != "done"]
    columns = ["trial", *_folder(results), *KEY, "status", "epochs_done", "epochs", "error"]
    return trials[columns].reset_index(drop=True)


def _folder(results: Results) -> list[str]:
    """The column that says which of several sweeps a trial is from, if there are several."""
    return ["folder"] if "folder" in results.trials else []


def provenance(results: Results) -> pd.DataFrame:
    """Where the numbers come from: software, data, machines, settings and times."""
    trials = results.trials
    data = (
        trials.dataset.astype("str") + " " + trials.data_checksum.where(trials.data_checksum != "")
    )
    rates = trials.learning_rate.map("{:g}".format).astype("str")
    rows = [
        ("sweeps", _distinct(trials.folder) if _folder(results) else ""),
        ("versions", _distinct(trials.versions)),
        ("revision of the source (git)", _distinct(trials.revision)),
        ("data, with checksum", _distinct(data)),
        (
            "report made with",
            ", ".join(f"{n} {version(n)}" for n in ("geosweep", "pandas", "scipy")),
        ),
        ("hosts", _distinct(trials.host)),
        ("devices", _distinct(trials.device)),
        ("torch threads", _distinct(trials.threads)),
        ("peak memory of a process, largest", _gigabytes(trials.peak_memory.max())),
        ("peak GPU memory of a process, largest", _gigabytes(trials.peak_gpu_memory.max())),
        ("recipe", _distinct(trials.recipe + ", learning rate " + rates)),
        ("warm-up, epochs", _distinct(trials.warmup) if trials.warmup.gt(0).any() else ""),
        ("γ is", gamma_meaning(trials)),
        ("batch size", _distinct(trials.batch_size)),
        ("epochs", _distinct(trials.epochs)),
        ("γ applies to", _distinct(trials.decay)),
        ("precision of training", _distinct(trials.precision)),
        ("first epoch begun", _time(trials.started_at.min())),
        ("last table written", _time(trials.scored_at.max())),
        ("seconds of training, all trials", f"{trials.seconds.sum():.0f}"),
        ("seconds of assignment problems, all trials", f"{trials.scoring_seconds.sum():.0f}"),
    ]
    return pd.DataFrame([row for row in rows if row[1]], columns=["what", "value"], dtype="str")


def _distinct(column: pd.Series) -> str:
    values = sorted(value for value in column.dropna().unique() if value != "")
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    return "; ".join(texts[:8]) + (f"; {len(texts) - 8} more" if len(texts) > 8 else "")


def _gigabytes(size: float) -> str:
    return "" if pd.isna(size) else f"{size:.3g} GB"


def _time(moment: Any) -> str:
    return "" if pd.isna(moment) else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
