"""The paper's claims about lesions, noise and mixed pairs, on made-up sweeps."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_trial
from made_up_evaluations import EVALUATIONS
from one_claim import line

from scoring.tables import read_rows, write_table


def pair_of_networks(root: Path, plain: float, resnet: float, **change: object) -> None:
    """Two networks that are fragile to these degrees, in three seeds."""
    tried = ("lesion", "noise", "fgsm", "separation")
    for seed in range(3):
        for network, fragile in (("plain", plain), ("resnet", resnet)):
            given = fragile * (1 + 0.1 * seed)
            made_up_trial(root, network, 1e-3, seed, tried=tried, fragile=given, **change)


def test_a_resnet_that_lesions_hardly_change_and_a_steep_plain_network(tmp_path: Path) -> None:
    pair_of_networks(tmp_path, plain=4.0, resnet=0.01)
    found = line(tmp_path, "units")
    assert (found["verdict"], found["comparisons"], found["sure"]) == ("holds", 2, 2)
    assert found["numbers"].startswith("digits, K = 1, γ = 0.001, m = 500: lost to lesions 0.7")
    assert "(limit 0.05)" in found["numbers"]


def test_a_resnet_that_is_less_steep_but_not_flat_refutes_the_claim(tmp_path: Path) -> None:
    pair_of_networks(tmp_path, plain=4.0, resnet=1.0)
    found = line(tmp_path, "units")
    assert (found["verdict"], found["agree"], found["against"]) == ("does not hold", 1, 1)
    place = "digits, K = 1, ResNet, γ = 0.001, m = 500"
    assert found["numbers"].startswith(f"{place}: lost to lesions 0.4")


def with_points(root: Path, trial: str, m: int) -> None:
    """Change the number of points behind all evaluations of a trial."""
    rows = [row | {"m": m} for row in read_rows(str(root), "robustness", trial)]
    write_table(str(root), "robustness", trial, rows)


def other_settings(name: str) -> str:
    """The settings of every evaluation, as a trial has them; one evaluation has other levels."""
    given = {what: EVALUATIONS[what] for what in ("lesion", "noise", "fgsm", "separation")}
    changed = {"level": 8.0} if name == "separation" else {"levels": [0.0, 0.5, 1.0]}
    return json.dumps(given | {name: {**given[name], **changed}})


@pytest.mark.parametrize("what", ["noise", "fgsm", "points"])
def test_networks_that_were_evaluated_differently_are_not_compared(
    tmp_path: Path, what: str
) -> None:
    for seed in range(2):
        for network, fragile in (("plain", 4.0), ("resnet", 1.0)):
            same = network == "plain" or what == "points"
            given = {} if same else {"evaluations": other_settings(what)}
            tried, fragile = ("noise", "fgsm"), fragile * (1 + 0.1 * seed)
            trial = made_up_trial(
                tmp_path, network, 1e-3, seed, tried=tried, fragile=fragile, **given
            )
            with_points(tmp_path, trial, 400 if what == "points" and network == "plain" else 500)
    for name in ("noise", "variation"):
        found = line(tmp_path, name)
        left = 2 if what == "points" else 1
        assert found["comparisons"] == found["agree"] == 2 - left
        told = "not compared: the settings or m of both sides differ"
        assert found["numbers"].count(told) == left
        assert (found["verdict"] == "not measured") == (left == 2)


def test_a_lesion_is_compared_at_equal_levels_only(tmp_path: Path) -> None:
    for seed in range(2):
        for network, lost in (("plain", 0.5), ("resnet", 0.02)):
            given = {} if network == "plain" else {"evaluations": other_settings("lesion")}
            given |= {"lesion_auc": 0.9 * (1 - lost) + 0.001 * seed, "lesion_top_mean_auc": 0.45}
            made_up_trial(tmp_path, network, 1e-3, seed, tried=["lesion"], **given)
    for name in ("units", "units_to_mean"):
        found = line(tmp_path, name)
        assert found["comparisons"] == 1  # of the ResNet with the limit
        assert found["numbers"].count("not compared") == 1


def test_trials_of_one_gamma_are_compared_with_those_of_equal_settings(tmp_path: Path) -> None:
    for seed in range(4):
        for network, fragile in (("plain", 4.0), ("resnet", 1.0)):
            given = {"evaluations": other_settings("noise")} if seed > 1 else {}
            fragile *= 1 + 0.1 * seed
            made_up_trial(tmp_path, network, 1e-3, seed, tried=["noise"], fragile=fragile, **given)
    found = line(tmp_path, "noise")
    assert (found["comparisons"], found["agree"]) == (2, 2)
    assert found["numbers"].count(", 2 seeds)") == 2


def test_pairs_that_were_mixed_by_different_noise_are_not_averaged(tmp_path: Path) -> None:
    name = "mixed_ratio_different_matched"
    for seed in range(4):
        given = {"evaluations": other_settings("separation")} if seed > 1 else {}
        mixed = {name: 1.4 + 0.01 * seed, f"{name}_initial": 1.0}
        made_up_trial(tmp_path, seed=seed, tried=["separation"], **mixed, **given)
    found = line(tmp_path, "mixed_first")
    assert (found["comparisons"], found["null"]) == (2, "0 of 2")
    assert found["numbers"].count("2 seeds") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("plain", "verdict"), [(4.0, "holds"), (0.2, "does not hold")])
def test_noise_is_compared_for_each_kind_that_was_tried(
    tmp_path: Path, plain: float, verdict: str
) -> None:
    pair_of_networks(tmp_path, plain, resnet=1.0)
    for name in ("noise", "variation"):
        found = line(tmp_path, name)
        assert (found["verdict"], found["comparisons"]) == (verdict, 2)  # not PGD
        assert found["sure"] == (2 if verdict == "holds" else 0)
    assert "lost to random noise" in line(tmp_path, "noise")["numbers"]
    assert "variation rate under FGSM" in line(tmp_path, "variation")["numbers"]


def test_networks_at_chance_are_not_compared(tmp_path: Path) -> None:
    for network, accuracy in (("plain", 0.12), ("resnet", 0.9)):
        trial = made_up_trial(tmp_path, network, tried=["noise"], noise_auc=0.1)
        changed = read_rows(str(tmp_path), "robustness", trial)
        for row in changed:
            row |= {"accuracy": row["accuracy"] and accuracy}
        write_table(str(tmp_path), "robustness", trial, changed)
    assert line(tmp_path, "noise")["verdict"] == "not measured"
    assert line(tmp_path, "variation")["verdict"] == "not measured"


@pytest.mark.parametrize(
    ("ratio", "untrained", "verdict", "null"),
    [
        (1.45, 1.0, "holds", "0 of 1"),
        (1.45, 1.4, "holds", "1 of 1"),
        (1.45, 1.6, "does not hold", "1 of 1"),  # less than it was before anything was learned
        (0.9, 0.8, "does not hold", "0 of 1"),  # less often than all pairs
    ],
)
def test_close_tracks_are_mixed_up_more_often_than_all_and_than_in_the_untrained_network(
    tmp_path: Path, ratio: float, untrained: float, verdict: str, null: str
) -> None:
    name = "mixed_ratio_different_matched"
    for seed in range(2):
        mixed = {name: ratio + 0.001 * seed, f"{name}_initial": untrained}
        made_up_trial(tmp_path, seed=seed, tried=["separation"], **mixed)
    made_up_trial(tmp_path, gamma=0.1, tried=["separation"], **{name: np.nan})
    found = line(tmp_path, "mixed_first")
    assert (found["verdict"], found["comparisons"]) == (verdict, 1)
    assert found["sure"] + found["against"] == 1
    assert found["null"].startswith(null[:1])
    assert ", m = 300: " in found["numbers"]
    assert found["numbers"].endswith(", 2 seeds)")


def test_without_controls_nothing_is_said_about_mixed_pairs(tmp_path: Path) -> None:
    name = "mixed_ratio_different_matched"
    for seed in range(2):
        old = {f"{name}{when}": np.nan for when in ("", "_initial")}
        made_up_trial(tmp_path, seed=seed, tried=["separation"], **old)
    assert line(tmp_path, "mixed_first")["verdict"] == "not measured"


def test_what_replaces_units_has_a_claim_of_its_own(tmp_path: Path) -> None:
    """A network may be flat under the paper's lesions and steep where units get their means."""
    for seed in range(3):
        for network, lost in (("plain", 0.5), ("resnet", 0.02)):
            change = {"lesion_auc": 0.9 * (1 - lost) + 0.001 * seed, "lesion_top_mean_auc": 0.45}
            made_up_trial(tmp_path, network, 1e-3, seed, tried=["lesion"], **change)
    assert line(tmp_path, "units")["verdict"] == "holds"
    assert line(tmp_path, "units_to_mean")["verdict"] != "holds"
