"""Pairs of points that noise mixes up, in tiny trained networks."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from subjects import kinds, made, untrained

from models import datasets
from scoring.robustness.areas import summary
from scoring.robustness.noise import DECILES, mixing
from scoring.robustness.subject import Subject, draws, result_row


@kinds
def test_pairs_are_mixed_up_as_plain_loops_say(kind):
    subject = made(kind)
    rows = mixing(subject, level=100, seed=3)
    pixels = subject.images.float()
    tracks, ends = defaultdict(list), {}
    with torch.no_grad():
        for stage, _, state in subject.walk(pixels):
            tracks[stage].append(state.flatten(1))
        for stage, _, state in subject.walk(pixels + 100 * draws("normal", 3, range(30), pixels)):
            ends[stage] = state.flatten(1)
    labels = subject.labels.tolist()
    kept = {"separation": None, "separation_different": lambda s, t: labels[s] != labels[t]}
    for stage, track in tracks.items():
        points = torch.stack(track).transpose(0, 1).tolist()
        for name, which in kept.items():
            noisy = ends[stage].tolist()
            found = [r for r in rows if (r["evaluation"], r["stage"]) == (name, stage)]
            assert [r["level"] for r in found] == list(range(11))
            wanted = reference.mixed_by_distance(points, noisy, 1, which)
            wanted += reference.mixed_by_distance(points, noisy, 10, which)
            matched = reference.mixed_at_equal_ends(points, noisy, 10, which)
            shares = [one["mixed_matched"] for one in found]
            assert shares == pytest.approx([sum(matched) / 10, *matched], abs=1e-12)
            for one, (mixed, distance) in zip(found, wanted, strict=True):
                assert one["mixed"] == pytest.approx(mixed, abs=1e-12)
                assert one["distance"] == pytest.approx(distance, rel=1e-6)
                assert one["m"] == 30
    assert any(one["mixed"] > 0 for one in rows)


@kinds
def test_the_baseline_of_mixed_pairs_is_the_same_of_the_untrained_network(kind):
    subject = made(kind)
    rows = mixing(subject, level=100)
    initial = mixing(replace(subject, network=untrained(kind), untrained=None), level=100)
    for name in ("mixed", "mixed_matched"):
        assert [one[f"{name}_initial"] for one in rows] == [one[name] for one in initial]
        assert [one[name] for one in rows] != [one[name] for one in initial]
    assert all(one["mixed_initial"] is None for one in initial)
    found, before = summary(rows), summary(initial)
    for name, value in before.items():
        assert found[f"{name}_initial"] == pytest.approx(value, nan_ok=True)


@kinds
def test_without_controls_pairs_are_neither_matched_nor_compared(kind):
    subject = made(kind)
    few = mixing(subject, level=100, controls=False)
    alike = ("evaluation", "stage", "level", "mixed", "distance")
    for one, other in zip(few, mixing(subject, level=100), strict=True):
        assert [one[name] for name in alike] == [other[name] for name in alike]
        assert one["mixed_matched"] is one["mixed_initial"] is None
    assert set(summary(few)) == {"mixed_ratio", "mixed_ratio_different"}


class Identity:
    """A network of one block whose tracks never leave their start."""

    @staticmethod
    def states(images):
        yield 1, images
        yield 1, images

    @staticmethod
    def classify(state):
        return state.flatten(1)[:, :10]


@pytest.mark.parametrize(("sigma", "ratio"), [(4, 10.0), (8, 5.45), (32, 1.31)])  # 4: 23 pairs
def test_in_the_identity_the_distance_of_tracks_says_nothing_beyond_that_of_their_ends(
    sigma, ratio
):
    """On digits with white at 16. Close tracks are mixed up first, because their ends are close."""
    data = datasets.load("digits")
    images, labels = (torch.from_numpy(part[:500]) for part in (data.x_test, data.y_test))
    found = summary(mixing(Subject(Identity(), images, labels, lambda x: x), sigma))
    assert found["mixed_ratio"] == pytest.approx(ratio, abs=0.005)
    matched = found["mixed_ratio_matched"]
    assert np.isnan(matched) if sigma == 4 else matched == pytest.approx(1, abs=0.07)


@kinds
def test_without_noise_no_pair_is_mixed_up_not_even_two_points_in_one_place(kind):
    subject = made(kind)
    images = subject.images.clone()
    images[1] = images[0]
    rows = mixing(replace(subject, images=images), level=0)
    assert {one["mixed"] for one in rows} == {0.0}
    assert math.isnan(summary(rows)["mixed_ratio"])


def test_close_tracks_are_mixed_up_first():
    rows = mixing(made(("resnet", "fully connected")), level=64)
    shares = [one["mixed"] for one in rows if one["evaluation"] == "separation"]
    assert shares[1] > shares[0] > shares[10]
    assert summary(rows)["mixed_ratio"] == pytest.approx(shares[1] / shares[0])
    distances = [one["distance"] for one in rows if one["evaluation"] == "separation"]
    assert distances[1:] == sorted(distances[1:])


def test_only_the_first_points_are_paired():
    subject = made(("plain", "convolutional"))
    few = replace(subject, images=subject.images[:9], labels=subject.labels[:9])
    assert mixing(subject, points=9) == mixing(few)


def test_states_that_are_not_finite_mix_up_no_one_knows_whom():
    subject = made(("plain", "fully connected"))
    with torch.no_grad():
        subject.network.stem.bias[0] = math.nan
    rows = [one for one in mixing(subject) if one["evaluation"] == "separation"]
    assert all(math.isnan(one["mixed"]) for one in rows)
    assert math.isnan(summary(rows)["mixed_ratio"])


def test_pairs_of_one_class_only_leave_no_others():
    subject = made(("plain", "fully connected"))
    rows = mixing(replace(subject, labels=torch.zeros(30, dtype=torch.uint8)))
    different = [one for one in rows if one["evaluation"] == "separation_different"]
    assert len(different) == DECILES + 1
    assert all(math.isnan(one["mixed"]) for one in different)


def test_matched_ratios_are_of_the_stages_where_enough_pairs_are_mixed_up_in_both_networks():
    def rows(stage, whole, initial):
        for level, times in ((0, 1), (1, 2)):
            shares = {"mixed_matched": times * whole, "mixed_matched_initial": times**2 * initial}
            yield result_row("separation", level, "", 101, stage, mixed=0.1, **shares)

    enough, few = 0.02, 0.019  # of 5050 pairs
    found = summary([*rows(1, enough, enough), *rows(2, few, enough), *rows(3, enough, few)])
    assert (found["mixed_ratio_matched"], found["mixed_ratio_matched_initial"]) == (2, 4)
    assert math.isnan(summary(rows(1, few, enough))["mixed_ratio_matched_initial"])


def test_a_stage_in_which_no_pair_is_mixed_up_is_in_no_ratio():
    def rows(stage, first, null):
        for level, mixed in ((0, null), (1, first)):
            yield result_row("separation", level, "", 10, stage, mixed=mixed)

    assert summary([*rows(1, 0.5, 0.25), *rows(2, 0.0, 0.0)]) == {"mixed_ratio": 2}
    assert math.isnan(summary(rows(1, 0.0, 0.0))["mixed_ratio"])
