"""Sweeps over networks of libraries and of users, from the sweep file to the report."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_sweeps import add_database, geosweep

from analysis.results import load
from models.callables import SENT
from models.config import OWN, TrialConfig
from scoring import handover, places, storage
from scoring.tables import read_rows, read_table
from tune_jobs import code, folder, service, sweep, trial
from tune_jobs.cluster import jobs
from tune_jobs.errors import SweepError
from tune_jobs.labels import labels
from tune_jobs.tuning import Setup

NETS = Path(__file__).with_name("own_net.py")
SWEEP = """
dataset: digits
architecture: own_net.py:two
model.width: [8, 6]
gamma: [0, 1e-2]
epochs: 2
points: 40
epoch_points: 30
evaluations: {noise: {levels: [0, 32]}, fgsm: {levels: [0, 8]}, separation: , curve: 30}
"""


@pytest.fixture
def place(tmp_path):
    """A folder with the networks, where a sweep file can be written."""
    shutil.copy(NETS, tmp_path)
    return tmp_path


def read(place: Path, text: str, *settings: str) -> sweep.Sweep:
    (place / "mine.yaml").write_text(text)
    return sweep.read(str(place / "mine.yaml"), settings)


def check(place: Path, text: str, *settings: str) -> folder.Request:
    return service.check(read(place, text, *settings), str(place / "out"), None, None)


def test_arguments_are_axes_in_both_forms_and_in_settings(place):
    flat = read(place, SWEEP)
    nested = read(place, SWEEP.replace("model.width: [8, 6]", "model: {width: [8, 6]}"))
    assert nested.trials == flat.trials
    assert [trial.arguments for trial in flat.trials] == [{"width": w} for w in (8, 8, 6, 6)]
    assert len({trial.trial for trial in flat.trials}) == 4
    assert labels(flat.trials)[flat.trials[0].trial] == "gamma=0 model.width=8"
    other = read(place, SWEEP, "model.width=3,4,5", "model.drop=0.5")
    assert [trial.arguments["width"] for trial in other.trials[::2]] == [3, 4, 5]
    assert {trial.arguments["drop"] for trial in other.trials} == {0.5}


def test_arguments_advance_together_and_cells_with_some_are_left_out(place):
    start = "architecture: own_net.py:one\n"
    text = start + "zip:\n- {model.width: [8, 6], model.drop: [0, 1e-1]}\n"
    assert [t.arguments for t in read(place, text).trials] == [
        {"drop": 0, "width": 8},
        {"drop": 0.1, "width": 6},
    ]
    text = start + "model.width: [8, 6]\ngamma: [0, 1]\nexclude:\n- {model.width: 6, gamma: 1}\n"
    assert len(read(place, text).trials) == 3


@pytest.mark.parametrize(
    "values", [[1, True], [True, 1], [1, 1.0], [0.0, 0, False], ["true", True]]
)
def test_values_of_another_type_are_other_values(place, values):
    """Python takes true, 1 and 1.0 for the same, but their trials have different ids."""

    def read_drops(rest: str, gamma: float = 0) -> list[str]:
        """The values of the cells with this gamma, as a file writes them."""
        trials = read(place, f"architecture: own_net.py:one\n{rest}").trials
        return [json.dumps(one.arguments["drop"]) for one in trials if one.gamma == gamma]

    written = [json.dumps(value) for value in values]
    axis = f"model.drop: [{', '.join(written)}]"
    assert read_drops(axis) == written
    for value in written:
        others = [one for one in written if one != value]
        assert read_drops(f"{axis}\nexclude: [{{model.drop: {value}}}]") == others
        group = f"{axis}\nwhen: [{{if: {{model.drop: {value}}}, gamma: 1}}]"
        assert (read_drops(group), read_drops(group, 1)) == (others, [value])
    for text in (axis, f"zip: [{{{axis}, seed: {[*range(len(values))]}}}]"):
        found = read(place, f"architecture: own_net.py:one\n{text}\nsearch: optuna\n")
        assert found.search
        assert found.search.trials == len(values)


@pytest.mark.parametrize("values", ["[1, true]", "[true, 1]"])
def test_a_network_is_checked_with_each_of_its_arguments(place, values):
    file = place / "own_net.py"
    text = "def picky(flag, **more):\n    assert flag is not True, 'a number'\n"
    file.write_text(f"{file.read_text()}\n{text}    return one(**more)\n")
    with pytest.raises(SweepError, match="AssertionError: a number"):
        check(place, f"architecture: own_net.py:picky\nmodel.flag: {values}\npoints: 30\n")


def test_a_setting_takes_an_argument_out_of_a_group(place):
    start = "architecture: own_net.py:one\nzip:\n"
    text = start + "- {model.width: [8, 6], model.drop: [0, 1e-1], gamma: [0, 1]}\n"
    found = read(place, text, "model.width=4,5").trials
    assert [(t.arguments["width"], t.arguments["drop"], t.gamma) for t in found] == [
        (4, 0, 0),
        (4, 0.1, 1),
        (5, 0, 0),
        (5, 0.1, 1),
    ]
    alone = read(place, start + "- {model.width: [8, 6]}\n", "model.width=4").trials
    assert [trial.arguments for trial in alone] == [{"width": 4}]


def test_a_changed_file_gives_new_trials_and_a_moved_one_does_not(place):
    (place / "nets").mkdir()
    before = read(place, SWEEP).trials
    (place / "own_net.py").rename(place / "nets/own_net.py")
    assert read(place, SWEEP.replace("own_net.py", "nets/own_net.py")).trials == before
    moved = place / "nets/own_net.py"
    moved.write_text(moved.read_text() + "\n")
    after = read(place, SWEEP.replace("own_net.py", "nets/own_net.py")).trials
    assert not {t.trial for t in before} & {t.trial for t in after}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture: own_net.py:one\ngamma: 0\nK: 2", r"mine.yaml, line 3: K: belongs to"),
        ("network: plain\narchitecture: timm:x", "line 1: network: belongs to the networks of"),
        ("architecture: gone.py:one", r"line 1: architecture: .*gone\.py: cannot be read: No such"),
        ("architecture: resnet18", "should be torchvision:NAME, timm:NAME or FILE.py:CALLABLE"),
        ("model.width: 8", "model belongs to an architecture"),
        ("architecture: timm:x\nmodel.width: [[1, 2]]", r"line 2: model\.width\[0\] = \[1, 2\]"),
        (f"architecture: timm:x\nmodel.width: {2**63}", "line 2: .*integer of 64 bits, or a text"),
        ("architecture: timm:x\nmodel.a-b: 1", "line 2: .*keyword argument, like width"),
        ("architecture: timm:x\nmodel.a: 1\nmodel: {a: 2}", r"line 2: model\.a: model has it"),
        ("architecture: timm:x\nblock_pattern: (", "should be a regular expression"),
    ],
)
def test_what_no_sweep_can_have_is_refused_with_its_line(place, text, message):
    with pytest.raises(SweepError, match=message):
        read(place, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evaluations: [noise, lesion]", "evaluations: lesion starts from inside a network"),
        ("model.size: 3", r"architecture: own_net\.py:one#\w+: got an unexpected .* 'size'"),
        ("block_pattern: stem", "no residual blocks|nothing"),
    ],
)
def test_what_does_not_fit_a_network_is_refused_before_anything_starts(place, text, message):
    with pytest.raises(SweepError, match=message):
        check(place, f"architecture: own_net.py:one\npoints: 30\n{text}")
    assert not (place / "out").exists()


def test_errors_of_a_file_end_a_command_with_status_2_and_one_message(place):
    (place / "own_net.py").write_text("import math\nmath.nothing\n")
    (place / "mine.yaml").write_text(SWEEP)
    status, said = geosweep("run", str(place / "mine.yaml"), "--out", str(place / "out"))
    assert status == 2
    assert "architecture: " in said
    assert "own_net.py, line 2: AttributeError" in said.replace("\n", " ")
    assert "Traceback" not in said


def test_what_a_file_prints_does_not_mix_with_the_output(place, capsys):
    file = place / "own_net.py"
    file.write_text(file.read_text() + "print('loaded')\n")
    check(place, SWEEP)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "loaded\n")


def test_a_run_mends_the_copy_of_a_file(place):
    request = check(place, SWEEP)
    code.put(request.root, request.code)
    (kept,) = Path(request.root, places.CODE).iterdir()
    kept.write_text("torn")
    code.put(request.root, request.code)
    assert kept.read_bytes() == NETS.read_bytes()


def test_a_dry_run_says_what_was_found_and_writes_nothing(place):
    (place / "mine.yaml").write_text(SWEEP)
    words = ("run", str(place / "mine.yaml"), "--out", str(place / "out"), "--dry-run")
    status, said = geosweep(*words)
    assert status == 0
    assert "own_net.py:two#" in said
    assert "parameters; takes images 1 x 8 x 8" in said
    assert "stage 1: 2 x 8: parts.0.0, parts.0.1" in said
    assert "stage 2: 1 x 4: parts.1.0; a single block" in said
    assert not (place / "out").exists()


def test_a_row_of_the_table_leads_back_to_its_configuration():
    given = {"model.width": 8, "model.act": "relu", "block_pattern": "a.*"}
    trial = TrialConfig(architecture="torchvision:resnet18", **given)
    assert TrialConfig.of_row(trial.row(3)) == trial
    own = TrialConfig(network="plain")
    assert TrialConfig.of_row(own.row()) == own


def test_a_search_picks_arguments(place):
    text = "architecture: own_net.py:one\nmodel.width: [8, 6]\nmodel.drop: 0\nsearch: optuna\n"
    found = read(place, text)
    assert found.space == {"model.width": {"8": {"model.width": 8}, "6": {"model.width": 6}}}
    assert found.fixed["model.drop"] == 0


@pytest.mark.slow
def test_the_documented_examples_are_built_and_followed(place):
    page = (Path(__file__).parents[1] / "docs/architectures.md").read_text()
    (net,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (place / "net.py").write_text(net)
    examples = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(examples) == 3
    for text in examples:
        request = check(place, text)
        assert {trial.trial for trial in request.sweep.trials} == request.found.keys()


def test_submit_sends_the_file_and_the_head_finds_it_by_the_path_in_the_sweep(place, monkeypatch):
    text = SWEEP.replace("own_net.py", f"../{place.name}/own_net.py")
    found, client = read(place, text), mock.Mock()
    sent = {}

    def submit(runtime_env, **_):
        where = Path(runtime_env["working_dir"], runtime_env["env_vars"][SENT])
        sent.update({file.name: file.read_bytes() for file in where.iterdir()})

    client.submit_job.side_effect = submit
    jobs.submit(client, found, "/mnt/s/mine", [])
    (name,) = sent
    assert sent[name] == NETS.read_bytes()
    there = place / "there"
    (there / jobs.OF_USERS).mkdir(parents=True)
    (there / jobs.OF_USERS / name).write_bytes(sent[name])
    (place / "own_net.py").unlink()
    monkeypatch.chdir(there)
    monkeypatch.setenv(SENT, jobs.OF_USERS)
    assert sweep.read(str(place / "mine.yaml")).trials == found.trials


# One sweep of a user's network, trained in this process without Ray.


def run_here(request: folder.Request, monkeypatch, killed: bool = False) -> None:
    """Train all trials that are not done; ``killed``: the first one only, up to its first epoch."""
    root = request.root

    class Killed(BaseException):
        pass

    def report(result):
        if killed and result["epoch"] == 1:
            raise Killed

    code.put(root, request.code)
    folder.claim(root, request.sweep)
    with monkeypatch.context() as patch:
        patch.setattr(trial.tune, "report", report)
        setup = Setup(root, request.sources, evaluations=request.sweep.evaluations)
        for config in request.sweep.trials:
            if killed:
                with pytest.raises(Killed):
                    trial.run_trial(config.model_dump(), setup)
                return
            trial.run_trial(config.model_dump(), setup)
            handover.finish(root, config.trial, threads=1)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a sweep that was killed after an epoch, whose file was then deleted."""
    place = tmp_path_factory.mktemp("swept")
    shutil.copy(NETS, place)
    with pytest.MonkeyPatch.context() as monkeypatch:
        run_here(check(place, SWEEP), monkeypatch, killed=True)
        for file in (place / "own_net.py", place / "mine.yaml"):
            file.unlink()
        kept = service.check(folder.as_sweep(str(place / "out")), str(place / "out"), None, None)
        assert {Path(c.file).parent.name for c in kept.code.values()} == {places.CODE}
        run_here(kept, monkeypatch)
    assert not (place / "out" / places.ASIDE).exists()  # it went on from its checkpoint
    return str(place / "out")


