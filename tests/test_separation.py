"""How far apart tracks keep: against the paper's equations in plain loops, and Theorem 1."""

import math
from itertools import combinations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_line_shape import HALF_TURN, tracks
from torch.testing import assert_close

from scoring import separation
from scoring.separation import Separation, track_distance
from scoring.transport import optimal_transport_score


def streamed(track):
    apart = Separation()
    for state in track:
        apart.update(state)
    return apart


def points_of(track):
    """The tracks of a tensor (n + 1, m, d), a list each."""
    return track.transpose(0, 1).tolist()


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def same(actual, wanted):
    actual, wanted = (torch.as_tensor(x, dtype=torch.float64) for x in (actual, wanted))
    assert_close(actual, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)


@given(tracks())
def test_track_distance_is_equation_35_at_the_first_block_that_attains_it(track):
    distance, block = track_distance(track)
    assert (distance.dtype, block.dtype) == (torch.float64, torch.int64)
    wanted = [[reference.track_distance(s, t) for t in points_of(track)] for s in points_of(track)]
    same(distance, [[d for d, _ in row] for row in wanted])
    same(block, [[place for _, place in row] for row in wanted])


@given(tracks())
def test_the_bound_is_that_of_theorem_1(track):
    points = points_of(track)
    wanted = [[math.sqrt(reference.squared_bound(s, t)) for t in points] for s in points]
    same(streamed(track).bound(), wanted)


@given(tracks(), st.data())
def test_figures_are_shares_and_means_over_pairs_of_equations_38_and_41(track, data):
    labels = data.draw(arrays("int64", track.shape[1], elements=st.integers(0, 2)))
    pairs = list(combinations(zip(points_of(track), labels, strict=True), 2))
    figures = streamed(track).figures(labels)
    groups = {
        "": [(s, t) for (s, _), (t, _) in pairs],
        "_same": [(s, t) for (s, a), (t, b) in pairs if a == b],
        "_different": [(s, t) for (s, a), (t, b) in pairs if a != b],
    }
    for name, group in groups.items():
        ratios = [
            reference.track_distance(s, t)[0] / math.sqrt(reference.squared_bound(s, t))
            for s, t in group
            if reference.squared_bound(s, t) > 0
        ]
        same(figures[f"separated{name}"], mean(reference.keeps_apart(s, t) for s, t in group))
        same(figures[f"separation_ratio{name}"], mean(ratios))
    turned = mean(reference.monotonicity(s, t) < 0 for s, t in groups[""])
    same(figures["not_monotone"], turned)
    assert figures["separation_m"] == track.shape[1]


@given(tracks())
def test_distances_are_symmetric_zero_to_itself_and_nowhere_above_those_of_a_state(track):
    distance, block = track_distance(track)
    assert_close(distance, distance.T, rtol=0, atol=0)
    assert_close(block, block.T, rtol=0, atol=0)
    assert (distance.diagonal() == 0).all()
    for state in track:
        assert (distance <= torch.cdist(state, state) + 1e-9).all()


@given(tracks())
def test_a_ratio_lies_between_zero_and_the_square_root_of_two(track):
    ratio = streamed(track).figures()["separation_ratio"]
    assert math.isnan(ratio) or 0 <= ratio <= math.sqrt(2) * (1 + 1e-9)


@given(tracks())
def test_a_track_read_backwards_keeps_as_far_apart(track):
    forwards, backwards = streamed(track).figures(), streamed(track.flip(0)).figures()
    for name, value in forwards.items():
        same(backwards[name], value)


@given(tracks(dimension=4), st.integers(-80, 80), st.sampled_from([1e-6, 1.0, 7e5]))
def test_scale_place_and_rotation_of_all_tracks_do_not_matter(track, shift, scale):
    moved = scale * ((track + shift / 8) @ HALF_TURN)
    same(track_distance(moved)[0] / scale, track_distance(track)[0])
    figures = streamed(track).figures()
    for name, value in streamed(moved).figures().items():
        same(value, figures[name])


@given(tracks())
def test_every_prefix_of_a_stream_can_be_read(track):
    apart = Separation()
    for n, state in enumerate(track):
        apart.update(state)
        assert apart.blocks == n
        if n > 0:
            distance, block = track_distance(track[: n + 1])
            assert_close(apart.distances(), distance, rtol=0, atol=0)
            assert_close(apart.nearest(), block, rtol=0, atol=0)


@given(tracks(), st.sampled_from([1, 8, 20]))
def test_rows_taken_a_few_at_a_time_change_nothing(track, numbers):
    whole = streamed(track)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separation, "AT_ONCE", numbers)
        parts = streamed(track)
        assert parts.figures() == pytest.approx(whole.figures(), rel=1e-12, nan_ok=True)
    assert_close(parts.distances(), whole.distances(), rtol=1e-12, atol=0)
    assert_close(parts.nearest(), whole.nearest(), rtol=0, atol=0)


