"""Any name that a file system allows works for folders, sweeps and data sets, as a name alone."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sweeps import add_database, geosweep

from analysis import claims, correlation, figures, report, tables
from models import datasets
from models.config import TrialConfig
from models.errors import DataError
from models.files import given_path
from scoring import storage
from scoring.places import argument
from scoring.tables import read_table
from tune_jobs import folder, lease, mlflow_store
from tune_jobs.labels import label
from tune_jobs.sweep import check_name, read

EXAMPLES = settings(max_examples=200 if "CI" in os.environ else 30)
HOSTILE = [
    *(
        "a?b",
        "a#b",
        "%41",
        "a b",
        " ",
        "it's",
        'say "x"',
        "a;b",
        "a:b",
        "C:",
        "a&b=c",
        "two\nlines",
    ),
    *("-rf", "--", "😀", "{}", "{0}", "[a]*", "**", "~", "~nobody", "$HOME", "$(x)", "`x`", "a\\b"),
    *("\x1b[31m", "\t", "\r", "%", "%2F", "file:x", "s3:", "a@b", "\u202e", "=1", "<b>", "|", "'"),
]
HERE = Path(__file__).parents[1]
PACKAGES = ("analysis", "models", "scoring", "tune_jobs")
SOURCES = [file for package in PACKAGES for file in sorted(Path(HERE, package).rglob("*.py"))]
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="/\0")
NAMES = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join),
    st.text(LETTERS, min_size=1, max_size=15),
).filter(lambda name: name not in ("", ".", "..") and len(name.encode()) < 100)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


def everything(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


@EXAMPLES
@given(NAMES, NAMES)
def test_a_folder_of_any_name_is_opened_written_and_read_as_that_folder(base, name, inner):
    place = Path(base, name)
    root = folder.absolute(str(place))
    assert root == folder.absolute(place.as_uri()) == str(place)
    for way in (root, place.as_uri()):
        storage.write_file(way, f"parts/{inner}", way.encode())
        assert storage.read_file(way, f"parts/{inner}") == way.encode()
        if not inner.startswith("."):
            assert inner in storage.list_files(way, "parts")
    with lease.hold(root):
        assert lease.holder(root)
    storage.delete(root, f"parts/{inner}")
    assert os.listdir(place / "parts") == []
    assert {path.name for path in base.iterdir()} >= {name}
    assert Path(mlflow_store.here(root)) == place
    (place / "mlflow.db").touch()
    assert mlflow_store.is_there(mlflow_store.tracking_uri(root))
    (place / "mlflow.db").unlink()
    assert not mlflow_store.is_there(mlflow_store.tracking_uri(root))


@EXAMPLES
@given(NAMES)
def test_the_address_of_the_database_names_the_file_that_sqlalchemy_opens(name):
    from sqlalchemy import make_url

    root = f"/there/{name}"
    assert make_url(mlflow_store.tracking_uri(root)).database == f"{root}/mlflow.db"


@EXAMPLES
@given(NAMES)
def test_a_data_set_of_any_name_is_found_and_nothing_else_is_taken_for_it(base, name):
    file = base / f"{name}.npz"
    file.write_bytes(b"")
    for given_name, place in ((str(file), None), (file.name, str(base))):
        assert given_path(given_name).name == file.name
        if not given_name.startswith("~"):
            assert datasets.locate(given_name, place) == str(file)
    assert TrialConfig(dataset=str(file)).dataset == str(file)
    assert "\n" not in label(TrialConfig(dataset=str(file)), ["dataset"])
    assert len(datasets._key(str(file), file).encode()) < 200
    file.unlink()
    with pytest.raises(DataError, match="no such file"):
        datasets.locate(str(file))


@EXAMPLES
@given(NAMES)
def test_a_sweep_has_the_name_of_its_file(base, name):
    place = base / "files"
    place.mkdir(exist_ok=True)
    file = place / f"{name}.yaml"
    file.write_text("gamma: 0")
    assert read(str(file)).name == check_name(file.stem) == file.stem
    assert folder.path_of(file.stem) == os.path.realpath(f"runs/{file.stem}")
    file.unlink()


@pytest.mark.parametrize("out", ["~nobody-here/x", "loop/x"])
def test_a_folder_that_cannot_be_is_refused_in_one_line(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    code, said = geosweep("status", out)
    assert code == 2
    assert "no such folder" in said


@EXAMPLES
@given(NAMES)
def test_a_path_in_a_command_that_a_message_shows_is_one_argument_on_one_line(name):
    text = argument(name)
    assert text.isprintable()
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], capture_output=True).stdout
    assert said in (f"{name}\0".encode(), f"./{name}\0".encode())


BREAKING = [
    "two\nlines",
    "tab\there",
    "\x1b[31mred",
    "clear\x1b[2J\n",
    "cr\rhere",
    "\u2028",
    "\u202e",
]
WAYS = {  # what a user may name -> a command that fails and quotes it
    "a folder that is not there": ["status", "{0}"],
    "a folder to evaluate": ["evaluate", "{0}"],
    "a folder to serve": ["ui", "{0}"],
    "a folder to watch": ["watch", "{0}"],
    "a folder to bring up to date": ["sync", "{0}"],
    "--out, a file": ["run", "demo", "--out", "{0}.npz"],
    "--out, of a sweep that is not there": ["run", "{0}", "--out", "{0}"],
    "a sweep file": ["run", "{0}.yaml"],
    "a value": ["run", "demo", "--set", "gamma={0}"],
    "a field": ["run", "demo", "--set", "{0}=1"],
    "an unknown data set": ["run", "demo", "--set", "dataset={0}"],
    "a data set": ["run", "demo", "--set", "dataset={0}.npz"],
    "an evaluation": ["evaluate", "there", "{0}"],
    "a setting of an evaluation": ["evaluate", "there", "--set", "noise.levels={0}"],
    "a folder of data": ["run", "demo", "--data", "{0}"],
    "a model": ["probe", "{0}", "--data", "{0}.npz"],
    "data of a model": ["probe", "torchvision:resnet18", "--data", "{0}.npz"],
    "a cluster": ["status", "{0}", "--cluster", "{0}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BREAKING, ids=ascii)
def test_an_error_is_one_printable_line_whatever_the_name_it_quotes(
    tmp_path, monkeypatch, capsys, way, name
):
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.yaml").write_text("gama: 1")
    Path(f"{name}.npz").write_bytes(b"no arrays")
    code, said = geosweep(*(word.format(name) for word in WAYS[way]))
    assert code == 2, said
    assert said.startswith("geosweep: ")
    assert said.endswith("\n")
    (line,) = said[:-1].split("\n")
    assert line.isprintable()


@pytest.mark.parametrize("name", BREAKING, ids=ascii)
@pytest.mark.parametrize("script", [report, tables, claims, figures, correlation])
def test_an_error_of_a_script_is_one_printable_line_too(capsys, name, script):
    assert script.main([f"/nowhere/{name}"]) == 2
    (line,) = capsys.readouterr().err[:-1].split("\n")
    assert line.isprintable()
    assert line.startswith(f"{script.__name__}: /nowhere/")


def test_each_problem_of_a_sweep_file_has_a_line_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two\nlines.yaml").write_text("gamma: -1\nepochs: many\n")
    code, said = geosweep("run", "two\nlines.yaml")
    assert code == 2
    assert len(said.splitlines()) == 2
    assert "gamma = -1" in said
    assert "epochs = 'many'" in said


COMMAND = re.compile(
    r"(\b(geosweep|ray|aws|python -m) [a-z.]{2}[^;,():]*|(--[a-z][a-z-]*|\b(cd|chmod|rm)) )$"
)
NO_PATHS = ("account.region", "code", "wanted", "job", "names", "where", "address")
NO_PATHS += ("setting", "plain(setting)", "plain(before)", "plain(file)")  # names of places
NO_PATHS += ("at", "given", "start", "option", "name", "amount")  # quoted before, and numbers


@pytest.mark.parametrize("file", SOURCES, ids=str)
def test_a_path_in_a_command_that_a_message_shows_is_quoted(file):
    for text in ast.walk(ast.parse(file.read_text())):
        if not isinstance(text, ast.JoinedStr):
            continue
        before = ""
        for part, after in zip(text.values, [*text.values[1:], ast.Constant("")], strict=True):
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            value = ast.unparse(part.value)
            label = isinstance(after, ast.Constant) and str(after.value).startswith(":")
            if COMMAND.search(before) and not label and value not in NO_PATHS:
                quoted = value.removeprefix("places.").startswith(("argument(", "shlex.quote("))
                assert quoted, f"line {part.lineno}: {value}"
            before += "x"


def data_set(file: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (120, 8, 8), np.uint8), np.arange(120) % 3
    np.savez(file, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_a_sweep_runs_in_a_folder_and_on_a_data_set_of_hostile_names(tmp_path, monkeypatch):
    place = tmp_path / "a %41?x=1&y#z"
    place.mkdir()
    monkeypatch.chdir(place)
    sweep, out = (
        place / "[a]*{0} 'q' \"d\" $(x);%3F😀.yaml",
        place / "-out\n<b>{}[a]*?#%41 ' \" ;:&😀",
    )
    data = place / "data\n%41?#[a]*{}=cmd() 'q' \"d\" ;:&$x😀.npz"
    data_set(data)
    sweep.write_text(
        f"dataset: {json.dumps(str(data), ensure_ascii=False)}\nlayers: fully_connected"
    )
    add_database(str(out))
    words = [str(sweep), "--out", str(out), "--set", "epochs=1", "--set", "gamma=0"]
    words += ["--set", "K=1", "--set", "network=resnet", "--set", "m=50"]
    before = everything(tmp_path)
    code, said = geosweep("run", *words)
    assert code == 0, said
    assert "1 of 1 done" in said
    new = everything(tmp_path) - before
    assert {os.path.dirname(path).partition("/-out")[1] for path in new} == {"/-out"}
    assert [row["dataset"] for row in read_table(str(out), "trials").to_pylist()] == [str(data)]
    assert (out / "report/index.html").is_file()
    for command in (
        ["run", *words],
        ["status", str(out)],
        ["sync", str(out)],
        ["report", str(out)],
    ):
        code, said = geosweep(*command)
        assert code == 0, said
    assert {path.name for path in place.iterdir()} == {sweep.name, out.name, data.name}
    assert {path.name for path in tmp_path.iterdir()} == {place.name}
