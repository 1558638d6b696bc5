"""Real sweeps that were killed, or whose tables were torn, go on and train nothing twice."""

import json
import signal
import time
from datetime import UTC
from pathlib import Path

import optuna
import psutil
import pytest
from faulty_sweeps import TRIAL, Sweep, numbers, wait_until_trained
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from small_sweeps import copy_sweep

from scoring import handover, places, storage
from scoring.robustness.record import recorded_evaluations
from scoring.tables import read_rows
from tune_jobs.study import STUDY

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.long)])
def place(request, tmp_path) -> str:
    """A sweep's folder: on a disk, or in an object store on loopback."""
    if request.param == "disk":
        return str(tmp_path / "out")
    return f"{request.getfixturevalue('object_store')}/{tmp_path.name}"


@pytest.fixture(scope="module")
def undisturbed(shared, ray_here) -> Sweep:
    """A finished sweep in which nothing was killed or broken; to be read only."""
    folder = shared("undisturbed", lambda folder: Sweep(folder, epochs=40).again())
    sweep = Sweep(folder, epochs=40, data=folder / "random.npz")
    sweep.check()
    return sweep


@pytest.fixture
def finished(tmp_path, undisturbed) -> Sweep:
    """A copy of a finished sweep."""
    data = undisturbed.file.with_name("random.npz")
    sweep = Sweep(tmp_path, epochs=40, data=data)
    copy_sweep(undisturbed.root, sweep.root)
    return sweep


def test_a_killed_trial_goes_on_and_ends_with_the_numbers_of_an_undisturbed_one(
    tmp_path, place, undisturbed
):
    sweep = Sweep(tmp_path, epochs=40, root=place)

    def kill() -> None:
        process = sweep.find(TRIAL)
        sweep.wait_for_checkpoint()
        process.send_signal(signal.SIGKILL)

    sweep.meanwhile(kill)
    rows = sweep.check()
    both = (rows, undisturbed.rows())
    by_network = [{r["network"]: r for r in found.values()} for found in both]
    assert numbers(by_network[0]) == numbers(by_network[1])
    assert {row["epochs_done"] for row in rows.values()} == {40}


@pytest.mark.long
def test_torn_and_foreign_tables_are_set_aside_and_done_again_without_training(finished):
    sweep = finished
    before = sweep.check()
    torn, foreign = sorted(before)
    path = places.table_path("tracks", torn)
    storage.write_file(sweep.root, path, storage.read_file(sweep.root, path)[:1000])
    path = places.table_path("trials", foreign)
    storage.write_file(sweep.root, path, b"PAR1 from elsewhere")
    storage.write_file(sweep.root, "results/epochs/notes.parquet", b"mine")
    kept = sweep.checkpoints()
    said = sweep.again()
    for name in (f"tracks/{torn}", f"trials/{foreign}", "epochs/notes"):
        assert f"results/{name}.parquet: torn, or not of geosweep" in said
    assert len(storage.list_files(sweep.root, places.ASIDE)) == 4  # and torn's row
    after = sweep.check()
    assert numbers(after) == numbers(before)
    for trial, row in after.items():
        assert row["trained_at"] == before[trial]["trained_at"]
    assert sweep.checkpoints() == kept


@pytest.mark.long
def test_a_driver_killed_while_scoring_trains_nothing_again(tmp_path, place):
    with Sweep(tmp_path, epochs=1, points=4000, root=place, report=True) as sweep:
        trial = wait_until_trained(sweep)
        sweep.driver.kill()
        sweep.driver.wait()
        assert trial in handover.waiting(sweep.root)
        before = sweep.checkpoints()
        said = sweep.again()
        after = sweep.checkpoints()
        rows = sweep.check()
    assert "to score" in said
    assert before[trial] == after[trial]
    page = storage.read_file(sweep.root, "report/index.html").decode()
    assert "2 trials: 2 done" in page
    trained_at = rows[trial]["trained_at"].replace(tzinfo=UTC).timestamp()
    assert int(trained_at) <= before[trial] / 1e9  # a store's clock counts whole seconds


@pytest.mark.long
def test_a_killed_evaluation_goes_on_and_trains_nothing(finished):
    sweep = finished
    trained = sweep.check()
    sweep.words = ["evaluate", sweep.root, "lesion", "pgd", "--set", "pgd.steps=100"]
    sweep.words.append("--no-report")
    with sweep:
        while not (first := storage.list_files(sweep.root, "results/robustness")):
            assert sweep.driver.poll() is None, sweep.driver.communicate()[0]
            time.sleep(0.02)
        sweep.driver.kill()
        sweep.driver.wait()
    kept = [recorded_evaluations(sweep.root, name.removesuffix(".parquet")) for name in first]
    assert sum(map(len, kept)) < 4
    said = sweep.again()
    rows = sweep.check()
    assert "0 to train" in said
    for trial, row in rows.items():
        assert row["trained_at"] == trained[trial]["trained_at"]
        assert list(json.loads(row["evaluations"])) == ["lesion", "pgd"]
        assert 0 <= row["pgd_auc"] <= 1
        table = read_rows(sweep.root, "robustness", trial)
        key = ("evaluation", "replacement", "units", "stage", "block", "level")
        cells = [tuple(row[name] for name in key) for row in table]
        assert len(cells) == len(set(cells))


@pytest.mark.long
def test_a_search_killed_half_way_ends_with_its_trials_and_a_pareto_figure(tmp_path):
    sweep = Sweep(tmp_path, epochs=2, report=True)
    sweep.file.write_text(
        "layers: fully_connected\nnetwork: [plain, resnet]\ngamma: {low: 1e-5, high: 0.1}\n"
        "epochs: 2\npoints: 60\nsearch: {trials: 14, objectives: [test_accuracy, lss]}\n"
    )
    with sweep:
        while len(storage.list_files(sweep.root, "results/trials")) < 5:
            assert sweep.driver.poll() is None, sweep.driver.communicate()[0]
            time.sleep(0.1)
        before = sweep.rows()
        sweep.started = psutil.Process(sweep.driver.pid).children(recursive=True)
        sweep.driver.kill()
        sweep.driver.wait()
        said = sweep.again()
    assert "14 of 14 done" in said
    rows = sweep.rows()
    assert len(rows) == 14
    assert {trial: rows[trial] for trial in before} == before
    assert len({row["gamma"] for row in rows.values()}) == 14
    sweep.check_mlflow(rows)
    assert Path(sweep.root, "report", "pareto_front.png").stat().st_size > 10_000
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(f"{sweep.root}/{STUDY}"))
    )
    told = {t.params["gamma"]: t.values for t in study.trials}
    assert told == {r["gamma"]: [r["test_accuracy"], r["lss"]] for r in rows.values()}