@st.composite
def geodesics(draw):
    """Straight tracks (n + 1, m, d) between optimally matched points on a grid of eighths."""
    m, d = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    reach = draw(st.sampled_from([2, 100]))
    points = arrays("int64", (m, d), elements=st.integers(-reach, reach)).map(lambda a: a / 8)
    x, y = draw(points), draw(points)
    y = y[optimal_transport_score(x, y).permutation]
    return straight(x, y, draw(st.sampled_from([1, 2, 4, 8])))


def straight(x, y, n):
    return torch.from_numpy(np.stack([x + (i / n) * (y - x) for i in range(n + 1)]))


@given(geodesics())
def test_theorem_1_holds_between_optimally_matched_points(track):
    """No pair comes closer than B, whatever n, and eq. (38) holds for every pair."""
    figures = streamed(track).figures()
    assert (figures["separated"], figures["not_monotone"]) == (1, 0)


@given(tracks())
def test_equation_39_needs_no_more_than_monotone_pairs_on_straight_lines(track):
    """Whoever matched them: a straight pair that is not turned keeps B."""
    apart = streamed(straight(track[0].numpy(), track[-1].numpy(), 8))
    figures = apart.figures()
    if track.shape[1] > 1:
        assert figures["separated"] >= 1 - figures["not_monotone"] - 1e-12


@given(geodesics())
def test_exchanging_two_optimal_outputs_turns_that_pair(track):
    s, t = points_of(track)[:2]
    x, y = track[0].numpy(), track[-1].numpy().copy()
    y[[0, 1]] = y[[1, 0]]
    turned = streamed(straight(x, y, 2)).figures()["not_monotone"]
    assert (turned > 0) or reference.monotonicity(s, t) == 0


def test_two_points_that_change_places_meet_half_way():
    crossing = torch.tensor([[[0.0], [2.0]], [[1.0], [1.0]], [[2.0], [0.0]]])
    distance, block = track_distance(crossing)
    same(distance, [[0.0, 0.0], [0.0, 0.0]])
    assert block.tolist() == [[0, 1], [1, 0]]
    figures = streamed(crossing).figures()
    assert (figures["separated"], figures["not_monotone"], figures["separation_ratio"]) == (0, 1, 0)


def test_orthogonal_steps_keep_exactly_the_bound():
    """From (0, 0), (3, 0) to (0, 0), (0, 4): eq. (39) is an equality, and 9/25 of the way d = B."""
    ends = torch.tensor([[[0.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 4.0]]]).double()
    track = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, 26).double()[:, None, None])
    distance, block = track_distance(track)
    assert_close(distance[0, 1].item(), 12 / 5)
    assert block[0, 1] == 9
    figures = streamed(track).figures()
    assert (figures["separated"], figures["not_monotone"]) == (1, 0)
    assert_close(figures["separation_ratio"], 1.0)


def test_pairs_of_one_class_and_of_two_are_told_apart():
    """Two points of one class that cross, and one of another that stays away from both."""
    track = torch.tensor([[[0.0], [2.0], [9.0]], [[1.0], [1.0], [9.0]], [[2.0], [0.0], [9.0]]])
    figures = streamed(track).figures(torch.tensor([5, 5, 7]))
    assert (figures["separated_same"], figures["separated_different"]) == (0, 1)
    assert_close(figures["separated"], 2 / 3)
    assert_close(figures["not_monotone"], 1 / 3)
    assert figures["separation_ratio_same"] == 0
    bound = 9 * 7 / math.hypot(9, 7)
    assert_close(figures["separation_ratio_different"], 7 / bound)
    assert_close(figures["separation_ratio"], 2 / 3 * 7 / bound)


def test_points_that_end_in_one_place_are_separated_and_in_no_ratio():
    track = torch.tensor([[[0.0], [3.0]], [[1.0], [1.0]], [[1.0], [1.0]]])
    figures = streamed(track).figures()
    assert (figures["separated"], figures["not_monotone"]) == (1, 0)
    assert math.isnan(figures["separation_ratio"])


def test_without_labels_or_without_pairs_there_is_no_share():
    track = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    figures = streamed(track).figures()
    assert math.isnan(figures["separated_same"])
    assert math.isnan(figures["separation_ratio_different"])
    one_class = streamed(track).figures(torch.zeros(4))
    assert one_class["separated_same"] == one_class["separated"]
    assert math.isnan(one_class["separated_different"])
    alone = streamed(track[:, :1]).figures(torch.zeros(1))
    assert alone.pop("separation_m") == 1
    assert all(map(math.isnan, alone.values()))


def exact(state):
    return (state[:, None].double() - state[None].double()).norm(dim=2)


