"""Sending sweeps to a cluster, as far as that goes without one."""

import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import requests
import yaml
from ray._private.utils import update_envs
from ray.autoscaler._private.aws.config import key_pair
from ray.job_submission import JobSubmissionClient

from scoring.storage import AZURE
from tune_jobs import cli
from tune_jobs.cluster import aws, dashboard, jobs, keys, nodes, reach
from tune_jobs.cluster.at import At
from tune_jobs.cluster.turns import turn
from tune_jobs.errors import SweepError
from tune_jobs.sweep import read

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GEOSWEEP_STORAGE", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    return tmp_path


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "cluster.yaml"
    text = "provider: {type: local}\nsetup_commands: ['export GEOSWEEP_STORAGE=/mnt/s']\n"
    file.write_text(text)
    return str(file)


def write_token(home: Path, mode: int = 0o600, content: bytes = b"0" * 64) -> Path:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def said(capsys, *words: str) -> str:
    with mock.patch.object(sys, "argv", ["geosweep", *words]), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    "command",
    [["submit", "demo"], ["submit", "demo", "--out", "/x"], ["logs"], ["stop"], ["fetch", "x"]],
)
def test_without_a_cluster_the_message_says_how_to_name_one(capsys, command):
    assert "--cluster FILE" in said(capsys, *command)


def test_no_token_no_such_file_and_no_such_address_are_said(capsys, file, home, monkeypatch):
    assert "no token" in said(capsys, "logs", "--cluster", file)
    write_token(home)
    assert "--cluster nowhere.yaml: no such file" in said(
        capsys, "logs", "--cluster", "nowhere.yaml"
    )
    assert "no Ray dashboard" in said(capsys, "logs", "--address", "http://127.0.0.1:1")
    (home / "other.yaml").write_text("dataset: digits\n")
    assert "no provider" in said(capsys, "down", "--cluster", str(home / "other.yaml"))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_token_that_others_can_read_is_refused_with_the_command_that_mends_it(capsys, home, mode):
    file = write_token(home, mode)
    words = ["logs", "--address", "http://127.0.0.1:1"]
    assert f"can read the token, and so run code there. chmod 600 {file}" in said(capsys, *words)
    file.chmod(0o600)
    assert "no Ray dashboard" in said(capsys, *words)


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o640, False), (0o440, False), (0o660, True), (0o644, True)]
)
def test_a_token_of_another_owner_may_be_read_through_its_group(
    capsys, home, monkeypatch, mode, refused
):
    """As one of root for a team, or one that Kubernetes mounts, whose rights we cannot change."""
    owner = write_token(home, mode).stat().st_uid
    monkeypatch.setattr(keys.os, "getuid", lambda: owner + 1)
    told = said(capsys, "logs", "--address", "http://127.0.0.1:1")
    assert ("give the token in the variable RAY_AUTH_TOKEN" in told) == refused
    assert ("no Ray dashboard" in told) != refused


def test_a_token_that_is_no_text_is_refused_and_one_in_the_environment_needs_no_file(
    capsys, home, monkeypatch
):
    file = write_token(home, content=b"\xff\xfe")
    words = ["logs", "--address", "http://127.0.0.1:1"]
    assert f"{file}: the token cannot be read: it is no text" in said(capsys, *words)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert "no Ray dashboard" in said(capsys, *words)


def test_every_text_that_names_the_command_for_a_token_keeps_it_from_other_users():
    files = [*ROOT.glob("*.yaml"), *ROOT.glob("clusters/*"), *ROOT.glob("docs/*.md")]
    files += [ROOT / "README.md", *ROOT.glob("tune_jobs/**/*.py")]
    texts = {file: file.read_text() for file in files}
    naming = {file: text for file, text in texts.items() if "get-auth-token" in text}
    assert len(naming) > 4
    for file, text in naming.items():
        assert text.count("(umask 077; ray get-auth-token") == text.count("get-auth-token"), file


