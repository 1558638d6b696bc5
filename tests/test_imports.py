"""Which room may import what, read from the source without running it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("models", "scoring", "tune_jobs", "analysis")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MAY_IMPORT = {
    "models": {"models"},
    "scoring": {"scoring"},
    "tune_jobs": {"tune_jobs", "models", "scoring"},
    "analysis": {"analysis", "scoring"},
}
sources = pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))


def imports(path):
    """Full dotted names of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path):
    return {name.split(".")[0] for name in imports(path)}


@sources
def test_a_room_imports_only_the_rooms_below_it(path):
    room = path.relative_to(ROOT).parts[0]
    assert rooms(path) & set(ROOMS) <= MAY_IMPORT[room]


@sources
def test_analysis_knows_of_scoring_only_the_schemas(path):
    if path.relative_to(ROOT).parts[0] == "analysis":
        seen = {".".join(n.split(".")[:2]) for n in imports(path) if n.startswith("scoring")}
        assert seen <= {"scoring.schemas"}


@sources
def test_ray_mlflow_and_torch_stay_in_their_rooms(path):
    room = path.relative_to(ROOT).parts[0]
    foreign = rooms(path)
    if room != "tune_jobs" and path != ROOT / "scoring/actors.py":
        assert "ray" not in foreign
    if room in ("models", "scoring"):
        assert "mlflow" not in foreign
    if room == "analysis":
        assert not foreign & {"torch", "torchvision"}


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.name == "__init__.py"],
    ids=lambda path: str(path.parent.relative_to(ROOT)),
)
def test_a_package_is_a_docstring_only(path):
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert ast.get_docstring(ast.Module(body, []))


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("scoring.schemas", {"torch", "ray", "mlflow", "lap"}),
        ("scoring.handover", {"torch", "ray", "mlflow", "numba"}),
        ("scoring.transport", {"torch", "ray", "mlflow", "pandas"}),
        ("models.config", {"torch", "ray", "mlflow", "numpy", "models.network"}),
        ("models.datasets", {"torch", "torchvision", "ray", "sklearn"}),
    ],
)
def test_a_module_loads_no_more_than_it_needs(module, unwanted):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not unwanted & set(done.stdout.split())