@pytest.mark.parametrize("numbers", [2**22, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_distances_between_points_that_are_far_away_are_exact(dtype, numbers, monkeypatch):
    """Two clusters far from the origin and from each other, so that no centre is near to both."""
    monkeypatch.setattr(separation, "AT_ONCE", numbers)
    draw = torch.Generator().manual_seed(0)
    near = torch.randn(3, 8, 50, generator=draw, dtype=torch.float64) / 1024
    track = torch.cat([near[:, :4] + 1e5, near[:, 4:] * 2 - 1e5], dim=1).to(dtype)
    wanted = torch.stack([exact(state) for state in track]).amin(0)
    assert_close(track_distance(track)[0], wanted, rtol=1e-12, atol=0)
    x, y = track[0].double(), track[-1].double()
    steps = [(x[i] - x[j]) @ (y[i] - y[j]) for i, j in combinations(range(8), 2)]
    wanted = float((torch.stack(steps) < 0).double().mean())
    assert streamed(track).figures()["not_monotone"] == wanted


def test_distances_of_many_dimensions_have_nine_digits():
    draw = torch.Generator().manual_seed(0)
    state = torch.randn(60, 5000, generator=draw)
    spread = torch.logspace(-6, 0, 60)[:, None]  # one point next to another, others at all scales
    assert_close(
        track_distance(torch.stack([state, 3 + spread * state]))[0],
        torch.minimum(exact(state), exact(3 + spread * state)),
        rtol=1e-10,
        atol=0,
    )


def test_equal_points_far_from_the_origin_have_distance_zero():
    track = 0.1 + 1e6 * torch.ones(3, 4, 5)
    distance, block = track_distance(track)
    assert (distance == 0).all()
    assert (block == 0).all()
    figures = streamed(track).figures(torch.tensor([0, 0, 1, 1]))
    assert (figures["separated"], figures["not_monotone"]) == (1, 0)


def test_tracks_in_parallel_are_nearest_at_their_first_block():
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(7, 30, generator=draw, dtype=torch.float64)
    track = torch.stack([start + shift * 0.1 for shift in range(6)])
    distance, block = track_distance(track)
    assert (block == 0).all()
    assert_close(distance, exact(start))
    same(streamed(track).figures()["separation_ratio"], math.sqrt(2))


def test_channels_last_float32_states_are_measured_in_float64():
    states = torch.randn(4, 5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    distance = streamed(s.to(memory_format=torch.channels_last) for s in states).distances()
    assert distance.dtype == torch.float64
    assert_close(distance, track_distance(states.flatten(2))[0])


@pytest.mark.parametrize("factor", [2.0**-560, 2.0**530])
def test_distances_follow_the_size_of_states_and_shares_do_not_depend_on_it(factor):
    track = torch.randn(4, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, sized = streamed(track), streamed(track * factor)
    assert_close(sized.distances() / factor, plain.distances())
    assert_close(sized.bound() / factor, plain.bound())
    assert torch.equal(sized.nearest(), plain.nearest())
    labels = torch.arange(5) % 2
    assert sized.figures(labels) == pytest.approx(plain.figures(labels), nan_ok=True)


@pytest.mark.parametrize("sizes", [(1e-160, 1.0, 1e160), (1e160, 1.0, 1e-160), (0.0, 1e-160, 1.0)])
def test_states_of_any_sizes_may_follow_each_other(sizes):
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [5.0, 1.0]], dtype=torch.float64)
    apart = streamed(torch.stack([x * size for size in sizes]))
    wanted = torch.cdist(x, x) * min(sizes)
    assert_close(apart.distances(), wanted, rtol=1e-9, atol=1e-150)
    assert apart.figures()["separated"] == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_states_that_are_not_finite_have_no_figures(value):
    track = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    track[2, 1, 0] = value
    distance, _ = track_distance(track)
    assert distance[0, 1].isnan()
    figures = streamed(track).figures(torch.zeros(5))
    assert figures.pop("separation_m") == 5
    assert all(map(math.isnan, figures.values()))


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 3), (2, 2, 2, 2)])
def test_what_is_not_a_track_is_refused(shape):
    with pytest.raises(ValueError, match=r"should be \(n \+ 1, m, d\)"):
        track_distance(torch.zeros(shape))


def test_states_of_two_shapes_one_state_and_labels_of_other_points_are_refused():
    apart = Separation()
    with pytest.raises(ValueError, match="two states"):
        apart.figures()
    apart.update(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="two states"):
        apart.figures()
    with pytest.raises(ValueError, match="one dimension"):
        apart.update(torch.zeros(2, 4))
    apart.update(torch.ones(2, 3))
    with pytest.raises(ValueError, match="3 labels of 2 points"):
        apart.figures(torch.zeros(3))