@contextmanager
def server(answer: bytes | None):
    """A server that answers every request alike, or never; its URL, and what it was sent."""
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            heard.append(connection.recv(100_000))
            open_ones.append(connection)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

    open_ones: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", heard
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in open_ones:
        connection.close()


def answered(content: str, status: str = "200 OK", kind: str = "text/html") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return (head + content).encode()


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_what_carries_the_token_goes_past_every_proxy(capsys, home, monkeypatch, name):
    write_token(home)
    for without in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(without, raising=False)
    with server(answered("no")) as (proxy, asked), server(answered("no")) as (there, heard):
        monkeypatch.setenv(name, proxy)
        for url in (there, there.replace("127.0.0.1", "localhost")):
            said(capsys, "status", "--address", url)
        assert asked == []
        assert len(heard) >= 2


@pytest.mark.parametrize(
    "answer",
    [
        answered("<html>hello</html>"),
        answered("[]", kind="application/json"),
        answered("{}", kind="application/json"),
        answered("no", "404 Not Found"),
    ],
)
def test_what_answers_but_is_no_dashboard_is_said_to_be_none(capsys, home, answer):
    write_token(home)
    with server(answer) as (url, _):
        assert f"--address {url}: no Ray dashboard answers there" in said(
            capsys, "logs", "--address", url
        )


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x")])
def test_a_fault_in_rays_client_is_not_taken_for_a_missing_dashboard(capsys, home, error):
    write_token(home)
    version = answered('{"ray_version": "2.60.0"}', kind="application/json")
    with (
        server(version) as (url, _),
        mock.patch.object(JobSubmissionClient, "list_jobs", side_effect=error),
    ):
        told = said(capsys, "logs", "--address", url)
    assert f"--address {url}: " in told
    assert "no Ray dashboard" not in told


def test_after_a_connection_was_lost_nothing_is_said_that_a_stop_makes_false(capsys, home):
    """The order to stop or to submit may have arrived all the same."""
    for lost in (requests.Timeout(), requests.ConnectionError()):
        with mock.patch.object(dashboard, "client") as made:
            made.return_value.list_jobs.side_effect = lost
            write_token(home)
            told = said(capsys, "stop", "--address", "http://127.0.0.1:1")
        assert "geosweep status --address http://127.0.0.1:1 shows what was done" in told


def test_a_server_that_never_answers_is_given_up(capsys, home, monkeypatch):
    write_token(home)
    monkeypatch.setattr(dashboard, "ANSWER", 0.2)
    with server(None) as (url, _):
        assert "no answer in 0.2 s" in said(capsys, "status", "--address", url)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("provider: {type: aws}\nauth: ubuntu", "line 2: auth = 'ubuntu': should be a mapping"),
        ("provider: {type: aws}\nauth: [a]", "line 2: auth = .*should be a mapping"),
        ("provider: {type: aws}\nauth:", "line 2: auth = None: should be a mapping"),
        ("provider: {type: aws, key_pair: mine}", "provider.key_pair = 'mine': should be a map"),
        ("provider: {type: local}\nauth: {ssh_private_key: 5}", "ssh_private_key = 5: should be"),
        ("provider: {region: r}", "provider.type: is missing"),
        ("provider: {type: aws}\navailable_node_types: {gpu: 1}", "gpu = 1: should be a mapping"),
        ("provider: {type: aws}\nsetup_commands: ls", "setup_commands = 'ls': should be a list"),
        ("provider: {type: local, worker_ips: [1.5]}", r"worker_ips\[0\] = 1.5: should be one str"),
    ],
)
@pytest.mark.parametrize("command", ["logs", "down", "doctor"])
def test_a_cluster_file_of_the_wrong_form_is_refused_in_one_line(capsys, home, text, told, command):
    write_token(home)
    (home / "wrong.yaml").write_text(text)
    message = said(capsys, command, "--cluster", str(home / "wrong.yaml"))
    assert re.search(f"--cluster {home}/wrong.yaml.*{told}", message)
    assert message.count("\n") == 1


