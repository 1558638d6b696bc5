"""Every path inside a sweep's folder, relative to it. Other modules take these names from here.

The folder itself is a path or a URI; :mod:`scoring.storage` reads and writes in it.
"""

import os
import re
import shlex
from collections.abc import Sequence

RESULTS = "results"  # one folder for each table, with one Parquet file for each trial
CHECKPOINTS = "checkpoints"  # weights of trials, and their training history
PENDING = "pending"  # what trained trials left for scoring
ASIDE = "set-aside"  # damaged files, and files that geosweep did not write
ERRORS = "errors"  # tracebacks of failed trials
REPORT = "report"  # the page, its tables and its figures
DATA = "data"  # data sets for the nodes of a cluster, by checksum
CODE = "code"  # Python files of users, by checksum
NODES = "nodes"  # a token that the driver writes, so that nodes can recognise the folder
HOLDERS = "holders"  # says which driver runs the sweep, in an object store
LOCK = ".lock"  # lock of the driver that runs the sweep, on a disk
HOLDER = ".holder"  # names the process that has the lock
SWEEP = "sweep.json"  # the cells of the sweep, and the settings of its search
PROGRESS = "progress.json"  # what a running sweep is doing
USED = "used.json"  # seconds that each run of the sweep has taken, for its budget
MERGED = ".merged"  # ends the names of merged files
PAGE = f"{REPORT}/index.html"
MLFLOW = "mlflow.db"  # MLflow's database
ARTIFACTS = "mlartifacts"  # the files that MLflow keeps
MLFLOW_NOTE = "mlflow.json"  # which trials MLflow has
STUDY = "study.log"  # the study of a search, in the format of Optuna's journal files

FOLDERS = (RESULTS, CHECKPOINTS, PENDING, ASIDE, ERRORS, REPORT, DATA, CODE, NODES, HOLDERS)
FOLDERS += (ARTIFACTS,)
FILES = (LOCK, HOLDER, SWEEP, PROGRESS, USED, MLFLOW, MLFLOW_NOTE, STUDY)
FREE = (ASIDE, ARTIFACTS)  # anything may be in them

INITIAL, FINAL = "initial.npz", "final.npz"  # in a trial's folder in PENDING
CURVE = "curve.npz"  # in the same folder


def table_folder(table: str) -> str:
    """Folder of a table's files."""
    return f"{RESULTS}/{table}"


def table_path(table: str, trial: str) -> str:
    """A trial's rows of a table."""
    return f"{RESULTS}/{table}/{trial}.parquet"


def merged(table: str, name: str) -> str:
    """Hidden file that holds the rows of many trials; it can be deleted at any time."""
    return f"{RESULTS}/.{table}.{name}{MERGED}"


def checkpoint(trial: str) -> str:
    """Weights of a trial after its latest epoch, and the optimizer while it trains."""
    return f"{CHECKPOINTS}/{trial}.pt"


def best_checkpoint(trial: str) -> str:
    """Weights of the epoch with the highest accuracy, validation or else test, if they are kept."""
    return f"{CHECKPOINTS}/{trial}.best.pt"


def history(trial: str) -> str:
    """Training history that belongs to the checkpoint."""
    return f"{CHECKPOINTS}/{trial}.json"


def pending(trial: str) -> str:
    """Folder of the files that a trial left for scoring."""
    return f"{PENDING}/{trial}"


def initial(trial: str) -> str:
    """Assignment problems of the network before training."""
    return f"{PENDING}/{trial}/{INITIAL}"


def final(trial: str) -> str:
    """Assignment problems of the trained network, and everything else that its tables need."""
    return f"{PENDING}/{trial}/{FINAL}"


def curve(trial: str) -> str:
    """Assignment problems along the curves of measures of a trained network."""
    return f"{PENDING}/{trial}/{CURVE}"


def error(trial: str) -> str:
    """Traceback of a trial or of its evaluation."""
    return f"{ERRORS}/{trial}.txt"


def comparison(other: str) -> str:
    """Folder of the report that compares a sweep with another one, named after that one's folder.

    >>> comparison("s3://bucket/runs/my.sweep/")
    'report/against-my-sweep'
    """
    name = other.rstrip("/").rpartition("/")[2]
    return f"{REPORT}/against-{''.join(c if c.isalnum() else '-' for c in name)}"


def together(folders: Sequence[str]) -> str:
    """Folder of the report on several sweeps: next to the first one, named after all of them.

    >>> together(["/runs/demo", "/runs/more.seeds/"])
    '/runs/report-demo-more-seeds'
    """
    first = folders[0].rstrip("/")
    names = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
    words = ["".join(c if c.isalnum() else "-" for c in name)[:40] for name in names[:4]]
    more = [f"and-{len(names) - 4}-more"] if len(names) > 4 else []
    return f"{first.rpartition('/')[0]}/{'-'.join(['report', *words, *more])}"


def dataset(checksum: str) -> str:
    """A data set for the nodes of a cluster."""
    return f"{DATA}/{checksum}.npz"


def code(checksum: str) -> str:
    """A Python file of a user that trials need."""
    return f"{CODE}/{checksum}.py"


def is_folder(path: str) -> bool | None:
    """Whether a path in a sweep's folder should be a folder; None if it may be anything.

    Files in subfolders have a suffix, and folders have none.

    >>> is_folder("results"), is_folder("sweep.json"), is_folder("notes"), is_folder("errors/a.txt")
    (True, False, None, False)
    """
    top, _, inner = path.partition("/")
    if not inner:
        return True if path in FOLDERS else False if path in FILES else None
    if top not in FOLDERS or top in FREE:
        return None
    if "." in inner[1:]:
        return False
    of_folders = top in (RESULTS, PENDING) and "/" not in inner and not inner.startswith(".")
    return True if of_folders else None


def redact(text: str) -> str:
    """Remove user names and passwords from the addresses in a text.

    >>> redact("http://me:secret@host:5000, s3://key:secret@bucket/runs")
    'http://host:5000, s3://bucket/runs'
    """
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def argument(path: str) -> str:
    """A path as an argument in a command that a message shows, to be pasted into a shell.

    >>> argument("runs/demo"), argument("-a b"), argument("two\\nlines")
    ('runs/demo', "'./-a b'", "$'two\\\\x0alines'")
    """
    path = f"./{path}" if path.startswith("-") else path
    if path.isprintable():
        return shlex.quote(path)
    return "$'" + "".join(map(_quoted, path)) + "'"


def _quoted(letter: str) -> str:
    """A letter in a shell's quotes, in which escape sequences are read."""
    if letter.isprintable():
        return f"\\{letter}" if letter in "\\'" else letter
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
