"""What every node of a cluster needs before it trains: the sweep's folder and the data.

On one machine both are there. On a cluster the driver writes a token into the folder, and every
node looks for it before any training; a node that joins later looks before its first trial. The
driver also writes the datasets into the folder, named by their checksums. A node copies each of
them once, under a lock.
"""

import io
import socket
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow.fs as pafs
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from models import datasets
from models.archives import ARRAYS
from models.errors import DataError
from models.messages import first_line, plain
from scoring import places, storage
from tune_jobs.errors import SweepError
from tune_jobs.folder import Request

PATIENCE = 60.0  # Wait this many seconds for a node to answer. A slower node looks later.

# On a cloud Ray gives rights to the head only, unless the cluster file names them for other types.
LACKS = "this node has no right to read there (on AWS s3:GetObject and s3:ListBucket); "
LACKS += (
    "IamInstanceProfile (AWS) or serviceAccounts (Google) of its type in the cluster file gives it"
)


class NotShared(RuntimeError):
    """A node does not see the driver's folder; the message names the folder and the node."""


@dataclass(frozen=True)
class Shared:
    """What the driver left in a sweep's folder for other nodes."""

    token: str = ""  # empty on a single machine
    data: Mapping[str, str] = field(default_factory=dict)  # checksum of each dataset, by name


def share(request: Request) -> Shared:
    """Write what other nodes need into the folder, and check that every node finds it.

    Raises:
        SweepError: some nodes do not find it; the message names them.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if request.address is None and len(nodes) == 1:
        return Shared(data=request.checksums)
    shared = Shared(uuid.uuid4().hex, request.checksums)
    storage.delete(request.root, places.NODES)  # A driver that was killed may have left its own.
    storage.write_file(request.root, f"{places.NODES}/{shared.token}", b"")
    asked = {
        _look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(request.root, shared.token): node
        for node in nodes
    }
    answered, _ = ray.wait([*asked], num_returns=len(asked), timeout=PATIENCE)
    apart = []
    for answer in answered:
        try:
            why = ray.get(answer, timeout=PATIENCE)
        except RayError:
            continue  # The node has died since.
        if why:
            node = asked[answer]
            apart.append(f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}: {why})")
    if apart:
        raise SweepError(
            f"{request.root}: not the same folder on every node: {', '.join(sorted(apart))}; "
            "choose one that all of them reach with --out: a mounted path, or s3://BUCKET/..."
        )
    _put_data(request)
    return shared


@ray.remote(num_cpus=0, max_retries=0)
def _look(root: str, token: str) -> str:
    return missing(root, token)


def missing(root: str, token: str) -> str:
    """Why this machine does not see the driver's folder; empty if it does."""
    try:
        fs, base = storage.open_folder(root)  # without retries, because the driver waits
        there = fs.get_file_info(f"{base}/{places.NODES}/{token}").type == pafs.FileType.File
    except (OSError, ValueError) as error:
        why = first_line(error)
        return f"{why}; {LACKS}" if "_DENIED" in why else why
    return "" if there else "the file that the driver wrote there is missing"


def load(
    root: str, name: str, sources: Mapping[str, str], folder: str | None, shared: Shared
) -> datasets.Dataset:
    """Load a dataset for a trial on this machine.

    Args:
        root: the sweep's folder.
        name: of the dataset, as in the configuration.
        sources: path of each dataset on the driver's machine.
        folder: the data folder on the driver's machine.
        shared: what the driver left in the sweep's folder.

    Raises:
        NotShared: this machine does not see the driver's folder.
        models.errors.DataError: the dataset is missing or has the wrong checksum.
    """
    if not shared.token:
        return _same(sources[name], folder, shared.data.get(name))
    if why := missing(root, shared.token):
        raise NotShared(f"{root}: not the driver's folder on {socket.gethostname()}: {why}")
    checksum = shared.data[name]

    def fetch() -> io.BytesIO:
        path = places.dataset(checksum)
        try:
            return _archive(root, path)
        except storage.Damaged as error:
            storage.delete(root, path)  # it is a copy
            again = "the next geosweep run writes it again"
            raise DataError(f"{root}/{path}: {error.reason}; {again}") from error

    return datasets.keep(checksum, fetch)


def _same(source: str, folder: str | None, checksum: str | None) -> datasets.Dataset:
    """Load a dataset on the driver's machine, if it is still the one that the sweep began with.

    A file of the same size and time comes from the cache, which knows its checksum.

    Raises:
        models.errors.DataError: its file has been replaced.
    """
    data = datasets.load(source, folder)
    if checksum and data.checksum != checksum:
        raise DataError(
            f"{plain(datasets.locate(source, folder))}: has changed while the sweep ran (checksum "
            f"{checksum}, now {data.checksum}); put the earlier file back and run the sweep again, "
            "or run the new one in another folder with --out"
        )
    return data


def _archive(root: str, path: str) -> io.BytesIO:
    """The content of a dataset in the sweep's folder, which has a checksum for each array.

    Raises:
        storage.Damaged: it is damaged or missing.
    """
    content = io.BytesIO(storage.read_file(root, path) or b"")
    if not content.getvalue():
        raise storage.Damaged(root, path, "it is missing or empty")
    with storage.reading(root, path), zipfile.ZipFile(content) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} has another checksum")
    return content


def _put_data(request: Request) -> None:
    """Write the datasets that are not there yet into the sweep's folder."""
    there = storage.list_files(request.root, places.DATA)
    for name, checksum in request.checksums.items():
        path = places.dataset(checksum)
        if f"{checksum}.npz" not in there:
            data = _same(request.sources[name], request.data, checksum)
            arrays = {key: getattr(data, key) for key in ARRAYS}
            with storage.writing(request.root, path) as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
