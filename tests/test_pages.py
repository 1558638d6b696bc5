"""What pages name exists: files, links, headings, commands, options and variables."""

import importlib
import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from markdown.extensions.toc import slugify, unique
from pages import BLOCK, FENCE, PAGES, ROOT, SOURCES, each_page

from tune_jobs.cli import app

COMMENTED = [ROOT / "ray_cluster.yaml", *sorted(ROOT.glob("clusters/*.yaml"))]
COMMENTED += sorted((ROOT / "tune_jobs/sweeps").glob("*.yaml"))
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^]]+\]: (\S+)$", re.MULTILINE)
INCLUDED = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
PICTURE = re.compile(r"^!\[[^]]*\]\(\S+\)$", re.MULTILINE)
COMMAND = re.compile(r"(?:geosweep|make|python -m (?:analysis|benchmarks)\.\w+)(?: .*)?")
SCRIPTS = [path for name in ("analysis", "benchmarks") for path in (ROOT / name).glob("*.py")]
SCRIPTS.append(ROOT / "tune_jobs/cluster/watch.py")
FOREIGN = (  # options of pytest, AWS's command line, Ray and Slurm
    *("--durations", "--stack-name", "--num-cpus", "--num-gpus", "--node-ip-address"),
    *("--qos", "--gpus-per-node", "--dependency", "--wait", "--clusters"),
)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@each_page
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in filter(None, (target for pair in LINK.findall(text) for target in pair)):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert (page.parent / path).exists(), f"{page.relative_to(ROOT)} links to {target}"


def slugs(page: Path) -> tuple[list[str], list[str]]:
    """The anchors of a page's headings: on GitHub, and on the site."""
    text = page.read_text()
    for name in INCLUDED.findall(text):
        text += (ROOT / name).read_text()
    found: tuple[list[str], list[str]] = ([], [])
    for heading in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading).strip()
        short = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found[0].append(
            next(s for n in count() if (s := f"{short}-{n}" if n else short) not in found[0])
        )
        found[1].append(unique(slugify(words, "-"), set(found[1])))
    return found


