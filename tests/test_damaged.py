"""Damaged files in a sweep's folder are named; results are those of an undamaged folder."""

import json
import shutil
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from damages import Made, damages
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from small_sweeps import geosweep

from analysis.results import ResultsError, load
from models import datasets, fits
from models.config import TrialConfig
from scoring import checked, handover, places, storage
from scoring.history import read_history
from scoring.misplaced import misplaced
from scoring.storage import Damaged
from scoring.tables import read_row, read_rows
from tune_jobs import account, checkpoints, folder, lease, sweep, trial
from tune_jobs.errors import SweepError
from tune_jobs.tuning import Setup

NOISE = {"noise": {"levels": [0.0, 16.0], "seed": 0}}


BEGUN, LEFT, DONE = (
    TrialConfig(layers="fully_connected", epochs=2, points=20, epoch_points=20, seed=seed)
    for seed in range(3)
)
FILES = {
    places.checkpoint(BEGUN.trial): BEGUN,
    places.history(BEGUN.trial): BEGUN,
    places.checkpoint(LEFT.trial): LEFT,
    places.history(LEFT.trial): LEFT,
    places.initial(LEFT.trial): LEFT,
    places.final(LEFT.trial): LEFT,
    places.table_path("robustness", DONE.trial): DONE,
    places.table_path("trials", DONE.trial): DONE,
}
VARIES = ("seconds", "_at", "memory")  # in the names of columns


class Killed(Exception):
    """What ends a process in these tests."""


pytestmark = pytest.mark.usefixtures("reports")


def run(root, config):
    trial.run_trial(config.model_dump(), Setup(root, {"digits": "digits"}, evaluations=NOISE))


