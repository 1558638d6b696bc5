"""What a sweep file writes as a number is read as that number, or the file is refused."""

import re
from decimal import Decimal, InvalidOperation

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from refusals import EXAMPLES, refusal

from models.fields import read_number
from tune_jobs import sweep
from tune_jobs.errors import SweepError


def person(text: str) -> float | None:
    """What a text means to a person: a decimal, or a number of another base by its prefix."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
        if digits.lower().startswith(prefix):
            return sign * int(digits, base)
    try:
        return float(Decimal(text.replace("_", "")))
    except InvalidOperation:
        return None


NUMBERISH = st.text("0123456789.eE+-_:xXobBaf", min_size=1, max_size=9)


ORDINARY = st.one_of(
    st.integers(0, 10**6).map(str),
    st.floats(0, 1e6).map(repr),
    st.floats(0, 1e6).map("{:.3e}".format),
    st.integers(0, 10**6).map("{:_}".format),
    st.integers(0, 10**6).map(hex),
    st.integers(0, 10**6).map(oct),
    st.from_regex(r"[+]?[0-9]{0,3}\.[0-9]{0,3}([eE][+-]?[0-9])?", fullmatch=True),
)


@settings(max_examples=5 * EXAMPLES)
@given(NUMBERISH | ORDINARY)
@example("012")
@example("1:30")
@example("0o12")
@example("08")
@example("1e-3")
def test_a_number_is_what_a_person_reads_or_no_number(text):
    found = read_number(text)
    if found is not None:
        assert found == person(text)


@settings(max_examples=EXAMPLES)
@given(ORDINARY)
def test_every_ordinary_way_to_write_a_number_is_read(text):
    assume(person(text) is not None)
    assert read_number(text) == person(text)


@settings(max_examples=EXAMPLES)
@given(text=NUMBERISH | ORDINARY, quote=st.sampled_from(["", '"', "'"]))
def test_an_axis_holds_the_number_that_was_written_or_the_file_is_refused(sweep_of, text, quote):
    for content, given_settings in (
        (f"gamma: {quote}{text}{quote}", []),
        (f"gamma: [{quote}{text}{quote}]", []),
        ("{}", [f"gamma={text}"]),
    ):
        try:
            (trial,) = sweep_of(content, *given_settings).trials
        except SweepError:
            refusal(sweep_of, content, *given_settings)
        else:
            assert trial.gamma == person(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 1e-3), ("1e3", 1000), (".5", 0.5), ("5.", 5), ("+1", 1), ("1_000", 1000)),
        *(("0x10", 16), ("0o12", 10), ("0b11", 3), ("08", 8), ("-0.0", 0), ("1E+2", 100)),
        *(('"3"', 3), ("'1e-3'", 1e-3), ("!!float 3", 3), ("00", 0), ("01.5", 1.5)),
    ],
)
def test_numbers_that_are_read_as_they_look(sweep_of, text, value):
    (trial,) = sweep_of(f"gamma: {text}").trials
    assert trial.gamma == value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("epochs: 012", "line 2: epochs = '012': should be a number, .* write 12, or 10"),
        ("epochs: 1:30", "line 2: epochs = '1:30': .*sixties"),
        ("epochs: 2026-01-01", "line 2: epochs = '2026-01-01': .*this is a date"),
        ("epochs: 3.5", "line 2: epochs = 3.5: .*integer"),
        ("epochs: true", "line 2: epochs = True: should be a number, not true or false"),
        ("gamma: yes", "line 2: gamma = 'yes': should be a number"),
        ("gamma: [0, ~]", r"line 2: gamma\[1\] = None: .*leave the line out for the default"),
        ("gamma: NaN", "line 2: gamma = 'NaN': .*finite"),
        ("gamma: .inf", "line 2: gamma = inf: should be a finite number"),
        ("gamma: 1e-999", "line 2: gamma = '1e-999': .*range of a 64-bit float"),
        ("gamma: 5%", "line 2: gamma = '5%': .*like 0.05"),
        ("gamma: 0,5", r"line 2: gamma = '0,5': .*decimal point"),
        ("gamma: [[0]]", r"line 2: gamma\[0\] = \[0\]: should be one number"),
        ("search: {trials: true}", "line 2: search.trials = True: should be a number"),
        ("resources: {cpus: yes}", "line 2: resources.cpus = 'yes': should be a number"),
        ("network: Plain", "line 2: network = 'Plain': .*did you mean plain?"),
        ("name: 3", "line 2: name = 3: should be a string; put it in quotes"),
        ("description: 3", "line 2: description = 3: should be a string; put it in quotes"),
        ("Gamma: 3", r"line 2: Gamma: no such field; did you mean gamma\?"),
        ("g\u0430mma: 3", r"line 2: g.mma: no such field; did you mean gamma\? \('.' is U\+0430"),
        ('"gamma ": 3', r"line 2: gamma : no such field; did you mean gamma\?"),
        ("seeds: 3\nseed: 1", "line 2: has both seed and seeds"),
        ("zip:\n- {K: [1, 2], m: [5]}", "line 3: zip.0.: lists should be of one length"),
        ("zip:\n- {}", "line 3: zip.0.: has no field, so delete it"),
        ("exclude:\n- {}", "line 3: exclude.0.: has no field, so delete it"),
        ("exclude: {K: 1}", "line 2: exclude = {'K': 1}: should be a list"),
        ("evaluations: {noise: 3}", "line 2: evaluations.noise = 3: should be a mapping"),
    ],
)
def test_a_message_has_line_field_value_and_fix(sweep_of, line, told):
    assert re.search(told, refusal(sweep_of, f"# first\n{line}"))


@pytest.mark.parametrize("word", ["yes", "on", "true", "no", "off", "false", "True", "FALSE"])
def test_words_for_true_and_false_are_read_where_they_fit(sweep_of, word):
    (trial,) = sweep_of(f"augment: {word}").trials
    assert trial.augment == (word.lower() in ("yes", "on", "true"))
    if word.lower() not in ("true", "false"):
        assert sweep_of(f"name: {word}").name == word


def test_text_stays_as_it_was_written(sweep_of):
    for text in ("2026-01-01", "012", "1:30", "yes", "0_1_", "~x", "caf\u00e9"):
        assert sweep_of(f"description: {text}").description == text


def test_a_byte_order_mark_and_line_ends_of_windows_do_not_matter(sweep_of):
    expected = sweep_of("gamma: [0, 1]\nepochs: 3\n").trials
    assert sweep_of(b"\xef\xbb\xbfgamma: [0, 1]\r\nepochs: 3\r\n").trials == expected


def test_exclude_knows_defaults_that_depend_on_other_fields(sweep_of):
    text = "dataset: [mnist, cifar10]\nexclude:\n- {layers: fully_connected}"
    assert [trial.dataset for trial in sweep_of(text).trials] == ["cifar10"]
    text = "points: [100, 500]\nexclude:\n- {m: 100, learning_rate: 1e-3}"
    assert [trial.points for trial in sweep_of(text).trials] == [500]
    text = "K: [1, 2]\nexclude:\n- {depth: 10}"
    assert [trial.stages for trial in sweep_of(text).trials] == [2]


def test_the_number_of_blocks_is_an_axis_within_bounds(sweep_of):
    found = sweep_of("depth: [2, 5, 10]\nK: [1, 2]").trials
    assert {(t.depth, t.stages) for t in found} == {(n, k) for n in (2, 5, 10) for k in (1, 2)}
    assert {sweep_of(f"K: {k}").trials[0].trial for k in (1, 2)} < {t.trial for t in found}


def ids(content):
    return [trial.trial for trial in sweep.read({"name": "x"} | content).trials]


@pytest.mark.parametrize(
    "kind",
    [
        np.float32,
        np.float64,
        lambda values: np.array(values, np.float32),
        lambda values: np.array(values, ">f4"),
        lambda values: [*np.array(values, np.float32)],
        torch.tensor,
        lambda values: [torch.tensor(value) for value in values],
        lambda values: torch.tensor(values, dtype=torch.float64),
    ],
)
def test_numbers_of_arrays_and_tensors_are_those_that_were_typed(kind):
    """Whatever the number of their bits, they are the cells of the same numbers in a file."""
    values = [0.0, 1e-3, 0.1, 0.3, 123.456, 1e-5]
    assert ids({"gamma": kind(values)}) == ids({"gamma": values})


@given(st.integers(1, 10**6 - 1), st.integers(-12, 0))
def test_six_digits_survive_32_bits_and_three_or_two_survive_16(digits, exponent):
    value = float(f"{digits}e{exponent}")
    assert ids({"gamma": np.float32(value)}) == ids({"gamma": value})
    few = float(f"{digits % 1000}e-3")
    assert ids({"gamma": np.float16(few)}) == ids({"gamma": few})
    assert ids({"gamma": torch.tensor(few).half()}) == ids({"gamma": few})
    two = float(f"{digits % 100}e{exponent}")
    assert ids({"gamma": torch.tensor(two).bfloat16()}) == ids({"gamma": two})


def test_whole_numbers_of_arrays_stay_whole():
    for values in (np.arange(3), torch.arange(3), [np.int8(0), np.uint64(1), 2]):
        assert ids({"seed": values}) == ids({"seed": [0, 1, 2]})


@pytest.mark.parametrize("count", ["10", "1e1", "10.0", '"10"', "0xA"])
def test_the_number_of_weights_to_keep_is_read_like_any_other(sweep_of, count):
    assert sweep_of(f"keep: {{best: {count}}}").keep == {"best": 10}


@pytest.mark.parametrize("count", ["0", "1.5", "true", "1e6", "ten", "[1]", ".inf", ".nan", "null"])
def test_another_number_of_weights_is_refused(sweep_of, count):
    told = refusal(sweep_of, f"keep: {{best: {count}}}")
    assert "should be {best: k}, for the weights of the k best trials, 1 to 10^5" in told
