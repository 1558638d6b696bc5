"""The page of geosweep watch: what it is sent, who may ask, and what a browser shows of it."""

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_chromium
from made_up import made_up_trial
from running import served

from analysis import watch
from analysis.measures.following import Follower
from analysis.measures.live import as_script, of_results
from analysis.results import load
from scoring import places
from scoring.storage import open_folder, write_file
from scoring.tables import read_row, read_rows, write_table
from tune_jobs.cluster import pages

HOSTILE = (
    "<img src=x onerror=window.hacked=1></script><script>window.hacked=1</script>\x1b[31m\u202e"
)


def begin(root: Path | str, scratch: Path, epochs: int, gamma: float = 0.1, **more: Any) -> str:
    """Leave what a trial leaves that trains: its history up to an epoch, of twenty."""
    trial = made_up_trial(scratch, "resnet", gamma, epochs=20, **more)
    row = read_row(str(scratch), "trials", trial)
    known = ("trial", "dataset", "network", "stages", "gamma", "seed", "layers", "epochs", "points")
    curve = read_rows(str(scratch), "epochs", trial)[: epochs + 1]
    history = {"summary": {n: row[n] for n in known}, "epochs": curve, "tracks": []}
    write_file(str(root), places.history(trial), json.dumps(history, default=str).encode())
    return trial


def drive(root: Path | str, planned: int, running: dict[str, int], *log: str, **more: Any) -> None:
    """Write what a sweep's driver writes."""
    cells = {t: {"label": t, "epoch": epoch, "epochs": 20} for t, epoch in running.items()}
    now = time.time()
    progress = {"written_at": now, "started_at": now - 60, "counts": {}, "seconds_left": 75.0}
    progress |= {"running": cells, "log": [[now, line] for line in log]} | more
    write_file(str(root), places.PROGRESS, json.dumps(progress).encode())
    sweep = {"name": "demo", "trials": [{}] * planned, "extra": []}
    write_file(str(root), places.SWEEP, json.dumps(sweep).encode())


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


@contextmanager
def serving(root: Path | str, **words: Any) -> Iterator[watch.Server]:
    with watch.Server(str(root), **words) as server, served(server):
        yield server


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


# What follows is seen in a browser.

DRAWN = "document.body.dataset.version > 0 && charts.items && charts.items.length > 0"
LAST = "Math.max(...charts.curves.chart.getOption().series.flatMap(s => s.data.map(p => p[0])))"


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> Iterator[tuple[Path, Callable[[int], None], Browser]]:
    """A sweep that runs, a function that trains it further, and its page in a browser."""
    place = tmp_path_factory.mktemp("followed")
    root, scratch = place / "demo", place / "scratch"
    for network in ("plain", "resnet"):
        for gamma in (0.0, 1e-3, 1e-2):
            made_up_trial(root, network, gamma, epochs=10)
    made_up_trial(root, "plain", 0.1, status="failed", error=f"ValueError: {HOSTILE}", epochs=20)
    odd = made_up_trial(scratch, dataset=HOSTILE, epochs=10)
    for table in ("trials", "epochs"):  # the id that is written is not taken from the name
        rows = [
            row | {"trial": "f" * 12, "lss": 5.0} for row in read_rows(str(scratch), table, odd)
        ]
        write_table(str(root), table, "f" * 12, rows)

    def train(epochs: int) -> None:
        trial = begin(root, scratch / "running", epochs)
        drive(root, 12, {trial: epochs}, HOSTILE, f"epoch {epochs}")

    train(2)
    with serving(root) as server, Browser() as browser:
        browser.open(server.url)
        browser.wait(DRAWN)
        yield root, train, browser


@pytest.mark.slow
@needs_chromium
def test_curves_move_while_a_sweep_runs_and_nothing_is_loaded_anew(followed):
    _, train, browser = followed
    browser.ask("window.same = true")
    assert browser.ask("document.getElementById('state').textContent") == "running"
    assert "7 of 12 trials done, 1 running, 1 failed" in browser.ask("document.body.innerText")
    assert "about 1 min 15 s left" in browser.ask("document.body.innerText")
    browser.wait(f"{LAST} === 10")
    train(15)
    browser.wait(f"{LAST} === 15")
    browser.wait("document.body.innerText.includes('epoch 15 of 20')")
    assert browser.ask("window.same")
    assert browser.said == []


