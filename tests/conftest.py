"""What every test runs under: one thread, a cache of its own, tests that repeat in CI."""

import os
import tempfile

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
