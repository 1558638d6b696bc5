"""Callables of users' files: found by path, named by content, loaded without a trace."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from models.callables import SENT, Code, call, find, is_code, load, loaded, sent_name
from models.errors import CodeError


def write(folder, text, name="net.py"):
    (folder / name).write_text(text)
    return folder


def test_a_callable_is_found_next_to_the_sweep_file_and_loaded(tmp_path):
    write(tmp_path, "import math\ndef build(width=2):\n    return math.pi * width\n")
    assert load(find("net.py:build", tmp_path))(width=1) == pytest.approx(3.14159, abs=1e-5)
    assert load(find(f"{tmp_path}/net.py:build"))() == pytest.approx(6.28318, abs=1e-5)


def test_its_identity_is_its_content_wherever_the_file_is(tmp_path):
    (tmp_path / "sub").mkdir()
    here = find("net.py:build", write(tmp_path, "def build(): ...\n"))
    there = find("sub/net.py:build", write(tmp_path / "sub", "def build(): ...\n").parent)
    assert here.identity == there.identity
    assert here.identity.startswith("net.py:build#")
    write(tmp_path, "def build(): return 1\n")
    assert find("net.py:build", tmp_path).identity != here.identity


def test_an_identity_finds_the_same_file_and_no_other_version(tmp_path):
    code = find("net.py:build", write(tmp_path, "def build(): ...\n"))
    assert find(code.identity, tmp_path) == code
    write(tmp_path, "def build(): return 1\n")
    with pytest.raises(CodeError, match=r"net\.py: has changed: its checksum is \w+, not \w+"):
        find(code.identity, tmp_path)


def test_nothing_is_added_to_the_path_and_no_module_is_hidden(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    write(tmp_path, "import json as found\ndef build(): return found.dumps([])\n", "json.py")
    assert load(find("json.py:build", tmp_path))() == "[]"
    assert sys.path == before


def test_two_versions_of_a_file_are_loaded_side_by_side_and_each_once(tmp_path):
    text = "count = []\ndef build():\n    count.append(1)\n    return {}, len(count)\n"
    one = find("net.py:build", write(tmp_path, text.format(1)))
    two = find("net.py:build", write(tmp_path, text.format(2)))
    assert load(one)() == (1, 1)
    assert load(two)() == (2, 1)
    assert load(one)() == (1, 2)


BESIDE = b"from pathlib import Path\ndef here():\n    return Path(__file__).parent.name\n"


def test_files_of_one_text_in_two_folders_each_know_their_own_folder(tmp_path):
    codes = [Code(f"{tmp_path}/{folder}/net.py", "here", BESIDE) for folder in "aba"]
    assert [load(code)() for code in codes] == ["a", "b", "a"]
    for code in codes:  # one identity stands for both
        assert load(code) is loaded(code.identity)


def test_a_copy_that_is_named_by_its_content_is_one_wherever_it_is(tmp_path):
    name = Code("net.py", "here", BESIDE).checksum
    one, two = (Code(f"{tmp_path}/{folder}/{name}.py", "here", BESIDE) for folder in "ab")
    assert load(one) is load(two)


def test_a_file_is_run_anew_where_that_is_asked_for(tmp_path):
    code = find("net.py:build", write(tmp_path, "count = []\ndef build(): count.append(1)\n"))
    function = load(code)
    assert load(code) is function
    assert load(code, anew=True) is not function
    assert load(code) is loaded(code.identity) is not function


OUTPUT = """
import ctypes, io, os, subprocess, sys
from models.callables import output_as_errors
print("before")
{stream}
try:
    with output_as_errors():
        print("Python", flush=True)
        os.write(1, b"descriptor\\n")
        subprocess.run(["echo", "process"])
        ctypes.CDLL(None).printf(b"C\\n")
        print("held back", file=sys.__stdout__)
        {end}
except KeyError:
    pass