@pytest.mark.slow
def test_a_killed_trial_ends_as_one_that_was_not(swept, place, monkeypatch):
    request = check(place, SWEEP)
    first = request.sweep.trials[0].trial
    request.sweep.trials[1:] = []
    run_here(request, monkeypatch)
    for table in ("epochs", "tracks"):
        here, there = (read_rows(root, table, first) for root in (request.root, swept))
        assert len(here) == len(there)
        for one, other in zip(here, there, strict=True):
            for name in ("lss", "ots", "gap", "test_loss", "energy"):
                if name in one:
                    np.testing.assert_array_equal(one[name], other[name])


def test_its_columns_say_what_it_is(swept):
    for row in read_table(swept, "trials").to_pylist():
        assert row["network"] == row["architecture"]
        assert row["architecture"].startswith("own_net.py:two#")
        assert (row["stages"], row["blocks"], row["status"]) == (2, None, "done")
        assert all(row[name] is None for name in OWN if name not in ("network", "stages"))
        file = pq.read_table(Path(swept, places.table_path("trials", row["trial"])))
        assert file["model.width"].to_pylist() == [json.loads(row["model"])["width"]]
        width = json.loads(row["model"])["width"]
        assert row["shapes"] == f"{width}, {width // 2}"
    trials = load(swept).trials
    assert sorted(trials["model.width"]) == [6, 6, 8, 8]


