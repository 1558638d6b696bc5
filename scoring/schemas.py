"""The tables of a sweep: their columns with units, and how they lie in a sweep's folder.

This is the one module that knows how results are stored: a table is a folder of Parquet files,
one a trial; ``results/.<table>.arrow`` keeps what many of them hold, and may be deleted at any
time. A sweep's folder is a path or any URI that ``pyarrow.fs`` opens, and how a file gets there
whole is :mod:`scoring.storage`'s; what others need of it is found here. Needs pyarrow only.
"""

import itertools
import json
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from scoring.places import merged_table, table_folder, table_path
from scoring.storage import (
    StoreError,
    Unreachable,
    delete,
    infos,
    is_away,
    is_local,
    list_files,
    open_file,
    open_folder,
    read_buffer,
    read_file,
    set_aside,
    write_file,
    writing,
)

__all__ = [  # of scoring.storage
    "StoreError",
    "Unreachable",
    "delete",
    "infos",
    "is_local",
    "list_files",
    "open_file",
    "open_folder",
    "read_file",
    "set_aside",
    "write_file",
    "writing",
]

FORMAT = "1"  # in every file's metadata; raised when a column changes its meaning
OF_A_TRIAL = re.compile(r"[0-9a-f]{12}\.parquet")  # a file's name
MANY = 50  # files of a table above which what they hold is kept together as well
TOGETHER = 200  # files read before their columns are put together
KEPT = b"files"  # of a file that keeps them: their sizes and times, and how many rows each has


def _fields(*rows: tuple[str, pa.DataType, str, str]) -> list[pa.Field]:
    """Columns from (name, type, unit, meaning)."""
    return [pa.field(n, t, metadata={"unit": unit, "meaning": text}) for n, t, unit, text in rows]


TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
LIST = pa.list_(REAL)
TIME = pa.timestamp("us", tz="UTC")

KEY = _fields(
    ("trial", TEXT, "", "the trial's id, a hash of its configuration"),
    ("dataset", TEXT, "", "name, or path of an .npz file"),
    ("network", TEXT, "", "plain or resnet"),
    ("stages", WHOLE, "", "K, parts of equal dimension"),
    ("gamma", REAL, "", "weight of the L2 penalty"),
    ("seed", WHOLE, "", "of the initial weights and the order of data"),
)

CONFIG = _fields(
    ("layers", TEXT, "", "fully_connected or convolutional"),
    ("decay", TEXT, "", "weight matrices under gamma: all or blocks"),
    ("transport_penalty", REAL, "", "weight in the loss of the kinetic energy of the tracks"),
    ("straightness_penalty", REAL, "", "weight in the loss of the mean LSS - 1"),
    ("epochs", WHOLE, "", "passes over the train split, as asked for"),
    ("batch_size", WHOLE, "images", "a step"),
    ("recipe", TEXT, "", "adam or sgd"),
    ("learning_rate", REAL, "", "at the first step"),
    ("normalisation", TEXT, "", "batch or none"),
    ("augment", pa.bool_(), "", "crop and flip"),
    ("precision", TEXT, "", "of training: float32 or bfloat16"),
    ("points", WHOLE, "points", "m scored at initialisation and at the end"),
    ("epoch_points", WHOLE, "points", "m scored after every other epoch"),
)

LOSSES = _fields(
    ("train_loss", REAL, "nat", "running mean over the (augmented) images trained on"),
    ("train_accuracy", REAL, "fraction", "running, on the (augmented) images trained on"),
    ("clean_train_loss", REAL, "nat", "first train images as they are, as many as test has"),
    ("clean_train_accuracy", REAL, "fraction", "on the same clean train images"),
    ("test_loss", REAL, "nat", "test split"),
    ("test_accuracy", REAL, "fraction", "test split"),
)