@pytest.mark.slow
@needs_chromium
def test_brushing_selects_trials_in_all_charts_and_the_table(followed):
    _, _, browser = followed
    rows = "document.querySelectorAll('.charts tbody tr').length"
    everything = browser.ask(rows)
    box = browser.ask(
        "(() => { const b = document.querySelector('.points').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    browser.ask("document.querySelector('.points').scrollIntoView({block: 'center'})")
    left, top, width, height = browser.ask(
        "(() => { const b = document.querySelector('.points').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    assert box[2] == width
    browser.drag((left + 60, top + 16), (left + width / 2, top + height - 60))
    browser.wait("charts.selected && charts.selected.size > 0")
    chosen = browser.ask("charts.selected.size")
    assert 0 < chosen < everything
    assert browser.ask(rows) == chosen
    assert browser.ask(
        "[...charts.selected].every(key => charts.items.find(i => i.key === key).lss < 6)"
    )
    faint = (
        "charts.parallel.chart.getOption().series[0].data.filter(d => d.lineStyle.opacity < 0.1)"
    )
    assert browser.ask(f"{faint}.length") == browser.ask("charts.parallel.items.length") - chosen
    browser.ask("[...document.querySelectorAll('.tools button')].at(-1).click()")
    browser.wait(f"charts.selected === null && {rows} === {everything}")
    browser.ask("document.querySelector('.parallel').scrollIntoView({block: 'center'})")
    x, top, bottom = browser.ask(
        "(() => { const c = charts.parallel, b = c.box.getBoundingClientRect();"
        " const all = c.chart.getModel().getComponent('parallel').coordinateSystem;"
        " const axis = all.getAxisLayout(all.dimensions[1]);"
        " return [b.left + axis.position[0], b.top + 38, b.top + b.height / 2]; })()"
    )
    browser.drag((x, top), (x, bottom))
    browser.wait("charts.selected && charts.selected.size > 0")
    networks = browser.ask(
        "[...charts.selected].map(k => charts.items.find(i => i.key === k).values[1])"
    )
    assert set(networks) == {"resnet"}
    browser.ask("[...document.querySelectorAll('.tools button')].at(-1).click()")
    browser.wait(f"charts.selected === null && {rows} === {everything}")
    assert browser.said == []


@pytest.mark.slow
@needs_chromium
def test_hostile_names_and_errors_stay_text(followed):
    _, _, browser = followed
    text = browser.ask("document.body.textContent")
    assert text.count("<img src=x onerror=window.hacked=1>") >= 3  # a name, an error and the log
    assert "\\x1b[31m\\u202e" in text
    assert browser.ask("document.querySelectorAll('img, script:not([src])').length") == 0
    box = (
        "(() => { const b = charts.points.box.getBoundingClientRect(); return [b.left, b.top]; })()"
    )
    browser.ask("document.querySelector('.points').scrollIntoView({block: 'center'})")
    left, top = browser.ask(box)
    place = browser.ask(
        "charts.points.chart.convertToPixel({gridIndex: 0}, (({lss, test_accuracy: a}) => [lss, a])"
        f"(charts.items.find(i => i.trial === '{'f' * 12}')))"
    )
    browser.move(left + place[0], top + place[1])
    browser.wait("charts.points.box.textContent.includes('onerror')")
    assert browser.ask("document.querySelectorAll('img').length") == 0
    assert browser.ask("window.hacked") is None
    assert browser.said == []


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", [390, 1500])
def test_the_live_page_never_scrolls_sideways(followed, width):
    _, _, browser = followed
    browser.resize(width, 900)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    browser.wait(f"charts.curves.chart.getWidth() <= {width}")
    assert browser.ask(wide) <= 0
    browser.resize(1280, 900)
