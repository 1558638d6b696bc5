"""Jobs of Slurm, as far as that goes without one; tests/test_slurm_cluster.py has one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_datasets import saved

from scoring import cores
from tune_jobs import service
from tune_jobs.cluster import allocation, slurm, slurm_file, slurm_job
from tune_jobs.cluster.slurm import Slurm, Status
from tune_jobs.cluster.slurm_file import SlurmFile
from tune_jobs.errors import SweepError
from tune_jobs.folder import claim
from tune_jobs.precision import resolved
from tune_jobs.sweep import read

ROOT = Path(__file__).parents[1]
LEAST = {"storage": "/s", "time": "08:00:00", "cpus": "4"}


@pytest.fixture
def write(tmp_path):
    """Write a Slurm file of the least fields and others; its path."""

    def write(**fields: str) -> str:
        content = LEAST | {"storage": f"{tmp_path}/s"} | fields
        lines = [f'{name}: "{text}"' for name, text in content.items() if text]
        (tmp_path / "slurm.yaml").write_text("\n".join(lines))
        return str(tmp_path / "slurm.yaml")

    return write


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands; what they are called with comes into a file that this is."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        program = tmp_path / "bin" / name
        program.write_text(
            f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n'
            f"cat {tmp_path}/{name} 2>/dev/null\nexit $(cat {tmp_path}/{name}.status || echo 0)\n"
        )
        program.chmod(0o755)
    (tmp_path / "sbatch").write_text("12;cluster\n")
    return tmp_path / "calls"


def test_the_file_in_the_repository_is_right_and_everything_in_it_is_a_field(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = slurm_file.read(str(ROOT / "clusters" / "slurm.yaml"))
    assert found.storage == "/home/me/sweeps"
    text = (ROOT / "clusters" / "slurm.yaml").read_text()
    assert all(f"\n{name}: " in text or f"\n# {name}: " in text for name in SlurmFile.model_fields)


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("time", "12", "line 2: time = '12': should be like 08:00:00"),
        ("time", "8:00", "should be like 08:00:00"),
        ("time", "0:00:30", "at least a minute"),
        ("time", "00:09:00", "grace = 300 s: should be at most half of time = 00:09:00"),
        ("time", "", "time: is missing"),
        ("storage", "sweeps", "should be a folder that all nodes have"),
        ("storage", "$NOWHERE/x", "should be a folder that all nodes have"),
        ("storage", "/s/../x", "should have no . or .. in its path"),
        ("cpus", "0", "cpus = 0: should be "),
        ("memory", "16 GB", "memory = '16 GB': should be like 16G"),
        ("partition", "a b", "partition = 'a b': should be one word"),
        ("sbatch", "qos=long", "should be an option of sbatch, like --qos=long"),
        ("sbatch", "-J x", "geosweep gives -J itself"),
        ("sbatch", "--requeue", "geosweep gives --requeue itself"),
        ("partitions", "x", "no such field; did you mean partition?"),
    ],
)
def test_what_is_wrong_in_a_slurm_file_is_said_in_one_line(write, field, text, said):
    path = write(**{field: text})
    with pytest.raises(SweepError) as raised:
        slurm_file.read(path)
    assert str(raised.value).startswith(f"--slurm {path}")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        *("--test-only", "--help", "--wait", "--clusters=b", "-M b", "--usage", "--parsable"),
        *("--depend=x", "--signa=USR1", "--nod=3", "--outp=x", "--test", "--clus b", "-W", "-N 2"),
        *("--qos=long --wait", "--qos=long -M b", "-p gpu --outp=x", "--j=x", "--e=x", "--o x"),
    ],
)
def test_options_that_would_make_another_job_are_refused_also_in_short(write, line):
    with pytest.raises(SweepError, match=r"geosweep gives .* itself, or cannot work with it"):
        slurm_file.read(write(sbatch=line))


@pytest.mark.parametrize("line", ["--comment=it's", "qos", "-Jx", "--qos=long -Jx", "--Qos=x"])
def test_options_that_sbatch_would_not_read_are_refused(write, line):
    with pytest.raises(SweepError, match=r"sbatch.* = .*: should be"):
        slurm_file.read(write(sbatch=line))


@pytest.mark.parametrize(
    "line",
    [
        *("--qos=long", "-p gpu", "--gpus-per-node=a100:2", "--nice=-5", "--comment='two words'"),
        *("--exclusive", "--nodelist=n1", "--wait-all-nodes=1", "--mail-type=END", "-C a100"),
    ],
)
def test_other_options_reach_sbatch_as_they_are(write, line):
    assert slurm_file.read(write(sbatch=line)).sbatch == [line]


@pytest.mark.parametrize("said", ["", "submitted, more or less\n"])
def test_an_answer_of_sbatch_without_a_number_is_shown_and_leaves_nothing(
    write, tools, tmp_path, said
):
    (tmp_path / "sbatch").write_text(said)
    with pytest.raises(SweepError, match=f"no number; it said: {said.strip()!r}"):
        Slurm(write()).send("x", "/x", ["x"], {})
    assert not [*(tmp_path / "s/.jobs").iterdir()]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("08:00:00", 28_800), ("100:0:1", 360_001), ("1-0", 86_400), ("2-12:30:15", 217_815)],
)
def test_time_limits_are_read_as_slurm_reads_them(text, seconds):
    assert slurm_file.seconds(text) == seconds


def test_a_sweep_becomes_a_script_and_one_call_of_sbatch(write, tools, tmp_path):
    client = Slurm(write(partition="gpu", nodes="2", gpus="1", setup="module load a b"))
    job = client.submit(read("demo"), f"{tmp_path}/s/demo", ["--set", "seeds=2"], named=False)
    place = tmp_path / "s/.jobs" / job
    words = tools.read_text().split()
    assert words[:3] == ["sbatch", "--parsable", "--output=log"]
    assert words[-1] == "job.sh"
    script = (place / "job.sh").read_text().splitlines()
    assert script[0] == "#!/bin/bash"
    asked = {line.removeprefix("#SBATCH ") for line in script if line.startswith("#SBATCH ")}
    assert asked == set(words[3:-1])  # so that variables like SBATCH_ACCOUNT do not win
    assert f"cd {os.getcwd()}" in script
    assert asked >= {
        "--dependency=singleton",
        "--nodes=2",
        "--cpus-per-task=4",
        "--gpus-per-node=1",
        "--signal=B:USR1@300",
        "--open-mode=append",
        "--requeue",
        "--partition=gpu",
    }
    assert script.index("module load a b") < len(script) - 1
    about = json.loads((place / "job.json").read_text())
    assert about["words"] == ["run", "demo", "--set", "seeds=2"]
    assert about["variables"]["GEOSWEEP_STORAGE"] == f"{tmp_path}/s"
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "code/tune_jobs/cli.py").exists()
    assert (place / "slurm.txt").read_text() == "12"


def test_a_job_finds_a_data_set_beside_the_sweep_file(write, tools, tmp_path, cache, monkeypatch):
    """It reads the file from a stream, which lies in no folder."""
    (tmp_path / "exp").mkdir()
    saved(tmp_path / "exp/mine.npz")
    text = "dataset: mine.npz\npoints: 5\nlayers: fully_connected\n"
    (tmp_path / "exp/my.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    job = Slurm(write()).submit(read("exp/my.yaml"), f"{tmp_path}/s/my", [], named=False)
    place = tmp_path / "s/.jobs" / job
    for name, value in json.loads((place / "job.json").read_text())["variables"].items():
        monkeypatch.setenv(name, value)
    with (place / "sweep.yaml").open() as stream:
        found = service.check(read(f"/dev/fd/{stream.fileno()}"), None, None, None)
    assert found.root == f"{tmp_path}/s/my"
    assert found.sources == {"mine.npz": f"{tmp_path}/exp/mine.npz"}


def test_sweeps_of_one_folder_run_one_by_one_and_others_side_by_side(write, tools, tmp_path):
    client = Slurm(write())
    sweeps = [("x", "/a"), ("y", "/a"), ("x", "/b")]
    jobs = [client.send(name, folder, [name], {}) for name, folder in sweeps]
    scripts = [(tmp_path / "s/.jobs" / job / "job.sh").read_text() for job in jobs]
    assert len({*jobs}) == 3  # submitted in the same second
    names = [script.partition("--job-name=")[2].split()[0] for script in scripts]
    assert names[0] == names[1] != names[2]


def test_an_interrupted_submit_leaves_no_job_behind(write, tools, tmp_path, monkeypatch):
    client = Slurm(write())

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.send("x", "/x", ["x"], {})
    assert tools.read_text().splitlines()[-1] == "scancel 12"
    assert not [*(tmp_path / "s/.jobs").iterdir()]


def test_what_slurm_refuses_is_said_and_leaves_nothing(write, tools, tmp_path, geosweep):
    (tmp_path / "sbatch.status").write_text("1")
    program = tmp_path / "bin/sbatch"
    program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: x' >&2\nexit 1\n")
    file = write(partition="x")
    status, said = geosweep("submit", "demo", "--slurm", file)
    told = "partition = x: sbatch: invalid partition: x; sinfo --long --Node shows what nodes have"
    assert (status, said) == (2, f"geosweep: --slurm {file}: {told}\n")
    assert not [*(tmp_path / "s/.jobs").iterdir()]
    program.unlink()
    if not (Path("/usr/bin/sbatch").exists()):
        status, said = geosweep("submit", "demo", "--slurm", write())
        assert "sbatch: not found; --slurm works on the login node" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "gamma=x"], "gamma"),
        (["--set", "points=5000"], "points = 5000"),
        (["--data", "/nowhere"], "--data /nowhere: no such folder"),
        (["--out", "abfs://sweeps@account/demo"], "Azure's storage is not supported"),
        (["--cluster", "x.yaml"], "--cluster and --slurm name two clusters"),
        (["--address", "http://x:1"], "--slurm and --address name two clusters"),
    ],
)
def test_a_sweep_that_is_wrong_does_not_wait_in_the_queue(write, tools, geosweep, words, said):
    status, text = geosweep("submit", "demo", "--slurm", write(), *words)
    assert status == 2
    assert said in text
    assert not tools.exists()


def test_an_address_in_the_environment_yields_to_a_file(write, tools, geosweep, monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert "no sweep was submitted" in geosweep("logs", "--slurm", write())[1]
    assert "no Ray dashboard" in geosweep("logs")[1]


def test_a_sweep_of_precision_auto_is_submitted_again_to_the_folder_that_it_began(
    write, tools, geosweep, tmp_path, monkeypatch
):
    """Its trials there are those of the precision that was found first."""
    file, sweep = write(), tmp_path / "auto.yaml"
    sweep.write_text("dataset: digits\nlayers: fully_connected\nprecision: auto\n")
    root = str(tmp_path / "s/auto")
    monkeypatch.setattr("tune_jobs.precision._faster", lambda sweep: "bfloat16")
    begun = resolved(read(str(sweep)), root)
    claim(root, begun)
    (Path(root) / "checkpoints").mkdir()
    for trial in begun.trials:
        (Path(root) / f"checkpoints/{trial.trial}.json").write_text("{}")
    status, said = geosweep("submit", str(sweep), "--slurm", file)
    assert (status, f"folder   {root}\n" in said) == (0, True), said


def test_a_trial_that_no_node_can_hold_is_refused(write, tools, geosweep, tmp_path):
    sweep = tmp_path / "big.yaml"
    sweep.write_text("dataset: digits\nresources: {cpus: 8}\n")
    _, said = geosweep("submit", str(sweep), "--slurm", write())
    assert "resources.cpus = 8: a node of the Slurm file has 4" in said
    assert not tools.exists()


@pytest.mark.parametrize(
    ("state", "ended", "status"),
    [
        ("PENDING", None, Status.PENDING),
        ("RUNNING", None, Status.RUNNING),
        ("COMPLETING", 0, Status.RUNNING),
        ("COMPLETED", 0, Status.SUCCEEDED),
        (None, 0, Status.SUCCEEDED),  # Slurm forgets jobs after some minutes
        ("FAILED", 1, Status.FAILED),
        ("FAILED", 130, Status.STOPPED),
        ("CANCELLED", None, Status.STOPPED),
        ("TIMEOUT", None, Status.FAILED),
        (None, None, Status.FAILED),
    ],
)
@pytest.mark.parametrize("stopped", [False, True])
def test_what_became_of_a_job(stopped, write, tools, tmp_path, state, ended, status):
    client = Slurm(write())
    job = client.send("demo", "/s/demo", ["run", "demo"], {})
    (tmp_path / "squeue").write_text(f"12|{state}\n" if state else "")
    if ended is not None:
        (tmp_path / "s/.jobs" / job / slurm.ENDED).write_text(json.dumps({"status": ended}))
    if stopped:  # before the job could note how it ended
        (tmp_path / "s/.jobs" / job / slurm.STOP).touch()
        status = Status.STOPPED if status is Status.FAILED and ended is None else status
    (found,) = client.list_jobs()
    assert (found.submission_id, found.status, found.driver_exit_code) == (
        job,
        status,
        None if state == "COMPLETING" else ended,
    )


def test_logs_status_stop_and_fetch_find_a_job_by_its_folder(write, tools, tmp_path, geosweep):
    file = write()
    job = Slurm(file).send("demo", f"{tmp_path}/s/try-2", ["run", "demo"], {})
    (tmp_path / "s/.jobs" / job / "log").write_text("12 of 16 done\n")
    (tmp_path / "squeue").write_text("12|RUNNING\n")
    assert geosweep("logs", "try-2", "--slurm", file) == (0, "12 of 16 done\n")
    _, said = geosweep("status", "--slurm", file)
    assert f"{job}  running  " in said
    (tmp_path / "squeue").write_text("12|FAILED\n")
    (tmp_path / "s/.jobs" / job / "ended.json").write_text('{"status": 1}')
    assert geosweep("logs", "--follow", "--slurm", file) == (1, "12 of 16 done\n")
    assert "not running (failed)" in geosweep("stop", job, "--slurm", file)[1]
    assert "no such job or folder" in geosweep("fetch", "table4", "--slurm", file)[1]


@pytest.mark.parametrize(("line", "said"), [("time: 480", "08:00:00"), ("memory: 16", "16G")])
def test_a_number_where_a_text_belongs_is_told_the_form(write, line, said):
    file = Path(write(**{line.partition(":")[0]: ""}))
    file.write_text(f"{file.read_text()}\n{line}\n")
    with pytest.raises(SweepError, match=f"{line.replace(':', ' =')}: should be like {said}"):
        Slurm(str(file))


def test_a_job_that_waits_says_why_and_that_nothing_is_there_yet(write, tools, tmp_path, geosweep):
    file, there = write(), tmp_path / "s/demo"
    job = Slurm(file).send("demo", str(there), ["run", "demo"], {})
    (tmp_path / "squeue").write_text("12|PENDING|Nodes required for job are DOWN\n")
    assert (
        f"{job}  pending (Nodes required for job are DOWN)"
        in geosweep("status", "--slurm", file)[1]
    )
    said = (
        f"{job}: pending (Nodes required for job are DOWN)\nfolder   {there} (nothing there yet)\n"
    )
    assert geosweep("status", "demo", "--slurm", file) == (0, said)
    assert geosweep("fetch", "demo", "--slurm", file) == (
        2,
        f"geosweep: {there}: nothing there yet; geosweep status {job} --slurm {file} says why\n",
    )


def test_a_stop_is_gentle_with_a_job_that_runs(write, tools, tmp_path):
    client = Slurm(write())
    job = client.send("demo", "/s/demo", ["run", "demo"], {})
    for state in ("COMPLETING", "STAGE_OUT", "RUNNING", "PENDING", "COMPLETED"):
        (tmp_path / "squeue").write_text(f"12|{state}\n")
        client.stop_job(job)
    calls = [line for line in tools.read_text().splitlines() if line.startswith("scancel")]
    assert calls == ["scancel --batch --signal=USR2 12", "scancel 12"]
    (tmp_path / "squeue").write_text("")  # Slurm has forgotten it
    assert client.get_job_status(job) is Status.STOPPED


def test_a_signal_that_slurm_refuses_matters_only_if_the_job_runs_on(write, tools, tmp_path):
    client = Slurm(write())
    job = client.send("demo", "/s/demo", ["run", "demo"], {})
    states, refusal = tmp_path / "squeue", "echo scancel: error: in transition >&2; exit 1\n"
    for after in ("COMPLETING", "PENDING", "COMPLETED", "RUNNING"):
        states.write_text("12|RUNNING\n")
        (tmp_path / "bin/scancel").write_text(f"#!/bin/sh\necho '12|{after}' > {states}\n{refusal}")
        if after == "RUNNING":
            with pytest.raises(SweepError, match="scancel: in transition"):
                client.stop_job(job)
        else:
            client.stop_job(job)
        assert (tmp_path / "s/.jobs" / job / slurm.STOP).exists()


def test_the_code_of_a_job_stays_until_slurm_has_given_it_up(write, tools, tmp_path):
    """A job that Slurm ended may start again, and then needs it."""
    client = Slurm(write())
    code = tmp_path / "s/.jobs" / client.send("demo", "/s/demo", ["run"], {}) / "code"
    for state, there in (("PENDING", True), ("CANCELLED", False)):
        (tmp_path / "squeue").write_text(f"12|{state}\n")
        client.send("other", "/s/other", ["run"], {})
        assert code.exists() == there


@pytest.mark.parametrize(
    ("states", "commands"),
    [
        (["RUNNING", "PENDING"], ["scancel --batch --signal=USR2 12", "scancel 12"]),
        (["RUNNING", "COMPLETING", "PENDING"], ["scancel --batch --signal=USR2 12", "scancel 12"]),
        (["COMPLETING", "PENDING"], ["scancel 12"]),
        (["COMPLETING", "RUNNING"], []),  # the new start finds the file and ends
    ],
)
def test_a_stop_reaches_a_job_that_goes_back_into_the_queue_meanwhile(
    states, commands, write, tools, tmp_path, geosweep, monkeypatch
):
    """A signal would find no process there, so a later look cancels the job that waits."""
    file = write()
    client = Slurm(file)
    job = client.send("demo", "/s/demo", ["run", "demo"], {})
    later = iter([*states, "CANCELLED"])
    (tmp_path / "squeue").write_text(f"12|{next(later)}\n")

    def wait(seconds):
        (tmp_path / "squeue").write_text(f"12|{next(later)}\n")

    monkeypatch.setattr(time, "sleep", wait)
    status, said = geosweep("stop", job, "--slurm", file)
    assert (status, said) == (0, f"{job}: stopped; submit it again to continue\n")
    calls = [line for line in tools.read_text().splitlines() if line.startswith("scancel")]
    assert calls == commands
    assert (tmp_path / "s/.jobs" / job / slurm.STOP).exists()


def sent(file: str, tmp_path: Path, number: str) -> str:
    """Submit a sweep that gets this number from Slurm; later ones are later by the clock."""
    (tmp_path / "sbatch").write_text(f"{number}\n")
    time.sleep(0.01)
    return Slurm(file).send("demo", f"/s/{number}", ["run", "demo"], {})


def test_which_sweep_to_stop_is_asked_if_several_run(write, tools, tmp_path, geosweep):
    file = write()
    jobs = [sent(file, tmp_path, number) for number in ("12", "13")]
    (tmp_path / "squeue").write_text("12|RUNNING\n13|PENDING\n")
    status, said = geosweep("stop", "--slurm", file)
    assert status == 2
    assert all(job in said for job in jobs)
    assert f"geosweep stop JOB --slurm {file}" in said
    assert "scancel" not in tools.read_text()


def test_without_a_name_the_sweep_that_is_active_is_stopped_also_if_it_is_not_the_last(
    write, tools, tmp_path, geosweep
):
    file = write()
    jobs = [sent(file, tmp_path, number) for number in ("12", "13")]
    (tmp_path / "squeue").write_text("12|PENDING\n13|COMPLETED\n")
    program = tmp_path / "bin/scancel"
    program.write_text(f"{program.read_text()}echo '12|CANCELLED' > {tmp_path}/squeue\n")
    program.write_text(program.read_text().replace("exit", "true"))
    status, said = geosweep("stop", "--slurm", file)
    assert (status, said) == (0, f"{jobs[0]}: stopped; submit it again to continue\n")
    assert f"{jobs[1]}: not running" in geosweep("stop", "--slurm", file)[1]  # none is active


def test_every_command_finds_a_sweep_by_the_same_names(write, tools, tmp_path, geosweep):
    """Its job, its folder, or a name in the storage. The last sweep has its folder's own name."""
    file, folders = write(), [f"{tmp_path}/s/{name}" for name in ("a/try", "b/try")]
    jobs = [Slurm(file).send("demo", there, ["run", "demo"], {}) for there in folders]
    table = {"try": 1, "a/try": 0, "b/try": 1, jobs[0]: 0, jobs[1]: 1, folders[0]: 0, folders[1]: 1}
    for which, number in table.items():
        for command in ("status", "logs", "stop", "fetch"):
            said = geosweep(command, which, "--slurm", file)[1]
            found = [
                f"{j}: " in said or f"{f}: " in said for j, f in zip(jobs, folders, strict=True)
            ]
            assert found == [number == 0, number == 1], (command, which, said)
    for command in ("status", "logs", "stop", "fetch"):
        assert "no such job or folder" in geosweep(command, "a", "--slurm", file)[1]