TRIALS = [
    *KEY,
    *CONFIG,
    *_fields(
        ("status", TEXT, "", "done, diverged (a loss not finite), stopped (by asha) or failed"),
        ("epochs_done", WHOLE, "", "passes over the train split, as done"),
    ),
    *LOSSES,
    *_fields(
        ("lss", REAL, "1", "line-shape score: mean over points, then over stages"),
        ("lss_std", REAL, "1", "deviation over the stages (ddof = 0)"),
        ("inverse_lss", REAL, "1", "mean of 1/LSS over points, then over stages; in [0, 1]"),
        ("lsr", REAL, "1", "line-shape ratio: mean over points, then over stages"),
        ("lsr_std", REAL, "1", "deviation over the stages (ddof = 0)"),
        ("ots", REAL, "fraction", "optimal-transport score at m = points: mean over stages"),
        ("ots_std", REAL, "fraction", "deviation over the stages (ddof = 0)"),
        ("gap", REAL, "1", "W2^2 over the network's cost, in [0, 1]: mean over stages"),
        ("movement", REAL, "1", "of the stage that moves its points least: 0 is the identity"),
        ("suboptimality", REAL, "1", "proved: W2^2 is at most this share above the optimum"),
        ("ties", WHOLE, "points", "matched otherwise at the same cost, over all stages"),
        ("collapsed", pa.bool_(), "", "some stage has collapsed: its OTS is NaN"),
        ("lss_initial", REAL, "1", "null: lss before training"),
        ("inverse_lss_initial", REAL, "1", "null: inverse_lss before training"),
        ("lsr_initial", REAL, "1", "null: lsr before training"),
        ("ots_initial", REAL, "fraction", "null: ots before training, at the same m"),
        ("gap_initial", REAL, "1", "null: gap before training, at the same m"),
        ("lss_random", REAL, "1", "null: sqrt(n), independent directions in high dimension"),
        ("ots_random", REAL, "fraction", "null: 1/m, a random matching"),
        ("energy", REAL, "squared distance", "kinetic energy: sum over blocks, mean over stages"),
        ("energy_initial", REAL, "squared distance", "null: energy before training"),
        ("turning", REAL, "1", "cosine of successive segments: mean over a stage, then stages"),
        ("turning_initial", REAL, "1", "null: turning before training"),
        ("separated", REAL, "fraction", "pairs as far apart as eq. 41 has it: mean over stages"),
        ("separated_initial", REAL, "fraction", "null: separated before training"),
        ("not_monotone", REAL, "fraction", "pairs against eq. 38: mean over stages"),
        ("not_monotone_initial", REAL, "fraction", "null: not_monotone before training"),
        ("evaluations", TEXT, "", "JSON: those in the robustness table, with their settings"),
        ("lesion_auc", REAL, "fraction", "mean accuracy as units are eliminated: over stages"),
        ("noise_auc", REAL, "fraction", "mean accuracy over the levels of random noise"),
        ("fgsm_auc", REAL, "fraction", "mean accuracy over the budgets of FGSM"),
        ("pgd_auc", REAL, "fraction", "mean accuracy over the budgets of PGD"),
        ("mixed_ratio", REAL, "1", "closest decile's share of pairs mixed up, over that of all"),
        ("mixed_ratio_different", REAL, "1", "the same, of pairs of two classes"),
        ("image", TEXT, "", "channels x height x width of an image"),
        ("classes", WHOLE, "", "of the data set"),
        ("shapes", TEXT, "", "of a state, stage by stage (Table 1)"),
        ("blocks", WHOLE, "", "n, blocks of each stage"),
        ("weight_decay", REAL, "", "the optimizer's coupled weight_decay that was used"),
        ("parameters", WHOLE, "", "trainable parameters"),
        ("seconds", REAL, "s", "training, evaluation and line shape, all epochs"),
        ("scoring_seconds", REAL, "s", "assignment problems"),
        ("started_at", TIME, "", "first epoch begun"),
        ("trained_at", TIME, "", "last epoch ended"),
        ("released_at", TIME, "", "the trial's CPU or GPU given back"),
        ("scored_at", TIME, "", "assignments solved, tables written"),
        ("device", TEXT, "", "what trained it"),
        ("threads", WHOLE, "", "of torch on the CPU"),
        ("host", TEXT, "", "name of the machine"),
        ("versions", TEXT, "", "of geosweep, python and torch"),
        ("revision", TEXT, "", "git's, of geosweep's source; -dirty if it was changed"),
        ("data_checksum", TEXT, "", "of the data set's images and labels"),
        ("peak_memory", REAL, "GB", "most that the process which trained it last has held"),
        ("peak_gpu_memory", REAL, "GB", "most that torch has held on the GPU; null without one"),
        ("error", TEXT, "", "last line of the traceback of a failed trial"),
    ),
]