@each_page
def test_links_to_headings_work_on_github_and_on_the_site(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    assert not re.findall(r"^#.*\{.*#.*\}", text, re.MULTILINE)  # GitHub shows it as text
    for target in filter(None, (target for pair in LINK.findall(text) for target in pair)):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        if (
            anchor and "://" not in path and there.parent.name != "reference"
        ):  # made from docstrings
            for where in slugs(there):
                assert anchor in where, f"{page.relative_to(ROOT)} links to {target}"


def test_headings_get_the_anchors_of_github_and_of_the_site(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Weights, and `scale`\n## A - b\n## A [link](x.md)\n## A link\n")
    assert slugs(page) == (
        ["weights-and-scale", "a---b", "a-link", "a-link-1"],
        ["weights-and-scale", "a-b", "a-link", "a-link_1"],
    )


@each_page
def test_files_that_documents_name_exist(page: Path) -> None:
    spans = re.findall(r"`([\w/.-]+)`", page.read_text())
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"site", "build", "runs"}
    named = {span for span in spans if "/" in span and span.split("/")[0] in ours}
    assert not {name for name in named if not (ROOT / name).exists()}


@each_page
def test_a_picture_stands_next_to_its_command(page: Path) -> None:
    text = page.read_text()
    for picture in PICTURE.finditer(text):
        below = text[picture.end() :].strip().split("\n\n")
        captions = [part for part in below[:2] if not part.startswith("!")]  # pictures may share it
        spans = re.findall(r"`([^`]+)`", captions[0].replace("\n", " "))
        assert any(COMMAND.fullmatch(span) for span in spans), picture[0]


def commands(page: Path) -> list[str]:
    """The commands in blocks of code, in code within text, and in comments of YAML files."""
    text = page.read_text()
    if page.suffix == ".yaml":
        lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
        lines = [re.split(r" {3,}", line)[0] for line in lines]  # a remark may follow
    else:
        lines = [line.strip() for _, _, block in FENCE.findall(text) for line in block.split("\n")]
        lines += re.findall(r"`([^`]+)`", FENCE.sub("", text).replace("\n", " "))
    return [line for line in lines if COMMAND.fullmatch(line) and "▶" not in line]  # no diagram


@pytest.mark.parametrize("page", [*PAGES, *COMMENTED], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(page: Path, capsys, monkeypatch) -> None:
    for line in commands(page):
        program, *words = shlex.split(line, comments=True)
        options = {word.partition("=")[0] for word in words if word.startswith("-")} - {"-m", "-"}
        if program == "geosweep":
            known = options_of(words)
        elif program == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            known, words = set(), [word for word in words if "=" not in word]
            assert set(words) <= {*targets, ".venv/ready"}, line
        elif options and words[1].startswith("analysis."):
            monkeypatch.setattr(sys, "argv", [words[1], "--help"])
            with pytest.raises(SystemExit):
                importlib.import_module(words[1]).main()
            known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        else:
            script = (ROOT / words[1].replace(".", "/")).with_suffix(".py").read_text()
            known = set(re.findall(r"--[\w-]+", script))
        assert options <= known, f"{page.relative_to(ROOT)}: {line}"


def options_of(words: list[str]) -> set[str]:
    """The options of the geosweep command that begins with these words."""
    group: Any = typer.main.get_command(app)
    known = {option for parameter in group.params for option in parameter.opts}
    for name in re.findall(r"[a-z]+", words[0]) if words and words[0][0] != "-" else []:
        assert name in group.commands, f"geosweep has no command {name}"
        params = group.commands[name].params
        known |= {option for p in params for option in (*p.opts, *p.secondary_opts)}
    return known


@each_page
def test_options_that_pages_name_without_a_command_exist(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    known = set(FOREIGN).union(*(options_of([name]) for name in group.commands))
    for script in SCRIPTS:
        known |= set(re.findall(r"--[a-z][\w-]+", script.read_text()))
    spans = re.findall(r"`(--[a-z][\w-]+)[^`]*`", FENCE.sub("", page.read_text()))
    assert set(spans) <= known


def test_make_lists_all_its_commands_and_does_nothing_else() -> None:
    text = (ROOT / "Makefile").read_text()
    (names,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    said = subprocess.run(["make", "-C", ROOT, "-s"], capture_output=True, text=True, check=True)
    listed = dict(line.split(maxsplit=2)[1:] for line in said.stdout.splitlines())
    assert sorted(listed) == sorted(names.split())
    assert all(listed.values())


@each_page
def test_pages_give_the_demos_number_of_epochs(page: Path) -> None:
    epochs = yaml.safe_load((ROOT / "tune_jobs/sweeps/demo.yaml").read_text())["epochs"]
    text = page.read_text()
    for _, _, block in FENCE.findall(text):
        heading, *lines = block.splitlines() or [""]
        if heading.startswith("trial ") and (end := heading.find("epochs") + 6) > 5:
            trials = [line for line in lines if "gamma=" in line]
            assert {int(line[:end].split()[-1]) for line in trials} == {epochs}, heading
    said = re.findall(r"\bdemo\b[^.|]*?\b(\d+)\s+epochs", FENCE.sub("", text))
    assert set(map(int, said)) <= {epochs}


@pytest.mark.parametrize("summary", ["README.md", "docs/results/index.md"])
def test_each_number_of_a_summary_stands_on_the_page_that_its_line_links_to(summary: str) -> None:
    found = 0
    for line in (ROOT / summary).read_text().splitlines():
        pages = re.findall(r"\]\(([\w./-]*[\w-]+\.md)\)", line)
        numbers = re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?", line)
        if line.startswith(("- ", "| ")) and pages and numbers:
            text = (ROOT / summary).parent.joinpath(pages[-1]).read_text()
            assert not [number for number in numbers if number not in text], line
            found += 1
    assert found >= 6


def test_the_table_of_networks_is_what_its_code_prints() -> None:
    page = "docs/networks.md"
    (code,) = [code for language, code in BLOCK.findall((ROOT / page).read_text())]
    with redirect_stdout(io.StringIO()) as said:
        exec(compile(code, page, "exec"), {})
    printed = [line.split(" | ") for line in said.getvalue().splitlines()]
    table = (ROOT / page).read_text().partition("| dataset | layers | K |")[2].partition("\n\n")[0]
    written = [line.strip("|").split("|")[3:] for line in table.splitlines()[2:]]
    assert [[cell.strip() for cell in line] for line in written] == printed


def test_the_page_on_variables_has_all_of_geosweep() -> None:
    used = {name for path in SOURCES for name in re.findall(r"GEOSWEEP_[A-Z]+", path.read_text())}
    written = re.findall(r"GEOSWEEP_[A-Z]+", (ROOT / "docs/environment.md").read_text())
    assert set(written) == used
