"""Sweep files that would silently mean something else, or cost more than they should."""

import math
import os
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pytest
import yaml
from annotated_types import Gt, Le, Lt
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from models.config import TrialConfig
from models.fields import read_number
from models.files import open_regular
from models.messages import plain, short
from tune_jobs import cells, evaluations, search, sweep, yaml_file
from tune_jobs.errors import SweepError
from tune_jobs.sweep import read

EXAMPLES = 200 if "CI" in os.environ else 40


@pytest.fixture(scope="module")
def sweep_of(tmp_path_factory):
    """The sweep of a text, or of bytes."""
    folder = tmp_path_factory.mktemp("sweeps")

    def write(content: str | bytes, *settings: str):
        path = folder / "sweep.yaml"
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return read(str(path), settings)

    return write


def refusal(sweep_of, content: str | bytes, *settings: str) -> str:
    """The message that a file is refused with: few lines, each of which names the file."""
    with pytest.raises(SweepError) as error:
        sweep_of(content, *settings)
    lines = str(error.value).splitlines()
    assert len(lines) <= 11
    assert all("sweep.yaml" in line or line.startswith("--set") for line in lines)
    assert max(map(len, lines)) < 1500
    return str(error.value)


# What is read as a number


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


# Keys

FIELDS = ["gamma", "epochs", "network", "K", "resources", "zip", "exclude", "evaluations"]
NESTED = st.recursive(
    st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES)
@given(data=st.data(), flow=st.sampled_from([None, True, False]))
def test_a_key_given_twice_is_refused_with_its_line_wherever_it_stands(sweep_of, data, flow):
    content = data.draw(st.dictionaries(st.sampled_from(FIELDS), NESTED, min_size=1))
    mappings = []

    def collect(value):
        if isinstance(value, dict):
            mappings.extend([value] * bool(value))
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    collect(content)
    chosen = data.draw(st.sampled_from(mappings))
    key = data.draw(st.sampled_from(sorted(chosen)))
    chosen["twice"] = 0
    text = yaml.safe_dump(content, default_flow_style=flow, sort_keys=False, width=10**6)
    text = text.replace("twice:", f"{key}:")
    line = text[: text.rindex("\n")].count("\n") + 1
    told = refusal(sweep_of, text)
    assert re.search(
        rf"{key} is given (in line \d+ already|twice in this line); give it once", told
    )
    assert int(re.search(r"line (\d+)", told)[1]) <= line


@pytest.mark.parametrize(
    "text",
    [
        "exclude:\n- {<<: {K: 1}, K: 2}",
        "exclude:\n- {K: 2, <<: {K: 1}}",
        "exclude:\n- {<<: [{K: 1}, {K: 2}]}",
        "exclude:\n- {<<: {K: 1}, <<: {m: 2}}",
        "zip:\n- {K: [1], K: [2]}",
        "evaluations: {pgd: {steps: 1, steps: 2}}",
        "search: {seed: 1, 'seed': 2}",
    ],
)
def test_a_key_that_is_merged_or_quoted_counts(sweep_of, text):
    assert "give it once" in refusal(sweep_of, text)


def test_a_merge_adds_fields(sweep_of):
    text = "gamma: [0, 1]\nK: [1, 2]\nexclude:\n- &a {K: 2}\n- {<<: *a, gamma: 1}\n- {<<: [*a]}"
    assert [trial.gamma for trial in sweep_of(text).trials] == [0, 1]
    text = "zip: [{gamma: &few [0, 1], transport_penalty: *few}]"
    assert [trial.transport_penalty for trial in sweep_of(text).trials] == [0, 1]


@pytest.mark.parametrize(
    "settings",
    [
        ["gamma=1", "gamma=2"],
        ["K=1", "stages=2"],
        ["seed=1", "seeds=2"],
        ["search.trials=3", "search=optuna"],
        ["search.trials=3", "search.trials=4"],
    ],
)
def test_a_setting_given_twice_is_refused(sweep_of, settings):
    assert "an earlier --set" in refusal(sweep_of, "gamma: [0, 1]", *settings)


def test_a_setting_is_named_where_it_is_wrong(sweep_of):
    told = refusal(sweep_of, "gamma: 1\nepochs: 2", "gamma=0,x")
    assert "sweep.yaml, --set gamma=0,x: gamma[1] = 'x': should be a number" in told
    assert "--set gamma=0,,1: a value is missing" in refusal(sweep_of, "{}", "gamma=0,,1")
    found = sweep_of("gamma: [0, 1]", "search=optuna", "search.trials=1", "evaluations=noise")
    assert found.search.trials == 1
    both = sweep_of("evaluations: [noise, pgd]", "evaluations.pgd={steps: 3}").evaluations
    assert list(both) == ["noise", "pgd"]
    assert both["pgd"]["steps"] == 3


# Bounds