DRIVER = """
import signal, sys, time
signals = 0
def stop(number, frame):
    global signals
    signals += 1
    if signals == {needs}:
        sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
time.sleep(60)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("asked", "needs", "status"),
    [
        (signal.SIGUSR1, 1, 130),  # the running epochs end
        (signal.SIGUSR1, 2, 130),  # they do not end in time
        (signal.SIGTERM, 2, 130),  # scancel waits for no epoch
        (signal.SIGTERM, 9, -signal.SIGKILL),  # a driver that hangs
    ],
)
def test_a_sweep_ends_in_time_whatever_slurm_asks(monkeypatch, asked, needs, status):
    monkeypatch.setattr(slurm_job, "LAST", 0.5)
    command = [sys.executable, "-c", DRIVER.format(needs=needs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        assert next(iter(driver.stdout or ())) == b"ready\n"
        assert slurm_job._follow(driver, [asked], slurm_job.RESERVE + 1) == status


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Run a job whose sweep ends after a signal, with an epoch or without; what came of it."""
    root, place, requeued = tmp_path / "sweep", tmp_path / "job", []
    for folder in (root / "checkpoints", place / "code"):
        folder.mkdir(parents=True)
    about = {"geosweep.folder": str(root), "nodes": 1, "grace": 60, "words": [], "variables": {}}
    (place / "job.json").write_text(json.dumps(about))
    (place / "sweep.yaml").touch()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(slurm_job, "_requeue", lambda: requeued.append(1) or True)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def ended(number, epoch, stopped=False):
        def follow(driver, asked, grace):
            driver.kill()
            driver.wait()
            asked.append(number)
            if stopped:
                (place / "stop").touch()
            if epoch:
                (root / "checkpoints" / "a.json").touch()
            return 130

        monkeypatch.setattr(slurm_job, "_follow", follow)
        status = slurm_job.run(place)
        assert (place / "slurm.txt").read_text() == "12"  # as if geosweep submit was killed
        there = (place / "ended.json").exists(), (place / "code").exists()
        return (status, len(requeued), *there)

    return ended


