"""MLflow's pages of a sweep in a browser: its trials, their curves, and the verdict."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browser import Browser, needs_chromium
from made_up import made_up_trial
from small_sweeps import add_database

from scoring.tables import read_rows, read_table, write_table
from tune_jobs import folder
from tune_jobs.cluster.reach import answers
from tune_jobs.mlflow_report import log_report
from tune_jobs.mlflow_store import open_client
from tune_jobs.mlflow_views import SCORES, TAG, shared
from tune_jobs.sweep import Resources, Sweep
from tune_jobs.tracking import TRIAL_TAG, Tracker

pytestmark = pytest.mark.ray  # for the warnings that MLflow causes
MOMENT = datetime(2026, 6, 1, tzinfo=UTC)
PNG = (  # a grey pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a494441"
    "54789c636800000082008177cd72b60000000049454e44ae426082"
)
HOSTILE = "\\<img src=x onerror=window.hacked=1\\>"  # as the report escapes it


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> Path:
    """A sweep of four made-up trials in MLflow, with a report."""
    root = tmp_path_factory.mktemp("pages") / "out"
    add_database(str(root))
    for network in ("plain", "resnet"):
        for gamma in (0.0, 0.01):
            trial = made_up_trial(root, network, gamma, epochs=4)
            epochs = read_rows(str(root), "epochs", trial)
            timed = [r | {"finished_at": MOMENT + timedelta(seconds=r["epoch"])} for r in epochs]
            write_table(str(root), "epochs", trial, timed)
    rows = {row["trial"]: row for row in read_table(str(root), "trials").to_pylist()}
    said = []
    tracker = Tracker(str(root), "demo", "what the sweep is for", said.append)
    assert len(tracker.sync(rows, {t: f"trial {t}" for t in rows})) == 4
    tracker.close("FINISHED")
    assert said == []
    folder.claim(str(root), Sweep("demo", "", [], Resources(), "demo"))
    report = root / "report"
    report.mkdir()
    (report / "lss.png").write_bytes(bytes.fromhex(PNG))
    text = f"**None of the 4 cells learned it.**\n\nExcess {HOSTILE}\n\n![LSS by epoch](lss.png)\n"
    (report / "verdict.md").write_text(text)
    for _ in range(2):  # the second report replaces the first
        assert log_report(str(root), "demo", str(report)) is None
    return root


def parent(root: Path):
    client = open_client(str(root))
    experiment = client.get_experiment_by_name("demo").experiment_id
    (run,) = client.search_runs([experiment], "tags.`geosweep.sweep` LIKE '%'")
    return client, experiment, run


def test_the_verdict_comes_first_and_the_description_stays(logged):
    _, _, run = parent(logged)
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("**None of the 4 cells learned it.**")
    assert note.endswith("\n\n---\n\nwhat the sweep is for")
    assert note.count("learned it") == 1
    assert f"](get-artifact?run_uuid={run.info.run_id}&path=report/lss.png)" in note


def test_the_views_are_written_once_and_fit_into_a_tag(logged):
    links = shared(str(logged), "demo", "http://127.0.0.1:5000")
    client, experiment, _ = parent(logged)
    tags = client.get_experiment(experiment).tags
    views = {name.removeprefix(TAG): value for name, value in tags.items() if TAG in name}
    assert len(views) == len(links) == 2
    assert all(len(value) < 5000 for value in views.values())
    for name, link in zip(sorted(views, reverse=True), links.values(), strict=True):
        assert f"/experiments/{experiment}/" in link
        assert f"viewStateShareKey={name}&" in link
    assert shared(str(logged), "demo", "http://127.0.0.1:5000") == links
    assert shared(str(logged), "no such sweep", "http://127.0.0.1:5000") == {}


@pytest.fixture(scope="module")
def served(logged, tmp_path_factory) -> Iterator[tuple[subprocess.Popen, Path, int]]:
    """``geosweep ui`` of the sweep, the file that it prints to, and its port."""
    place = tmp_path_factory.mktemp("elsewhere")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name in ("mlflow", "uvicorn", "fastapi"):  # no process may import these
        (place / f"{name}.py").write_text("raise ImportError('of the user')")
    command = [str(Path(sys.executable).with_name("geosweep")), "ui", str(logged)]
    said = place / "said"
    with (
        said.open("w") as output,
        subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=place,
            stdout=output,  # no pipe, which would be full soon: it names each request
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as ui,
    ):
        try:
            end = time.monotonic() + 100
            while "\ncurves " not in said.read_text():
                assert ui.poll() is None, said.read_text()
                assert time.monotonic() < end, said.read_text()
                time.sleep(0.1)
            yield ui, said, port
        finally:
            ui.kill()


@pytest.fixture(scope="module")
def browser(served) -> Iterator[Browser]:
    with Browser(2400, 900) as browser:
        yield browser


def link(said: Path, what: str) -> str:
    lines = said.read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith(f"{what} ")]
    return found


@pytest.mark.long
@needs_chromium
def test_the_first_link_opens_the_trials_as_rows_with_their_scores(served, browser, logged):
    browser.open(link(served[1], "trials"))
    text = "document.body.innerText"
    browser.wait(f"{text}.includes('4 matching runs')", 60)
    for head in ("network", "stages", "gamma", "points", *SCORES):
        browser.wait(f"document.body.textContent.includes('{head}')")
    seen = browser.ask(text)
    names = [line for line in seen.splitlines() if line.startswith("trial ")]
    rows = read_table(str(logged), "trials").to_pylist()
    straightest = sorted(rows, key=lambda row: row["lss"])
    assert names == [f"trial {row['trial']}" for row in straightest]
    assert "Prompts" not in seen  # menus for language models


@pytest.mark.long
@needs_chromium
def test_the_second_link_opens_charts_of_lss_and_accuracy_by_epoch(served, browser):
    browser.open("about:blank")
    browser.open(link(served[1], "curves"))
    charts = "[...document.querySelectorAll('.js-plotly-plot')]"
    charts += ".map(p => new Set(p.data.map(line => line.name)).size)"
    browser.wait(f"JSON.stringify({charts}) === '[4,4]'", 60)
    drawn = "document.querySelector('.js-plotly-plot').data[0].x.length"
    assert browser.ask(drawn) == 5  # epochs 0 to 4
    titles = browser.ask("document.body.innerText")
    assert titles.index("\nlss") < titles.index("\ntest_accuracy")


@pytest.mark.long
@needs_chromium
def test_the_page_of_the_sweeps_run_begins_with_verdict_and_figures(served, browser, logged):
    _, experiment, run = parent(logged)
    browser.open("about:blank")
    address = f"http://127.0.0.1:{served[2]}/#/experiments/{experiment}/runs/{run.info.run_id}"
    browser.open(address)
    browser.wait("document.body.innerText.includes('None of the 4 cells learned it.')", 60)
    assert browser.ask("document.body.innerText.includes('<img src=x onerror')")
    size = "[...document.images].filter(i => i.src.endsWith('lss.png')).map(i => i.naturalWidth)"
    browser.wait(f"JSON.stringify({size}) === '[1]'")
    assert browser.ask("window.hacked") is None


@pytest.mark.long
def test_the_page_is_named_once_it_answers_and_ctrl_c_ends_its_server(served):
    ui, said, port = served
    assert f"\nhttp://127.0.0.1:{port}  (" in said.read_text()
    assert answers(port)
    os.killpg(ui.pid, signal.SIGINT)
    assert ui.wait(timeout=60) == 130
    assert not answers(port)
    assert "Traceback" not in said.read_text()
    assert "Warning" not in said.read_text()


def test_a_trial_is_told_from_the_run_of_its_sweep_by_a_tag(logged):
    client, experiment, run = parent(logged)
    assert TRIAL_TAG not in run.data.tags
    trials = client.search_runs([experiment], f"tags.`{TRIAL_TAG}` != ''")
    assert len(trials) == 4
