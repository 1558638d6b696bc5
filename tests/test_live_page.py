"""The page of geosweep watch: what it is sent, and who may ask."""

import http.client
import json
import shutil
import threading
import time
from contextlib import closing
from typing import Any

import pytest
from live_sweeps import HOSTILE, begin, drive, serving
from made_up import made_up_trial

from analysis import watch
from analysis.measures.following import Follower
from analysis.measures.live import as_script, of_results
from analysis.results import load
from scoring import places
from scoring.storage import open_folder, write_file
from scoring.tables import read_rows
from tune_jobs.cluster import pages


def news(follower: Follower, version: int = 0) -> dict[str, Any]:
    follower.look()
    found = follower.since(version)
    json.dumps(found, allow_nan=False)
    return found


def test_only_what_is_new_is_sent(tmp_path):
    root, scratch = tmp_path / "demo", tmp_path / "scratch"
    ended = made_up_trial(root, epochs=3)
    trial = begin(root, scratch, 2)
    drive(root, 4, {trial: 2}, "begun")
    follower = Follower(str(root))
    first = news(follower)
    assert {one["trial"]: one["status"] for one in first["trials"]} == {
        ended: "done",
        trial: "running",
    }
    assert {t: len(rows) for t, (_, rows) in first["curves"].items()} == {ended: 4, trial: 3}
    assert (first["axes"], first["planned"], first["running"]) == (["gamma", "epochs"], 4, True)
    assert [text for _, text, _ in first["log"]] == ["done", "begun"]
    same = news(follower, first["version"])
    assert (same["version"], same["trials"], same["curves"], same["log"]) == (
        first["version"],
        [],
        {},
        None,
    )
    begin(root, scratch, 4)
    grown = news(follower, first["version"])
    curve = read_rows(str(scratch), "epochs", trial)
    ((position, rows),) = grown["curves"].values()
    assert position == 3
    for sent, row in zip(rows, curve[3:5], strict=True):
        wanted = [row[n] for n in ("epoch", "test_accuracy", "lss", "straightness_factor")]
        assert sent == pytest.approx(wanted, rel=1e-4)
    (shown,) = grown["trials"]
    assert (shown["trial"], shown["epoch"], shown["geodesic_excess"]) == (trial, 4, None)
    shutil.copytree(scratch / "results", root / "results", dirs_exist_ok=True)  # it has ended
    drive(root, 4, {}, "begun", "done")
    last = news(follower, grown["version"])
    assert [one["status"] for one in last["trials"]] == ["done"]
    assert [[position, len(rows)] for position, rows in last["curves"].values()] == [[5, 16]]
    assert news(Follower(str(root)))["curves"][trial][1] == news(follower)["curves"][trial][1]


def test_a_curve_that_begins_again_is_sent_from_where_it_differs(tmp_path):
    trial = begin(tmp_path / "demo", tmp_path / "first", 5)
    follower = Follower(str(tmp_path / "demo"))
    version = news(follower)["version"]
    path = tmp_path / "demo" / places.history(trial)
    history = json.loads(path.read_text())
    history["epochs"][2]["lss"] = float("inf")
    path.write_text(json.dumps(history | {"epochs": history["epochs"][:4]}))
    (curve,) = news(follower, version)["curves"].values()
    assert curve[0] == 2
    assert [row[2] is None for row in curve[1]] == [True, False]


def test_a_damaged_file_is_named_and_the_others_are_shown(tmp_path):
    whole, torn = (made_up_trial(tmp_path, gamma=gamma) for gamma in (0.0, 0.1))
    path = tmp_path / places.table_path("trials", torn)
    content = path.read_bytes()
    path.write_bytes(content[:100])
    write_file(str(tmp_path), places.PROGRESS, b"{")
    follower = Follower(str(tmp_path))
    found = news(follower)
    assert [one["trial"] for one in found["trials"]] == [whole]
    (said,) = found["damaged"]
    assert path.name in said
    path.write_bytes(content)
    found = news(follower, found["version"])
    assert torn in [one["trial"] for one in found["trials"]]
    assert found["damaged"] == []
    path.unlink()
    found = news(follower, found["version"])
    assert found["whole"]
    assert [one["trial"] for one in found["trials"]] == [whole]


def test_a_driver_that_has_written_nothing_for_a_minute_does_not_run(tmp_path):
    trial = begin(tmp_path / "demo", tmp_path / "scratch", 2)
    drive(tmp_path / "demo", 4, {trial: 2}, written_at=time.time() - 100)
    found = news(Follower(str(tmp_path / "demo")))
    assert not found["running"]
    assert [one["status"] for one in found["trials"]] == ["interrupted"]


def test_a_search_with_seeds_plans_all_of_them(tmp_path):
    made_up_trial(tmp_path)
    search = {"method": "optuna", "sampler": "tpe", "trials": 5, "objectives": {"lss": "min"}}
    sweep = {"name": "x", "trials": [{}], "search": search, "seeds": 3, "ended": {"a": 1}}
    write_file(str(tmp_path), places.SWEEP, json.dumps(sweep).encode())
    assert news(Follower(str(tmp_path)))["planned"] == 13  # two seeds of one cell are left out


