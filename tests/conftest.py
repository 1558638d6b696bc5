"""Settings and fixtures of all tests: one thread, a private cache, the same examples in CI."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from tune_jobs.processes import LEAN, be_quiet

settings.register_profile(
    "geosweep",
    deadline=None,
    max_examples=40,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("geosweep")
torch.set_num_threads(1)
pytest.register_assert_rewrite("faulty_sweeps", "tiny_training")


def pytest_configure(config):
    """Keep the session, with its doctests and child processes, out of the user's cache."""
    be_quiet()
    folder = tempfile.TemporaryDirectory(prefix="geosweep-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ["GEOSWEEP_CACHE"] = folder.name
    os.environ["GEOSWEEP_TIMING"] = "off"  # each timed step takes seconds
    os.environ.pop("GEOSWEEP_DATA", None)


# Ray and MLflow leave sockets, databases and child processes to the garbage collector.
LEFT_BEHIND = (
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*:DeprecationWarning",
    "ignore:.*:FutureWarning",
    "ignore:.*:UserWarning:mlflow",
)


LONGEST_FIRST = ("long", "ray", "slow")
USES_RAY: set[Path] = set()  # files with a test that takes the Ray of ray_here


def pytest_collection_modifyitems(items):
    """Sort the tests, for parallel workers those that take long first.

    A worker takes a whole file, so that what a file prepares is prepared once. Files that share a
    Ray follow each other. Long tests that share it are taken one by one. The shared Ray starts
    before other tests import Ray with a token, as Ray reads that only once.
    """
    for item in items:
        if item.get_closest_marker("ray") or item.get_closest_marker("cluster"):
            for what in LEFT_BEHIND:
                item.add_marker(pytest.mark.filterwarnings(what))
        shares_ray = "ray_here" in getattr(item, "fixturenames", ())
        if shares_ray:
            USES_RAY.add(item.path)
        if not (shares_ray and item.get_closest_marker("long")):
            item.add_marker(pytest.mark.xdist_group(item.path.name))

    def order(item):
        marked = [not item.get_closest_marker(name) for name in LONGEST_FIRST]
        return marked[0], item.path not in USES_RAY or marked[1], *marked[1:]

    items.sort(key=order)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function that returns a folder which is filled once for all workers of the session.

    Its arguments are a name and a function that fills the folder. Tests only read the folder.
    """
    own = tmp_path_factory.getbasetemp()
    base = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def get(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = base / name, base / f"{name}.filled"
        with FileLock(base / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def report_page(shared) -> Path:
    """The report's page of ``made_up.reported_sweep``, which the command wrote. Not to be changed.

    ``printed.txt`` in the sweep's folder holds what :data:`made_up.REPORT` printed.
    """
    from made_up import write_report

    return shared("reported", write_report) / "demo/report/index.html"


@pytest.fixture
def reports(monkeypatch) -> list[dict]:
    """The results that trials report to their driver, without Ray."""
    from tune_jobs import trial

    found: list[dict] = []
    monkeypatch.setattr(trial.tune, "report", found.append)
    return found


@pytest.fixture
def without_figures(monkeypatch):
    """Write reports without figures, which take most of the time."""
    from analysis import figures

    monkeypatch.setattr(figures, "FIGURES", {})


@pytest.fixture
def svg_only(monkeypatch):
    """Write reports with figures in one form: the other one takes a third of the time."""
    from analysis import figures

    monkeypatch.setattr(figures, "drawn", partial(figures.drawn, forms=["svg"]))


@pytest.fixture(scope="module")
def ray_here(object_store_server):
    """Ray with one CPU; sweeps that run in this process use it. Modules in a row share it.

    Ray's workers learn where the object store is when Ray starts, so the store comes first.
    """
    import ray

    if not ray.is_initialized():
        with pytest.MonkeyPatch.context() as environment:
            for name, value in LEAN.items():
                environment.setenv(name, value)
            ray.init(
                "local",
                num_cpus=1,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Stop the Ray of :func:`ray_here` after its files, and before a test that starts its own."""
    if item.path in USES_RAY and "ray" in sys.modules:
        names = getattr(nextitem, "fixturenames", ())
        own = nextitem and nextitem.get_closest_marker("ray") and "ray_here" not in names
        if not nextitem or own or nextitem.path not in USES_RAY:
            sys.modules["ray"].shutdown()


@pytest.fixture(scope="module")
def plain_finished(shared, ray_here) -> Path:
    """Path of a finished Run of one trial, the plain network of the small sweep; to be copied."""
    from small_sweeps import SWEEP, Run  # imports MLflow, which takes seconds

    return shared("plain", lambda path: Run(path)(SWEEP, "network=plain"))


@pytest.fixture
def run(tmp_path):
    """A Run in which nothing was run yet."""
    from small_sweeps import Run  # imports MLflow, which takes seconds

    return Run(tmp_path)


@pytest.fixture(scope="session")
def object_store_server():
    """An object store on loopback, for this process and its children."""
    from moto.server import ThreadedMotoServer  # takes seconds to import

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "none")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        yield
    server.stop()


@pytest.fixture
def object_store(object_store_server) -> str:
    """URI of a bucket there. A test that makes up an AWS in this process deletes all buckets."""
    store, _ = pafs.FileSystem.from_uri("s3://sweeps?allow_bucket_creation=true")
    store.create_dir("sweeps")
    return "s3://sweeps"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no data folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GEOSWEEP_CACHE", str(folder))
    monkeypatch.delenv("GEOSWEEP_DATA", raising=False)
    return folder


@pytest.fixture
def seeded():
    """The same random numbers of torch in every test."""
    torch.manual_seed(0)


@pytest.fixture
def called(monkeypatch, capsys):
    """Call a command in this process; its exit status, and what it prints on each stream."""

    from tune_jobs import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geosweep", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def geosweep(called):
    """The same, with both streams as one text."""

    def call(*arguments: str) -> tuple[int, str]:
        status, out, err = called(*arguments)
        return status, out + err

    return call


@pytest.fixture(scope="module")
def sweep_of(tmp_path_factory):
    """The sweep of a text, or of bytes."""
    from tune_jobs.sweep import read

    folder = tmp_path_factory.mktemp("sweeps")

    def write(content: str | bytes, *settings: str):
        path = folder / "sweep.yaml"
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return read(str(path), settings)

    return write


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder of a user of clusters, without a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GEOSWEEP_STORAGE", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    return tmp_path


@pytest.fixture
def file(tmp_path):
    """A cluster file that names a storage."""
    file = tmp_path / "cluster.yaml"
    text = "provider: {type: local}\nsetup_commands: ['export GEOSWEEP_STORAGE=/mnt/s']\n"
    file.write_text(text)
    return str(file)
