"""A damaged study, sweep.json or progress.json is named and replaced, or read."""

import io
import json
import math
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from damages import Made, damages
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_sweeps import geosweep

from analysis.measures.planned import planned
from analysis.measures.search import read_search
from analysis.results import ResultsError
from scoring import places, storage
from scoring.storage import Damaged
from tune_jobs import folder, service, sweep
from tune_jobs.search import Search
from tune_jobs.study import STUDY, Study

pytestmark = pytest.mark.usefixtures("reports")


SPACE = {"network": {"plain": {"network": "plain"}, "resnet": {"network": "resnet"}}}
SPACE |= {"gamma": sweep.Span(low=1e-4, high=1e-1, log=True)}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a search of four cells, two of them with results."""
    root = str(tmp_path_factory.mktemp("searched"))
    search = Search(method="optuna", trials=6, seed=0, objectives={"test_accuracy": "max"})
    asked = sweep.Sweep(
        "x", "", [], sweep.Resources(), "x.yaml", search, space=SPACE, fixed={"epochs": 2}
    )
    study = Study(root, search, asked.space, asked.fixed)
    for number in range(4):
        cell = study.suggest()
        if number < 2:
            study.tell(cell.trial, {"status": "done", "test_accuracy": number / 2})
    folder.claim(root, asked, study.cells)
    return Made(root, asked, study.cells)


@pytest.mark.slow
@given(damages())
@examples()
def test_a_search_keeps_its_cells_whatever_happens_to_its_study(searched, tmp_path, damage):
    source, asked, cells = searched
    root = str(tmp_path / uuid.uuid4().hex)
    shutil.copytree(source, root)
    damage(Path(root, STUDY))
    request = folder.Request(asked, root, None, None, {}, {})
    output = io.StringIO()
    study = service._study(request, Console(file=output, width=1000))
    assert isinstance(study, Study)
    assert study.cells == cells
    said = output.getvalue()
    assert len(said.splitlines()) <= 1
    assert not said or f"{root}/{STUDY}" in said
    aside = storage.list_files(root, places.ASIDE)
    assert len(aside) <= len(said.splitlines())
    told = [one.value for one in study._study.get_trials()]
    assert all(value in (now, None) for value, now in zip(told, [0, 0.5, None, None], strict=True))
    new = study.suggest()
    assert new not in cells
    again = service._study(request, Console(file=output))
    assert isinstance(again, Study)
    assert again.cells == [*cells, new]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def put(draw, content):
    """Put something else in the place of one thing inside a JSON object, or drop it."""
    while True:
        name = draw(st.sampled_from(sorted(content)))
        inside = content[name]
        inside = inside[0] if isinstance(inside, list) and inside else inside
        if not isinstance(inside, dict) or not inside or draw(st.booleans()):
            break
        content = inside
    if draw(st.booleans()):
        content[name] = draw(JSON)
    else:
        del content[name]


@pytest.mark.slow
@given(st.data())
@examples(few=40)
def test_a_sweep_json_of_another_shape_is_refused_with_the_fix_or_read(searched, tmp_path, data):
    source, asked, _ = searched
    root = str(tmp_path / uuid.uuid4().hex)
    content = json.loads(Path(source, places.SWEEP).read_text())
    put(data.draw, content)
    storage.write_file(root, places.SWEEP, json.dumps(content).encode())
    status, said = geosweep("status", root)
    if status == 0:
        folder.as_sweep(root)
        folder.claim(root, asked, [])
    else:
        assert status == 2
        assert f"{root}/{places.SWEEP}: torn: " in said
        assert "delete it, geosweep run writes it again" in said
        assert len(said.splitlines()) == 1
    with suppress(ResultsError):
        read_search(root)
    planned(root)


PROGRESS = {"running": {"a": {"label": "x", "epoch": 1, "epochs": 3}}, "seconds_left": 3.5}


@given(st.data())
@examples(few=40)
def test_a_progress_json_of_another_shape_is_no_progress(tmp_path, data):
    root = str(tmp_path)
    storage.write_file(root, places.PROGRESS, json.dumps(PROGRESS).encode())
    assert folder.progress(root) == PROGRESS
    content = json.loads(json.dumps(PROGRESS))
    put(data.draw, content)
    storage.write_file(root, places.PROGRESS, json.dumps(content).encode())
    live = folder.progress(root)
    if live is not None:
        assert live["seconds_left"] is None or math.isfinite(live["seconds_left"])
        for cell in live["running"].values():
            assert isinstance(cell["label"], str)
            assert isinstance(cell["epoch"], int)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    storage.write_file(str(tmp_path), "a/b", b"")
    with pytest.raises(Damaged, match=f"{tmp_path}/a: torn: a folder"):
        storage.read_file(str(tmp_path), "a")