def numbers(root, config):
    """Everything about a trial but times, as text."""
    rows = [read_row(root, "trials", config.trial)]
    rows += [r for table in ("tracks", "robustness") for r in read_rows(root, table, config.trial)]
    return [
        {n: repr(v) for n, v in row.items() if not any(word in n for word in VARIES)}
        for row in rows
    ]


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A folder with a begun trial, one to be scored and a done one; and what they end with."""
    base = tmp_path_factory.mktemp("half")
    root, whole = str(base / "out"), str(base / "whole")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial.tune, "report", lambda record: None)
        for config in (LEFT, DONE):
            run(root, config)
        handover.finish(root, DONE.trial)
        for config in (BEGUN, LEFT, DONE):
            run(whole, config)
            handover.finish(whole, config.trial)

        def die(record):
            if record["epoch"] == 1:
                raise Killed

        patch.setattr(trial.tune, "report", die)
        with pytest.raises(Killed):
            run(root, BEGUN)
    cells = [BEGUN, LEFT, DONE]
    resources = sweep.Resources()
    asked = sweep.Sweep("x", "", cells, resources, "x.yaml", evaluations=NOISE)
    folder.claim(root, asked)
    (base / "x.yaml").write_text(
        "layers: fully_connected\nnetwork: resnet\nepochs: 2\npoints: 20\nepoch_points: 20\n"
        "dataset: digits\nseeds: 3\nevaluations: {noise: {levels: [0, 16]}}\n"
    )
    return Made(root, {config.trial: numbers(whole, config) for config in cells})


def go_on(root, config, reports):
    """Do what a run does with a trial; what was said meanwhile."""
    reports.clear()
    said = folder.mend(root)
    for _ in range(2):  # a user runs it again if scoring failed
        state = folder.inspect(root)
        if config not in [*state.missing, *state.unevaluated] and config.trial not in state.scoring:
            break
        run(root, config)
        try:
            handover.finish(root, config.trial)
        except Damaged as error:
            said.append(str(error))
    return said + [line for report in reports for line in report.get("set_aside", [])]


@pytest.mark.long
@given(st.sampled_from(sorted(FILES)), damages())
@examples()
def test_a_damaged_file_is_named_and_changes_no_result(half_done, reports, path, damage):
    source, wanted = half_done
    base = Path(source).parent / uuid.uuid4().hex
    shutil.copytree(source, base / "out")
    root, config = str(base / "out"), FILES[path]
    damage(Path(root, path))
    for words in (["status", root], ["run", f"{base.parent}/x.yaml", "--out", root, "--dry-run"]):
        status, text = geosweep(*words)
        assert status in (0, 2), text
        assert "Traceback" not in text
        assert status == 0 or path in text
    said = go_on(root, config, reports)
    assert said or not storage.list_files(root, places.ASIDE)
    assert not said or any(path in line for line in said), said
    assert handover.waiting(root) == [t for t in [LEFT.trial] if config != LEFT]
    assert numbers(root, config) == wanted[config.trial]
    shutil.rmtree(base)


def test_a_robustness_table_that_was_deleted_is_measured_again(half_done, tmp_path, reports):
    source, wanted = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    storage.delete(root, places.table_path("robustness", DONE.trial))
    assert go_on(root, DONE, reports) == []
    assert numbers(root, DONE) == wanted[DONE.trial]


@pytest.mark.parametrize("table", ["epochs", "tracks", "samples"])
def test_a_changed_byte_in_a_large_table_is_named_with_the_fix(half_done, tmp_path, reports, table):
    source, wanted = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    path = Path(root, places.table_path(table, DONE.trial))
    content = bytearray(path.read_bytes())
    content[len(content) // 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=f"{path}: torn: .*; delete it and its namesake in"):
        load(root)
    path.unlink()
    Path(root, places.table_path("trials", DONE.trial)).unlink()
    assert go_on(root, DONE, reports) == []
    assert numbers(root, DONE) == wanted[DONE.trial]


@given(damages())
@examples()
def test_a_history_without_its_checksum_is_read_or_refused(half_done, tmp_path, damage):
    """As an earlier version wrote it, or as somebody changed it by hand."""
    source, _ = half_done
    root = str(tmp_path / uuid.uuid4().hex)
    path = Path(root, places.history("a"))
    path.parent.mkdir(parents=True)
    history = checked.load(Path(source, places.history(BEGUN.trial)).read_bytes())
    path.write_text(json.dumps(history))
    damage(path)
    for epoch in (0, 1, None):
        found = None
        with suppress(Damaged):
            found = read_history(root, "a", epoch)
        assert found is None or found["epochs"][-1]["epoch"] in (0, 1)


INSIDE = [
    *(places.table_folder(table) for table in ("trials", "tracks")),
    *(places.pending(trial.trial) for trial in (LEFT, BEGUN)),
    *(places.initial(LEFT.trial), places.final(LEFT.trial)),
    *(places.checkpoint(BEGUN.trial), places.best_checkpoint(BEGUN.trial)),
    *(places.history(BEGUN.trial), places.error(DONE.trial), places.PAGE),
    *(places.dataset("x"), places.merged("trials", "0123456789ab")),
    *(places.table_path(table, DONE.trial) for table in ("trials", "samples")),
]


REFUSED = (places.LOCK, places.HOLDER, places.SWEEP)


@pytest.mark.slow
@pytest.mark.parametrize("path", [*places.FOLDERS, *places.FILES, *INSIDE])
def test_a_file_for_a_folder_or_a_folder_for_a_file_is_named_and_set_aside(
    half_done, tmp_path, path
):
    source, _ = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    at = Path(root, path)
    if at.is_dir():
        shutil.rmtree(at)
    at.unlink(missing_ok=True)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_text("mine") if places.is_folder(path) else at.mkdir()
    for words in (
        ["status", root],
        ["run", f"{source}/../x.yaml", "--out", root, "--dry-run"],
        ["evaluate", root, "--data", f"{root}/nowhere"],
    ):
        status, text = geosweep(*words)
        assert status in (0, 2), text
        assert len(text.splitlines()) == 1 or status == 0
    try:
        with lease.hold(root):
            said = folder.mend(root)
            folder.inspect(root)
    except SweepError as error:
        assert path in REFUSED
        assert f"{root}/{path}: " in str(error)  # noqa: PT017
        assert "delete it" in str(error)  # noqa: PT017
        return
    assert path not in REFUSED
    assert any(line.startswith(f"{path}: torn") for line in said)
    assert misplaced(root) == []
    assert not at.exists() or places.is_folder(path)
    aside = Path(root, places.ASIDE, path.replace("/", "-"))
    assert aside.read_text() == "mine" if places.is_folder(path) else aside.is_dir()


@pytest.mark.parametrize("table", ["epochs", "tracks", "samples", "robustness"])
def test_a_driver_killed_while_it_sets_files_aside_leaves_no_row_without_its_tables(
    half_done, tmp_path, monkeypatch, table
):
    source, _ = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    with Path(root, places.table_path(table, DONE.trial)).open("r+b") as file:
        file.truncate(100)
    real, left = storage.set_aside, [1]

    def set_aside(*where):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*where)

    monkeypatch.setattr(storage, "set_aside", set_aside)
    with pytest.raises(Killed):
        folder.mend(root)
    monkeypatch.setattr(storage, "set_aside", real)
    assert len(folder.mend(root)) == 1
    assert DONE in folder.inspect(root).missing
    assert sorted(storage.list_files(root, places.ASIDE)) == sorted(
        places.table_path(each, DONE.trial).replace("/", "-") for each in (table, "trials")
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"a": 1}', b'{"a": {"hours": NaN, "gpu_hours": 0}}', b'{"a": {"hours": 1}}'],
)
def test_the_times_of_trials_stand_for_a_damaged_account(half_done, tmp_path, content):
    source, _ = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    storage.write_file(root, places.USED, content)
    before = account.read(root)
    (said,) = folder.mend(root)
    assert said.startswith("used.json: torn: ")
    assert said.endswith("the times of the trials count instead")
    assert Path(root, places.ASIDE, places.USED).read_bytes() == content
    row = read_row(root, "trials", DONE.trial)
    took = pytest.approx(row["seconds"] + row["scoring_seconds"], rel=1e-3)
    assert account.read(root) == before == {account.BEFORE: {"hours": took, "gpu_hours": 0.0}}


def test_a_users_own_files_and_folders_are_not_set_aside(half_done, tmp_path):
    source, _ = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    own = ["notes", "notes.txt", "mine/pending", "errors/old/x", "report/old/y.html"]
    own += ["set-aside/results/z", "mlartifacts/1/q", ".git/HEAD", "pending/.hidden/w"]
    own += ["pending/.DS_Store"]
    for path in own:
        storage.write_file(root, path, b"")
    assert folder.mend(root) == []


def swapped(state):
    of = state["optimizer"]["state"]
    of[0], of[len(of) - 1] = of[len(of) - 1], of[0]


def change_weight(change):
    def apply(state):
        key = next(iter(state["network"]))
        state["network"][key] = change(state["network"][key])

    return apply


def change_moment(name, change):
    def apply(state):
        moments = state["optimizer"]["state"][3]
        moments[name] = change(moments[name])

    return apply


OTHERS = {
    "wider": change_weight(lambda w: torch.cat([w, w])),
    "double": change_weight(torch.Tensor.double),
    "complex": change_weight(lambda w: w.to(torch.complex64)),
    "flat": change_weight(torch.Tensor.flatten),
    "a number": change_weight(lambda w: 1.0),
    "fewer weights": lambda state: state["network"].popitem(),
    "more weights": lambda state: state["network"].update(other=torch.ones(1)),
    "none": lambda state: state["network"].clear(),
    "no optimizer": lambda state: state.update(optimizer=None),
    "another network's optimizer": swapped,
    "lost moments": lambda state: state["optimizer"]["state"].popitem(),
    "a lost moment": lambda state: state["optimizer"]["state"][0].popitem(),
    "no moments": lambda state: state["optimizer"]["state"].clear(),
    "another shape of moments": change_moment("exp_avg", lambda value: value[:1]),
    "another type of moments": change_moment("exp_avg_sq", torch.Tensor.half),
    "a step for each": change_moment("step", lambda value: value.expand(3)),
    "a step that is no tensor": change_moment("step", float),
}


@pytest.fixture(scope="module")
def data():
    return datasets.load("digits")


@pytest.mark.parametrize("how", OTHERS)
def test_a_checkpoint_of_another_network_or_optimizer_is_refused(half_done, data, how):
    source, _ = half_done
    state = checkpoints.read(source, BEGUN.trial, partial(fits.check, BEGUN, data))
    OTHERS[how](state)
    with pytest.raises((ValueError, TypeError, KeyError)):
        fits.check(BEGUN, data, state)


@pytest.mark.parametrize("how", ["wider", "another shape of moments"])
def test_a_trial_with_another_trials_checkpoint_is_trained_again(half_done, tmp_path, reports, how):
    source, wanted = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    state = checkpoints.read(root, BEGUN.trial)
    OTHERS[how](state)
    checkpoints.write(root, BEGUN.trial, state)
    said = go_on(root, BEGUN, reports)
    assert len(said) == 1
    assert f"{places.checkpoint(BEGUN.trial)}: torn: " in said[0]
    assert numbers(root, BEGUN) == wanted[BEGUN.trial]


def test_a_checkpoint_without_an_optimizer_whose_trial_has_not_ended_is_no_end(
    half_done, tmp_path, reports
):
    source, wanted = half_done
    root = str(tmp_path / "out")
    shutil.copytree(source, root)
    state = checkpoints.read(root, BEGUN.trial)
    del state["optimizer"]
    checkpoints.write(root, BEGUN.trial, state)
    go_on(root, BEGUN, reports)
    assert numbers(root, BEGUN) == wanted[BEGUN.trial]


@pytest.mark.parametrize("change", [{"epoch": "1"}, {"network": None}, {}])
def test_weights_of_another_shape_are_no_checkpoint(tmp_path, change):
    state = {"epoch": 1, "network": {}} | change if change else {"epoch": 1}
    checkpoints.write(str(tmp_path), "a", state)
    with pytest.raises(Damaged, match=r"checkpoints/a\.pt"):
        checkpoints.read(str(tmp_path), "a")
