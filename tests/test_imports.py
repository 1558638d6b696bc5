"""The structure of the packages, read from the source: who imports what.

Every import counts, also those inside functions and under ``TYPE_CHECKING``.
"""

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "scoring", "tune_jobs", "analysis")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAY_IMPORT = {  # packages, or modules of them
    "models": {"models"},
    "scoring": {"scoring"},
    "tune_jobs": {"tune_jobs", "models", "scoring"},
    "analysis": {
        "analysis",
        "scoring.schemas",
        "scoring.tables",
        "scoring.storage",
        "scoring.places",
    },
}


def module(path: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in SOURCES}
sources = pytest.mark.parametrize("path", SOURCES, ids=module)


def imports(path: Path) -> Iterator[str]:
    """Full dotted names of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            (name, *_) = node.args
            assert isinstance(name, ast.Constant), f"{path} imports a name that it computes"
            yield name.value


def own(path: Path) -> set[str]:
    """Modules of the project that a file imports."""
    found = set()
    for name in imports(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]  # a function or class in a module
        found |= {name} - {"", module(path)}
    return found


def top_level(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@sources
def test_a_package_imports_only_the_packages_below_it(path: Path) -> None:
    allowed = MAY_IMPORT[module(path).partition(".")[0]]
    foreign = {name for name in own(path) if not {name, name.partition(".")[0]} & allowed}
    assert foreign == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: own(path) for name, path in MODULES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@sources
def test_ray_mlflow_and_torch_stay_in_their_packages(path: Path) -> None:
    package, foreign = path.relative_to(ROOT).parts[0], top_level(path)
    if package != "tune_jobs" and path != ROOT / "scoring/actors.py":
        assert "ray" not in foreign
    if package in ("models", "scoring"):
        assert "mlflow" not in foreign
    if package == "analysis":
        assert not foreign & {"torch", "torchvision"}


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=module)
def test_a_package_is_a_docstring_only(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert ast.get_docstring(ast.Module(body, []))


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=module)
def test_every_folder_with_modules_is_a_package(folder: Path) -> None:
    assert (folder / "__init__.py").is_file()


def test_the_wheel_holds_every_file_that_is_not_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = {
        path
        for package, patterns in project["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = [path for p in PACKAGES for path in (ROOT / p).rglob("*") if path.is_file()]
    cached = "__pycache__"  # bytecode, and numba's compiled kernels
    assert {p for p in files if p.suffix != ".py" and p.parent.name != cached} == packed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "unwanted"),
    [
        ("scoring.schemas", {"torch", "ray", "mlflow", "lap"}),
        ("scoring.tables", {"torch", "ray", "mlflow", "numba"}),
        ("scoring.places", {"torch", "ray", "mlflow", "pyarrow", "numpy"}),
        ("scoring.storage", {"torch", "ray", "mlflow"}),
        ("scoring.handover", {"torch", "ray", "mlflow", "numba"}),
        ("scoring.transport", {"torch", "ray", "mlflow", "pandas"}),
        ("scoring.actors", {"torch", "mlflow", "numba", "ray.tune"}),
        ("tune_jobs.trial", {"mlflow", "numba", "scipy", "sklearn", "torchvision", "optuna"}),
        ("models.config", {"torch", "ray", "mlflow", "numpy", "models.network"}),
        ("models.datasets", {"torch", "torchvision", "ray", "sklearn"}),
        ("tune_jobs.api", {"torch", "ray", "mlflow", "numba", "scipy", "pandas", "optuna"}),
        ("tune_jobs.cli", {"torch", "ray", "mlflow", "numba", "scipy", "pandas", "optuna"}),
    ],
)
def test_a_module_loads_no_more_than_it_needs(name: str, unwanted: set[str]) -> None:
    code = f"import sys, {name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not unwanted & set(done.stdout.split())
