"""The data of a sweep: which file it is, that it stays the same, and that it has images enough."""

import os

import numpy as np
import pytest
from test_datasets import arrays, saved

from models import datasets
from models.errors import DataError
from scoring import storage
from scoring.tables import write_table
from tune_jobs import code, folder, service, sweep
from tune_jobs.cluster import nodes
from tune_jobs.commands import plan, work
from tune_jobs.errors import SweepError

pytestmark = pytest.mark.usefixtures("cache")

BESIDE = """
import numpy as np
from pathlib import Path
def get():
    x = np.load(Path(__file__).with_name("x.npy"))
    return (x, np.arange(12) % 3), (x, np.arange(12) % 3)
"""


def request(path, text, **more):
    (path / "my.yaml").write_text(f"{text}\nepochs: 1\npoints: 5\nlayers: fully_connected\n")
    found = sweep.read(str(path / "my.yaml"))
    return service.check(found, str(path / "out"), None, None, **more)


def as_done(asked):
    """Leave a sweep as done in its folder."""
    code.put(asked.root, asked.code)
    folder.claim(asked.root, asked.sweep)
    for one in asked.sweep.trials:
        row = {"status": "done", "data_checksum": asked.checksums[one.dataset]}
        write_table(asked.root, "trials", one.trial, [one.row(1) | row])


def with_function(path, value):
    path.mkdir(exist_ok=True)
    (path / "near.py").write_text(BESIDE)
    np.save(path / "x.npy", np.full((12, 5, 4), value, np.uint8))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The current folder, which is not that of the sweep file."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_a_relative_npz_is_found_here_in_the_data_folder_or_beside_the_sweep_file(
    tmp_path, elsewhere, monkeypatch
):
    ids = set()
    for number, place in enumerate([tmp_path, tmp_path / "data", elsewhere]):
        place.mkdir(exist_ok=True)
        saved(place / "mine.npz", x_train=np.full((12, 5, 4), number, np.uint8))
        monkeypatch.setenv("GEOSWEEP_DATA", str(tmp_path / "data"))
        asked = request(tmp_path, "dataset: mine.npz")
        assert asked.sources["mine.npz"] == f"{place}/mine.npz"
        ids |= {one.trial for one in asked.sweep.trials}
    assert len(ids) == 1
    assert {one.dataset for one in asked.sweep.trials} == {"mine.npz"}


def test_a_missing_npz_is_named_with_every_folder_that_was_looked_in(
    tmp_path, elsewhere, monkeypatch
):
    monkeypatch.setenv("GEOSWEEP_DATA", str(tmp_path / "data"))
    with pytest.raises(SweepError) as told:
        request(tmp_path, "dataset: sub/mine.npz")
    assert str(told.value).endswith(
        f"dataset: no such file: sub/mine.npz (looked in the current folder {elsewhere} and the "
        f"data folder {tmp_path}/data and the sweep file's folder {tmp_path})"
    )
    with pytest.raises(SweepError, match=r"no such file: /nowhere/mine\.npz$"):
        request(tmp_path, "dataset: /nowhere/mine.npz")


@pytest.mark.parametrize(
    ("split", "fix"),
    [("test", "add images, or score train images with split: train"), ("train", "add images")],
)
def test_a_single_image_is_refused_without_advice_that_is_refused_too(tmp_path, split, fix):
    few = {f"{part}_{split}": arrays()[f"{part}_{split}"][:1] for part in "xy"}
    few |= {"y_test": few.get("y_test", arrays()["y_test"]) * 0}
    saved(tmp_path / "mine.npz", **few)
    told = f"mine.npz has 1 {split} image, and a trial scores at least 2; {fix}$"
    with pytest.raises(SweepError, match=told):
        request(tmp_path, f"dataset: {tmp_path}/mine.npz\nsplit: {split}")


def test_a_file_that_is_replaced_while_a_sweep_runs_is_named_and_not_trained_on(tmp_path):
    file = tmp_path / "mine.npz"
    saved(file)
    asked = request(tmp_path, f"dataset: {file}")
    (name,) = asked.sources
    shared = nodes.Shared(data=asked.checksums)

    def load():
        return nodes.load(asked.root, name, asked.sources, None, shared)

    began = load()
    os.utime(file)  # the same content at another time
    assert load().checksum == began.checksum == asked.checksums[name]
    before = file.read_bytes()
    saved(file, x_train=255 - arrays()["x_train"])
    with pytest.raises(DataError, match=f"^{file}: has changed while the sweep ran .*--out"):
        load()
    file.write_bytes(before)
    assert load().checksum == began.checksum


