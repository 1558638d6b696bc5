"""Real sweeps on disks that are full: what is said, what is kept, and how they go on."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_sweeps import Sweep
from small_sweeps import geosweep

from scoring import schemas
from scoring.tables import broken_files

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.usefixtures("ray_here"),
]


@pytest.fixture
def small_disk():
    """A function that mounts a small disk at a folder, and returns one that makes it larger."""
    mounted = []

    def mount(place: Path, size: str) -> Callable[[], object]:
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
        if os.geteuid() or not shutil.which("mount") or subprocess.run(command).returncode:
            pytest.skip("mounting a small disk needs root")
        mounted.append(place)
        return lambda: subprocess.run(["mount", "-o", "remount,size=200m", place], check=True)

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", place], check=True)


# Small disks in the sweep's folder in the order in which they fill, their sizes, and the folder
# that has files by then.
FULL = [
    ("checkpoints", "16k", "pending"),
    (".", "6m", "checkpoints"),
    ("results/trials", "8k", "results/samples"),
]


def test_a_full_disk_is_named_nothing_is_half_written_and_it_goes_on_with_room(
    tmp_path, small_disk
):
    root = tmp_path / "out"
    grow = {place: small_disk(root / place, size) for place, size, _ in sorted(FULL)}
    sweep = Sweep(tmp_path, epochs=3, points=4000, root=root)
    for place, _, filled in FULL:
        said = sweep.again(status=1)
        told = [line for line in said.splitlines() if "geosweep: " in line]
        assert len(told) == 1
        assert "no space left on the disk (" in told[0]
        assert str(tmp_path) in told[0]
        assert "Traceback" not in said
        assert not any(row["status"] == "failed" for row in sweep.rows().values())
        for table in schemas.TABLES:
            assert broken_files(sweep.root, table) == []
        assert any((root / filled).rglob("*.*"))
        assert place == "." or not [*(root / place).glob("*.pt*"), *(root / place).glob("*.par*")]
        grow[place]()
    sweep.again()
    sweep.check()


def test_a_full_disk_under_ray_is_named_by_rays_folder_not_by_the_sweeps(tmp_path, small_disk):
    short = Path(tempfile.mkdtemp(prefix="full", dir="/tmp"))
    small_disk(short, "100k")
    sweep = Sweep(tmp_path, epochs=3)
    sweep.environment = {"RAY_TMPDIR": str(short)}
    with sweep:
        said = sweep.end(status=1)
    assert f"no space left on the disk ({short}/" in said
    assert "Traceback" not in said
    sweep.environment = {}
    sweep.again()
    sweep.check()


def test_a_full_disk_under_mlflow_costs_mlflow_only_and_sync_catches_up(tmp_path, small_disk):
    small_disk(tmp_path / "disk", "100k")
    sweep = Sweep(tmp_path, epochs=2)
    sweep.environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/disk/mlflow.db"}
    said = sweep.again()
    assert said.count("MLflow: ") == 1
    assert {row["status"] for row in sweep.rows().values()} == {"done"}
    sweep.environment = {}
    status, output = geosweep("sync", sweep.root)
    assert status == 0, output
    assert "2 trials logged" in output
    sweep.check()
