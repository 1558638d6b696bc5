"""The report in a browser: headless Chromium on the page of a made-up sweep."""

import json
import re
import subprocess
from html import unescape
from pathlib import Path

import pytest
from browser import CHROMIUM, QUIET, needs_chromium

pytestmark = pytest.mark.long

LOOK = """
<script>
window.onload = () => {
  const find = document.getElementById("find");
  const rows = [...document.querySelectorAll("#table-trials tbody tr")];
  const search = words => {
    find.value = words;
    find.dispatchEvent(new Event("input"));
    return rows.filter(row => row.offsetParent !== null).map(row => row.textContent);
  };
  const heads = [...document.querySelectorAll("#table-trials th")];
  const seen = {all: rows.length, resnet: search("resnet 0.01"), none: search("nothing like it")};
  seen.said = document.getElementById("found").textContent;
  search("");
  const sorted = () => [...document.querySelectorAll("#table-trials tbody tr")].map(
    row => row.cells[heads.findIndex(head => head.textContent === "test accuracy")].textContent);
  const button = heads.find(head => head.textContent === "test accuracy").querySelector("button");
  button.click(); seen.up = sorted();
  button.click(); seen.down = sorted();
  seen.broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt);
  seen.pictures = document.images.length;
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
};
</script>
"""


def look(page: Path, folder: Path, width: int = 1280) -> tuple[dict, list[str]]:
    """Open a page in a browser of this width; what LOOK found, and lines of the console."""
    copy = folder / "look.html"
    before, end, after = page.read_text().rpartition("</body>")  # a library has others in texts
    copy.write_text(before + LOOK + end + after)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *QUIET]
    command += [f"--user-data-dir={folder}/profile", f"--window-size={width},900"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=20000", f"file://{copy}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr[-2000:]
    return json.loads(unescape(told[1])), re.findall(r".*CONSOLE.*", done.stderr)


@needs_chromium
def test_a_browser_shows_every_picture_and_finds_trials(report_page: Path, tmp_path: Path) -> None:
    seen, console = look(report_page, tmp_path)
    assert console == []
    assert seen["broken"] == []
    assert seen["pictures"] >= 6
    assert seen["all"] == 20
    assert len(seen["resnet"]) == 3
    assert all("resnet" in text and "0.01" in text for text in seen["resnet"])
    assert (seen["none"], seen["said"]) == ([], "0 of 20 trials")
    numbers = [float(text) for text in seen["up"] if text]
    assert numbers == sorted(numbers)
    assert [float(text) for text in seen["down"] if text] == numbers[::-1]


@needs_chromium
@pytest.mark.parametrize("width", [500, 1300])
def test_the_page_never_scrolls_sideways(report_page: Path, tmp_path: Path, width: int) -> None:
    seen, _ = look(report_page, tmp_path, width)
    assert seen["wide"] <= 0
