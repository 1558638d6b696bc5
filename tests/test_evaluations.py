"""What a sweep file or a command line may ask to be tried on trained networks."""

import json
import math

import pytest
from pydantic import TypeAdapter, ValidationError

from tune_jobs.errors import SweepError
from tune_jobs.evaluations import (
    EARLIER,
    MOST_LEVELS,
    NAMES,
    Listed,
    beyond,
    changed,
    earlier,
    lacking,
    read,
    replaced,
)
from tune_jobs.weights import lacks

CHECK = TypeAdapter(Listed).validate_python


def test_a_name_a_list_and_a_mapping_say_the_same():
    wanted = read(["noise"])
    for given in ("noise", ["noise"], {"noise": {}}, {"noise": None}):
        assert CHECK(given).asked() == wanted


def test_all_of_them_by_one_word_and_none_by_none():
    assert CHECK("all").asked() == read([])
    assert tuple(read([])) == NAMES
    assert CHECK(None).asked() == {}


def test_what_is_not_given_is_at_its_default():
    some = CHECK({"pgd": {"steps": 3}}).asked()["pgd"]
    assert some == read(["pgd"])["pgd"] | {"steps": 3}


def test_the_order_of_levels_makes_no_other_evaluation():
    one, other = (CHECK({"noise": {"levels": x}}).asked() for x in ([8, 0, 8, 2.5], [0.0, 2.5, 8]))
    assert one == other


def test_settings_of_the_command_line():
    found = read(["pgd", "noise"], ["pgd.levels=0,4", "pgd.steps=20", "noise.levels=8"])
    assert found["pgd"] == {"levels": [0.0, 4.0], "steps": 20, "seed": 0}
    assert found["noise"]["levels"] == [8.0]


@pytest.mark.parametrize(
    ("names", "settings", "told"),
    [
        (
            ["blur"],
            [],
            "no 'blur'; should be one of lesion, noise, fgsm, pgd, separation, curve, scores",
        ),
        (["scores"], ["scores.m=3"], "scores: no 'm'; scores has no settings"),
        (["noise"], ["noise.steps=3"], "noise: no 'steps'; should be one of levels, seed"),
        (["noise"], ["pgd.steps=3"], "pgd is not among noise"),
        (["noise"], ["levels=3"], "should be like noise.levels=0,8,16"),
        (["noise"], ["noise.levels"], "should be like noise.levels=0,8,16"),
        (["noise"], ["noise.levels={"], "not a value"),
        (["noise"], ["noise.levels=-1"], r"noise.levels = -1: should be 0 to 255"),
        (["noise"], ["noise.seed=1,2"], "noise.seed = .*valid integer"),
        (["lesion"], ["lesion.block=0"], "should be 1 to 1000"),
    ],
)
def test_a_command_line_that_cannot_be_is_told_what_is_allowed(names, settings, told):
    with pytest.raises(SweepError, match=told):
        read(names, settings)


@pytest.mark.parametrize(
    "given",
    [
        *({"noise": {"levels": x}} for x in ("8", [], [0, "8"], [-1], [256], [math.nan])),
        *({"lesion": x} for x in ({"levels": [0, 2]}, {"block": 0}, {"block": 2.5}, [0.1])),
        *({"pgd": x} for x in ({"seed": True}, {"seed": -1}, {"steps": 0}, 3)),
        *({"lesion": {"replacement": x}} for x in ("zero", [], ["zero"], [1])),
        *({"lesion": x} for x in ({"units": ["last"]}, {"units": []}, {"seed": -1})),
        *({"separation": x} for x in ({"level": [32]}, {"points": 1}, {"levels": [3]})),
        *({"separation": {"controls": x}} for x in (1, "yes")),
        *("blur", ["noise", 3], 3, True, {"blur": {}}, {3: {}}),
    ],
)
def test_a_sweep_file_that_cannot_be_is_refused(given):
    with pytest.raises(ValidationError):
        CHECK(given)


def test_what_was_asked_for_before_is_the_default_of_a_command_line():
    known = {"noise": {"levels": [0.0, 8.0], "seed": 3}}
    assert read(["noise"], [], known) == known
    assert read(["noise"], ["noise.seed=4"], known)["noise"] == {"levels": [0.0, 8.0], "seed": 4}
    assert read([], [], known) == read([]) | known


def test_lesions_are_of_all_kinds_unless_some_are_chosen():
    whole = read(["lesion"])["lesion"]
    assert (whole["replacement"], whole["units"]) == (["previous", "mean"], ["top", "random"])
    some = read(["lesion"], ["lesion.replacement=mean", "lesion.units=random,top,top"])["lesion"]
    assert (some["replacement"], some["units"]) == (["mean"], ["top", "random"])


SAME = [  # settings that measure the same
    *(("noise", {"levels": x}, {"levels": y}) for x, y in (([8], [0, 8]), ([8, 2, 8], [2.0, 8]))),
    *((name, {"levels": [4.0]}, {"levels": [0, 4]}) for name in ("fgsm", "pgd")),
    ("noise", {}, {"levels": [0.0, 8.0, 16.0, 32.0, 64.0, 128.0]}),
    ("separation", {"level": 32}, {"level": 32.0}),
    ("curve", {}, {"points": 1000}),
    ("lesion", {"levels": 0.5, "units": "top"}, {"levels": [0.0, 0.5], "units": ["top"]}),
    ("lesion", {"replacement": ["mean", "previous"]}, {"units": ["random", "top"]}),
    ("lesion", {"units": ["top"], "seed": 1}, {"units": ["top"], "seed": 2}),
]
OTHER = [
    ("noise", {"levels": [8]}, {"levels": [0]}),
    ("noise", {"levels": [8]}, {"levels": [8, 16]}),
    ("pgd", {"steps": 3}, {"steps": 4}),
    ("lesion", {"seed": 1}, {"seed": 2}),
    ("lesion", {"units": ["random"], "seed": 1}, {"units": ["random"], "seed": 2}),
    ("lesion", {"units": ["top"]}, {}),
    ("separation", {"controls": False}, {}),
]


