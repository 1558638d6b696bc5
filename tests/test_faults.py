"""Real sweeps in which something is killed, stopped or broken, and what they lead to afterwards."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from datetime import UTC
from pathlib import Path
from unittest import mock

import psutil
import pytest
from faulty_sweeps import SCORER, TRIAL, Sweep, wait_until_trained
from mlflow.tracking import MlflowClient
from small_sweeps import geosweep

from scoring import places, storage
from tune_jobs import folder
from tune_jobs.tracking import TRIAL_TAG

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.usefixtures("ray_here"),
]


def test_a_killed_scorer_costs_nothing_but_time(tmp_path):
    sweep = Sweep(tmp_path, epochs=1, points=4000)

    def kill() -> tuple[str, float]:
        trial = wait_until_trained(sweep)
        trained_at = os.path.getmtime(f"{sweep.root}/pending/{trial}/{places.FINAL}")
        sweep.find(SCORER).send_signal(signal.SIGKILL)
        return trial, trained_at

    _, (trial, trained_at) = sweep.meanwhile(kill)
    rows = sweep.check()
    assert rows[trial]["trained_at"].replace(tzinfo=UTC).timestamp() <= trained_at
    assert rows[trial]["released_at"] < rows[trial]["scored_at"]


def test_ctrl_c_lets_epochs_end_a_second_run_is_refused_and_the_sweep_goes_on(tmp_path):
    with Sweep(tmp_path, epochs=1500) as sweep:
        sweep.wait_for_checkpoint()
        refused = sweep.again(status=2)
        assert f"process {sweep.driver.pid}" in refused
        assert "is running this sweep" in refused
        os.killpg(sweep.driver.pid, signal.SIGINT)
        said = sweep.end(status=130)
    assert "stopping when the epochs that are running have ended (Ctrl-C" in said
    assert "not finished" in said
    kept = sweep.epochs()
    assert kept
    client = MlflowClient(f"sqlite:///{sweep.root}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.status for run in found} == {"KILLED"}

    with sweep:
        sweep.find(TRIAL)
        os.killpg(sweep.driver.pid, signal.SIGINT)
        while "stopping when" not in sweep.driver.stdout.readline():
            assert sweep.driver.poll() is None
        os.killpg(sweep.driver.pid, signal.SIGINT)
        # The epochs may have ended before the second signal comes.
        assert "run the same command again" in sweep.end(status=130)
    assert all(sweep.epochs()[trial] >= number for trial, number in kept.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_end_a_sweep_as_ctrl_c_does_and_leave_nothing(tmp_path, number):
    with Sweep(tmp_path, epochs=1500) as sweep:
        sweep.find(TRIAL)
        sweep.wait_for_checkpoint()
        started = psutil.Process(sweep.driver.pid).children(recursive=True)
        scratch = {Path(each.cwd()).parent for each in started if "geosweep-ray-" in each.cwd()}
        sweep.driver.send_signal(number)
        said = sweep.end(status=130)
        _, alive = psutil.wait_procs(started, timeout=60)
        assert alive == []
    assert f"epochs that are running have ended ({signal.Signals(number).name}" in said
    assert "not finished" in said
    assert sweep.epochs()
    client = MlflowClient(f"sqlite:///{sweep.root}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.status for run in found} == {"KILLED"}
    assert scratch
    assert not any(folder.exists() for folder in scratch)


def test_a_sweep_whose_folder_is_deleted_stops_and_does_not_create_it_again(tmp_path):
    sweep = Sweep(tmp_path, epochs=1500)

    def delete() -> None:
        sweep.wait_for_checkpoint()
        while os.path.exists(sweep.root):  # a file may appear while the others are deleted
            shutil.rmtree(sweep.root, ignore_errors=True)

    said, _ = sweep.meanwhile(delete, status=2)
    assert "the folder was deleted or replaced; the sweep has stopped" in said
    assert "Traceback" not in said
    assert not os.path.exists(sweep.root)


def test_a_trial_out_of_memory_fails_by_name_and_runs_where_there_is_some(tmp_path):
    sweep = Sweep(tmp_path, epochs=40)
    # Ray ends workers where more of the memory than this is in use; here that is always so.
    sweep.environment = {
        "RAY_memory_usage_threshold": "0.001",
        "RAY_memory_monitor_refresh_ms": "50",
        "RAY_task_oom_retries": "0",
    }
    sweep.words.append("--fail-fast")
    with sweep:
        said = sweep.end(status=1)
    assert ": out of memory" in said or "OutOfMemoryError" in said
    sweep.environment = {}
    sweep.words.remove("--fail-fast")
    sweep.again()
    sweep.check()


def test_the_sweep_goes_on_without_mlflow_and_sync_brings_it_up_to_date(tmp_path):
    sweep = Sweep(tmp_path, epochs=2)
    sweep.environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # no server there
    said = sweep.again()
    assert said.count("MLflow: ") == 1
    assert {row["status"] for row in sweep.rows().values()} == {"done"}
    for logged in (2, 0):
        status, output = geosweep("sync", sweep.root)
        assert status == 0, output
        assert f"{logged} trials logged" in output
    sweep.environment = {}
    sweep.check()
    storage.delete(sweep.root, places.MLFLOW_NOTE)  # as after a killed driver: logs all again
    sweep.again()
    sweep.check()


def test_a_locked_mlflow_database_costs_mlflow_only_and_the_next_run_catches_up(tmp_path):
    sweep = Sweep(tmp_path, epochs=2)
    sweep.again("--set", "network=plain")
    with closing(sqlite3.connect(f"{sweep.root}/mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = sweep.again()
        assert "MLflow: " in said
        assert len(sweep.rows()) == 2
        other.rollback()
    assert "bringing MLflow up to date" in sweep.again()
    sweep.check()


def test_failures_are_counted_kept_and_tried_again_alone(tmp_path):
    sweep = Sweep(tmp_path, epochs=2)
    cells = sweep.again("--dry-run")
    broken = next(line.split()[0] for line in cells.splitlines() if "plain" in line)
    in_the_way = Path(sweep.root, "pending", broken)  # of a folder; the driver would move it
    in_the_way.parent.mkdir()
    in_the_way.touch()
    with mock.patch.object(folder, "mend", return_value=[]):
        said = sweep.again("--fail-fast", status=1)
    assert "too many cells failed" in said
    assert f"failed   {broken}: " in said
    assert "1 failed" in said
    assert "run_trial" in storage.read_file(sweep.root, places.error(broken)).decode()
    client = MlflowClient(f"sqlite:///{sweep.root}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (run,) = [r for r in found if r.data.tags.get(TRIAL_TAG) == broken]
    assert run.info.status == "FAILED"
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["error.txt"]

    sweep.again("--leave-failed")
    assert sorted(row["status"] for row in sweep.rows().values()) == ["done", "failed"]
    sweep.again("--retry-failed")
    sweep.check()
