"""What every test runs under: one thread, a cache of its own, tests that repeat in CI."""

import os
import tempfile

import pyarrow.fs as pafs
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "geosweep",
    deadline=None,
    max_examples=40,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("geosweep")
torch.set_num_threads(1)


def pytest_configure(config):
    """Keep the whole session, its doctests and child processes out of the user's cache."""
    folder = tempfile.TemporaryDirectory(prefix="geosweep-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ["GEOSWEEP_CACHE"] = folder.name
    os.environ.pop("GEOSWEEP_DATA", None)


# Ray and MLflow leave sockets, databases and subprocesses to the garbage collector.
LEFT_BEHIND = (
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*:DeprecationWarning",
    "ignore:.*:FutureWarning",
    "ignore:.*:UserWarning:mlflow",
)


def pytest_collection_modifyitems(items):
    """Side by side run files, and of what is killed, which takes long, each test of its own."""
    for item in items:
        if item.get_closest_marker("ray") or item.get_closest_marker("cluster"):
            for what in LEFT_BEHIND:
                item.add_marker(pytest.mark.filterwarnings(what))
        if item.get_closest_marker("faults") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(scope="module")
def ray_here():
    """Ray on this machine for the tests of a module; those of others start their own."""
    import ray

    ray.init(
        "local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def object_store():
    """A bucket in an object store on loopback, for this process and its children: its URI."""
    from moto.server import ThreadedMotoServer  # takes seconds

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "none")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        store, _ = pafs.FileSystem.from_uri("s3://sweeps?allow_bucket_creation=true")
        store.create_dir("sweeps")
        yield "s3://sweeps"
    server.stop()