EPOCHS = [
    *KEY,
    *_fields(("epoch", WHOLE, "", "0 is the network at initialisation")),
    *LOSSES,
    *_fields(
        ("learning_rate", REAL, "", "of the last step"),
        ("seconds", REAL, "s", "of the epoch with its evaluation and line shape"),
        ("finished_at", TIME, "", "its last number known"),
        ("lss", REAL, "1", "mean over points, then over stages"),
        ("inverse_lss", REAL, "1", "mean over points, then over stages; in [0, 1]"),
        ("lsr", REAL, "1", "mean over points, then over stages"),
    ),
]

TRACKS = [
    *KEY,
    *_fields(
        ("epoch", WHOLE, "", "0 is the network at initialisation"),
        ("stage", WHOLE, "", "k, 1 to K"),
        ("split", TEXT, "", "train or test"),
        ("blocks", WHOLE, "", "n, segments of a track"),
        ("dimension", WHOLE, "", "d of a state"),
        ("m", WHOLE, "points", "the first m of the split"),
        ("still_points", WHOLE, "points", "that never move: in no mean"),
        ("zero_segments", WHOLE, "segments", "of length 0 in tracks that move: left out of n"),
        ("lss", REAL, "1", "mean over points"),
        ("lss_std", REAL, "1", "deviation over points (ddof = 0)"),
        ("inverse_lss", REAL, "1", "mean of 1/LSS over points, in [0, 1]"),
        ("lsr", REAL, "1", "mean over points"),
        ("lsr_std", REAL, "1", "deviation over points (ddof = 0)"),
        ("shares", LIST, "fraction", "of the track's length, per segment; sums to 1"),
        ("lss_random", REAL, "1", "null: sqrt(n)"),
        ("lss_initial", REAL, "1", "null: lss before training"),
        ("inverse_lss_initial", REAL, "1", "null: inverse_lss before training"),
        ("lsr_initial", REAL, "1", "null: lsr before training"),
        ("ots", REAL, "fraction", "first and last epoch only; NaN: collapsed, or not measured"),
        ("ots_random", REAL, "fraction", "null: 1/m"),
        ("ots_initial", REAL, "fraction", "null: ots before training, at the same m"),
        ("ots_by_class", pa.list_(REAL), "fraction", "OTS of the points of each class"),
        ("gap", REAL, "1", "optimal over network cost, in [0, 1]"),
        ("gap_initial", REAL, "1", "null: gap before training, at the same m"),
        ("network_cost", REAL, "squared distance", "mean over points of |x - y|^2"),
        ("optimal_cost", REAL, "squared distance", "W2^2, the mean under the optimal matching"),
        ("movement", REAL, "1", "network_cost less a common shift, over the spreads of the ends"),
        ("suboptimality", REAL, "1", "proved: optimal_cost is at most this share too high"),
        ("ties", WHOLE, "points", "that another matching of the same cost matches otherwise"),
        ("collapsed", pa.bool_(), "", "inputs or outputs all equal within rounding: no OTS"),
        ("prefix_m", pa.list_(WHOLE), "points", "the first 100, 300, ... points, and all m"),
        ("prefix_ots", pa.list_(REAL), "fraction", "ots of these points alone"),
        ("prefix_gap", pa.list_(REAL), "1", "gap of these points alone"),
        ("solve_rounds", WHOLE, "", "passes over all pairs that the assignment took"),
        ("solve_edges", WHOLE, "", "pairs of points kept as candidates"),
        ("solve_seconds", REAL, "s", "of the assignment"),
        ("energy", LIST, "squared distance", "mean over points of |x^(l) - x^(l-1)|^2, per block"),
        ("weight_norms", LIST, "", "|W1|_F^2 + |W2|_F^2, per block"),
        ("energy_ratio", LIST, "squared distance", "energy over weight_norms, per block (eq. 11)"),
        ("cosines", LIST, "1", "of segments l and l + 1, l = 1 to n - 1: means over points"),
        (
            "projected",
            pa.list_(pa.float32()),
            "distance",
            "first and last epoch: tracks of the "
            "first 50 points times a fixed Gaussian (2, d) matrix, flat from (n + 1, points, 2)",
        ),
        # From here on of fewer points, and at the first and the last epoch only: else null.
        ("separation_m", WHOLE, "points", "of this and the columns below: the first ones"),
        ("straight_distance", LIST, "distance", "of x^(l) to eq. 5's line, l = 0 to n: means"),
        ("separated", REAL, "fraction", "pairs with d >= B (eq. 41), up to rounding"),
        ("separated_same", REAL, "fraction", "of pairs of one class"),
        ("separated_different", REAL, "fraction", "of pairs of two classes"),
        ("separation_ratio", REAL, "1", "mean d/B over pairs with B > 0, in [0, sqrt(2)]"),
        ("separation_ratio_same", REAL, "1", "over pairs of one class"),
        ("separation_ratio_different", REAL, "1", "over pairs of two classes"),
        ("not_monotone", REAL, "fraction", "pairs with <f(x) - f(y), x - y> < 0 (eq. 38)"),
    ),
]