def test_a_list_of_machines_without_a_head_or_a_user_is_not_shut_down(capsys, home):
    (home / "wrong.yaml").write_text("provider: {type: local, worker_ips: []}")
    told = said(capsys, "down", "--cluster", str(home / "wrong.yaml"))
    assert "provider.head_ip or auth.ssh_user is missing" in told


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("provider: {type: aws, region: r, key_pair: {key_name: mine}}", "mine.pem"),
        ("provider: {type: aws, region: r, key_pair: {key_name: mine}}", "mine_key-1.pem"),
        ("provider: {type: aws, region: r}", "ray-autoscaler_r.pem"),
        ("provider: {type: aws, region: r}", "ray-autoscaler_1_r.pem"),
        ("provider: {type: local}\nauth: {ssh_private_key: ~/.ssh/id}", "id"),
    ],
)
def test_without_the_clusters_key_nothing_is_asked_of_the_cloud(home, text, key):
    (home / ".ssh").mkdir()
    (home / ".ssh" / "other.pem").touch()
    config = yaml.safe_load(text)
    with pytest.raises(SweepError, match=r"no key .*before any ray up"):
        keys.check("x.yaml", config)
    (home / ".ssh" / key).touch()
    keys.check("x.yaml", config)


def test_the_first_key_that_ray_makes_is_the_one_that_is_looked_for(home):
    config = reach.cluster_file(str(ROOT / "ray_cluster.yaml"))
    provider = config["provider"]
    _, path = key_pair(0, provider["region"], provider["key_pair"]["key_name"])
    with pytest.raises(SweepError, match=path):
        keys.check("x.yaml", config)


def test_a_second_machine_is_told_to_copy_the_key_before_it_asks_the_cloud(capsys, home):
    write_token(home)
    (home / "aws.yaml").write_text("provider: {type: aws, region: nowhere}\n")
    assert "ray-autoscaler_nowhere.pem" in said(capsys, "logs", "--cluster", str(home / "aws.yaml"))


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", True),
        ("google::cloud::Status(PERMISSION_DENIED: Permanent error)", True),
        ("AWS Error NETWORK_CONNECTION during HeadObject operation", False),
    ],
)
def test_a_node_without_rights_is_told_what_gives_them(monkeypatch, error, hint):
    def refuse(root):
        raise OSError(error)

    monkeypatch.setattr(nodes.storage, "open_folder", refuse)
    why = nodes.missing("s3://bucket/demo", "token")
    assert why.startswith(error)
    assert ("IamInstanceProfile" in why) == ("serviceAccounts" in why) == hint


WRONG_OUTS = [
    "..",
    "../x",
    "a/../b",
    "/a/../b",
    "s3://b/x/../y",
    "file:///x",
    "S3://b/x",
    "/",
    "//",
]
WRONG_OUTS += ["http://a/b", "foo://x", "s3://", "s3:///x", "./x", "S3:/b/x", "abfs:/x"]


@pytest.mark.parametrize("out", WRONG_OUTS)
def test_a_folder_that_not_all_nodes_reach_is_refused_before_anything_is_sent(
    capsys, file, home, out
):
    (home / "slurm.yaml").write_text(f"storage: {home}/s\ntime: '1:00:00'\ncpus: 2\n")
    for at in (["--cluster", file], ["--slurm", str(home / "slurm.yaml")]):
        with mock.patch.object(jobs, "connect") as connected:
            assert f"--out {out}: should " in said(capsys, "submit", "demo", "--out", out, *at)
        assert not connected.called
    assert not (home / "s").exists()


WRONG_STORAGES = ["runs", "~/x", "$HOME/x", "${X}/x", "`hostname`/x", "/mnt/$USER", "s3:/b/x"]
WRONG_STORAGES += ["s3://", "/mnt/../x", "file:///x", "http://x/y", "$(hostname)/x"]