def test_fields_that_do_not_fit_together_are_named_where_one_of_them_stands(sweep_of):
    said = refusal(sweep_of, "dataset: digits\nepochs: 2\nwarmup: 2\n")
    assert "line 3: warmup = 2 should be below epochs = 2" in said
    said = refusal(sweep_of, "dataset: digits\nlayers: fully_connected\nK: 2\n")
    assert "line 3: K = 2 needs layers: convolutional" in said
    said = refusal(sweep_of, "dataset: digits\nepochs: 2\n", "warmup=2")
    assert "--set warmup=2: warmup = 2 should be below" in said


def number_fields():
    for model in (
        *(TrialConfig, sweep.Resources, sweep.SweepFile, search.Span, search.Search, search.Asha),
        *evaluations.PARTS.values(),
    ):
        for name, info in model.model_fields.items():
            schema = model.model_json_schema(by_alias=False)["properties"].get(name, {})
            kinds = [schema, *schema.get("anyOf", ())]
            if {"integer", "number"} & {kind.get("type") for kind in kinds}:
                yield pytest.param(model, name, info, id=f"{model.__name__}.{name}")


@pytest.mark.parametrize(("model", "name", "info"), [*number_fields()])
def test_every_number_has_bounds_that_its_description_tells(model, name, info):
    kinds = str(model.model_json_schema(by_alias=False)["properties"][name])
    assert re.search("aximum'|'l[et]'", kinds)
    assert re.search("inimum'|'g[et]'", kinds)
    assert re.search(r"\d to (\d|10\^|2\^|1e)|up to \d|at most \d", info.description)


@settings(max_examples=EXAMPLES)
@given(
    field=st.sampled_from(["gamma", "epochs", "batch_size", "points", "seed", "learning_rate"]),
    value=st.integers() | st.floats() | st.integers(0, 10**400) | st.integers(0, 10**5),
)
def test_a_number_is_within_bounds_or_refused(sweep_of, field, value):
    info = TrialConfig.model_fields[field]
    content = yaml.safe_dump({field: value})
    try:
        (trial,) = sweep_of(content).trials
    except SweepError:
        assert field in refusal(sweep_of, content)
    else:
        found = getattr(trial, field)
        assert found == (Decimal(repr(value)) if info.annotation is int else value)
        assert isinstance(found, info.annotation)
        assert math.isfinite(found)
        for rule in info.metadata:
            assert not isinstance(rule, Le) or found <= rule.le
            assert not isinstance(rule, Lt) or found < rule.lt
            assert not isinstance(rule, Gt) or found > rule.gt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seeds: 10000000", "less than or equal to 100000"),
        ("batch_size: 1e23", "batch_size = 100000000000000000000000: should be less than or equal"),
        (f"epochs: {'9' * 5000}", "at most 400 characters"),
        (f"gamma: {[*range(1000)]}\nseeds: 1000", "1,000,000 cells .1,000 of gamma, 1,000 of seed"),
        (
            f"gamma: {[*range(2000)]}\nseeds: 1000\nexclude: [{{gamma: 0}}]",
            "2,000,000 combinations",
        ),
        (f"gamma: {'[' * 1000}", "at most 20 levels deep"),
        (f"gamma:\n {'- ' * 1000}1", "at most 20 levels deep"),
        (f"# {'x' * 300_000}", "larger than 250,000 bytes"),
        (f"seed: [{'0,' * 30_000}]", "more than 20,000 values"),
        (f"dataset: {'d' * 5000}.npz", "at most 4096 characters"),
        (f"description: {'d ' * 3000}", "is 5999 long; should be at most 5000 long"),
        (f"gamma: [{'x,' * 9000}]", "and 8990 more problems like these"),
        ("scheduler: {method: asha, factor: 1.0000001}", "greater than or equal to 1.01"),
    ],
)
def test_what_would_take_too_much_is_refused_before_it_does(sweep_of, text, told):
    assert re.search(told, refusal(sweep_of, text))


def test_laughs_are_counted_with_their_aliases(sweep_of):
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]")
    assert "line 5: more than 20,000 values" in refusal(sweep_of, "\n".join(lines))


def test_cells_are_counted_after_exclude(sweep_of, monkeypatch):
    monkeypatch.setattr(cells, "MOST_CELLS", 10)
    monkeypatch.setattr(cells, "MOST_COMBINATIONS", 30)
    text = "gamma: [0, 1, 2]\nseeds: 5\nexclude:\n"
    assert len(sweep_of(text + "- {gamma: [0, 1]}").trials) == 5
    assert "has more than 10 cells after exclude" in refusal(sweep_of, text + "- {gamma: 3}")
    assert "has 15 cells" in refusal(sweep_of, "gamma: [0, 1, 2]\nseeds: 5")
    assert "has 60 combinations" in refusal(sweep_of, f"epochs: [1, 2, 3, 4]\n{text}- {{gamma: 1}}")