SAMPLES = [
    *KEY,
    *_fields(
        ("epoch", WHOLE, "", "the last one"),
        ("stage", WHOLE, "", "k, 1 to K"),
        ("split", TEXT, "", "train or test"),
        ("point", WHOLE, "", "place in the split, from 0"),
        ("label", WHOLE, "", "true class"),
        ("prediction", WHOLE, "", "the network's class"),
        ("lss", REAL, "1", "of this point; NaN if it never moves"),
        ("lsr", REAL, "1", "of this point; NaN if it never moves"),
        ("permutation", WHOLE, "", "sigma(i), the output this input is matched to"),
        ("own_cost", REAL, "squared distance", "|x_i - y_i|^2"),
        ("matched_cost", REAL, "squared distance", "|x_i - y_sigma(i)|^2"),
    ),
]

ROBUSTNESS = [
    *KEY,
    *_fields(
        ("evaluation", TEXT, "", "lesion, skip, swap, noise, fgsm, pgd, separation(_different)"),
        ("of", TEXT, "", "name in a sweep file that it belongs to: skip and swap to lesion"),
        ("settings", TEXT, "", "JSON: of that evaluation"),
        ("stage", WHOLE, "", "k, 1 to K; null: the whole network"),
        ("block", WHOLE, "", "l, 0 to n; null: the whole stage or network"),
        ("level", REAL, "", "how much of it, see unit; of separation a decile, 0 for all pairs"),
        ("unit", TEXT, "", "of the level; pixel values: 0 is black, 255 white"),
        ("m", WHOLE, "points", "the first m of the test split; of a rate, those it is a mean of"),
        ("accuracy", REAL, "fraction", "on the test points; at level 0 the null"),
        ("loss", REAL, "nat", "mean cross-entropy"),
        ("variation_rate", REAL, "1", "mean |x^(l) - x_c^(l)| / |x^(l)| (eq. 49)"),
        ("mixed", REAL, "fraction", "ordered pairs whose ends the noise mixes up"),
        ("distance", REAL, "distance", "mean track distance (eq. 35) of these pairs"),
    ),
]

TABLES = {
    name: pa.schema(fields, metadata={"geosweep": FORMAT, "table": name})
    for name, fields in {
        "trials": TRIALS,
        "epochs": EPOCHS,
        "tracks": TRACKS,
        "samples": SAMPLES,
        "robustness": ROBUSTNESS,
    }.items()
}


