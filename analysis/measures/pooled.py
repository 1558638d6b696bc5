"""Several sweeps as one, for ``geosweep report A B C``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from analysis.measures.cells import varying
from analysis.measures.layout import few, heading, plural
from analysis.results import CATEGORIES, Results, ResultsError, completed
from scoring.tables import ARGUMENT


class Pooled(NamedTuple):
    """The tables of several sweeps together."""

    results: Results  # trials have a column ``folder``, the name of the sweep that each is from
    twice: int  # trials that several sweeps have, each of which is here once
    counts: dict[str, int]  # trials that are here, by the name of their sweep
    apart: dict[str, dict[str, str]]  # values of a field by sweep, if the sweeps differ in them


def pool(folders: Sequence[str], loaded: Sequence[Results]) -> Pooled:
    """Put the results of several sweeps together.

    A trial that several sweeps have, which is the same training, is taken from the first sweep in
    which it is done, or from the first that has it. Cells that sweeps share get the seeds of all.

    Args:
        folders: of the sweeps, as messages show them.
        loaded: their tables, from :func:`analysis.results.load`.

    Raises:
        ResultsError: sweeps have different data under one name, so that no mean holds for both;
            or a folder is given twice.
    """
    if len({folder.rstrip("/") for folder in folders}) < len(folders):
        raise ResultsError("a folder is given twice; name each sweep once")
    names = _names(folders)
    rows = [one.trials.assign(folder=name) for name, one in zip(names, loaded, strict=True)]
    _refuse_other_data(rows)
    every = pd.concat([frame[["trial", "status", "folder"]].astype("str") for frame in rows])
    every["source"] = [i for i, frame in enumerate(rows) for _ in range(len(frame))]
    every["late"] = every.status != "done"
    first = every.sort_values(["late", "source"], kind="stable").drop_duplicates("trial")
    kept = [first.trial[first.source == i] for i in range(len(rows))]
    tables = {"trials": completed(_together([_plain(frame) for frame in rows], kept))}
    for table in Results._fields[1:]:
        tables[table] = _together([getattr(one, table) for one in loaded], kept)
    counts = {name: len(own) for name, own in zip(names, kept, strict=True)}
    apart = _apart(
        tables["trials"], {name: one.trial for name, one in zip(names, rows, strict=True)}
    )
    return Pooled(Results(**tables), int(every.trial.duplicated().sum()), counts, apart)


def sentence(pooled: Pooled) -> str:
    """Say which sweeps are together here, and what was counted once."""
    parts = [f"{name} ({plural(count, 'trial')})" for name, count in pooled.counts.items()]
    said = f"{len(parts)} sweeps together: {', '.join(parts)}."
    if pooled.twice:
        said += f" Of trials that several have, {pooled.twice} more copies are left out."
    if pooled.apart:
        fields = [
            f"{heading(name)} ({few([' '.join(pair) for pair in values.items()])})"
            for name, values in pooled.apart.items()
        ]
        said += f" They differ in {'; '.join(fields)}. Trials that differ are in different cells"
        said += ", and OTS compares only at equal m." if "points" in pooled.apart else "."
    return said


def _names(folders: Sequence[str]) -> list[str]:
    """The last parts of the folders, or the whole folders where these do not differ."""
    last = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
    return last if len({*last}) == len(last) else list(folders)


def _apart(trials: pd.DataFrame, own: Mapping[str, pd.Series]) -> dict[str, dict[str, str]]:
    """Settings that are not the same in all sweeps, besides those that tables always show."""
    parts = {name: trials[trials.trial.isin(ids)] for name, ids in own.items() if len(ids)}
    found = {}
    for name in ("points", *varying(trials)):
        values = {
            folder: [*map(str, sorted({*part[name].dropna()}))] or ["not set"]
            for folder, part in parts.items()
        }
        if len({*map(tuple, values.values())}) > 1:
            found[name] = {folder: few(texts, " and ") for folder, texts in values.items()}
    return found


def _refuse_other_data(rows: Sequence[pd.DataFrame]) -> None:
    known: dict[str, tuple[str, str]] = {}
    for frame in rows:
        pairs = frame[["dataset", "data_checksum", "folder"]].dropna().drop_duplicates()
        pairs = pairs[pairs.data_checksum != ""]  # of old trials it is not known
        for name, checksum, folder in pairs.astype("str").itertuples(index=False):
            there, other = known.setdefault(name, (checksum, folder))
            if checksum != there:
                raise ResultsError(
                    f"{folder}: its {name} is other data than that of {other} (checksums "
                    f"{checksum} and {there}), so no mean holds for both; --compare shows both"
                )


def _plain(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials without the columns that :func:`analysis.results.completed` adds."""
    return trials[[name for name in trials if not str(name).startswith(ARGUMENT)]]


def _together(frames: Sequence[pd.DataFrame], kept: Sequence[pd.Series]) -> pd.DataFrame:
    """The rows of the trials that are kept of each frame, sorted by trial."""
    chosen = [f[f.trial.isin(own)] for f, own in zip(frames, kept, strict=True)]
    filled = [frame for frame in chosen if len(frame)] or chosen[:1]
    table = pd.concat(filled, ignore_index=True)
    for name in CATEGORIES:
        if name in table:
            texts = table[name].astype("str").where(table[name].notna())
            table[name] = pd.Categorical(texts, sorted(texts.dropna().unique()))
    return table.sort_values("trial", kind="stable", ignore_index=True)
