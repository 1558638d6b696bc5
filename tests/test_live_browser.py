"""The page of geosweep watch in a browser: what it shows, selects, and takes for text."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, needs_chromium
from live_sweeps import HOSTILE, begin, drive, serving
from made_up import made_up_trial

from scoring.tables import read_rows, write_table

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


@pytest.mark.slow
@needs_chromium
def test_each_network_and_k_has_its_dashes_and_a_log_axis_says_so(tmp_path):
    kinds = [(network, stages) for network in ("resnet", "plain") for stages in (1, 2)]
    for network, stages in kinds:
        excess = 1000.0 if network == "plain" else 2.0
        for gamma in (0.0, 0.1):  # which is the colour
            made_up_trial(tmp_path, network, gamma, stages=stages, geodesic_excess=excess)
    with serving(tmp_path) as server, Browser() as browser:
        browser.open(server.url)
        browser.wait(DRAWN)
        assert sorted(browser.ask("charts.items.map(item => item.dash)")) == [
            0,
            0,
            1,
            1,
            2,
            2,
            3,
            3,
        ]
        legend = "[...document.querySelectorAll('.legend span')].map(one => one.textContent)"
        names = [f"{network} K={stages}" for network, stages in kinds]
        assert browser.ask(legend)[-4:] == names
        drawn = "charts.parallel.chart && charts.parallel.chart.getOption()"
        browser.wait(drawn)
        axes = browser.ask(f"{drawn}.parallelAxis.map(axis => [axis.name, axis.type])")
        assert all(name.endswith("(log)") == (kind == "log") for name, kind in axes)
        assert ["excess (log)", "log"] in axes
        titles = browser.ask("charts.curves.chart.getOption().title.map(one => one.text)")
        assert "Straightness factor (log)" in titles[2]
        made_up_trial(tmp_path, "resnet", 0.0, stages=3)  # a fifth kind: four dashes are too few
        browser.wait("charts.items.length === 9")
        dashes = "charts.items.map(item => `${charts._field(item, 'network')} ${item.dash}`)"
        assert set(browser.ask(dashes)) == {"resnet 0", "plain 1"}
        assert browser.ask(legend)[-2:] == ["resnet", "plain"]
        assert browser.said == []