def test_a_named_data_set_that_appears_in_the_data_folder_is_another_one(tmp_path):
    data = datasets.load("digits")
    where = (str(tmp_path), "digits", {"digits": "digits"}, str(tmp_path))
    shared = nodes.Shared(data={"digits": data.checksum})
    assert nodes.load(*where, shared).checksum == data.checksum
    saved(tmp_path / "digits.npz")
    with pytest.raises(DataError, match=f"^{tmp_path}/digits.npz: has changed"):
        nodes.load(*where, shared)


def test_a_dry_run_refuses_the_folder_that_a_run_refuses(tmp_path):
    saved(tmp_path / "mine.npz")
    text = f"dataset: {tmp_path}/mine.npz"
    as_done(request(tmp_path, text))
    plan.plan(request(tmp_path, text))
    before = storage.list_files(f"{tmp_path}/out", "")
    saved(tmp_path / "mine.npz", x_train=255 - arrays()["x_train"])
    with pytest.raises(SweepError, match=r"was trained on another .*mine\.npz"):
        plan.plan(request(tmp_path, text))
    assert storage.list_files(f"{tmp_path}/out", "") == before


@pytest.mark.parametrize("lost", [False, True])
def test_a_folder_is_evaluated_on_the_data_of_its_trials_which_its_function_read_beside_itself(
    tmp_path, lost, monkeypatch
):
    with_function(tmp_path, 7)
    asked = request(tmp_path, "dataset: near.py:get")
    as_done(asked)
    np.save(tmp_path / "x.npy", np.full((12, 5, 4), 8, np.uint8))
    if lost:
        monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "another"))
        with pytest.raises(SweepError) as told:
            work.request_evaluation(asked.root, ["noise"], [], None, None)
        (said,) = str(told.value).splitlines()
        assert f"{tmp_path}/out/code/" in said
        assert "FileNotFoundError" in said
        assert "this is the copy of near.py in the sweep's folder" in said
        assert f"the cache {tmp_path}/another has lost the data; geosweep run with the" in said
        return
    found = work.request_evaluation(asked.root, ["noise"], [], None, None)
    assert found.checksums == asked.checksums
    assert found.sources == asked.sources


@pytest.mark.parametrize("name", ["mine.npz", "mnist"])
def test_a_folder_is_evaluated_from_anywhere_if_the_cache_has_its_data(
    tmp_path, elsewhere, monkeypatch, name
):
    """Also where another file of that name is."""
    file = f"{name.removesuffix('.npz')}.npz"
    saved(tmp_path / file)
    monkeypatch.setenv("GEOSWEEP_DATA", str(tmp_path))
    asked = request(tmp_path, f"dataset: {name}")
    as_done(asked)
    monkeypatch.setenv("GEOSWEEP_DATA", str(elsewhere))
    for there in (False, True):
        if there:
            saved(elsewhere / file, x_train=255 - arrays()["x_train"])
        found = work.request_evaluation(asked.root, ["noise"], [], None, None)
        assert found.checksums == asked.checksums
        assert nodes.load(asked.root, name, found.sources, None, nodes.Shared()).checksum
    monkeypatch.setenv("GEOSWEEP_CACHE", str(tmp_path / "another"))
    found = work.request_evaluation(asked.root, ["noise"], [], None, None)
    assert found.checksums != asked.checksums
    with pytest.raises(SweepError, match=r"was trained on another .*; put that one back$"):
        service.same_data(found)


@pytest.mark.parametrize(
    "text",
    [
        "dataset: [A/near.py:get, B/near.py:get]",
        "zip:\n- {dataset: [B/near.py:get, A/near.py:get], gamma: [0, 1]}",
        "gamma: [0, 1]\nwhen:\n- {if: {gamma: 0}, dataset: A/near.py:get}\n"
        "- {if: {gamma: 1}, dataset: B/near.py:get}",
        "architecture: [A/near.py:get, B/near.py:get]",
    ],
)
def test_two_files_that_would_be_one_are_refused(tmp_path, text):
    for number, name in enumerate("AB"):
        with_function(tmp_path / name, number)
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(SweepError, match=r"line \d: .*near.py and .*near.py have the same name"):
        sweep.read(str(tmp_path / "my.yaml"))


def test_one_file_may_be_named_in_two_ways_and_its_text_be_in_a_file_of_another_name(tmp_path):
    with_function(tmp_path, 1)
    with_function(tmp_path / "A", 2)
    (tmp_path / "A/near.py").rename(tmp_path / "A/far.py")
    names = f"near.py:get, ./near.py:get, {tmp_path}/A/../near.py:get, A/far.py:get"
    asked = request(tmp_path, f"dataset: [{names}]")
    one, other = asked.sweep.trials
    assert asked.checksums[one.dataset] != asked.checksums[other.dataset]