def test_a_stage_of_one_block_has_no_line_shape_but_an_optimal_transport(swept):
    rows = read_table(swept, "tracks").to_pylist()
    last = [row for row in rows if row["epoch"] == 2]
    assert len(last) == 8
    for row in last:
        alone = row["stage"] == 2
        for name in ("lss", "lsr", "lss_random", "straightness_factor", "spacing", "lss_scaled"):
            assert np.isnan(row[name]) == alone
        assert np.isfinite([row["ots"], row["gap"], row["geodesic_excess"], *row["energy"]]).all()
        assert np.isfinite(row["weight_norms"]).all()
        assert row["energy_ratio"] is None
    for name in ("epochs", "trials"):
        assert np.isfinite([row["lss"] for row in read_table(swept, name).to_pylist()]).all()
    samples = load(swept).samples
    assert samples.groupby("stage").lss.count().to_dict() == {1: 4 * 40, 2: 0}


def test_means_of_line_shapes_are_over_stages_that_have_one(swept):
    for row in read_table(swept, "trials").to_pylist():
        last = [t for t in read_rows(swept, "tracks", row["trial"]) if t["epoch"] == 2]
        assert row["lss"] == last[0]["lss"]
        assert row["straightness_factor"] == pytest.approx(last[0]["straightness_factor"])
        assert row["ots"] == pytest.approx(np.mean([t["ots"] for t in last]))
        product = row["straightness_factor"] * row["transport_factor"]
        assert row["geodesic_excess"] == pytest.approx(product)


