"""The tables of a sweep as pandas data frames, and a list of their columns.

    python -m analysis.results > columns.md      # every column with its type, unit and meaning

In Python, read the tables from a sweep's folder or from MLflow:

    from analysis.results import load
    trials = load("runs/demo").trials
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.errors import ResultsError
from analysis.mlflow_address import OPTION, check_address
from analysis.scripts import parser, script
from analysis.targets import is_folder
from scoring import places, schemas, storage
from scoring.tables import ARGUMENT, read_table

EARLIER = {  # what trials from before a field had, whose value is null
    **dict.fromkeys(("transport_penalty", "straightness_penalty", "validation", "warmup"), 0.0),
    "clean_train_every": 1,
    "initialisation": "he",
    "initial_scale": 1.0,
    "renormalise": False,
    "schedule": "cosine",
    "split": "test",
}
MOMENTUM = 0.9  # of all trials with SGD from before the field
CATEGORIES = ("trial", "dataset", "network", "split", "evaluation", "unit")  # values that repeat
COMMAND = "python -m analysis.results > docs/columns.md"
LARGE = 100_000  # Copy a frame with fewer rows; one with more keeps the memory it was read into.


class Results(NamedTuple):
    """The tables of a sweep. :func:`describe` gives the units and meanings of their columns."""

    trials: pd.DataFrame  # a row per trial: its configuration, scores, baselines, times, status
    epochs: pd.DataFrame  # a row per trial and epoch; epoch 0 is before training
    tracks: pd.DataFrame  # a row per trial, epoch, stage and split
    samples: pd.DataFrame  # a row per trial, stage and point
    robustness: pd.DataFrame  # a row per trial, evaluation, stage, block and level


def load(
    path: str | Path,
    tracking_uri: str | None = None,
    tables: tuple[str, ...] = Results._fields,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Results:
    """Load the results of a sweep, finished or not.

    Args:
        path: the sweep's folder, a local path or a URI such as ``s3://bucket/runs/demo``; or
            the name of an MLflow experiment if ``tracking_uri`` is given, or if there is no
            such folder and MLFLOW_TRACKING_URI is set.
        tracking_uri: MLflow's address, for instance ``sqlite:///runs/demo/mlflow.db``.
        tables: the tables to read; the others come without rows (``samples`` may be large).
        columns: by table, the columns to read; a table that is not named comes with all of them.

    Returns:
        The frames, sorted by trial. Strings that repeat are categories in alphabetical order.
        Integers with missing values are float64, as usual in pandas. Lists keep their Arrow
        type, with ``.list`` and ``.explode()``; a single one is a Python list. A column that an
        earlier version did not write is null for its files. The caller may change the frames.
        A large frame may be mapped from disk, so that a column takes memory only when it is
        used.

    Raises:
        ResultsError: the folder or experiment does not exist or is empty, a file in it is damaged
            or not from geosweep, or there is no such table or column.

    >>> load("runs/nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    analysis.errors.ResultsError: runs/nowhere: no such folder; ...
    """
    root = str(path).rstrip("/") or "/"
    for table, names in {**dict.fromkeys(tables, ()), **(columns or {})}.items():
        unknown = ", ".join(sorted(set(names) - set(_schema(table).names)))
        if unknown:
            raise ResultsError(f"{table} has no column {unknown}; describe({table!r}) lists them")
    if tracking_uri:
        return _from_mlflow(root, tracking_uri, tables, columns)
    if not is_folder(root):
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            return _from_mlflow(root, uri, tables, columns)
        raise ResultsError(
            f"{root}: no such folder; give the folder of a sweep (geosweep run SWEEP makes "
            "runs/SWEEP), or set MLFLOW_TRACKING_URI and give an experiment's name"
        )
    if not _has_results(root):
        raise ResultsError(
            f"{root}: no results in it; give the folder that holds results/, or run the sweep "
            f"first (geosweep run SWEEP --out {places.argument(root)})"
        )
    return _read(root, tables, columns)


def describe(table: str) -> pd.DataFrame:
    """Describe the columns of a table: one row for each, with its type, unit and meaning.

    The unit is 1 for dimensionless numbers, and empty for columns that are no measurements.

    >>> describe("epochs").set_index("column").loc["lss", ["type", "unit"]].tolist()
    ['float64', '1']
    """
    rows = [
        {"column": field.name, "type": _type(field.type)}
        | {key: field.metadata[key.encode()].decode() for key in ("unit", "meaning")}
        for field in _schema(table)
    ]
    return pd.DataFrame(rows)


def _schema(table: str) -> pa.Schema:
    if table not in schemas.TABLES:
        raise ResultsError(f"no table {table}; there are {', '.join(schemas.TABLES)}")
    return schemas.TABLES[table]


def _type(kind: pa.DataType) -> str:
    """The name of a type, as pandas, polars and DuckDB all understand it."""
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


def _has_results(root: str) -> bool:
    try:
        folders = [places.table_folder(table) for table in schemas.TABLES]
        return any(storage.list_files(root, folder) for folder in folders)
    except storage.StoreError as error:
        raise ResultsError(f"{error}; move it away") from error


def _read(
    root: str, tables: tuple[str, ...], columns: Mapping[str, Sequence[str]] | None
) -> Results:
    wanted = {name: list(names) for name, names in (columns or {}).items()}
    try:
        order = sorted(tables, key=lambda name: name != "tracks")  # the large one needs free memory
        read = {name: _frame(read_table(root, name, wanted.get(name))) for name in order}
    except (storage.StoreError, OSError) as error:
        raise ResultsError(f"{error}; move that file away to read the others") from error
    if "trials" in read:
        _check_key(root, read["trials"])
        read["trials"] = completed(read["trials"])
    return Results(
        *(
            read[name] if name in read else _frame(schema.empty_table())
            for name, schema in schemas.TABLES.items()
        )
    )


def _check_key(root: str, trials: pd.DataFrame) -> None:
    """Refuse trials that lack a value in a key column; geosweep never writes such trials."""
    names = [field.name for field in schemas.KEY if field.name in trials]
    if lost := [name for name in names if trials[name].isna().any()]:
        first = trials[trials[lost].isna().any(axis=1)].iloc[0]
        path = places.table_path("trials", first.get("trial", "?"))
        raise ResultsError(
            f"{root}/{path}: has no {', '.join(lost)}: not of geosweep; move that file away to "
            "read the others"
        )


def completed(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials as they are compared: with the arguments of architectures, and what was usual then.

    Args:
        trials: as their files have them; changed in place where nothing is added.
    """
    trials = _with_arguments(trials)
    _fill_depth(trials)
    _fill_earlier(trials)
    return trials


def _with_arguments(trials: pd.DataFrame) -> pd.DataFrame:
    """Add a column ``model.NAME`` for each keyword argument of the architectures.

    Trials of an architecture have no layers; an empty text keeps them in groups.
    """
    if "architecture" not in trials or not trials.architecture.notna().any():
        return trials
    if "layers" in trials:
        trials["layers"] = trials.layers.fillna("")
    if "model" not in trials:
        return trials
    given = [json.loads(text) if isinstance(text, str) else {} for text in trials.model]
    names = sorted({name for one in given for name in one})
    columns = {
        f"{ARGUMENT}{name}": _of_one_type([one.get(name) for one in given]) for name in names
    }
    return trials.join(pd.DataFrame(columns, trials.index))


def _of_one_type(values: list) -> list:
    """Values that can be sorted: all as texts if they are of several types."""
    number = {type(v) if isinstance(v, str | bool) else float for v in values if v is not None}
    return values if len(number) < 2 else [None if v is None else str(v) for v in values]


def _fill_depth(trials: pd.DataFrame) -> None:
    """Where some trials have a depth of their own, the depth of the others is Table 1's."""
    if {"depth", "layers"} <= {*trials} and trials.depth.notna().any():
        trials["depth"] = whole_depth(trials)


def whole_depth(trials: pd.DataFrame) -> pd.Series:
    """The blocks of each stage, also of trials whose ``depth`` is null: they have Table 1's.

    NaN for architectures, whose stages may differ.
    """
    ten = (trials.layers == "convolutional") & (trials.stages == 1)
    whole = trials.depth.fillna(ten.map({True: 10, False: 5}))
    own = trials.architecture.isna() if "architecture" in trials else whole.notna()
    return whole.astype("int64") if own.all() else whole.where(own)


def _fill_earlier(trials: pd.DataFrame) -> None:
    """Trials from before a field do not differ from those that have what was usual then."""
    for name, usual in EARLIER.items():
        if name in trials and trials[name].notna().any():
            kind = "str" if name in CATEGORIES else trials[name].dtype
            trials[name] = trials[name].astype(kind).fillna(usual)
    if {"momentum", "recipe"} <= {*trials} and trials.momentum.notna().any():
        trials["momentum"] = trials.momentum.mask(
            trials.momentum.isna() & trials.recipe.eq("sgd"), MOMENTUM
        )


def _frame(table: pa.Table) -> pd.DataFrame:
    names, left = table.column_names, table.columns
    del table  # so that a column that was copied is freed
    columns = {name: _values(name, left.pop(0)) for name in names}
    frame = pd.DataFrame(columns, copy=False)
    return frame.copy() if len(frame) < LARGE else frame  # a copy has few blocks, so it is faster


def _values(name: str, column: pa.ChunkedArray) -> pd.api.extensions.ExtensionArray | np.ndarray:
    """A column as a pandas or NumPy array, copied only if necessary."""
    if name in CATEGORIES:
        texts = column.dictionary_encode().to_pandas().array
        return texts.reorder_categories(sorted(texts.categories))
    if pa.types.is_list(column.type):
        return column.to_pandas(types_mapper=pd.ArrowDtype).array
    values = column.to_pandas()
    return np.asarray(_Writable(values.to_numpy())) if values.dtype.kind in "if" else values.array


class _Writable:
    """A writable view of a read-only array.

    Arrow marks its memory as read-only, so that changing a frame would fail. Nothing else uses
    this memory (see :func:`scoring.tables.read_table`), so it is safe to write to.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.owner = array  # keeps the memory alive
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def _from_mlflow(
    experiment: str,
    tracking_uri: str,
    tables: tuple[str, ...],
    columns: Mapping[str, Sequence[str]] | None,
) -> Results:
    """Download the Parquet files of all ended trials, and read them like a sweep's folder."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A server that does not answer should be told soon.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    check_address(tracking_uri)
    from mlflow import MlflowClient  # importing it takes seconds

    shown = places.redact(tracking_uri)
    try:
        client = MlflowClient(tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            names = ", ".join(sorted(e.name for e in client.search_experiments(max_results=20)))
            raise ResultsError(
                f"{experiment}: no such folder, and no such experiment in MLflow at "
                f"{shown}, which has {names or 'none'}"
            )
        newest: dict[str, str] = {}  # trial -> newest run, as a failed trial may have run again
        token = None
        while token != "":
            page = client.search_runs(
                [found.experiment_id],
                "tags.`geosweep.trial` != '' and attributes.status != 'RUNNING'",
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            for run in page:
                newest.setdefault(run.data.tags["geosweep.trial"], run.info.run_id)
            token = page.token or ""

        def fetch(run: str, folder: str) -> None:
            for item in client.list_artifacts(run, places.RESULTS):
                table = item.path.rpartition("/")[2]
                if table in tables:  # where a download lands differs between artifact stores
                    own = tempfile.mkdtemp(dir=folder)
                    Path(folder, places.RESULTS, table).mkdir(parents=True, exist_ok=True)
                    for file in Path(client.download_artifacts(run, item.path, own)).iterdir():
                        file.replace(Path(folder, places.RESULTS, table, file.name))

        with tempfile.TemporaryDirectory(prefix="geosweep-") as folder:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(fetch, newest.values(), [folder] * len(newest)))
            if not any(storage.list_files(folder, places.table_folder(table)) for table in tables):
                raise ResultsError(
                    f"{experiment}: no ended trial with results in MLflow at {shown}; "
                    "wait for the first one, or give the sweep's folder"
                )
            return _read(folder, tables, columns)
    except ResultsError:
        raise
    except Exception as error:  # each of MLflow's stores raises errors of its own
        said = " ".join(places.redact(str(error)).split())[:300] or type(error).__name__
        if "failed with exception" in said and "onnect" in said:  # of requests, which is long
            said = "does not answer; start that server, or give another address"
        raise ResultsError(
            places.redact(f"{experiment}: MLflow at {tracking_uri} ({OPTION}): {said}")
        ) from error


def columns_page() -> str:
    """Every column of every table in Markdown, for people who read the files without geosweep."""
    parts = [f"# Columns of the tables\n\nUnit 1: no dimension. Written by `{COMMAND}`.\n"]
    for table in schemas.TABLES:
        rows = [["column", "type", "unit", "meaning"], ["---"] * 4]
        rows += describe(table).map(lambda text: text.replace("|", r"\|")).to_numpy().tolist()
        parts += [f"## {table}\n", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the columns of every table."""
    reader = parser("results", __doc__)
    if reader.parse_known_args(arguments)[1]:
        reader.error("takes no arguments; python -m analysis.tables DIR prints a sweep's tables")
    print(columns_page(), end="")
    return 0


if __name__ == "__main__":
    script(main)