# Names


@settings(max_examples=EXAMPLES)
@given(
    st.text(max_size=8)
    | st.text("./-a ~\0\n\\%", max_size=6)
    | st.sampled_from([".", "..", "...", "con", "a" * 300, "\u4e00" * 90, "-", ".a", "a.", " "])
)
def test_a_name_is_that_of_one_folder_or_is_refused(sweep_of, name):
    content = yaml.safe_dump({"name": name}, allow_unicode=True)
    try:
        found = sweep_of(content).name
    except SweepError:
        refusal(sweep_of, content)
        assert set("/\0") & set(name) or name in ("", ".", "..") or len(name.encode()) > 200
    else:
        assert found == name
        assert Path("runs", name).resolve().parent == Path("runs").resolve()
        assert len(name.encode()) <= 200


@pytest.mark.parametrize("stem", ["\udce9", "a" * 220])
def test_a_file_whose_name_is_no_name_for_a_folder_needs_a_name_field(tmp_path, stem):
    path = tmp_path / f"{stem}.yaml"
    path.write_text("gamma: 1")
    with pytest.raises(SweepError, match="from the name of the file") as error:
        read(str(path))
    assert len(str(error.value).splitlines()) == 1
    path.write_text("gamma: 1\nname: fine")
    assert read(str(path)).name == "fine"


def test_every_file_name_is_a_name(tmp_path):
    names = ["my sweep (2)", "\u00e9t\u00e9", ".hidden", "a'b", "50%", "-x", "a\nb", "...", "\x1b"]
    for stem in names:
        path = tmp_path / f"{stem}.yaml"
        path.write_text("gamma: 1")
        assert read(str(path)).name == stem


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "cannot be read"),
        (".", "is a folder, not a regular file"),
        ("nowhere/", "no such file"),
        ("~nobody/x.yaml", "no such file"),
        ("a" * 5000, "no such sweep or file"),
        ("a" * 5000 + ".yaml", "no such file"),
        ("a\0b.yaml", "no such file"),
        ("a\nb", "no such sweep or file"),
        ("/dev/zero", "is a device, not a regular file"),
        ("pipe.yaml", "is a named pipe, not a regular file"),
        ("link.yaml", "is a link to nowhere, which does not exist"),
    ],
)
def test_what_is_no_file_is_named_in_one_line(tmp_path, monkeypatch, source, told):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    Path("link.yaml").symlink_to("nowhere")
    with pytest.raises(SweepError, match=told) as error:
        read(source)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500


# Whatever stands in a file


@settings(max_examples=EXAMPLES)
@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text("{}[]:,-?&*!|>'\"%@`#<~ \n\tabK01.", max_size=60).map(str.encode)
)
@example(b'gamma: "\\UFFFFFFFF"')
@example(b"%YAML 1." + b"9" * 5000 + b"\n---\n{}")
@example(b"gamma: !!python/object/apply:os.getcwd []")
@example("gamma: 1".encode("utf-16"))
@example(b"gamma: 1\n---\ngamma: 2")
@example(b"- " * 5000)
@example(b"? " * 5000)
def test_any_bytes_are_a_sweep_or_refused_in_few_lines(sweep_of, content):
    try:
        sweep_of(content)
    except SweepError:
        refusal(sweep_of, content)


@given(st.text() | st.integers() | st.lists(st.text()) | st.dictionaries(st.text(), st.floats()))
def test_a_quoted_value_is_short_and_on_one_line(value):
    assert len(short(value)) <= 120
    assert len(short(value).splitlines()) == 1


def test_a_value_is_cut_before_it_is_formatted():
    letters = "x" * 10**6
    for value in (10**5000, [letters] * 1000, {letters: [[letters] * 1000] * 1000}):
        assert len(short(value)) <= 120


@given(st.text())
@example("x" * 10**6)
def test_a_name_in_a_message_is_short_and_on_one_line(name):
    assert len(plain(name).splitlines()) == 1
    assert len(plain(name)) <= 1000
    assert plain(name).isprintable()


def test_only_the_reader_of_sweep_files_uses_yaml(tmp_path):
    root = Path(__file__).parents[1]
    users = [
        path.name
        for package in ("models", "tune_jobs")
        for path in (root / package).rglob("*.py")
        if re.search(r"^\s*(import yaml|from yaml)", path.read_text(), re.MULTILINE)
    ]
    assert set(users) <= {
        "yaml_file.py",
        "reach.py",
        "orders.py",
    }  # the latter read Ray's cluster files
    with open_regular(root / "tune_jobs/yaml_file.py") as file:
        assert b"unsafe" not in file.read()


def test_a_value_of_a_command_line_is_read_like_one_of_a_file():
    assert yaml_file.values("0,1e-3,plain, [a] ,~,012") == [0, 1e-3, "plain", ["a"], None, "012"]
