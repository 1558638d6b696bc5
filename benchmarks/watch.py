"""Time to show a sweep of 1,000 trials on the page of geosweep watch, in headless Chromium.

    python -m benchmarks.watch [--trials N] [--rounds N] [--picture FILE DIR]

The script writes the tables of made-up trials (30 epochs each) and serves their page from a process
of its own. *Start* is the time until that process listens, and *read* until it has also read the
folder; the first time it also merges the trials' files, which the driver of a sweep does as they
end. *Page* is the time in the browser from the request until all charts and the table are drawn,
by the page's own clock; *page CPU* is what the page's main thread used of it, which a busy machine
changes little. *Update* is the time from the end of an epoch of a running trial until its curve
has moved, which includes two seconds between questions. Medians over the rounds; the range of the
page's time is in brackets. Expect a minute. Rows are appended to ``benchmarks/RESULTS.md``.

``--picture FILE DIR`` only photographs the page of the sweep in DIR.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from benchmarks.report import commit
from benchmarks.training import machine, report

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402

EPOCHS = 30
SETTLED = 2.5  # seconds until a browser has begun, and until a page asks at its usual intervals
DRAWN = "performance.getEntriesByName('charts drawn')[0]?.startTime"


def write(root: Path, trials: int) -> None:
    """Made-up trials, the description of their sweep, and one more that runs."""
    from made_up import made_up_trial

    for number in range(trials):
        network, seed = ("plain", "resnet")[number % 2], number // 2 % 5
        made_up_trial(root, network, 10 ** -(number // 10 / trials * 40), seed, epochs=EPOCHS)
    sweep = {"name": "made up", "trials": [{}] * (trials + 1), "extra": []}
    (root / "sweep.json").write_text(json.dumps(sweep))
    train(root, 0)


def train(root: Path, epoch: int) -> None:
    """Let a trial end an epoch."""
    key = {"trial": "f" * 12, "dataset": "digits", "network": "resnet", "stages": 1, "gamma": 2.0}
    summary = key | {"seed": 0, "layers": "convolutional", "epochs": EPOCHS, "points": 1000}
    curve = [
        {"epoch": e, "test_accuracy": 0.02 * e, "lss": 3.0, "straightness_factor": 9.0}
        for e in range(epoch + 1)
    ]
    history = {"summary": summary, "epochs": curve, "tracks": []}
    (root / "checkpoints").mkdir(exist_ok=True)
    place = root / "checkpoints" / f"{'f' * 12}.json"
    hidden = place.with_name(".hidden")
    hidden.write_text(json.dumps(history))
    hidden.replace(place)
    cell = {"label": "resnet gamma=2", "epoch": epoch, "epochs": EPOCHS}
    progress = {"written_at": time.time(), "started_at": time.time(), "seconds_left": 60.0}
    progress |= {"counts": {}, "running": {"f" * 12: cell}, "log": []}
    (root / "progress.json").write_text(json.dumps(progress))


@contextmanager
def served(root: Path) -> Iterator[tuple[str, float]]:
    """The address of a page, and the seconds until it was served."""
    start = time.perf_counter()
    command = [sys.executable, "-P", "-m", "analysis.watch", "--port", "0", str(root)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            yield address, time.perf_counter() - start
        finally:
            server.terminate()


def once(root: Path, epoch: int) -> list[float]:
    """Seconds and kilobytes of one round."""
    with served(root) as (address, started):
        before = time.perf_counter()
        with urlopen(f"{address}/data") as answer:
            first = json.loads(content := answer.read())
        times = [started, started + time.perf_counter() - before]
        with Browser(1400, 1000) as browser:
            times += looked(browser, address, root, epoch)
        with urlopen(f"{address}/data?run={first['run']}&since={first['version']}") as answer:
            return [*times, len(content) / 1e3, len(answer.read()) / 1e3]


def looked(browser: Browser, address: str, root: Path, epoch: int) -> list[float]:
    """Seconds until the page is drawn, those of its main thread, and until a curve has moved."""
    browser.call("Performance.enable", timeDomain="threadTicks")
    time.sleep(SETTLED)
    browser.open(address)
    page = browser.wait(DRAWN) / 1000
    counters = browser.call("Performance.getMetrics")["metrics"]
    (used,) = [one["value"] for one in counters if one["name"] == "TaskDuration"]
    time.sleep(SETTLED)
    before = time.perf_counter()
    train(root, epoch)
    browser.wait(f"charts.items.find(i => i.trial === '{'f' * 12}').curve.length === {epoch + 1}")
    update = time.perf_counter() - before
    assert browser.said == [], browser.said
    return [page, used, update]


def photograph(file: Path, folder: Path) -> None:
    """A picture of a sweep's page."""
    with served(folder) as (address, _), Browser(1280, 890) as browser:
        browser.open(address)
        browser.wait("document.querySelector('.charts tbody tr') !== null")
        name = json.dumps("/".join(folder.parts[-2:]))  # where it is on this machine tells nothing
        browser.ask(f"document.getElementById('folder').textContent = {name}")
        time.sleep(1)
        browser.picture(file, whole=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--picture", type=Path, nargs=2, metavar=("FILE", "DIR"))
    given = parser.parse_args()
    if given.picture:
        photograph(*given.picture)
        return
    with tempfile.TemporaryDirectory(prefix="geosweep-") as folder:
        os.environ.setdefault("GEOSWEEP_CACHE", folder)  # of the made-up trials
        root = Path(folder, "sweep")
        write(root, given.trials)
        rounds = [once(root, 1 + number) for number in range(given.rounds)]
    columns = list(zip(*rounds, strict=True))
    start, read, page, used, update, size, small = map(median, columns)
    head = ["commit", "trials", "start, s", "read first, s", "read, s", "page, s", "page CPU, s"]
    head += ["update, s", "answer, kB", "its answer, kB", "rounds", "machine", "versions"]
    row = [commit(ROOT), f"{given.trials:,}", f"{start:.2f}", f"{rounds[0][1]:.2f}", f"{read:.2f}"]
    row += [f"{page:.2f} ({min(columns[2]):.2f} to {max(columns[2]):.2f})", f"{used:.2f}"]
    row += [f"{update:.1f}", f"{size:.0f}", f"{small:.1f}", str(given.rounds), machine()]
    row.append(f"pyarrow {version('pyarrow')}, ECharts 6.1.0")
    command = " ".join(["python -m benchmarks.watch", *sys.argv[1:]])
    load = os.getloadavg()[0]
    lines = [f"\n## Live page, {date.today()}\n\n`{command}`; load average {load:.0f}\n"]
    report([*lines, *("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), row))])


if __name__ == "__main__":
    main()
