"""What every machine of a cluster needs before it trains: the sweep's folder, and the data.

On one machine both are there. On several the driver leaves a token in the folder, and every node
looks for it before anything is trained, one that comes later before its first trial. The data
sets lie in the folder too, by their checksums; a node takes one from there once, under a lock.
"""

import io
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow.fs as pafs
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from models import datasets
from scoring import places, storage
from tune_jobs.errors import SweepError
from tune_jobs.folder import Request

PATIENCE = 60.0  # seconds for a node to answer; one that does not looks before its first trial


class NotShared(RuntimeError):
    """A node sees another folder than the driver does; the message names both."""


@dataclass(frozen=True)
class Shared:
    """What lies in a sweep's folder for every node; nothing of a sweep on one machine."""

    token: str = ""
    data: Mapping[str, str] = field(default_factory=dict)  # checksums, by name of the data set


def share(request: Request) -> Shared:
    """Leave what other nodes need in the folder, and look whether all of them find it.

    Raises:
        SweepError: some do not; the message names them.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if request.address is None and len(nodes) == 1:
        return Shared()
    shared = Shared(uuid.uuid4().hex, request.checksums)
    storage.delete(request.root, places.NODES)  # of a driver that was killed
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
            continue  # it died meanwhile
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
    """What keeps this machine from the driver's folder; empty if nothing does."""
    try:
        fs, base = storage.open_folder(root)  # and no patience: the driver waits
        there = fs.get_file_info(f"{base}/{places.NODES}/{token}").type == pafs.FileType.File
    except (OSError, ValueError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return "" if there else "what the driver wrote there is missing"


def load(
    root: str, name: str, sources: Mapping[str, str], folder: str | None, shared: Shared
) -> datasets.Dataset:
    """A data set for a trial on this machine.

    Args:
        root: the sweep's folder.
        name: of the data set in the configuration.
        sources: where each data set is on the driver's machine.
        folder: the data folder there.
        shared: what lies in the sweep's folder.

    Raises:
        NotShared: this machine has another folder of that name, or none.
        models.datasets.DataError: the data set is not there or not what it should be.
    """
    if not shared.token:
        return datasets.load(sources[name], folder)
    if why := missing(root, shared.token):
        raise NotShared(f"{root}: not the driver's folder on {socket.gethostname()}: {why}")
    checksum = shared.data[name]
    path = places.dataset(checksum)
    return datasets.keep(checksum, lambda: io.BytesIO(storage.read_file(root, path) or b""))


def _put_data(request: Request) -> None:
    """Data sets into the sweep's folder, those that are not there yet."""
    there = storage.list_files(request.root, places.DATA)
    for name, checksum in request.checksums.items():
        if f"{checksum}.npz" not in there:
            data = datasets.load(request.sources[name], request.data)
            arrays = {key: getattr(data, key) for key in datasets.ARRAYS}
            with storage.writing(request.root, places.dataset(checksum)) as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