@pytest.mark.parametrize("place", WRONG_STORAGES)
@pytest.mark.parametrize("where", ["file", "environment"])
def test_a_storage_that_not_all_nodes_reach_is_refused_before_anything_is_sent(
    capsys, home, monkeypatch, place, where
):
    given = f"export GEOSWEEP_STORAGE={place}" if where == "file" else "ls"
    if where == "environment":
        monkeypatch.setenv("GEOSWEEP_STORAGE", place)
    content = {"provider": {"type": "local"}, "setup_commands": [given]}
    (home / "c.yaml").write_text(yaml.safe_dump(content))
    with mock.patch.object(jobs, "connect") as connected:
        told = said(capsys, "submit", "demo", "--cluster", str(home / "c.yaml"))
    assert not connected.called
    assert "GEOSWEEP_STORAGE = " in told
    assert "should" in told
    assert (f"--cluster {home}/c.yaml: " in told) == (where == "file")


NEW = "export GEOSWEEP_STORAGE=/new"


@pytest.mark.parametrize(
    ("commands", "storage"),
    [
        (["# export GEOSWEEP_STORAGE=/old", "export GEOSWEEP_STORAGE=/new"], "/new"),
        (["export GEOSWEEP_STORAGE=/new", "ls # GEOSWEEP_STORAGE=/old"], "/new"),
        (["export GEOSWEEP_STORAGE=/old", "export GEOSWEEP_STORAGE=/new"], "/new"),
        (["export GEOSWEEP_STORAGE=/old; export GEOSWEEP_STORAGE=/new"], "/new"),
        (["export GEOSWEEP_STORAGE=/new; ray start"], "/new"),
        (["export GEOSWEEP_STORAGE='/my sweeps'"], "/my sweeps"),
        (["echo 'export GEOSWEEP_STORAGE=\"/my sweeps\"' >> env"], "/my sweeps"),
        (["echo 'export GEOSWEEP_STORAGE=s3://b/x' > env.$HOSTNAME"], "s3://b/x"),
        (["export OLD_GEOSWEEP_STORAGE=/old", "bash -c 'export GEOSWEEP_STORAGE=/new'"], "/new"),
        # A # begins a comment only at the start of a word.
        (["pip install git+https://x/y#z && echo 'export GEOSWEEP_STORAGE=/new' > e"], "/new"),
        (["P=${Q#/x}; export GEOSWEEP_STORAGE=/new"], "/new"),
        (["[ $# = 0 ]; export GEOSWEEP_STORAGE=/new"], "/new"),
        (["export GEOSWEEP_STORAGE=/mnt/a#b"], "/mnt/a#b"),
        (["export GEOSWEEP_STORAGE='/a #b'"], "/a #b"),
        (["ls;# it's GEOSWEEP_STORAGE=/old\nexport GEOSWEEP_STORAGE=/new"], "/new"),
        # Commands that name the variable and do not set it.
        ([NEW, "grep -q '^export GEOSWEEP_STORAGE=' e || exit 1"], "/new"),
        ([NEW, "sed -i 's/^export GEOSWEEP_STORAGE=.*old.*//' e"], "/new"),
        ([NEW, "sed -i '/GEOSWEEP_STORAGE=/d' e"], "/new"),
        (["GEOSWEEP_STORAGE=/old", "sed 's|GEOSWEEP_STORAGE=.*|GEOSWEEP_STORAGE=/new|' e"], "/new"),
        # A shell reads the text of a file in other ways.
        ([NEW, "cat > e <<END\nit's GEOSWEEP_STORAGE=\nEND"], "/new"),
        (["cat > e <<END\nit's here\nexport GEOSWEEP_STORAGE=/new\nEND"], "/new"),
    ],
)
def test_the_storage_in_a_cluster_file_is_what_a_shell_would_make_of_it(home, commands, storage):
    content = {"provider": {"type": "local"}, "setup_commands": commands}
    text = f"# GEOSWEEP_STORAGE=/of/a/comment\n{yaml.safe_dump(content)}"
    (home / "c.yaml").write_text(text)
    assert reach.folder_there(str(home / "c.yaml"), None, "x") == f"{storage}/x"
    assert aws.Account(str(home / "c.yaml")).storage == storage


