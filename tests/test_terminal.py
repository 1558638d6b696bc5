"""Text from users and files is shown as text: it controls no terminal and fails no encoding."""

import io
import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from scoring.tables import write_table
from tune_jobs import folder, sweep, terminal
from tune_jobs.board import Board, cells

HOSTILE = {
    "clear the screen": "\x1b[2J",
    "colour": "\x1b[31m",
    "cursor": "\x1b[10A",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://example.org\x1b\\",
    "unterminated": "\x1b]0;",
    "reset": "\x1bc",
    "C1 CSI": "\x9b2J",
    "C1 OSC": "\x9d0;owned\x9c",
    "nested": "\x1b\x1b[0m[2J",
    "carriage return": "\r",
    "bell": "\x07",
    "backspace": "\x08\x08\x08",
    "delete": "\x7f",
    "form feed": "\x0c",
    "right to left override": "\u202e",
    "isolate": "\u2066",
    "line separator": "\u2028",
}
FORBIDDEN = {chr(n) for n in (*range(32), 127, *range(128, 160))} - {"\n", "\t"}
FORBIDDEN |= {"\u2028", "\u2029"}


def is_harmless(text: str) -> bool:
    """Whether no character of a text controls a terminal."""
    embeds = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return not any(c in FORBIDDEN or unicodedata.bidirectional(c) in embeds for c in text)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_controls_a_terminal_is_removed_and_the_text_around_it_stays(kind):
    shown = terminal.clean(f"before{HOSTILE[kind]} after")
    assert is_harmless(shown)
    assert shown.startswith("before")
    assert shown.endswith(" after")


@given(st.text() | st.lists(st.sampled_from([*HOSTILE.values(), "[", "2J", "a"])).map("".join))
def test_nothing_that_controls_a_terminal_is_left_whatever_the_text(text):
    shown = terminal.clean(text)
    assert is_harmless(shown)
    assert terminal.clean(shown) == shown


def test_a_password_in_an_address_is_never_shown(geosweep, capsys):
    address = "http://me:secret@127.0.0.1:9/x"
    for words in (
        ["status", "demo", "--address", address],
        ["run", "demo", "--out", "foo://me:secret@bucket/x"],
    ):
        code, said = geosweep(*words)
        assert code == 2
        assert "secret" not in said
    terminal.output().print(address)
    terminal.say(address)
    assert capsys.readouterr().out.splitlines() == ["http://127.0.0.1:9/x"] * 2


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_ordinary_text_is_not_changed(text):
    assert terminal.clean(f"{text}\n\t{text}") == f"{text}\n\t{text}"


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_tables_and_lines_show_names_as_text_with_colours_and_without(
    kind, colours, capsys, monkeypatch
):
    if colours:
        monkeypatch.setenv("FORCE_COLOR", "1")
    name = f"a{HOSTILE[kind]}[red]b[/] [/] :smile:"
    table = Table(name)
    table.add_row(name)
    console = terminal.output()
    console.print(table)
    console.print(name)
    console.print(Text(name, style="bold"))
    shown = capsys.readouterr().out
    assert shown.count("[red]b[/] [/] :smile:") >= 2  # A narrow cell may cut the name.
    if colours:  # rich's own sequences set colours and nothing else
        for part in shown.split("\x1b[")[1:]:
            assert part.partition("m")[0].replace(";", "").isdigit()
        shown = shown.replace("\x1b[", "")
    assert is_harmless(shown)


