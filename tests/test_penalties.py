"""Penalties on tracks: against the paper's equations in plain loops, and their gradients."""

import math

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_line_shape import tracks
from torch.testing import assert_close

from models.penalties import LEAST, penalty, straightness_penalty, transport_penalty


def staged(track, stage=1):
    """A track (n + 1, m, d) as a network hands it out."""
    return [(stage, state) for state in track]


def by_points(track):
    return track.transpose(0, 1).tolist()


def random_track(n, m=5, d=7, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n + 1, m, d, generator=draw, dtype=dtype)


def mean_excess(track):
    """LSS - 1 in plain loops: mean over points that move, LSS no more than the penalty's most."""
    excess = []
    for points in by_points(track):
        moving = sum(any(step) for step in reference.steps(points))
        if moving:
            resultant = moving * reference.inverse_line_shape_score(points)
            excess.append(moving / max(resultant, LEAST) - 1)
    return sum(excess) / len(excess) if excess else 0.0


@given(tracks())
def test_the_transport_penalty_is_the_kinetic_energy_of_all_blocks(track):
    wanted = sum(reference.kinetic_energy(by_points(track)))
    assert_close(transport_penalty(staged(track)).item(), wanted)


@given(tracks())
def test_the_straightness_penalty_is_the_mean_of_lss_less_one(track):
    assert_close(straightness_penalty(staged(track)).item(), mean_excess(track))


def test_energies_of_stages_are_added_and_scores_averaged():
    """Stages of unlike depth and dimension; the step between them counts nowhere."""
    one, two = random_track(3), random_track(2, d=3, seed=1)
    states = staged(one, 1) + staged(two, 2)
    energy = sum(sum(reference.kinetic_energy(by_points(track))) for track in (one, two))
    assert_close(transport_penalty(states).item(), energy)
    wanted = (mean_excess(one) + mean_excess(two)) / 2
    assert_close(straightness_penalty(states).item(), wanted)
    assert_close(penalty(states, 0.5, 3.0).item(), 0.5 * energy + 3 * wanted)


@pytest.mark.parametrize("lengths", [[1.0, 1.0, 1.0], [1.0, 100.0, 1e-3, 0.5]])
def test_a_straight_track_has_no_straightness_penalty_whatever_its_steps(lengths):
    direction = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    track = torch.tensor([0.0, *lengths]).double().cumsum(0)[:, None, None] * direction + 1
    assert_close(straightness_penalty(staged(track)).item(), 0.0, rtol=0, atol=1e-9)


def test_what_does_not_move_has_no_penalty_and_no_gradient():
    track = torch.ones(4, 3, 2, requires_grad=True)
    for cost in (transport_penalty(staged(track)), straightness_penalty(staged(track))):
        assert cost.item() == 0
        (gradient,) = torch.autograd.grad(cost, track)
        assert (gradient == 0).all()


@pytest.mark.parametrize("cost", [transport_penalty, straightness_penalty])
@pytest.mark.parametrize("shape", [(4, 3, 5), (3, 2, 2, 2, 2)])
def test_gradients_are_those_of_finite_differences(cost, shape):
    draw = torch.Generator().manual_seed(0)
    track = torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: cost(staged(x) + staged(2 * x[:-1], 2)), track)


def test_a_segment_of_length_zero_is_left_out_of_the_gradient_too():
    """Points in one place twice: what pulls at both is what pulls at the one without the other."""
    track = random_track(3)
    twice, once = track[[0, 1, 1, 2, 3]].requires_grad_(), track.clone().requires_grad_()
    (pulls,) = torch.autograd.grad(straightness_penalty(staged(twice)), twice)
    (wanted,) = torch.autograd.grad(straightness_penalty(staged(once)), once)
    assert_close(torch.stack([pulls[0], pulls[1] + pulls[2], *pulls[3:]]), wanted)


@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_unit_steps_cancel_penalty_and_gradient_are_bounded(off, dtype):
    track = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, off]], dtype=dtype)[:, None]
    track.requires_grad_()
    cost = straightness_penalty(staged(track))
    assert_close(cost.item(), 2 / LEAST - 1)
    (gradient,) = torch.autograd.grad(cost, track)
    assert (gradient == 0).all()


@given(st.floats(0.02, 3.1))
def test_the_gradient_of_one_corner_never_exceeds_its_bound(angle):
    track = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [math.cos(angle), math.sin(angle)]])[:, None]
    track = track.double().requires_grad_()
    (gradient,) = torch.autograd.grad(straightness_penalty(staged(track)), track)
    assert gradient.norm() <= 2 * 2 * 2 / LEAST**2
    assert gradient.isfinite().all()


def test_a_step_of_rounding_has_no_direction():
    """Far from the origin a step of one unit in the last place would have a gradient of 1e6."""
    track = torch.full((3, 1, 4), 1000.0)
    track[1:, :, 0] = torch.nextafter(torch.tensor(1000.0), torch.tensor(2000.0))
    track[2, :, 1] += 5
    track.requires_grad_()
    cost = straightness_penalty(staged(track))
    (gradient,) = torch.autograd.grad(cost, track)
    assert cost.item() == 0
    assert gradient.abs().max() < 1


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, torch.float64])
def test_a_step_to_the_next_number_of_the_states_precision_has_no_direction(kind):
    track = random_track(3, m=4, d=64).to(kind)
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[kind.itemsize]
    for block in (1, 2, 3):
        track[block] = track[block - 1]
        track[block, :, block] = (track[block, :, block].contiguous().view(bits) + 1).view(kind)
    assert straightness_penalty(staged(track)) == 0
    track[2:] += 0.1 * random_track(1, m=4, d=64).to(kind)[0]
    track[3, :, 5] += 2
    assert straightness_penalty(staged(track)) > 0.01


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_only_the_transport_penalty_depends_on_scale(factor):
    track = random_track(4, dtype=torch.float32)
    scaled = staged(factor * track)
    assert_close(straightness_penalty(scaled), straightness_penalty(staged(track)))
    assert_close(transport_penalty(scaled), factor**2 * transport_penalty(staged(track)))


def test_states_of_bfloat16_are_subtracted_in_float32():
    track = random_track(4, dtype=torch.float32).bfloat16()
    for cost in (transport_penalty, straightness_penalty):
        assert_close(cost(staged(track)), cost(staged(track.float())), rtol=0, atol=0)


def test_without_weights_there_is_nothing_to_add():
    assert penalty([], 0, 0) == 0.0


def test_a_step_that_leaves_out_every_block_has_no_penalty():
    state = torch.ones(4, 3, requires_grad=True)
    for states in ([], [(1, state)], [(1, state), (2, state)]):
        assert float(penalty(states, transport=1.0, straightness=1.0)) == 0.0
