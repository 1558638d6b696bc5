"""Evaluations and probes as jobs of a cluster, as far as that goes without one."""

import json
import shlex
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tune_jobs.cluster import jobs, slurm
from tune_jobs.commands import sending

FILE = "provider: {type: local}\nsetup_commands: ['export GEOSWEEP_STORAGE=/mnt/s']\n"


@pytest.fixture
def client(monkeypatch):
    """A Ray cluster with one job, of the sweep table4, in /mnt/s/try."""
    client = mock.Mock(spec=["list_jobs", "submit_job"])
    noted = {jobs.SWEEP: "table4", jobs.FOLDER: "/mnt/s/try"}
    client.list_jobs.return_value = [mock.Mock(submission_id="job", start_time=1, metadata=noted)]

    @contextmanager
    def connect(cluster, address):
        yield client

    monkeypatch.setattr(jobs, "connect", connect)
    return client


@pytest.fixture
def ray(tmp_path, monkeypatch):
    monkeypatch.delenv("GEOSWEEP_STORAGE", raising=False)
    (tmp_path / "ray.yaml").write_text(FILE)
    return ["--cluster", str(tmp_path / "ray.yaml")]


@pytest.fixture
def on_slurm(tmp_path, monkeypatch):
    """Options for a Slurm that takes every job; the file asks for two nodes."""
    text = f"storage: {tmp_path}/s\ntime: '1:00:00'\ncpus: 2\nnodes: 2\n"
    (tmp_path / "slurm.yaml").write_text(text)
    monkeypatch.setattr(slurm, "_call", lambda command, folder=None: "12\n")
    monkeypatch.setattr(slurm, "_states", dict)
    return ["--slurm", str(tmp_path / "slurm.yaml")]


def sent(client) -> list[str]:
    """The words of the command that runs on the cluster."""
    words = shlex.split(client.submit_job.call_args.kwargs["entrypoint"])
    assert words[:4] == ["exec", "python", "-m", "tune_jobs.cli"]
    return words[4:]


@pytest.mark.parametrize("which", ["try", "job", "/mnt/s/try"])
def test_a_sweep_there_is_evaluated_where_it_is(client, ray, geosweep, which):
    asked = ["noise", "--set", "noise.levels=0,8", "--no-report"]
    status, said = geosweep("evaluate", which, *asked, *ray)
    assert status == 0
    assert "folder   /mnt/s/try\n" in said
    expected = ["evaluate", "/mnt/s/try", *asked, "--address", "auto"]
    assert sent(client) == expected
    noted = client.submit_job.call_args.kwargs["metadata"]
    assert noted == {jobs.SWEEP: "table4", jobs.FOLDER: "/mnt/s/try"}


def test_a_folder_without_a_job_is_evaluated_by_its_path_or_name(client, ray, geosweep):
    for which, folder in (("old", "/mnt/s/old"), ("s3://b/x", "s3://b/x")):
        assert geosweep("evaluate", which, *ray)[0] == 0
        assert sent(client)[1] == folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fog"], "fog"),
        (["noise", "--set", "noise.levels=x"], "noise.levels"),
        (["--address", "auto"], "--address names a running Ray"),
        (["--slurm", "x.yaml"], "name two clusters"),
    ],
)
def test_an_evaluation_that_is_wrong_is_not_sent(client, ray, geosweep, words, said):
    status, text = geosweep("evaluate", "try", *words, *ray)
    assert status == 2
    assert said in text
    assert not client.submit_job.called