def write_table(root: str, table: str, trial: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a trial's rows of a table; columns that a row does not have are null.

    Plain values, snappy and no statistics: dictionaries, statistics and zstd make files of few
    rows larger, and more than twice as slow to read.
    """
    with writing(root, table_path(table, trial)) as stream:
        content = pa.Table.from_pylist(list(rows), TABLES[table])
        pq.write_table(content, stream, use_dictionary=False, write_statistics=False)


class Kept(NamedTuple):
    """Rows of many files together, in the order of the files' names."""

    rows: pa.Table
    files: dict[str, tuple[str, int]]  # name -> size and time of the file, count of its rows


def read_table(root: str, table: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a table, from the files of all trials, in the order of their names.

    Many small files are slow to open: where there are more than a few, what was read is kept
    together in one hidden file, and only files that are new or have changed are opened; once
    these are many, they are kept as well. On a disk of this machine that file is mapped, so a
    column takes memory once it is looked at.
    The memory is the caller's own: what is written into it reaches no file and no other reader.

    Raises:
        StoreError: a file there is not Parquet, or not of this table; the message names it.
    """
    whole = TABLES[table]
    wanted = pa.schema([whole.field(name) for name in columns or whole.names], whole.metadata)
    marks = {
        info.base_name: f"{info.size} {info.mtime_ns}"
        for info in infos(root, table_folder(table))
        if info.base_name.endswith(".parquet")
    }
    if len(marks) < MANY:
        return _updated(root, table, marks, Kept(wanted.empty_table(), {})).rows
    kept = _read_kept(root, table, wanted)
    known = {name: mark for name, (mark, _) in kept.files.items()}
    if len(dict(marks.items() ^ known.items())) >= MANY:  # fewer are read beside it
        rows, files = _updated(root, table, marks, _read_kept(root, table, whole))
        columns_left, rows = rows.columns, None  # to free a column when it has been put together
        rows = pa.table([_in_one_piece(columns_left.pop(0)) for _ in whole], whole)
        if not _keep(root, table, Kept(rows, files)):
            return rows.select(wanted.names)
        rows = None  # before it is read again, mapped
        pa.default_memory_pool().release_unused()
        kept = _read_kept(root, table, wanted)
    return _updated(root, table, marks, kept).rows


def _updated(root: str, table: str, marks: dict[str, str], kept: Kept) -> Kept:
    """What was kept, without files that are gone and with those that are new or have changed."""
    new = sorted(n for n, mark in marks.items() if kept.files.get(n, ("", 0))[0] != mark)
    read, counts = _read_files(root, table, new, kept.rows.schema)
    added = {name: (marks[name], count) for name, count in zip(new, counts, strict=True)}

    def source(name: str) -> str:
        return "read" if name in added else "kept" if name in marks else "gone"

    parts = [kept.rows.slice(0, 0)]
    i = j = 0  # the next row of what was kept, and of what was read
    for place, names in itertools.groupby(sorted(marks.keys() | kept.files.keys()), source):
        names = list(names)
        old = sum(kept.files[name][1] for name in names if name in kept.files)
        now = sum(added[name][1] for name in names if name in added)
        if place == "kept":
            parts.append(kept.rows.slice(i, old))
        parts.append(read.slice(j, now))
        i, j = i + old, j + now
    files = {name: added.get(name) or kept.files[name] for name in sorted(marks)}
    return Kept(pa.concat_tables([part for part in parts if len(part)] or parts[:1]), files)


def _read_files(
    root: str, table: str, names: list[str], wanted: pa.Schema
) -> tuple[pa.Table, list[int]]:
    """The columns that are wanted of files one after the other, and how many rows each has."""

    def fetch(name: str) -> pa.Buffer:
        return read_buffer(root, f"{table_folder(table)}/{name}")

    def read(name: str, content: Future[pa.Buffer]) -> pa.Table | StoreError:
        try:
            return _read_content(content.result(), table, wanted)
        except (pa.ArrowException, OSError, KeyError) as error:
            path = f"{root}/{table_folder(table)}/{name}"
            return StoreError(f"{path}: not a table of geosweep: {error}")

    parts, counts, broken = [wanted.empty_table()], [], []
    # Many may wait for a disk or a network; readers beyond the cores are in each other's way.
    with ThreadPoolExecutor(16) as fetching, ThreadPoolExecutor(pa.cpu_count()) as reading:
        for start in range(0, len(names), TOGETHER):
            some = names[start : start + TOGETHER]
            found = list(reading.map(read, some, [fetching.submit(fetch, name) for name in some]))
            broken += [one for one in found if isinstance(one, StoreError)]
            whole = [one for one in found if not isinstance(one, StoreError)]
            counts += [one.num_rows for one in whole]
            parts.append(pa.concat_tables([parts[0], *whole]).combine_chunks())
    if broken:
        others = f" (and {len(broken) - 1} other files)" if len(broken) > 1 else ""
        raise StoreError(f"{broken[0]}{others}")
    return pa.concat_tables(parts), counts


def _read_content(content: pa.Buffer, table: str, wanted: pa.Schema) -> pa.Table:
    """The columns that are wanted of a Parquet file; null if it was written without them."""
    file = pq.ParquetFile(pa.BufferReader(content))
    schema = file.schema_arrow
    there = set(schema.names)
    kind = (schema.metadata or {}).get(b"table", table.encode())
    if KEY[0].name not in there or kind != table.encode():
        raise pa.ArrowInvalid(f"its columns are not those of {table}")
    rows = file.read([name for name in wanted.names if name in there], use_threads=False)
    if rows.schema.equals(wanted):
        return rows
    count = file.metadata.num_rows
    columns = [
        rows[field.name].cast(field.type) if field.name in there else pa.nulls(count, field.type)
        for field in wanted
    ]
    return pa.table(columns, wanted)


def _in_one_piece(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    pa.default_memory_pool().release_unused()  # what the column before was put together from
    try:
        return column.combine_chunks()
    except pa.ArrowInvalid:  # more numbers in lists than an array can have: 2^31
        return column


def _read_kept(root: str, table: str, wanted: pa.Schema) -> Kept:
    """What was kept together of a table; nothing if there is none of its present columns."""
    fs, base = open_folder(root)
    path = f"{base}/{merged_table(table)}"
    nothing = Kept(wanted.empty_table(), {})
    if fs.get_file_info(path).type != pafs.FileType.File:
        return nothing
    try:
        if isinstance(fs, pafs.LocalFileSystem) and _is_on_disk(path):
            with open(path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            reader = pa.ipc.open_file(pa.py_buffer(mapped))
        else:
            places = [TABLES[table].get_field_index(name) for name in wanted.names]
            options = pa.ipc.IpcReadOptions(included_fields=places)
            reader = pa.ipc.open_file(fs.open_input_file(path), options=options)
        rows = reader.read_all().select(wanted.names)
        if rows.schema.equals(wanted):
            files = json.loads(reader.schema.metadata[KEPT])
            rows = pa.Table.from_arrays(rows.columns, schema=wanted)
            return Kept(rows, {name: tuple(about) for name, about in files.items()})
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        pass
    return nothing


def _is_on_disk(path: str) -> bool:
    """Whether a file is on a disk of this machine: a block device, or a kind that needs none.

    Over a network, a mapped file that somebody replaces is gone, and looking at it fatal.
    """
    device = os.stat(os.path.dirname(path)).st_dev
    if os.major(device):
        return True
    mounts = "/proc/self/mountinfo"
    if not os.path.exists(mounts):
        return False
    with open(mounts) as file:
        kinds = {line.split()[2]: line.partition(" - ")[2].split()[0] for line in file}
    return kinds.get(f"0:{os.minor(device)}") in ("btrfs", "overlay", "tmpfs", "zfs")


def _keep(root: str, table: str, whole: Kept) -> bool:
    """Keep rows together; False where nothing can be written."""
    about = {**(TABLES[table].metadata or {}), KEPT: json.dumps(whole.files).encode()}
    schema = TABLES[table].with_metadata(about)
    try:
        with (
            writing(root, merged_table(table)) as stream,
            pa.ipc.new_file(stream, schema) as file,
        ):
            file.write_table(whole.rows)
    except (pa.ArrowException, OSError, Unreachable):
        return False  # a folder of somebody else's, or a full disk: the trials' files are there
    return True


def broken_files(root: str, table: str) -> list[str]:
    """Files among those of a table that are torn, or not of a trial; relative to the folder."""
    fs, base = open_folder(root)
    folder = table_folder(table)
    found = []
    for name in list_files(root, folder):
        path = f"{folder}/{name}"
        if not OF_A_TRIAL.fullmatch(name) or not _is_whole(fs, f"{base}/{path}", table):
            found.append(path)
    return found


def _is_whole(fs: pafs.FileSystem, path: str, table: str) -> bool:
    try:
        kind = pq.read_schema(path, filesystem=fs).metadata or {}
    except (pa.ArrowException, OSError) as error:
        if is_away(error):
            raise Unreachable(f"{path}: cannot be reached: {error}") from error
        return False
    return kind.get(b"table") == table.encode()


def read_rows(root: str, table: str, trial: str) -> list[dict[str, Any]]:
    """The rows that a trial has in a table; none if its file is not there.

    A column that the file was written without, by an earlier version, is null.
    """
    content = read_file(root, table_path(table, trial))
    if content is None:
        return []
    return _read_content(pa.py_buffer(content), table, TABLES[table]).to_pylist()


def read_row(root: str, table: str, trial: str) -> dict[str, Any]:
    """The first row that a trial has in a table; empty if it has none."""
    rows = read_rows(root, table, trial)
    return rows[0] if rows else {}