def test_a_command_that_no_shell_can_read_is_shown_if_no_other_sets_the_storage(capsys, home):
    content = {"provider": {"type": "local"}, "setup_commands": ["GEOSWEEP_STORAGE='/x"]}
    (home / "c.yaml").write_text(yaml.safe_dump(content))
    told = said(capsys, "submit", "demo", "--cluster", str(home / "c.yaml"))
    assert f"--cluster {home}/c.yaml: the command that sets GEOSWEEP_STORAGE cannot be read" in told
    assert "GEOSWEEP_STORAGE='/x" in told


@pytest.mark.parametrize(
    "options",
    [
        ["-e GEOSWEEP_STORAGE=/new"],
        ["-e", "GEOSWEEP_STORAGE=/new"],
        ["--env=GEOSWEEP_STORAGE=/new"],
    ],
)
@pytest.mark.parametrize("place", ["run_options", "head_run_options"])
def test_the_storage_may_be_an_option_of_the_heads_container(home, place, options):
    content = {"provider": {"type": "local"}, "docker": {place: ["--rm", *options, "--init"]}}
    (home / "c.yaml").write_text(yaml.safe_dump(content))
    assert reach.folder_there(str(home / "c.yaml"), None, "x") == "/new/x"
    (home / "c.yaml").write_text(yaml.safe_dump(content | {"setup_commands": [NEW + "er"]}))
    assert reach.folder_there(str(home / "c.yaml"), None, "x") == "/newer/x"


@pytest.mark.parametrize("place", ["head_start_ray_commands", "head_setup_commands"])
def test_later_commands_of_the_head_win_over_those_of_the_setup(home, place):
    content = {"provider": {"type": "local"}, "setup_commands": ["GEOSWEEP_STORAGE=/old"]}
    content[place] = ["GEOSWEEP_STORAGE=/new ray start"]
    (home / "c.yaml").write_text(yaml.safe_dump(content))
    assert reach.folder_there(str(home / "c.yaml"), None, "x") == "/new/x"


@pytest.mark.parametrize("kind", AZURE)
def test_azures_storage_is_refused_by_name(capsys, file, kind):
    uri = f"{kind}://sweeps@account.example/demo"
    for words in (
        ["submit", "demo", "--out", uri, "--cluster", file],
        ["run", "demo", "--out", uri],
        ["status", uri],
        ["report", uri],
        ["fetch", uri],
    ):
        assert "Azure's storage is not supported" in said(capsys, *words)


def test_a_sweep_that_is_wrong_is_refused_before_it_is_sent(capsys, file):
    assert "gamma" in said(capsys, "submit", "demo", "--set", "gamma=x", "--cluster", file)


def test_a_sweeps_folder_lies_below_the_clusters_storage(file, monkeypatch):
    assert reach.folder_there(file, None, "table4") == "/mnt/s/table4"
    assert reach.folder_there(file, "try", "table4") == "/mnt/s/try"
    assert reach.folder_there(file, "", "table4") == "/mnt/s/table4"
    assert reach.folder_there(file, "s3://bucket/try/", "table4") == "s3://bucket/try"
    assert reach.folder_there(file, "hdfs://host/try", "table4") == "hdfs://host/try"
    assert reach.folder_there(None, "/data/try", "table4") == "/data/try"
    with pytest.raises(SweepError, match="GEOSWEEP_STORAGE"):
        reach.folder_there(None, "try", "table4")
    monkeypatch.setenv("GEOSWEEP_STORAGE", "/mnt/here")
    assert reach.folder_there(None, None, "table4") == "/mnt/here/table4"


