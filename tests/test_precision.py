"""``precision: auto``: the faster precision of the machine, one for the whole sweep, for ever."""

import json
import re

import pytest

from models import precision
from models.config import TrialConfig
from scoring import storage
from tune_jobs import folder
from tune_jobs.errors import SweepError
from tune_jobs.precision import resolved
from tune_jobs.sweep import builtin, read

FILE = "dataset: digits\ngamma: [0, 0.1]\nprecision: auto\n"


@pytest.fixture
def machine(monkeypatch):
    """A machine that is faster in the precision that the test gives it, and times nothing."""

    def faster_in(name: str) -> None:
        monkeypatch.setattr(precision, "known", lambda device: name)

    faster_in("bfloat16")
    return faster_in


@pytest.fixture
def sweep_of(tmp_path):
    def write(text: str, *settings: str):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return read(str(path), settings)

    return write


def test_the_sweeps_on_mnist_and_cifar_take_the_faster_precision_and_the_others_float32():
    for name in builtin():
        sweep = read(name)
        small = {trial.dataset for trial in sweep.trials} == {"digits"}
        assert sweep.precision == ("" if small else "auto"), name


def test_the_resolved_precision_enters_the_ids(machine, sweep_of, tmp_path):
    auto = resolved(sweep_of(FILE), str(tmp_path / "out"))
    explicit = sweep_of(FILE, "precision=bfloat16")
    assert auto.trials == explicit.trials
    assert auto.trials[0].trial == TrialConfig(precision="bfloat16").trial
    machine("float32")
    assert resolved(sweep_of(FILE), str(tmp_path / "out")).trials[0].trial == TrialConfig().trial


def test_a_sweep_that_goes_on_elsewhere_keeps_its_precision(machine, sweep_of, tmp_path):
    root = str(tmp_path / "out")
    first = resolved(sweep_of(FILE), root)
    folder.claim(root, first)
    machine("float32")
    again = resolved(sweep_of(FILE), root)
    assert again.trials == first.trials
    folder.claim(root, sweep_of(FILE, "precision=float32"))  # as --out allows
    assert resolved(sweep_of(FILE), root).trials == first.trials


def test_trials_from_before_auto_are_continued_with_a_setting_that_the_refusal_names(
    machine, sweep_of, tmp_path
):
    root = str(tmp_path / "out")
    old = sweep_of("dataset: digits\ngamma: [0, 0.1]\n")
    folder.claim(root, old)
    storage.write_file(root, f"checkpoints/{old.trials[0].trial}.pt", b"")
    with pytest.raises(SweepError, match="holds 1 trial of this sweep in float32") as error:
        resolved(sweep_of(FILE), root)
    (setting,) = re.findall(r"--set (\S+) continues", str(error.value))
    assert resolved(sweep_of(FILE, setting), root).trials == old.trials
    machine("float32")
    assert resolved(sweep_of(FILE), root).trials == old.trials


def test_a_search_tries_only_the_faster_precision(machine, sweep_of, tmp_path):
    search = sweep_of(FILE + "search: optuna\n")
    assert resolved(search, str(tmp_path / "out")).fixed["precision"] == "bfloat16"


@pytest.mark.parametrize(
    "text",
    [
        "precision: [auto, float32]\n",
        "precision: auto\nexclude: [{precision: float32}]\n",
    ],
)
def test_auto_stands_alone(sweep_of, text):
    with pytest.raises(SweepError, match=r"sweep.yaml, line 1: precision: auto stands alone"):
        sweep_of(text)


def test_a_zip_group_takes_no_auto(sweep_of):
    with pytest.raises(SweepError, match="precision"):
        sweep_of("zip: [{gamma: [0, 1], precision: [auto, float32]}]\n")


@pytest.fixture
def units(monkeypatch):
    """A machine with bfloat16 units, whose timings give the speed-up that the test sets."""

    def fast(speedup: float) -> None:
        monkeypatch.setattr(precision, "kind_of_machine", lambda device: ("made up", True))
        monkeypatch.setattr(precision, "speedup", lambda device: speedup)

    return fast


@pytest.mark.parametrize(("speedup", "name"), [(2.4, "bfloat16"), (0.2, "float32")])
def test_a_machine_is_timed_once(cache, units, speedup, name):
    units(speedup)
    assert precision.known("cpu") is None
    assert precision.timed("cpu") == name
    units(99.0)
    assert precision.known("cpu") == name
    (kept,) = (cache / "precision").iterdir()  # no temporary file is left
    assert json.loads(kept.read_text()) == {"machine": "made up", "speedup": speedup}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"speedup": null}'])
def test_a_damaged_timing_is_repeated(cache, units, content):
    units(2.0)
    precision.timed("cpu")
    (kept,) = (cache / "precision").iterdir()
    kept.write_text(content)
    assert precision.known("cpu") is None


def test_hardware_without_bfloat16_units_is_not_timed(cache, monkeypatch):
    monkeypatch.setattr(precision, "kind_of_machine", lambda device: ("old", False))
    assert precision.known("cpu") == "float32"


def test_a_timing_compares_both_precisions():
    assert 0 < precision.speedup("cpu", seconds=0.0) < 1000