@pytest.mark.parametrize(("name", "one", "other"), SAME)
def test_settings_that_measure_the_same_replace_nothing_however_they_are_written(name, one, other):
    both = [CHECK({name: given}).asked() for given in (one, other)]
    for done, wanted in (both, both[::-1]):
        assert lacking(done, wanted) == beyond([done], wanted) == []
        assert replaced([{"evaluations": json.dumps(done)}], wanted) == []
    assert changed(both[0]) == changed(both[1])


@pytest.mark.parametrize(("name", "one", "other"), OTHER)
def test_settings_that_measure_something_else_replace_an_evaluation(name, one, other):
    both = [CHECK({name: given}).asked() for given in (one, other)]
    for done, wanted in (both, both[::-1]):
        assert lacking(done, wanted) == [name]
        assert len(replaced([{"evaluations": json.dumps(done)}], wanted)) == 1
        assert not earlier(name, done[name], wanted[name])


@pytest.mark.parametrize("name", ["separation", "curve"])
def test_more_points_than_a_trial_has_measure_the_same(name):
    done, wanted = (read([name], [f"{name}.points={points}"]) for points in (1000, 5000))
    row = {"evaluations": json.dumps(done), "status": "done", "points": 1000}
    assert not lacks(row, wanted)
    assert replaced([row], wanted) == beyond([done], wanted, [1000]) == []
    more = row | {"points": 1001}
    assert lacks(more, wanted)
    assert len(replaced([more], wanted)) == len(beyond([done] * 2, wanted, [1000, 1001])) == 1


def test_settings_are_recorded_as_they_were_given():
    """Only lesions have level 0 written down, so that they differ from those without it."""
    assert read(["fgsm"], ["fgsm.levels=4"]) == {"fgsm": {"levels": [4.0]}}
    assert read(["lesion"], ["lesion.levels=0.5,0.1"])["lesion"]["levels"] == [0.0, 0.1, 0.5]
    many = [place / MOST_LEVELS for place in range(1, MOST_LEVELS + 1)]
    assert len(CHECK({"lesion": {"levels": many}}).asked()["lesion"]["levels"]) == MOST_LEVELS + 1


def test_lesions_of_an_earlier_version_lack_only_the_unchanged_network():
    wanted = read(["lesion"], ["lesion.levels=0.1,0.5"])
    done = {"lesion": wanted["lesion"] | {"levels": [0.1, 0.5]}}
    assert lacking(done, wanted) == ["lesion"]
    assert earlier("lesion", done["lesion"], wanted["lesion"])
    assert not earlier("lesion", done["lesion"], wanted["lesion"] | {"levels": [0, 0.1]})
    assert replaced([{"evaluations": json.dumps(done)}], wanted) == [
        "lesion replaces the earlier one of 1 trial (levels = 0.1, 0.5)"
    ]


def older(name):
    """The settings of an evaluation as versions recorded them that had fewer."""
    return {k: v for k, v in read([name])[name].items() if k not in EARLIER.get(name, {})}


@pytest.mark.parametrize("name", EARLIER)
def test_an_evaluation_of_an_earlier_version_is_done_under_what_it_measured(name):
    old = {name: older(name)}
    assert lacking(old, old) == []
    assert lacking(old, {name: old[name] | EARLIER[name]}) == []
    assert lacking({name: old[name] | EARLIER[name]}, old) == []
    assert lacking(old, read([name])) == [name]
    assert lacking({}, old) == [name]


@pytest.mark.parametrize("name", EARLIER)
def test_an_evaluation_lacks_only_what_is_new_if_an_earlier_version_made_it(name):
    old, now = older(name), read([name])[name]
    assert earlier(name, old, now)
    assert not earlier(
        name, old | EARLIER[name], now
    )  # this version made it: the rest was left out
    assert not earlier(name, old, now | {("levels" if "levels" in now else "level"): [1.0]})
    assert not earlier("noise", read(["noise"])["noise"], {"levels": [1.0]})


def test_an_evaluation_of_an_earlier_version_is_replaced_with_a_word_about_what_it_measured():
    old = {name: older(name) for name in EARLIER}
    row = {"evaluations": json.dumps(old)}
    assert replaced([row, row], read([])) == [
        "lesion replaces the earlier one of 2 trials (replacement = previous, units = top)",
        "separation replaces the earlier one of 2 trials (controls = false)",
    ]
    assert replaced([row], old) == []


def test_what_cannot_be_added_without_weights_is_told_with_what_is_there():
    old = {name: older(name) for name in ("lesion", "separation", "noise")}
    assert beyond([old, old, {}], read(["lesion", "separation"])) == [
        "lesion of 2 trials stays as measured (replacement = previous, units = top); "
        "replacement = previous, mean, units = top, random cannot be added",
        "separation of 2 trials stays as measured (controls = false); controls = true cannot be "
        "added",
        "lesion of 1 trial cannot be added",
        "separation of 1 trial cannot be added",
    ]
    assert beyond([old], old) == []
    assert beyond([], read([])) == []
