"""The wheel is complete: installed alone, far from the source, its commands and modules work."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from test_imports import MODULES, PACKAGES, ROOT

pytestmark = pytest.mark.long


def call(*command: str | Path, folder: Path) -> str:
    """Run a command in a folder, without this process's import paths; returns what it printed."""
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline from a copy of the source, so that nothing is left in the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder]
    call(sys.executable, "-m", "pip", "wheel", "--quiet", *options, source, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A virtual environment with the wheel and nothing else; returns its ``bin`` folder.

    Third-party packages are those of this environment. The line in a .pth file adds their folder
    to the import path without processing the .pth files in there, so the editable install of
    geosweep, if there is one, stays out.
    """
    place = wheel.parent / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    call(*pip, "--no-index", "--no-deps", wheel, folder=wheel.parent)
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (own,) = place.glob("lib/python*/site-packages")
    (own / "others.pth").write_text("\n".join(others) + "\n")
    return place / "bin"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_has_every_file_of_the_packages(wheel: Path, package: str) -> None:
    files = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()}
    files = {str(path) for path in files if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as content:
        assert files - set(content.namelist()) == set()


def test_every_module_of_the_wheel_can_be_imported(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib, sys
for name in sys.argv[1:]:
    print(importlib.import_module(name).__file__)
"""
    places = call(installed / "python", "-c", code, *MODULES, folder=tmp_path).splitlines()
    assert len(places) == len(MODULES)
    assert all(Path(place).is_relative_to(installed.parent) for place in places)


def test_the_commands_of_the_wheel_work_in_an_unrelated_folder(
    installed: Path, tmp_path: Path
) -> None:
    assert "demo" in call(installed / "geosweep", "sweeps", folder=tmp_path)
    plan = call(installed / "geosweep", "run", "demo", "--dry-run", folder=tmp_path)
    assert "16 cells" in plan
    told = call(installed / "python", "-m", "analysis.report", "--help", folder=tmp_path)
    assert "python -m analysis.report" in told
    assert list(tmp_path.iterdir()) == []
