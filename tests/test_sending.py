"""Evaluations and probes as jobs of a cluster, as far as that goes without one."""

import json
import re
import shlex
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tune_jobs import service
from tune_jobs.cluster import jobs, reach, slurm
from tune_jobs.commands import sending
from tune_jobs.folder import claim, description
from tune_jobs.sweep import read

FILE = "provider: {type: local}\nsetup_commands: ['export GEOSWEEP_STORAGE=/mnt/s']\n"


@pytest.fixture
def client(monkeypatch):
    """A Ray cluster with one job, of the sweep table4, in /mnt/s/try."""
    words = ["list_jobs", "submit_job", "get_job_status", "get_job_logs", "delete_job"]
    client = mock.Mock(spec=words)
    client.get_job_status.return_value = mock.Mock(value="SUCCEEDED")  # of what is asked there
    client.get_job_logs.return_value = "\nRunning entrypoint\n"
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


def test_a_folder_without_a_sweep_is_refused_by_the_head_before_the_evaluation(
    client, ray, geosweep
):
    client.get_job_status.return_value = mock.Mock(value="FAILED")
    client.get_job_logs.return_value = "\nRunning entrypoint\ngeosweep: /mnt/s/tpyo: no such folder"
    status, said = geosweep("evaluate", "tpyo", "noise", *ray)
    assert (status, said) == (2, "geosweep: /mnt/s/tpyo: no such folder\n")
    assert sent(client) == ["status", "/mnt/s/tpyo", "--json"]
    for which in ("../x", "http://a/b", "a/../b"):
        assert geosweep("evaluate", which, "noise", *ray)[1].startswith(
            f"geosweep: {which}: should"
        )
    assert client.submit_job.call_count == 1


@pytest.mark.parametrize(("answer", "several"), [("sweeps", True), ("trials", False)])
def test_a_folder_of_several_sweeps_is_not_evaluated(client, ray, geosweep, answer, several):
    told = json.dumps({"folder": "/mnt/s/all", answer: []}, indent=1)
    client.get_job_logs.return_value = f"a\nRunning entrypoint\na warning\n{told}\nanother"
    status, said = geosweep("evaluate", "all", "noise", *ray)
    if several:
        refusal = "geosweep: /mnt/s/all: has several sweeps; give the folder of one\n"
        assert (status, said) == (2, refusal)
    else:
        assert (status, sent(client)[0]) == (0, "evaluate")


@pytest.mark.parametrize("words", [["submit", "demo"], ["evaluate", "try", "noise"]])
def test_data_on_the_head_needs_its_whole_path(client, ray, geosweep, words):
    status, said = geosweep(*words, "--data", "mydata", *ray)
    told = "--data mydata: should be the whole path of a folder on the head"
    assert (status, said) == (2, f"geosweep: {told}\n")
    assert not client.submit_job.called
    for path in ("/there/mydata", "~/mydata"):
        assert geosweep(*words, "--data", path, *ray)[0] == 0
        command = shlex.split(client.submit_job.call_args.kwargs["entrypoint"])
        assert command[command.index("--data") + 1] == path


def test_what_ends_only_the_display_says_the_whole_command_that_stops_the_sweep(
    client, ray, geosweep, monkeypatch
):
    monkeypatch.setattr(jobs, "follow", mock.Mock(side_effect=KeyboardInterrupt))
    for words in (["submit", "demo", "--follow"], ["logs", "try", "--follow"]):
        status, said = geosweep(*words, *ray)
        assert status == 0
        assert re.search(f"the job continues; geosweep stop .* {' '.join(ray)} stops it", said)


@pytest.fixture
def fetched(client, ray, geosweep, tmp_path, monkeypatch):
    """Fetch ``/mnt/s/try``, in which the sweep has some seeds; the exit status and what is said.

    The copy takes no tables along.
    """
    monkeypatch.chdir(tmp_path)

    def describe(there: Path, seeds: str) -> None:
        fields = {"name": "try", "dataset": "digits", "layers": "fully_connected"}
        claim(str(there), read(fields, [f"seed={seeds}"]))

    def fetch(seeds: str, *words: str, goes_on: bool = False) -> tuple[int, str]:
        if not goes_on:
            (tmp_path / "there/sweep.json").unlink(missing_ok=True)
        describe(tmp_path / "there", seeds)
        content = (tmp_path / "there/sweep.json").read_bytes()

        def copy(cluster, folder, to, left=()):
            Path(to).mkdir(parents=True, exist_ok=True)
            Path(to, "sweep.json").write_bytes(content)

        monkeypatch.setattr(reach, "read", lambda cluster, folder, name: content)
        monkeypatch.setattr(reach, "fetch", copy)
        monkeypatch.setattr(service, "sync", lambda root, console: ([], 0))  # no runs of MLflow
        return geosweep("fetch", "try", *words, *ray)

    return fetch


def test_a_fetch_does_not_replace_another_sweep_of_that_name(fetched, tmp_path):
    here = tmp_path / "runs/try"
    assert fetched("0,1")[0] == 0
    (here / "checkpoints").mkdir()
    for trial in description(str(here)).trials:
        (here / f"checkpoints/{trial.trial}.json").write_text("{}")
    assert fetched("0,1,2")[0] == 0  # more of the same sweep
    before = (here / "sweep.json").read_bytes()
    status, said = fetched("1,2")
    assert status == 2
    assert "/mnt/s/try: runs/try holds 1 trial that this sweep does not have" in said
    assert (here / "sweep.json").read_bytes() == before
    assert fetched("0,1")[0] == 0
    assert fetched("1,3", goes_on=True)[0] == 0  # both sweeps are in the folder there
    assert fetched("1,2", "--out", "runs/try-2")[0] == 0
    assert fetched("4", "--out", "runs/try")[0] == 0


def test_a_probe_is_not_fetched_into_a_sweeps_folder(client, fetched, tmp_path):
    assert fetched("0", "--out", "runs/demo")[0] == 0
    (job,) = client.list_jobs.return_value
    job.metadata[jobs.KIND] = jobs.PROBE
    for out in ("runs/demo", "runs/demo/results"):
        status, said = fetched("0", "--out", out)
        assert status == 2
        assert "sweep" in said


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