FOREIGN = [b"[]", b"null", b"{", b"[" * 100_000, b'{"running": 1, "log": 2, "counts": 3}', b"\xff"]
FOREIGN += [b'{"running": {"x": 1}, "log": [1, [2], ["a", "b"]], "written_at": "x"}']


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
@pytest.mark.parametrize("path", [places.PROGRESS, places.SWEEP, places.history("0" * 12)])
def test_foreign_json_is_shown_as_far_as_it_goes(tmp_path, path, content):
    made_up_trial(tmp_path)
    write_file(str(tmp_path), path, content)
    assert len(news(Follower(str(tmp_path)))["trials"]) == 1


def test_a_folder_in_an_object_store_is_followed_as_one_on_a_disk(tmp_path, object_store):
    trial = begin(object_store, tmp_path / "scratch", 2)
    drive(object_store, 2, {trial: 2})
    follower = Follower(object_store)
    first = news(follower)
    assert [one["status"] for one in first["trials"]] == ["running"]
    begin(object_store, tmp_path / "scratch", 3)
    assert news(follower, first["version"])["curves"][trial][0] == 3
    assert "secret" not in first["folder"]
    fs, base = open_folder(object_store)
    fs.delete_dir_contents(base, missing_dir_ok=True)


def test_the_report_shows_what_the_page_shows_of_an_ended_sweep(tmp_path):
    for seed in (0, 1):
        made_up_trial(tmp_path, seed=seed, epochs=3)
    made_up_trial(tmp_path, gamma=0.1, epochs=3, collapsed=True)
    made_up_trial(tmp_path, gamma=0.2, epochs=3, status="failed", error=HOSTILE)
    live = news(Follower(str(tmp_path)))
    of_report = of_results(load(tmp_path), "demo", 5)
    for name in ("axes", "curves"):
        assert of_report[name] == live[name]
    by_trial = {one["trial"]: one for one in live["trials"]}
    assert {one["trial"]: one for one in of_report["trials"]} == by_trial
    assert "<" not in as_script(of_report)
    (error,) = [one["error"] for one in of_report["trials"] if one["error"]]
    assert error.isprintable()


def get(server: watch.Server, path: str, host: str | None = None, method: str = "GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    with closing(connection), closing(connection.getresponse()) as answer:
        return answer, answer.read()


def test_only_an_address_and_names_of_this_machine_are_answered(tmp_path):
    made_up_trial(tmp_path)
    with serving(tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
        for host in ("127.0.0.1:1", "localhost:5050", "[::1]:5050", "10.0.0.7"):
            assert get(server, "/data", host)[0].status == 200
        for host in (
            "evil.example",
            "localhost.evil.example:80",
            "",
            "127.0.0.1.evil.example",
            "[::1",
        ):
            answer, content = get(server, "/data", host)
            assert answer.status == 403
            assert b"trial" not in content
        assert get(server, "/../watch.py")[0].status == 404
        assert get(server, "/data", method="POST")[0].status == 501
        for path in watch.FILES:
            answer, content = get(server, path)
            assert content
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


def test_a_page_of_an_earlier_server_is_sent_everything(tmp_path):
    made_up_trial(tmp_path)
    with serving(tmp_path) as server:
        first = json.loads(get(server, "/data")[1])
        again = json.loads(get(server, f"/data?run={first['run']}&since={first['version']}")[1])
        other = json.loads(get(server, f"/data?run=other&since={first['version']}")[1])
        odd = json.loads(get(server, f"/data?run={first['run']}&since=x")[1])
    assert [len(one["trials"]) for one in (first, again, other, odd)] == [1, 0, 1, 1]


def test_what_a_failed_look_found_is_found_again(tmp_path, monkeypatch):
    made_up_trial(tmp_path)
    follower = Follower(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(
            follower, "_look_at_histories", lambda: (_ for _ in ()).throw(OSError("away"))
        )
        with pytest.raises(OSError, match="away"):
            follower.look()
    follower.look()
    assert len(follower.since(0)["curves"]) == 1


def test_a_folder_that_is_not_there_and_a_port_that_is_taken_are_said(tmp_path, capsys):
    assert watch.main([str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err
    with serving(tmp_path) as server:
        assert watch.main([str(tmp_path), "--port", str(server.server_address[1])]) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_a_page_stays_as_long_as_the_command_that_leads_to_it_asks_for_it(tmp_path):
    """A browser may be closed for long; a laptop that is gone asks no more."""
    begin(tmp_path, tmp_path, 1)
    with serving(tmp_path) as server:
        port = server.server_address[1]
        before = server.asked
        assert pages.is_there(port)
        assert server.asked > before
    assert not pages.is_there(port)


def test_a_page_that_nobody_asks_for_ends(tmp_path):
    with serving(tmp_path) as server:
        ending = threading.Thread(target=watch.end_if_idle, args=(server, 0.2))
        ending.start()
        ending.join(20)
        assert not ending.is_alive()
