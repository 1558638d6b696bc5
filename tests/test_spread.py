"""The spread of states: separation of classes, rank, and scores that ignore scale."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.testing import assert_close

from scoring.line_shape import LineShape, line_shape_score
from scoring.projection import project
from scoring.scales import scaled_line_shape_score
from scoring.separation import track_distance
from scoring.spread import (
    effective_rank,
    fuzziness,
    participation_ratio,
    products,
    scatter,
    separation_law,
)
from scoring.stages import geometry
from scoring.transport import optimal_transport_score

MEASURES = (effective_rank, participation_ratio, lambda inner: fuzziness(inner, [0, 0, 1, 1]))


def gram(points):
    """Products of centred points (m, d), from their distances."""
    return products(torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") ** 2)


def cloud(m, d, seed=0):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def line_of_classes(m, d, classes, apart, seed=0):
    """Points around the means of classes that are so far apart, and their classes."""
    labels = torch.arange(m) % classes
    return cloud(m, d, seed) + apart * cloud(classes, d, seed + 1)[labels], labels


def measured(track, labels=None, parts=1):
    """The figures of a track (n + 1, m, d) whose points come in batches."""

    def walk(points):
        return ((1, state[points]) for state in track)

    return geometry(walk, torch.arange(track.shape[1]).tensor_split(parts), labels)[0]


@given(st.integers(3, 9), st.integers(1, 4), st.integers(2, 4), st.integers(0, 99))
def test_spread_is_that_of_plain_loops(m, d, classes, seed):
    points, labels = line_of_classes(m, d, classes, 2.0, seed)
    rows, inner = points.tolist(), gram(points)
    assert_allclose(effective_rank(inner), reference.effective_rank(rows), rtol=1e-6)
    assert_allclose(participation_ratio(inner), reference.participation_ratio(rows), rtol=1e-9)
    wanted = reference.fuzziness(rows, labels.tolist())
    assert_allclose(fuzziness(inner, labels), wanted, rtol=1e-6, atol=1e-9)


def test_products_are_those_of_centred_points():
    points = cloud(7, 3) + 100
    centred = points - points.mean(0)
    assert_close(gram(points), centred @ centred.T, rtol=1e-9, atol=1e-9)


def test_products_and_scatter_matrix_have_the_same_ranks():
    points = cloud(20, 3)
    centred = points - points.mean(0)
    for measure in (effective_rank, participation_ratio):
        assert_allclose(measure(centred.T @ centred), measure(gram(points)), rtol=1e-9)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "d"), [(5, 9), (9, 5)])
def test_no_measure_changes_the_states_that_it_is_given(kind, m, d):
    states = (cloud(3 * m, d).reshape(3, m, d) + 2).to(kind)
    kept, flat = states.clone(), states[0].reshape(m, d, 1)
    track = LineShape()
    for state in states:
        track.update(state)
        assert scatter(state).shape == (min(m, d),) * 2
        project(state)
    scatter(flat)
    track.points()
    line_shape_score(states)
    track_distance(states)
    scaled_line_shape_score(states)
    optimal_transport_score(states[0], states[-1])
    measured(states)
    gram(states[0].double())
    for measure in MEASURES[:2]:
        measure(states[0, :, :m] if d > m else states[0, :d])
    assert_close(states, kept, rtol=0, atol=0)


def test_equal_spread_in_all_directions_has_full_rank_and_a_line_has_rank_one():
    cross = torch.cat([torch.eye(5), -torch.eye(5)])
    for measure in (effective_rank, participation_ratio):
        assert_allclose(measure(gram(cross)), 5, rtol=1e-7)
        assert_allclose(measure(gram(torch.arange(6.0)[:, None] * torch.ones(4))), 1, rtol=1e-6)


def test_effective_rank_counts_weak_directions_more_than_the_participation_ratio():
    points = cloud(50, 4) * torch.tensor([10.0, 1.0, 1.0, 1.0])
    assert participation_ratio(gram(points)) < effective_rank(gram(points)) < 4


@given(st.integers(0, 99), st.sampled_from([1e-3, 7.0, 1e5]))
def test_spread_ignores_scale_shift_and_rotation(seed, factor):
    points, labels = line_of_classes(12, 3, 3, 1.0, seed)
    turn, _ = torch.linalg.qr(cloud(3, 3, seed + 9))
    moved = factor * points @ turn + 3 * factor
    for measure in (effective_rank, participation_ratio, lambda g: fuzziness(g, labels)):
        assert_allclose(measure(gram(moved)), measure(gram(points)), rtol=1e-6)


def test_fuzziness_ignores_any_linear_map_of_the_points():
    points, labels = line_of_classes(30, 3, 4, 1.0)
    skewed = points @ torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.5]]).double()
    assert_allclose(fuzziness(gram(skewed), labels), fuzziness(gram(points), labels), rtol=1e-6)


def test_classes_that_are_points_have_no_fuzziness():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert fuzziness(gram(cloud(3, 5)[labels]), labels) == pytest.approx(0, abs=1e-12)


def test_classes_twice_as_far_apart_have_a_quarter_of_the_fuzziness():
    around, labels = torch.tensor([1.0, -1.0] * 4)[:, None], torch.tensor([0, 0, 1, 1] * 2)
    near, far = (fuzziness(gram(around + c * labels[:, None]), labels) for c in (3.0, 6.0))
    assert near / far == pytest.approx(4)


def test_what_does_not_differ_has_no_spread():
    for measure in MEASURES:
        assert math.isnan(measure(gram(torch.ones(4, 3))))
        assert math.isnan(measure(torch.full((4, 4), math.nan)))
    assert math.isnan(fuzziness(gram(cloud(4, 2)), [1, 1, 1, 1]))  # one class has no distance


def test_every_point_needs_its_class():
    with pytest.raises(ValueError, match="3 labels of 4 points"):
        fuzziness(gram(cloud(4, 2)), [0, 1, 1])


def test_a_law_is_a_straight_line_through_logarithms():
    law = separation_law([9.0 * 0.5**block for block in range(6)])
    assert law == pytest.approx((math.log(0.5), 1.0))
    uneven = separation_law([9.0, 8.0, 1.0, 0.9])
    wanted = np.polyfit(range(4), np.log([9.0, 8.0, 1.0, 0.9]), 1)[0]
    assert uneven.slope == pytest.approx(wanted)
    assert uneven.fit == pytest.approx(np.corrcoef(range(4), np.log([9, 8, 1, 0.9]))[0, 1] ** 2)
    for values in ([1.0], [1.0, 0.0], [1.0, math.nan]):
        assert math.isnan(separation_law(values).slope)
    assert math.isnan(separation_law([2.0, 2.0]).fit)


def moving(n=3, m=8, d=4, seed=0):
    return cloud((n + 1) * m, d, seed).view(n + 1, m, d) + 0.5


@given(st.lists(st.sampled_from([0.25, 1.0, 8.0, 0.1]), min_size=4, max_size=4))
def test_scaled_lss_ignores_a_factor_of_each_state(factors):
    track = moving()
    scaled = torch.tensor(factors, dtype=torch.float64)[:, None, None] * track
    assert_close(scaled_line_shape_score(scaled), scaled_line_shape_score(track))


def test_scaled_lss_is_lss_where_all_states_have_one_size_and_so_is_that_of_plain_loops():
    track = moving()
    tracks = [[state.tolist() for state in point] for point in track.transpose(0, 1)]
    wanted = [reference.inverse_line_shape_score(one) for one in reference.same_size(tracks)]
    assert_allclose(1 / scaled_line_shape_score(track), wanted, rtol=1e-12)
    equal = track / track.square().sum(2).mean(1).sqrt()[:, None, None]
    assert_close(scaled_line_shape_score(track), line_shape_score(equal))


@pytest.mark.parametrize("parts", [1, 3])
def test_the_scale_free_scores_of_a_stage_are_those_of_its_whole_track(parts):
    track, labels = moving(), torch.arange(8) % 3
    tracks = [[state.tolist() for state in point] for point in track.transpose(0, 1)]
    row = measured(track, labels, parts)
    assert_allclose(row["lss_scaled"], scaled_line_shape_score(track).mean(), rtol=1e-12)
    shifted = line_shape_score(track - track.mean(1, keepdim=True))
    assert_allclose(row["lss_without_drift"], shifted.mean(), rtol=1e-10)
    driftless = [reference.inverse_line_shape_score(t) for t in reference.without_drift(tracks)]
    assert_allclose(row["lss_without_drift"], np.mean(1 / np.array(driftless)), rtol=1e-10)
    assert_allclose(row["relative_energy"], reference.relative_energy(tracks), rtol=1e-10)
    for name, measure in (
        ("effective_rank", reference.effective_rank),
        ("participation_ratio", reference.participation_ratio),
        ("fuzziness", lambda points: reference.fuzziness(points, labels.tolist())),
    ):
        assert_allclose(row[name], [measure(state.tolist()) for state in track], rtol=1e-6)
    law = separation_law(row["fuzziness"])
    assert (row["fuzziness_slope"], row["fuzziness_fit"]) == law
    assert row["nc1"] == row["fuzziness"][-1] / 3


def test_wide_states_have_the_same_spread_as_the_same_states_in_fewer_dimensions():
    track, labels = moving(d=3), torch.arange(8) % 2
    wide = torch.cat([track, torch.zeros(4, 8, 20)], dim=2)
    few, many = measured(track, labels), measured(wide, labels)
    for name, value in few.items():
        assert_allclose(many[name], value, rtol=1e-6)


def test_a_common_shift_changes_no_score_without_drift():
    track = moving()
    shift = torch.tensor([0.0, 5.0, -3.0, 9.0])[:, None, None]
    one, other = measured(track)["lss_without_drift"], measured(track + shift)["lss_without_drift"]
    assert_allclose(other, one, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("parts", [1, 4])
def test_a_shift_of_all_points_leaves_no_score_without_drift(dtype, parts):
    x, step = cloud(50, 8).to(dtype), 3 * cloud(1, 8, seed=1).to(dtype)
    track = [x]
    for _ in range(3):
        track.append(track[-1] + step)
    row = measured(torch.stack(track), parts=parts)
    assert math.isnan(row["lss_without_drift"])
    assert row["lss_scaled"] >= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_factor_of_all_states_leaves_no_scaled_score(dtype):
    x = cloud(50, 8).to(dtype)
    track = torch.stack([x * factor for factor in (1, 3, 0.7, 5)])
    assert math.isnan(measured(track)["lss_scaled"])
    assert scaled_line_shape_score(track).isnan().all()
    assert measured(track)["lss_without_drift"] >= 1


def test_small_steps_beside_a_large_shift_keep_their_score():
    track = moving()
    shift = torch.tensor([0.0, 1e3, -1e4, 1e4])[:, None, None]
    wanted = measured(track)["lss_without_drift"]
    assert_allclose(measured(track + shift)["lss_without_drift"], wanted, rtol=1e-6)


@pytest.mark.parametrize("factor", [2.0**-560, 2.0**530])
def test_no_scale_free_score_depends_on_the_size_of_states(factor):
    track, labels = moving(), torch.arange(8) % 3
    wanted, row = measured(track, labels), measured(track * factor, labels)
    row["straight_distance"] = [value / factor for value in row["straight_distance"]]
    for name, value in wanted.items():
        assert_allclose(row[name], value, rtol=1e-9)
    assert_allclose(
        scaled_line_shape_score(track * factor), scaled_line_shape_score(track), rtol=1e-12
    )


def test_large_states_of_float16_are_measured_in_float32():
    track = (3e4 * cloud(30, 4).clamp(-2, 2)).to(torch.float16) * torch.ones(3, 1, 1)
    track[1:] = track[1:].flip(1)
    track[2] *= -1
    row, wanted = measured(track.to(torch.float16)), measured(track.double())
    for name in ("lss_scaled", "lss_without_drift", "relative_energy", "effective_rank"):
        assert_allclose(row[name], wanted[name], rtol=1e-3)
    assert np.isfinite(row["relative_energy"]).all()


def test_states_of_one_point_or_of_equal_points_have_no_relative_energy():
    alone = measured(moving()[:, :1])
    assert np.isnan(alone["relative_energy"]).all()
    assert math.isnan(alone["lss_without_drift"])
    together = moving()
    together[0] = 1.0
    assert np.isnan(measured(together)["relative_energy"]).tolist() == [True, False, False]


def test_states_that_are_not_finite_or_do_not_move_have_no_scale_free_scores():
    still = measured(cloud(6, 3).expand(3, 6, 3), [0, 1] * 3)
    assert math.isnan(still["lss_scaled"])
    assert still["relative_energy"] == [0, 0]
    broken = moving()
    broken[1, 2, 0] = math.nan
    row = measured(broken, torch.arange(8) % 2)
    assert np.isnan(row["effective_rank"]).tolist() == [False, True, False, False]
    assert [math.isnan(row[name]) for name in ("fuzziness_slope", "nc1")] == [True, False]


@pytest.mark.parametrize("step", [0.004, 0.007])
def test_steps_above_the_rounding_of_bfloat16_states_keep_their_scores(step):
    start = torch.randn(1, 40, 500, generator=torch.Generator().manual_seed(0))
    steps = torch.randn(30, 40, 500, generator=torch.Generator().manual_seed(1))
    track = [start[0].bfloat16()]
    for move in steps:
        track.append((track[-1].float() * (1 + step * move)).bfloat16())
    rounded = torch.stack(track)
    found, wanted = measured(rounded), measured(rounded.float())
    for name in ("lss_scaled", "lss_without_drift"):
        assert found[name] == pytest.approx(wanted[name], rel=0.02)
    assert found["relative_energy"] == pytest.approx(wanted["relative_energy"], rel=1e-3)
