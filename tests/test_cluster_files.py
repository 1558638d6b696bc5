"""Cluster files for ``ray up``: their form, keys, and the storage of sweeps."""

import re
from pathlib import Path
from unittest import mock

import pytest
import yaml
from cluster_user import said, write_token
from ray.autoscaler._private.aws.config import key_pair

from scoring.storage import AZURE
from tune_jobs.cluster import aws, jobs, keys, nodes, reach
from tune_jobs.errors import SweepError

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("home")


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