def test_a_probe_takes_its_files_along_and_its_results_are_in_the_storage(
    client, ray, geosweep, tmp_path
):
    for name in ("my net.py", "w.pt", "x.npz"):
        (tmp_path / name).write_text(name)
    where = str(tmp_path)
    words = ["--weights", f"{where}/w.pt", "--data", f"{where}/x.npz", "--device", "cuda"]

    contents = {}

    def submit_job(**given):
        folder = given["runtime_env"]["working_dir"]
        for file in ("model-my net.py", "weights-w.pt", "data-x.npz"):
            contents[file] = Path(folder, jobs.OF_USERS, file).read_text()
        return given["submission_id"]

    client.submit_job.side_effect = submit_job
    status, said = geosweep("probe", f"{where}/my net.py:build", *words, *ray)
    assert (status, "folder   /mnt/s/probe-my net-build\n" in said) == (0, True)
    command = sent(client)
    assert command[:2] == ["probe", "sent/model-my net.py:build"]
    assert command[command.index("--data") + 1] == "sent/data-x.npz"
    assert command[command.index("--out") + 1] == "/mnt/s/probe-my net-build"
    assert [*contents.values()] == ["my net.py", "w.pt", "x.npz"]
    given = client.submit_job.call_args.kwargs
    assert given["entrypoint_num_gpus"] == 1
    assert given["metadata"][jobs.KIND] == jobs.PROBE


def test_a_file_that_is_not_here_needs_its_whole_path_there(client, ray, geosweep, monkeypatch):
    status, said = geosweep("probe", "torchvision:resnet18", "--data", "nowhere.npz", *ray)
    assert status == 2
    assert "--data nowhere.npz: no such file; one there needs its whole path" in said
    assert geosweep("probe", "torchvision:resnet18", "--data", "/there/x.npz", *ray)[0] == 0
    assert sent(client)[2:4] == ["--data", "/there/x.npz"]


def test_files_that_are_too_large_to_be_sent_are_named(
    client, ray, geosweep, monkeypatch, tmp_path
):
    monkeypatch.setattr(sending, "MOST", 10)
    (tmp_path / "x.npz").write_text("x" * 11)
    _, said = geosweep("probe", "torchvision:resnet18", "--data", str(tmp_path / "x.npz"), *ray)
    assert "more than 10 bytes" in said
    assert not client.submit_job.called


def test_on_slurm_a_probe_is_one_node_that_reads_files_where_they_are(
    on_slurm, geosweep, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").touch()
    assert geosweep("probe", "timm:vit", "--data", "x.npz", "--no-null", *on_slurm)[0] == 0
    (file,) = (tmp_path / "s/.jobs").glob("*/job.json")
    about = json.loads(file.read_text())
    assert about["nodes"] == 1
    assert about["words"][:4] == ["probe", "timm:vit", "--data", f"{tmp_path}/x.npz"]
    assert about["words"][-4:] == ["--out", f"{tmp_path}/s/probe-vit", "--device", "cpu"]
    assert "--no-null" in about["words"]
    assert "#SBATCH --nodes=1\n" in (file.parent / "job.sh").read_text()
    assert "no such file" in geosweep("probe", "timm:vit", "--data", "y.npz", *on_slurm)[1]


def test_on_slurm_an_evaluation_is_checked_here_and_uses_all_nodes(
    on_slurm, geosweep, tmp_path, monkeypatch
):
    asked = ("evaluate", "demo", "noise", "--data", "my data", *on_slurm)
    assert f"{tmp_path}/s/demo: " in geosweep(*asked)[1]
    assert not (tmp_path / "s/.jobs").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sending.work, "request_evaluation", lambda *_: None)
    assert geosweep(*asked)[0] == 0
    (file,) = (tmp_path / "s/.jobs").glob("*/job.json")
    about = json.loads(file.read_text())
    there = f"{tmp_path}/s/demo"
    assert about["words"] == ["evaluate", there, "noise", "--data", f"{tmp_path}/my data"]
    assert about["nodes"] == 2


def test_what_a_probe_has_written_is_fetched_without_a_search_for_trials(
    on_slurm, geosweep, tmp_path
):
    (tmp_path / "x.npz").touch()
    data = str(tmp_path / "x.npz")
    assert geosweep("probe", "timm:vit", "--data", data, *on_slurm)[0] == 0
    (tmp_path / "s/probe-vit").mkdir()
    (tmp_path / "s/probe-vit/probe.json").write_text("{}")
    here = tmp_path / "here"
    status, said = geosweep("fetch", "probe-vit", "--out", str(here), *on_slurm)
    assert (status, said) == (0, f"probe    {here}\n")
    assert (here / "probe.json").exists()
    assert f"folder   {tmp_path}/s/probe-vit" in geosweep("status", "probe-vit", *on_slurm)[1]
