"""Sweep files that would silently mean something else, or cost more than they should."""

import math
import os
import re
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from annotated_types import Gt, Le, Lt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import EXAMPLES, refusal

from models.config import TrialConfig
from models.files import open_regular
from models.messages import plain, short
from tune_jobs import cells, evaluations, search, sweep, yaml_file
from tune_jobs.errors import SweepError
from tune_jobs.sweep import read

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


@pytest.mark.parametrize("given", ["{}", "evaluations: noise", "evaluations: {noise: null}"])
def test_a_setting_may_lead_to_a_part_of_a_part(sweep_of, given):
    found = sweep_of(given, "evaluations.noise.levels=0,4", "evaluations.noise.seed=3").evaluations
    assert found["noise"] == {"levels": [0.0, 4.0], "seed": 3}
    assert sweep_of(given, "evaluations.noise.levels=4").evaluations["noise"]["levels"] == [4.0]
    assert sweep_of(given, "search=optuna", "gamma=0,1", "search.objectives.lss=min")
    for wrong in ("evaluations.noise.levels=-1", "evaluations.noise.level=1", "resources.cpus.x=1"):
        assert wrong.partition("=")[0] in refusal(sweep_of, given, wrong)
    twice = "evaluations.pgd.steps=3", "evaluations.pgd={steps: 4}"
    assert "an earlier --set" in refusal(sweep_of, given, *twice)


# Bounds


def test_fields_that_do_not_fit_together_are_named_where_one_of_them_stands(sweep_of):
    said = refusal(sweep_of, "dataset: digits\nepochs: 2\nwarmup: 2\n")
    assert "line 3: warmup = 2 should be below epochs = 2" in said
    said = refusal(sweep_of, "dataset: digits\nlayers: fully_connected\nK: 2\n")
    assert "line 3: K = 2 needs layers: convolutional" in said
    said = refusal(sweep_of, "dataset: digits\nepochs: 2\n", "warmup=2")
    assert "--set warmup=2: warmup = 2 should be below" in said


@pytest.mark.parametrize("network", ["plain", "resnet"])
def test_a_cell_that_cannot_be_is_named_by_its_network(sweep_of, network):
    fields = "dataset: digits\nlayers: fully_connected\nK: [1, 2]\nvalidation: 0.2\nepochs: 9\n"
    said = refusal(sweep_of, f"{fields}network: {network}\n")
    assert said.endswith(f"(in the cell with network = {network}, K = 2, layers = fully_connected)")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("K: 5", "K = 5: should be 1 to 4"),
        ("zip: [{K: [1, 9]}]", "zip[0].K[1] = 9: should be 1 to 4"),
        ("when: [{if: {K: 0}, gamma: 0}]", "when[0].if.K = 0: should be 1 to 4"),
        ("validation: 0.95", "validation = 0.95: should be 0 to 0.9"),
        ("learning_rate: 0", "learning_rate = 0.0: should be above 0 and at most 1000000"),
        ("momentum: 1", "momentum = 1.0: should be 0 or more and below 1"),
        ("gamma: {low: -1, high: 1}\nsearch: optuna", "gamma.low = -1.0: should be 0 to 1000000"),
        ("search: {trials: 0}", "search.trials = 0: should be 1 to 100000"),
        ("resources: {cpus: 0}", "resources.cpus = 0.0: should be 0.01 to 10000"),
        ("evaluations: {noise: {levels: [0, 300]}}", "levels[1] = 300: should be 0 to 255"),
        ("evaluations: {curve: 1}", "evaluations.curve.points = 1: should be 2 to 100000"),
    ],
)
def test_a_number_out_of_bounds_is_told_both_of_them(sweep_of, text, told):
    assert refusal(sweep_of, text).endswith(told)


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
        ("seeds: 10000000", "should be 1 to 100000"),
        ("batch_size: 1e23", "batch_size = 100000000000000000000000: should be 2 to 10000000"),
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
        ("scheduler: {method: asha, factor: 1.0000001}", "should be 1.01 to 1000"),
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
        broken = set("/\0\x85\u2028\u2029")  # no part of a folder's name, or of a line of YAML
        assert broken & set(name) or name in ("", ".", "..") or len(name.encode()) > 200
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
