"""The token of a cluster, and what answers at its address."""

import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import requests
from cluster_user import said, write_token
from ray.job_submission import JobSubmissionClient

from tune_jobs.cluster import dashboard, keys

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("home")


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