def test_its_evaluations_ran(swept):
    rows = read_table(swept, "robustness").to_pylist()
    assert {row["evaluation"] for row in rows} >= {"noise", "fgsm", "separation", "curve"}
    assert {row["network"] for row in rows} == {rows[0]["network"]}
    assert {row["stages"] for row in rows} == {2}
    by_trial = {row["trial"]: row for row in read_table(swept, "trials").to_pylist()}
    for row in rows:
        if row["evaluation"] == "noise" and row["level"] == 0 and row["stage"] is None:
            labels = read_rows(swept, "samples", row["trial"])
            right = [s["label"] == s["prediction"] for s in labels if s["stage"] == 1]
            assert row["accuracy"] == pytest.approx(np.mean(right))
    assert np.isfinite([row["curve_length_ratio"] for row in by_trial.values()]).all()


@pytest.mark.long
def test_its_report_names_the_network_and_its_arguments(swept):
    page, _ = service.report(swept)
    text = Path(page).read_text()
    assert "own_net.py:two#" in text
    assert "model.width" in text
    tables = {file.name for file in Path(page).parent.rglob("*.csv")}
    assert "summary.csv" in tables
    head = next(Path(page).parent.rglob("summary.csv")).read_text().splitlines()[0]
    assert "model.width" in head


def test_a_copy_of_the_file_that_is_gone_or_changed_is_named(swept, tmp_path):
    shutil.copytree(swept, tmp_path / "out")
    (kept,) = (tmp_path / "out" / places.CODE).iterdir()
    kept.write_text(kept.read_text() + "\n")
    for problem in ("has changed", "no such file"):
        with pytest.raises(
            SweepError, match=rf"{kept.name}: {problem}; it is own_net\.py:two, put"
        ):
            service.check(folder.as_sweep(str(tmp_path / "out")), str(tmp_path / "out"), None, None)
        kept.unlink(missing_ok=True)


@pytest.mark.ray
@pytest.mark.long
def test_a_sweep_of_two_architectures_is_killed_goes_on_and_ends_with_a_report(place, ray_here):
    root, file = str(place / "out"), place / "two.yaml"
    file.write_text(
        "dataset: digits\narchitecture: [own_net.py:two, torchvision:resnet18]\n"
        "gamma: 1e-2\nepochs: 2\npoints: 30\nepoch_points: 20\nbatch_size: 512\n"
    )
    add_database(root)
    words = ("run", str(file), "--out", root)
    driver = subprocess.Popen(
        [sys.executable, "-m", "tune_jobs.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 120
        while not storage.list_files(root, places.CHECKPOINTS):
            assert driver.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    status, said = geosweep(*words)
    assert status == 0, said
    trials = load(root).trials
    assert sorted(trials.network.astype(str).str.partition("#")[0].unique()) == [
        "own_net.py:two",
        "torchvision:resnet18",
    ]
    assert trials.groupby("network", observed=True).stages.first().to_list() == [2, 4]
    assert (Path(root) / places.PAGE).stat().st_size > 10_000