def test_a_folder_that_nobody_named_is_not_named_to_the_command_there_either():
    """So that it refuses one that has results of other cells, as it does here."""
    client, demo = mock.Mock(), read("demo")
    jobs.submit(client, demo, "/mnt/s/demo", [], named=False)
    jobs.submit(client, demo, "/mnt/s/other", [], named=True)
    unnamed, named = (call.kwargs for call in client.submit_job.call_args_list)
    assert "--out" not in unnamed["entrypoint"]
    assert unnamed["runtime_env"]["env_vars"]["GEOSWEEP_STORAGE"] == "/mnt/s"
    assert "--out /mnt/s/other" in named["entrypoint"]


@pytest.mark.parametrize("storage", ["s3://key:secret@bucket/s", "/mnt/$s"])
def test_a_storage_is_in_no_command_unless_ray_would_change_it_in_the_environment(storage):
    """All users of the head see commands, and Ray replaces $NAME in its environment."""
    client = mock.Mock()
    jobs.submit(client, read("demo"), f"{storage}/demo", [], named=False)
    sent = client.submit_job.call_args.kwargs
    with mock.patch.dict(os.environ):
        update_envs(sent["runtime_env"]["env_vars"])
        command = sent["entrypoint"].replace(" python ", " sh -c 'echo \"$GEOSWEEP_STORAGE\"' ")
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == f"{storage}\n"
    assert "secret" not in sent["entrypoint"]


@pytest.mark.parametrize(
    "comment",
    ["", "<<END", "$HOME `id` $(id) \\\\n \"'", "${HOME} ${GAMMA} $", "é" * 3000, "long " * 20_000],
    ids=["plain", "end", "shell", "dollars", "letters", "long"],
)
def test_a_sweep_file_reaches_the_command_there_as_it_is_and_leaves_no_file(tmp_path, comment):
    """The head's shell hands it over as standard input, from the environment."""
    file, client = tmp_path / "my $HOME.yaml", mock.Mock()
    file.write_text(f"gamma: 0\n# {comment}\n# END\nK: 1\n", "utf-8")
    jobs.submit(client, read(str(file)), "/mnt/s/out", ["--data", "/a b"], named=True)
    sent = client.submit_job.call_args.kwargs
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$GEOSWEEP_NAME|$4|$9|${10}" > said\ncat >> said\n')
    program.chmod(0o755)
    there = tmp_path / "there"
    there.mkdir()
    with mock.patch.dict(os.environ):
        update_envs(sent["runtime_env"]["env_vars"])  # as Ray does there
        environment = dict(os.environ) | {"TMPDIR": str(there)}
    environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    subprocess.run(sent["entrypoint"], shell=True, cwd=there, env=environment, check=True)
    first, _, rest = (there / "said").read_text().partition("\n")
    assert first == "my $HOME|-|--data|/a b"
    assert rest.rstrip() == file.read_text().rstrip()
    assert os.listdir(there) == ["said"]


def test_a_sweep_file_that_no_environment_holds_is_refused_before_it_is_sent(tmp_path):
    (tmp_path / "long.yaml").write_text(f"gamma: 0\n# {'long' * 40_000}")
    client = mock.Mock()
    with pytest.raises(SweepError, match="larger than 120,000 bytes"):
        jobs.submit(client, read(str(tmp_path / "long.yaml")), "/mnt/s/out", [])
    client.submit_job.assert_not_called()


def test_a_job_is_found_by_its_id_its_folder_and_that_folders_name():
    client = mock.Mock()
    client.list_jobs.return_value = known = [
        mock.Mock(
            submission_id=f"job-{number}",
            start_time=number,
            metadata={jobs.SWEEP: "demo", jobs.FOLDER: folder},
        )
        for number, folder in enumerate(["/mnt/s/demo", "/mnt/s/try-2"])
    ]
    for which, job in (("job-0", 0), ("/mnt/s/demo", 0), ("demo", 0), ("try-2", 1), (None, 1)):
        assert At().find(client, which) is known[job]
    with pytest.raises(SweepError, match="no such job or folder"):
        At().find(client, "table4")