print("after", file=sys.__stdout__)
"""


@pytest.mark.parametrize("end", ["pass", "raise KeyError"])
@pytest.mark.parametrize("stream", ["", "sys.stdout = io.StringIO()  # as in a notebook"])
def test_output_of_code_and_of_what_it_starts_goes_to_standard_error(stream, end):
    command = [sys.executable, "-c", OUTPUT.format(stream=stream, end=end)]
    root = Path(__file__).parents[1]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "before\nafter\n"), said.stderr
    assert {*said.stderr.split()} == {"Python", "descriptor", "process", "C", "held", "back"}


def test_dataclasses_and_tracebacks_work_in_a_file(tmp_path):
    write(
        tmp_path,
        "from dataclasses import dataclass\n@dataclass\nclass Net:\n    width: 'int' = 3\n"
        "    def fail(self):\n        raise KeyError('inside')\n",
    )
    net = load(find("net.py:Net", tmp_path))()
    assert net.width == 3
    with pytest.raises(KeyError) as caught:
        net.fail()
    assert "raise KeyError('inside')" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(): ...", r"net\.py: build does not exist \(it defines other\)"),
        ("def bild(): ...", "did you mean bild"),
        ("build = 3", r"net\.py: build is not callable \(it defines no function or class\)"),
        ("x = 1\nx.y", r"net\.py, line 2: AttributeError: 'int'"),
        ("def build(:", r"net\.py, line 1: SyntaxError"),
        ("import sys\nsys.exit(3)", r"net\.py, line 2: SystemExit: 3"),
        ("import neighbour", "a file cannot import its neighbours, so put all into one"),
        ("import nowhere", "No module named 'nowhere'$"),
        ("\0", r"net\.py.*SyntaxError"),
    ],
)
def test_an_error_of_the_file_names_it_and_the_line(tmp_path, text, message):
    write(tmp_path, "", "neighbour.py")
    code = find("net.py:build", write(tmp_path, text))
    for _ in range(2):  # a file that failed is not taken for loaded
        with pytest.raises(CodeError, match=message):
            load(code)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.py:build", r"missing\.py: cannot be read: No such file"),
        ("folder.py:build", r"folder\.py: cannot be read: is a folder"),
        ("large.py:build", r"large\.py: is larger than 1,000,000 bytes"),
        ("net.py", "should be like FILE.py:CALLABLE"),
        ("net.py:", "should be like FILE.py:CALLABLE"),
        ("net.py:a b", "should be like FILE.py:CALLABLE"),
        ("net.py:class", "should be like FILE.py:CALLABLE"),
        ("net.py:1", "should be like FILE.py:CALLABLE"),
        ("net.txt:build", "should be like FILE.py:CALLABLE"),
        ("net.py:build#12", "should be like FILE.py:CALLABLE"),
    ],
)
def test_a_reference_to_no_file_is_refused(tmp_path, text, message):
    (tmp_path / "folder.py").mkdir()
    write(tmp_path, "#" * 1_000_001, "large.py")
    write(tmp_path, "")
    with pytest.raises(CodeError, match=message):
        find(text, tmp_path)


@pytest.mark.parametrize("text", ["~/n.py:f", "../a b/n.py:Net", "n.py:f#0123456789ab", "é.py:f"])
def test_files_of_any_place_and_name_are_code(text):
    assert is_code(text)


def test_files_that_were_sent_are_found_by_the_path_in_the_sweep_file(tmp_path, monkeypatch):
    monkeypatch.setenv(SENT, str(tmp_path))
    for file in ("../net.py", "~/nets/net.py", "n" * 300 + ".py"):
        assert os.sep not in sent_name(file)
        (tmp_path / sent_name(file)).write_text(f"def build(): return {len(file)}\n")
        assert load(find(f"{file}:build", "/nowhere"))() == len(file)


def test_a_callable_gets_what_it_takes_and_all_that_the_user_gave():
    offered = {"classes": 10, "shape": (1, 8, 8)}
    assert call(lambda classes: classes, "f", offered) == 10
    assert call(lambda width: width, "f", offered, width=3) == 3
    assert call(lambda **all: sorted(all), "f", offered, width=3) == ["classes", "shape", "width"]
    assert call(dict, "f", {"classes": 10}, width=3)["width"] == 3
    assert call(lambda classes, width=1: classes + width, "f", offered, classes=2) == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda classes: 0, "f: got an unexpected keyword argument 'width'; it takes classes"),
        (lambda: 0, "f: got an unexpected keyword argument 'width'; it takes no arguments"),
        (lambda width, depth: 0, "f: missing a required argument: 'depth'; it takes width, depth"),
        (lambda width: 1 / 0, "f: ZeroDivisionError: division by zero"),
        (lambda width: sys.exit("no width"), "f: SystemExit: no width"),
    ],
)
def test_a_call_that_fails_says_what_the_callable_takes(function, message):
    with pytest.raises(CodeError, match=message):
        call(function, "f", {"classes": 10}, width=3)