def test_the_live_table_shows_names_as_text(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    (tmp_path / "my.yaml").write_text("gamma: [0, 1]\nlayers: fully_connected")
    root = str(tmp_path / "out")
    folder.claim(root, sweep.read(str(tmp_path / "my.yaml")))
    known = cells(folder.inspect(root))
    for cell in known.values():
        cell.label = "a\x1b[2J\r[red]b"
    with Board(root, known, lambda: 1, terminal.output()) as board:
        board.refresh()
        board.say("\x1b]0;owned\x07[red]")
    shown = capsys.readouterr().out
    assert "a[red]b" in shown.replace("\N{REPLACEMENT CHARACTER}", "")
    assert "\x1b[2J\r" not in shown
    assert "\x1b]" not in shown
    assert "\x07" not in shown


@pytest.fixture
def geosweep(geosweep, monkeypatch, tmp_path):
    """The command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return geosweep


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if "separator" not in kind])
@pytest.mark.parametrize("place", ["file", "option", "value", "command", "key", "name", "dataset"])
def test_no_argument_name_or_key_reaches_the_terminal_as_it_is(geosweep, tmp_path, place, kind):
    bad = f"x{HOSTILE[kind]}y"
    if place in ("key", "name", "dataset"):
        quoted = '"' + "".join(f"\\U{ord(letter):08x}" for letter in bad) + '"'
        line = f"{quoted}: 1" if place == "key" else f"{place}: {quoted}"
        (tmp_path / "my.yaml").write_text(line)
    arguments = {
        "file": ["run", f"{bad}.yaml"],
        "option": ["run", f"--{bad}"],
        "value": ["run", "demo", "--set", f"{bad}={bad}"],
        "command": [bad],
    }
    code, said = geosweep(*arguments.get(place, ["run", "my.yaml", "--dry-run"]))
    accepted = place == "name" and "/" not in bad  # a folder may have such a name
    assert code == (0 if accepted else 2)
    assert accepted or "geosweep: " in said
    assert is_harmless(said)


@pytest.mark.parametrize("name", ["[red]x", "[/]", "[link=a.org]b", "[bold", ":smile:"])
def test_markup_in_a_name_stays_text(geosweep, tmp_path, name):
    (tmp_path / f"{name.replace('/', '')}.yaml").write_text("layers: fully_connected")
    code, said = geosweep("run", f"{name.replace('/', '')}.yaml", "--dry-run", "--out", f"o/{name}")
    assert code == 0, said
    assert f"{name.replace('/', '')}: 1 cells" in said


def test_an_error_from_a_trial_is_shown_as_text(geosweep, tmp_path):
    root, demo = str(tmp_path / "out"), sweep.read("demo")
    folder.claim(root, demo)
    trial = demo.trials[0]
    error = "RuntimeError: \x1b[2J[red]\rfine\u202e"
    row = {"trial": trial.trial, **trial.model_dump(), "status": "failed", "error": error}
    write_table(root, "trials", trial.trial, [row])
    code, said = geosweep("status", "out")
    assert code == 0
    assert "RuntimeError: [red]\N{REPLACEMENT CHARACTER}fine" in said
    assert is_harmless(said)


def test_a_standard_output_that_cannot_be_configured_is_left_alone(monkeypatch):
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.never_fail_to_encode()


def test_a_name_that_is_not_utf8_is_refused_in_a_line(geosweep, tmp_path):
    name = os.fsdecode(b"\xff\xfe.yaml")
    (tmp_path / name).write_text("layers: fully_connected")
    for arguments in (["status", name], ["run", "demo", "--out", name]):
        code, said = geosweep(*arguments)
        assert code == 2
        assert "the name is not UTF-8; choose another folder with --out" in said
    for arguments in (["run", name, "--dry-run"], ["run", name, "--dry-run", "--out", "out"]):
        code, said = geosweep(*arguments)
        assert code == 2
        assert "from the name of the file" in said
        assert len(said.splitlines()) == 1


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "strict ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C"},
    "C without Python's repair": {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    },
}


SEVERAL = """
import os, sys
from tune_jobs import cli
words, number = sys.argv[1:], 0
while words:
    end = words.index("then")
    if not os.fork():  # a process for each command, all with the streams of a new one
        file = os.open(f"{number}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["geosweep", *words[:end]]
        cli.main()
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    words, number = words[end + 1 :], number + 1
"""  # importing the command once for all of them saves most of the time


@pytest.mark.long
@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_terminal_that_cannot_write_a_letter_gets_another_one(tmp_path, kind):
    (tmp_path / "κ.yaml").write_text("layers: fully_connected")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    environment |= ENCODINGS[kind]
    unnameable = "PYTHONUTF8" in environment  # No path may have that letter then.
    commands = [
        (["run", "κ.yaml", "--dry-run"], 2 if unnameable else 0),
        (["run", "λ.yaml"], 2),
        (["status", "γ"], 2),
        (["run", "--help"], 0),
        (["sweeps"], 0),
        (["--γ"], 2),
    ]
    words = [word for arguments, _ in commands for word in (*arguments, "then")]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, *words],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": os.getcwd()},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = [(tmp_path / f"{number}.txt").read_bytes() for number in range(len(commands))]
    assert done.stdout.split() == [b"%d" % status for _, status in commands], said
    for text in said:
        assert text
        assert b"Traceback" not in text