@pytest.mark.parametrize("epoch", [True, False])
def test_a_job_starts_again_only_if_an_epoch_has_ended(ended, epoch):
    """Else it would start, and take its nodes, for ever."""
    assert ended(signal.SIGUSR1, epoch) == ((0, 1, False, True) if epoch else (1, 0, True, False))


def test_a_job_that_is_stopped_before_it_goes_back_into_the_queue_stays_out(ended):
    assert ended(signal.SIGUSR1, True, stopped=True) == (130, 0, True, False)
    assert ended(signal.SIGUSR1, True) == (130, 0, True, False)  # nor does a later start begin


def test_a_job_that_slurm_ends_keeps_its_code_in_case_that_slurm_starts_it_again(ended):
    assert ended(signal.SIGTERM, True) == (130, 0, True, True)


def test_a_process_has_the_cores_that_it_may_use(tmp_path, monkeypatch):
    mine = sorted(os.sched_getaffinity(0))
    code = "from scoring.cores import cores; print(cores())"
    for given in (mine, mine[:1]):
        os.sched_setaffinity(0, given)
        try:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        finally:
            os.sched_setaffinity(0, mine)
        assert int(done.stdout) <= len(given)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(cores, "QUOTA", quota)
    for text, count in (("max 100000", 64), ("250000 100000", 2), ("50000 100000", 1), ("", 64)):
        quota.write_text(text)
        assert cores.cores() == count
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "12")  # a Slurm that does not confine its jobs
    assert cores.cores() == 12


def test_outside_of_a_job_there_are_no_nodes_to_join(monkeypatch):
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    with pytest.raises(SweepError, match="this is no Slurm job"), allocation.joined(print):
        pass