def noted(name: str, folder: str):
    return mock.Mock(submission_id="job", metadata={jobs.SWEEP: name, jobs.FOLDER: folder})


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc", "a\0", "\ud800"])
def test_a_sweeps_name_from_a_job_is_that_of_one_folder_or_refused(name):
    for good in ("table4 (2)", "-x", "a\nb"):
        assert jobs.metadata(noted(good, "/x"), jobs.SWEEP) == good
    with pytest.raises(SweepError, match=r"job: geosweep.sweep = .*should"):
        jobs.metadata(noted(name, "/x"), jobs.SWEEP)


@pytest.mark.parametrize(
    "folder", ["", "x", "-x", "file:///etc", "/mnt/../etc", "s3://b/../c", "s3:///x"]
)
def test_a_sweeps_folder_from_a_job_is_a_whole_path_or_uri_or_refused(folder):
    older = ("/mnt/./x", "/mnt/x/", "hdfs://host/x")  # submitted with an older version
    for good in ("/mnt/s/a b", "s3://bucket/x", "gs://bucket", *older):
        assert jobs.metadata(noted("x", good), jobs.FOLDER) == good
    with pytest.raises(SweepError, match=r"job: geosweep.folder = .*should"):
        jobs.metadata(noted("x", folder), jobs.FOLDER)


def test_fetch_takes_no_name_from_a_job_for_a_path(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for words, job in (
        (["fetch"], noted("demo", "/mnt/../x")),
        (["fetch", "--out", "here"], noted("demo", "file:///etc")),
    ):
        with (
            mock.patch.object(jobs, "connect"),
            mock.patch.object(jobs, "find", return_value=job),
            mock.patch.object(reach, "fetch") as fetched,
        ):
            assert "should" in said(capsys, *words, "--address", "http://127.0.0.1:1")
            assert not fetched.called
    assert "its last part should" in said(capsys, "fetch", "s3://bucket/..")
    assert list((tmp_path / "cwd").iterdir()) == []


def test_two_folders_of_one_sweep_are_fetched_into_two(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for there in ("/mnt/s/demo", "/mnt/s/try-2"):
        with (
            mock.patch.object(jobs, "connect"),
            mock.patch.object(jobs, "find", return_value=noted("demo", there)),
            mock.patch.object(reach, "fetch", side_effect=SweepError("gone")) as fetched,
        ):
            assert "gone" in said(capsys, "fetch", "--address", "http://127.0.0.1:1")
        assert fetched.call_args[0][1:3] == (there, f"{tmp_path}/runs/{Path(there).name}")


SSH = """#!/bin/sh
while [ "$1" != rsync ]; do shift; done
exec sh -c "$*"
"""


@pytest.mark.parametrize("lacking", ["rsync", "ssh"])
def test_a_program_that_copying_needs_is_named_if_it_is_not_installed(
    lacking, tmp_path, monkeypatch
):
    for program in {"rsync", "ssh"} - {lacking}:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match=f"^/mnt/s/demo: .*{lacking} is not installed on this"):
        reach.fetch("c.yaml", "/mnt/s/demo", str(tmp_path / "here"))
    assert not (tmp_path / "here").exists()


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_links_that_lead_out_of_a_folder_are_not_fetched(tmp_path, home, monkeypatch):
    """With Ray's own rsync, through a stand-in for ssh that runs the command here."""
    bin, there, here = (tmp_path / name for name in ("bin", "there", "here"))
    for place in (bin, there / "results", here):
        place.mkdir(parents=True)
    (bin / "ssh").write_text(SSH)
    (bin / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    name = f"test{os.getpid()}"
    provider = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    config = {"cluster_name": name, "provider": provider, "auth": {"ssh_user": "me"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    (there / "results/a.txt").write_text("a")
    (there / "results/.trials.0123456789ab.merged").write_text("made again here")
    (there / "results/same").symlink_to("a.txt")
    (there / "results/out").symlink_to("../../secret")
    (there / "whole").symlink_to("/etc/passwd")
    (there / "sweep.json").write_text("{}")
    try:
        subprocess.run([sys.executable, "-c", HEAD, yaml.safe_dump(config)], check=True)
        reach.fetch(str(tmp_path / "c.yaml"), str(there), str(here))
        read = partial(reach.read, str(tmp_path / "c.yaml"), str(there))
        assert (read("sweep.json"), read("whole"), read("nothing")) == (b"{}", None, None)
    finally:
        for left in Path("/tmp/ray").glob(f"cluster-{name}.*"):
            left.unlink()
    found = {str(path.relative_to(here)) for path in here.rglob("*")}
    assert found == {"results", "results/a.txt", "results/same", "sweep.json"}


HEAD = """
import sys, yaml
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
from ray.autoscaler._private.local.config import bootstrap_local

config = bootstrap_local(yaml.safe_load(sys.argv[1]) | {"available_node_types": {}})
found = LocalNodeProvider(config["provider"], config["cluster_name"])
tags = {"ray-node-type": "head", "ray-node-status": "up-to-date", "ray-node-name": "head"}
found.create_node({}, tags, 1)
"""


def test_what_is_sent_is_the_code_and_nothing_that_was_made_of_it():
    with jobs.package() as folder:
        assert sorted(os.listdir(folder)) == sorted(jobs.PACKAGES)
        files = {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}
        assert {"tune_jobs/cli.py", "tune_jobs/sweeps/demo.yaml", "analysis/report.html"} <= files
        assert not any("__pycache__" in name for name in files)
        with tempfile.TemporaryDirectory() as archive:  # as Ray makes one
            assert Path(archive).parent == Path(folder).parent
    assert not Path(folder).parent.exists()
    assert Path(tempfile.gettempdir()) != Path(folder).parent


def test_of_a_folder_in_a_store_comes_home_what_is_of_use_there(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    merged = "results/.trials.0123456789ab.merged"
    names = ("results/trials/a.parquet", "report/index.html", "checkpoints/a.pt", ".ray/x", merged)
    for name in names:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    (there / "sweep.json").write_text("{}")
    for _ in range(2):  # again, over what is there
        reach.fetch(None, f"file://{there}", str(here))
    found = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert found == {"results/trials/a.parquet", "report/index.html", "sweep.json"}
    with pytest.raises(SweepError, match="cannot be copied"):
        reach.fetch(None, f"file://{tmp_path}/nowhere", str(here))
    with pytest.raises(SweepError, match="--cluster FILE"):
        reach.fetch(None, "/mnt/s/table4", str(here))


def take(name: str, log: str, seconds: float) -> None:
    def say(text: str) -> None:
        with open(log, "a") as stream:
            print(name, text, file=stream)

    with turn("10.0.0.11:6379", name, say):
        say("begins")
        time.sleep(seconds)
        say("ends")


@pytest.mark.long
def test_sweeps_take_turns_in_their_order_and_nobody_waits_for_the_killed(tmp_path):
    log = str(tmp_path / "log")
    Path(log).touch()
    fork = multiprocessing.get_context("spawn")
    waits = {"killed": 600, "gone": 600, "third": 0.1, "last": 0}
    drivers = {}
    for name, seconds in waits.items():
        drivers[name] = fork.Process(target=take, args=(name, log, seconds))
        drivers[name].start()
        sign = "killed begins" if name == "killed" else f"{name} queued"
        until = time.monotonic() + 60
        while sign not in Path(log).read_text():
            assert time.monotonic() < until, Path(log).read_text()
            time.sleep(0.1)
    for name in ("gone", "killed"):  # one that waits, and the one that all wait for
        os.kill(drivers[name].pid, signal.SIGKILL)
    for driver in drivers.values():
        driver.join(60)
    lines = Path(log).read_text().splitlines()
    order = [line for line in lines if line.endswith(("begins", "ends"))]
    assert order[1:] == ["third begins", "third ends", "last begins", "last ends"]
    assert "last queued, one sweep at a time on a cluster; ahead: killed (" in "\n".join(lines)
