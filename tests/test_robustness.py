"""Experiments on trained networks, on tiny ones: against plain loops, and what must hold anyway."""

import copy
import math
from collections import defaultdict
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from models import datasets
from models.architectures import Architecture
from models.network import Network
from scoring.robustness.areas import area, summary
from scoring.robustness.attacks import ascent, fgsm, pgd, pgd_images
from scoring.robustness.lesion import lesion, rearrangement
from scoring.robustness.noise import DECILES, mixing, noise
from scoring.robustness.run import evaluate
from scoring.robustness.subject import Subject, draws, result_row
from tune_jobs.evaluations import read

IMAGE = (2, 4, 4)
SHAPES = {
    "fully connected": Architecture("fully_connected", IMAGE, ((12,),), 4, 3),
    "convolutional": Architecture("convolutional", IMAGE, ((4, 4, 4), (8, 2, 2)), 3, 3),
}
KINDS = [(network, layers) for network in ("plain", "resnet") for layers in SHAPES]
kinds = pytest.mark.parametrize("kind", KINDS, ids=" ".join)
DEFAULTS = read([])
COLUMNS = {
    *("evaluation", "stage", "block", "replacement", "units", "level", "unit", "m"),
    *("accuracy", "loss", "variation_rate", "mixed", "distance"),
    *("mixed_initial", "mixed_matched", "mixed_matched_initial"),
}


def standardise(pixels):
    return ((pixels - 110) / 60).permute(0, 3, 1, 2)


@cache
def points(m=30):
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(m) % 3
    images = torch.randint(200, (m, 4, 4, 2), generator=draw) + 25 * labels[:, None, None, None]
    return images.to(torch.uint8), labels


def untrained(kind):
    network_kind, layers = kind
    normalisation = "batch" if layers == "convolutional" else "none"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(SHAPES[layers], network_kind, normalisation)
    return network.double().to(memory_format=torch.channels_last)


@cache
def trained(kind):
    """A network that has learnt a little, and is mostly right about the points."""
    network = untrained(kind)
    images, labels = points()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(network(standardise(images.double())), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval()


def made(kind, dtype=torch.float64, batch=250):
    """Anew for each test, whatever the last one did to its network."""
    network = copy.deepcopy(trained(kind)).to(dtype)
    before = partial(untrained, kind)
    return Subject(network, *points(), lambda x: standardise(x.to(dtype)), batch, before)


def pick(rows, column, **where):
    """Values of a column, of the rows that have it and are as asked for, by stage, block, level."""
    chosen = [r for r in rows if all(r[k] == v for k, v in where.items()) and r[column] is not None]
    return {(r["stage"], r["block"], r["level"]): r[column] for r in chosen}


PAPER = {"evaluation": "lesion", "replacement": "previous", "units": "top"}


def accuracies(rows):
    return {level: value for (_, _, level), value in pick(rows, "accuracy").items()}


def assert_same(rows, wanted, **tolerance):
    for one, other in zip(rows, wanted, strict=True):
        for name, value in other.items():
            if isinstance(value, float):
                value = pytest.approx(value, nan_ok=True, **tolerance)
            assert one[name] == value


def accuracy(subject, logits):
    return (logits.argmax(1) == subject.labels).double().mean().item()


def everything(subject):
    few = {"levels": [0, 2, 40]}
    return [
        *evaluate("lesion", subject, DEFAULTS["lesion"]),
        *evaluate("noise", subject, few),
        *evaluate("fgsm", subject, few),
        *evaluate("pgd", subject, few | {"steps": 3}),
        *evaluate("separation", subject, DEFAULTS["separation"]),
    ]


@pytest.mark.slow
@kinds
def test_rows_have_the_same_columns_and_shares_lie_in_0_to_1(kind):
    rows = everything(made(kind))
    assert {frozenset(row) for row in rows} == {frozenset(COLUMNS)}
    names = {"lesion", "skip", "swap", "noise", "fgsm", "pgd", "separation", "separation_different"}
    assert {one["evaluation"] for one in rows} == names
    for name in ("accuracy", "mixed"):
        assert all(0 <= value <= 1 for value in pick(rows, name).values())
    for name in ("loss", "variation_rate", "distance"):
        assert all(value >= 0 for value in pick(rows, name).values())


@pytest.mark.slow
@kinds
def test_no_result_depends_on_the_batches(kind):
    whole = everything(made(kind))
    for batch in (1, 7):
        assert_same(everything(made(kind, batch=batch)), whole, rel=1e-9, abs=1e-12)


@kinds
@pytest.mark.parametrize("training", [False, True])
def test_a_network_is_afterwards_as_it_was(kind, training):
    subject = made(kind)
    network = subject.network.train(training)
    network.head.train(not training)
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    everything(subject)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    trainable = [p.requires_grad for n, p in network.named_parameters() if "shortcut" not in n]
    assert all(trainable)
    for name, value in network.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0)
    assert torch.is_grad_enabled()


@kinds
def test_experiments_are_made_in_evaluation_mode(kind):
    subject = made(kind)
    wanted = everything(subject)
    subject.network.train()
    assert_same(everything(subject), wanted)


# Random noise


@pytest.mark.parametrize("which", ["normal", "uniform"])
def test_random_numbers_depend_on_seed_and_place_alone(which):
    like = torch.zeros(6, 3, 5)
    whole = draws(which, 3, range(6), like)
    assert (whole.dtype, whole.shape) == (torch.float32, (6, 3, 5))
    parts = [draws(which, 3, range(a, b), like[a:b]) for a, b in ((0, 1), (1, 4), (4, 6))]
    assert_close(torch.cat(parts), whole, rtol=0, atol=0)
    assert len({tuple(x.flatten().tolist()) for x in whole}) == 6
    assert not torch.equal(draws(which, 4, range(6), like), whole)


def test_noise_is_normal_and_starts_are_uniform_and_they_are_not_of_one_stream():
    normal, uniform = (draws(w, 0, range(40), torch.zeros(40, 500)) for w in ("normal", "uniform"))
    assert_close(normal.mean().item(), 0.0, rtol=0, atol=0.03)
    assert_close(normal.std().item(), 1.0, rtol=0.03, atol=0)
    assert (uniform.min() >= -1, uniform.max() < 1) == (True, True)
    assert_close(uniform.std().item(), 3**-0.5, rtol=0.03, atol=0)
    assert abs(torch.corrcoef(torch.stack([normal.flatten(), uniform.flatten()]))[0, 1]) < 0.03


@kinds
def test_variation_rates_are_equation_49(kind):
    subject = made(kind)
    rows = noise(subject, [20, 60], seed=5)
    direction = draws("normal", 5, range(30), subject.images)
    with torch.no_grad():
        walks = {
            level: list(subject.walk(subject.images.float() + level * direction))
            for level in (0, 20, 60)
        }
    wanted = {
        (stage, block, level): reference.variation_rate(
            state.flatten(1).tolist(), changed.flatten(1).tolist()
        )
        for level, walk in walks.items()
        for (stage, block, state), (_, _, changed) in zip(walks[0], walk, strict=True)
    }
    assert pick(rows, "variation_rate") == pytest.approx(wanted, rel=1e-9)
    for level, walk in walks.items():
        logits = subject.network.classify(walk[-1][2]).detach()
        assert accuracies(rows)[level] == accuracy(subject, logits)
        loss = cross_entropy(logits, subject.labels).item()
        assert pick(rows, "loss")[None, None, level] == pytest.approx(loss)


@kinds
@pytest.mark.parametrize("experiment", [noise, fgsm, pgd])
def test_at_level_zero_nothing_varies(kind, experiment):
    """Exactly, in float32 as in float64, and level 0 is there whether or not it is asked for."""
    for dtype in (torch.float32, torch.float64):
        subject = made(kind, dtype)
        rows = experiment(subject, [8])
        still = pick(rows, "variation_rate", level=0)
        assert len(still) == sum(n + 1 for n in subject.blocks().values())
        assert set(still.values()) == {0.0}
        logits = subject.logits(subject.images.float())
        assert accuracies(rows)[0] == accuracy(subject, logits)
        assert all(value > 0 for value in pick(rows, "variation_rate", level=8).values())


def test_points_whose_state_is_zero_are_in_no_variation_rate():
    subject = made(("plain", "fully connected"))
    with torch.no_grad():
        subject.network.stem.weight.zero_()
        subject.network.stem.bias.fill_(0)
        subject.network.stem.weight[:, 0] = 1  # of one pixel, that is 110 in the first image alone
    images = subject.images.clone()
    images[:, 0, 0, 0] = 150
    images[0, 0, 0, 0] = 110
    rows = noise(replace(subject, images=images), [30])
    first = [r for r in rows if r["block"] == 0]
    assert [r["m"] for r in first] == [29, 29]
    assert all(math.isfinite(r["variation_rate"]) for r in first)
    none = noise(replace(subject, images=torch.full_like(images, 110)), [30])
    assert [r["m"] for r in none if r["block"] == 0] == [0, 0]
    assert all(math.isnan(r["variation_rate"]) for r in none if r["block"] == 0)


def test_states_that_are_not_finite_give_rates_that_are_not():
    subject = made(("plain", "fully connected"))
    with torch.no_grad():
        subject.network.stages[0][1].weight1.bias[0] = math.nan
    rates = pick(noise(subject, [8]), "variation_rate", level=8)
    assert [math.isnan(rates[1, block, 8]) for block in range(5)] == [0, 0, 1, 1, 1]


def test_noisy_images_are_not_clipped():
    seen = []
    subject = made(("resnet", "fully connected"))
    watched = replace(subject, standardise=lambda x: (seen.append(x), subject.standardise(x))[1])
    noise(watched, [128])
    assert seen[-1].min() < 0
    assert seen[-1].max() > 255


# Attacks


@kinds
def test_ascent_is_the_sign_of_the_gradient_of_the_loss(kind):
    subject = made(kind)
    with torch.no_grad():
        subject.network.head.weight.mul_(0.01)  # so unsure that the loss has all its digits
    pixels = subject.images.float().requires_grad_()
    logits = subject.logits(pixels)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, subject.labels), pixels)
    uphill, seen = ascent(subject, subject.images.float(), subject.labels)
    assert_close(seen, logits.detach())
    assert not seen.requires_grad
    plain = gradient.abs() > 1e-6 * gradient.abs().amax((1, 2, 3), keepdim=True)
    assert_close(uphill[plain], gradient.sign()[plain], rtol=0, atol=0)
    assert plain.double().mean() > 0.9


@kinds
@pytest.mark.parametrize("experiment", [fgsm, pgd])
def test_a_small_budget_raises_the_loss(kind, experiment):
    losses = list(pick(experiment(made(kind), [0, 0.01, 0.1, 1]), "loss").values())
    assert len(losses) == 4
    assert losses == sorted(losses)
    assert losses[0] < losses[1]


@kinds
@pytest.mark.parametrize("steps", [1, 10])
def test_pgd_is_at_least_as_strong_as_fgsm_at_every_level(kind, steps):
    subject, levels = made(kind), [0, 1, 2, 4, 8, 16, 32, 64]
    fast, slow = accuracies(fgsm(subject, levels)), accuracies(pgd(subject, levels, steps))
    assert fast.keys() == slow.keys()
    assert all(slow[level] <= fast[level] for level in levels)
    assert slow[64] < slow[0]


@kinds
@pytest.mark.parametrize("level", [1.0, 37.5])
def test_no_point_is_safer_under_pgd_than_under_fgsm(kind, level):
    subject = made(kind)
    pixels, labels = subject.images.float(), subject.labels
    uphill, _ = ascent(subject, pixels, labels)
    start = draws("uniform", 0, range(30), pixels)
    with torch.no_grad():
        found = subject.logits(pgd_images(subject, pixels, labels, level, 5, start, uphill))
        fast = subject.logits((pixels + level * uphill).clamp(0, 255))
    wrong, wrong_fast = found.argmax(1) != labels, fast.argmax(1) != labels
    assert (wrong | ~wrong_fast).all()
    losses = (cross_entropy(x, labels, reduction="none") for x in (found, fast))
    louder = torch.ge(*losses)
    assert (louder | (wrong & ~wrong_fast)).all()


@kinds
@pytest.mark.parametrize("experiment", [fgsm, pgd])
@pytest.mark.parametrize("level", [0.7, 8, 100])
def test_attacks_stay_within_budget_and_valid_pixels(kind, experiment, level):
    subject, seen = made(kind), []
    watched = replace(subject, standardise=lambda x: (seen.append(x), subject.standardise(x))[1])
    experiment(watched, [level])
    pixels = subject.images.float()
    assert len(seen) > 1
    for changed in seen:
        assert (changed.min() >= 0, changed.max() <= 255) == (True, True)
        assert (changed - pixels).abs().max() <= level + 1e-4
    assert (seen[-1] - pixels).abs().max() > 0.9 * level


def test_a_network_that_is_sure_of_itself_is_attacked_all_the_same():
    """Its loss and the loss's gradient round to 0, in float32; where it leads up does not."""
    for kind in KINDS:
        subject = made(kind, torch.float32)
        with torch.no_grad():
            subject.network.head.weight.mul_(1e4)
            subject.network.head.bias.mul_(1e4)
        sure, _ = ascent(subject, subject.images.float(), subject.labels)
        right = subject.logits(subject.images.float()).argmax(1) == subject.labels
        assert (sure[right] != 0).flatten(1).any(1).all()
        fast = accuracies(fgsm(subject, [64]))
        assert fast[64] < fast[0]


def test_an_attack_starts_where_its_seed_says():
    subject = made(("resnet", "convolutional"))
    one, same, other = (pick(pgd(subject, [8], seed=s), "variation_rate") for s in (0, 0, 1))
    assert one == same
    assert one != other


# Lesions


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eliminating_all_units_of_a_block_is_leaving_it_out(kind, dtype):
    subject = made(kind, dtype)
    seen = []

    class Watched:
        states = staticmethod(subject.network.states)
        resume = staticmethod(subject.network.resume)

        @staticmethod
        def classify(state):
            seen.append(subject.network.classify(state))
            return seen[-1]

    for block in (1, 2, 3):
        seen.clear()
        cut = lesion(replace(subject, network=Watched()), [1], block)
        eliminated = list(seen)
        seen.clear()
        rows = rearrangement(replace(subject, network=Watched()))
        left_out = pick(rows, "accuracy", evaluation="skip", block=block)
        for logits in eliminated:  # of each stage, bit for bit
            assert any(torch.equal(logits, other) for other in seen)
        assert pick(cut, "accuracy") == left_out


@kinds
def test_eliminating_no_unit_changes_nothing(kind):
    subject = made(kind)
    wanted = accuracy(subject, subject.logits(subject.images.float()))
    assert set(pick(lesion(subject, [0]), "accuracy").values()) == {wanted}


@kinds
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("replacement", ["previous", "mean"])
@pytest.mark.parametrize("units", ["top", "random"])
def test_lesions_replace_units_as_plain_loops_do(kind, block, replacement, units):
    subject = made(kind)
    network, labels = subject.network, subject.labels
    levels = [0, 0.05, 0.25, 0.6, 1]
    wanted = {}
    with torch.no_grad():
        states = {(k, place): x for k, place, x in subject.walk(subject.images.float())}
        for stage, n in subject.blocks().items():
            before, after = states[stage, block - 1], states[stage, block]
            lists = [x.flatten(1).tolist() for x in (before, after)]
            orders = reference.most_active(lists[1], labels.tolist())
            if units == "random":
                orders = random_orders(5, stage, after[0].numel(), labels.tolist())
            for level in levels:
                count = round(level * after[0].numel())
                changed = reference.eliminated(*lists, orders, count, replacement)
                x = torch.tensor(changed, dtype=torch.float64).view_as(after)
                for later in network.stages[stage - 1][block:]:
                    x = later(x)
                for k in range(stage, len(network.stages)):
                    x = network.transitions[k - 1](x)
                    for later in network.stages[k]:
                        x = later(x)
                share = count / after[0].numel()
                wanted[stage, block, share] = accuracy(subject, network.classify(x))
            assert n >= block
    rows = lesion(subject, levels, block, [replacement], [units], seed=5)
    assert pick(rows, "accuracy") == wanted
    assert {(one["replacement"], one["units"]) for one in rows} == {(replacement, units)}


def random_orders(seed, stage, d, labels):
    """Units of each point in the random order of its class, for classes 0, 1, 2."""
    draw = np.random.Generator(np.random.Philox(key=[seed, stage]))
    ranks = [draw.permutation(d).tolist() for _ in range(3)]
    return [sorted(range(d), key=lambda unit: ranks[label][unit]) for label in labels]


@kinds
def test_all_lesions_at_once_are_those_of_each_alone(kind):
    subject, levels = made(kind), [0, 0.3, 1]
    both = (["previous", "mean"], ["top", "random"])
    rows = lesion(subject, levels, 3, *both, seed=2)
    alone = [
        one
        for stage in subject.blocks()
        for units in both[1]
        for new in both[0]
        for one in lesion(subject, levels, 3, [new], [units], seed=2)
        if one["stage"] == stage
    ]
    assert rows == alone


def test_the_means_of_units_say_nothing_about_a_point():
    """With all units at their means, every point gets the same answer: that of one class."""
    for kind in KINDS:
        subject = made(kind)
        (share,) = set(pick(lesion(subject, [1], 3, ["mean"]), "accuracy", stage=1).values())
        assert share == pytest.approx(1 / 3)


def test_a_block_that_a_stage_has_not_is_its_middle_one():
    rows = lesion(made(("resnet", "convolutional")), [0], block=7)
    assert [(one["stage"], one["block"]) for one in rows] == [(1, 2), (2, 2)]
    rows = lesion(made(("resnet", "fully connected")), [0], block=4)
    assert [one["block"] for one in rows] == [4]


@kinds
def test_blocks_are_left_out_and_exchanged_one_at_a_time(kind):
    subject = made(kind)
    network, wanted = subject.network, {}
    orders = {}
    for stage, n in subject.blocks().items():
        for block in range(n):
            every = list(range(n))
            orders["skip", stage, block + 1] = every[:block] + every[block + 1 :]
            if block + 1 < n:
                swapped = [*every[:block], block + 1, block, *every[block + 2 :]]
                orders["swap", stage, block + 1] = swapped
    with torch.no_grad():
        for (name, stage, block), order in orders.items():
            _, _, x = next(subject.walk(subject.images.float()))
            for k, blocks in enumerate(network.stages, 1):
                x = network.transitions[k - 2](x) if k > 1 else x
                for place in order if k == stage else range(len(blocks)):
                    x = blocks[place](x)
            wanted[name, stage, block] = accuracy(subject, network.classify(x))
    rows = rearrangement(subject)
    found = {(r["evaluation"], r["stage"], r["block"]): r["accuracy"] for r in rows}
    assert found == wanted
    assert len(set(found.values())) > 1


@pytest.mark.parametrize("layers", SHAPES)
def test_where_blocks_are_identities_only_means_take_anything_away(layers):
    """By the previous state Fig. 7 is flat, although the blocks have learned nothing."""
    subject = made(("resnet", layers))
    with torch.no_grad():
        for name, parameter in subject.network.named_parameters():
            if name.startswith("stages.") and "weight2" in name:
                parameter.zero_()
    wanted = accuracy(subject, subject.logits(subject.images.float()))
    rows = evaluate("lesion", subject, DEFAULTS["lesion"])
    means = [one["accuracy"] for one in rows if one["replacement"] == "mean"]
    assert {one["accuracy"] for one in rows if one["replacement"] != "mean"} == {wanted}
    assert min(means) < wanted
    found = summary(rows)
    assert found["lesion_auc"] == found["lesion_random_previous_auc"] == pytest.approx(wanted)
    assert found["lesion_top_mean_auc"] < wanted


@kinds
def test_exchanging_a_block_with_its_like_changes_nothing(kind):
    subject = made(kind)
    for blocks in subject.network.stages:
        for block in blocks:
            block.load_state_dict(blocks[0].state_dict())
    wanted = accuracy(subject, subject.logits(subject.images.float()))
    assert set(pick(rearrangement(subject), "accuracy", evaluation="swap").values()) == {wanted}


# Mixing


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


# Settings and summaries


@pytest.mark.parametrize(
    ("levels", "values", "wanted"),
    [
        ([0, 1], [1, 0], 0.5),
        ([0, 10], [0.5, 0.5], 0.5),
        ([0, 1, 4], [1.0, 0.5, 0.0], 0.375),
        ([4, 0, 1], [0.0, 1.0, 0.5], 0.375),
        ([2, 4], [1, 0], 0.5),
        ([7], [0.25], 0.25),
    ],
)
def test_area_is_a_mean_over_the_range_of_levels(levels, values, wanted):
    assert area(levels, values) == pytest.approx(wanted)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), min_size=1, unique_by=lambda p: p[0])
)
def test_area_lies_between_the_lowest_and_the_highest_accuracy(curve):
    levels, values = zip(*curve, strict=True)
    assert min(values) - 1e-12 <= area(levels, values) <= max(values) + 1e-12


def test_an_area_needs_levels_and_as_many_accuracies():
    with pytest.raises(ValueError, match="needs at least one level"):
        area([], [])
    with pytest.raises(ValueError, match="shorter"):
        area([0, 1], [1.0])


def by_decile(rows, name):
    """Share of pairs mixed up in the first decile over that of all, of stages that have any."""
    shares = pick(rows, "mixed", evaluation=name)
    stages = {stage for stage, _, _ in shares}
    pairs = [(shares[k, None, 1], shares[k, None, 0]) for k in stages]
    return [first / null for first, null in pairs if null > 0]


def test_lesions_of_earlier_versions_are_those_of_the_paper():
    old = [result_row("lesion", k, "", 10, 1, 3, accuracy=v) for k, v in ((0, 1.0), (1, 0.5))]
    new = [one | {"replacement": "previous", "units": "top"} for one in old]
    assert summary(old) == summary(new) == {"lesion_auc": 0.75}
    assert summary(one | {"units": "random"} for one in new) == {"lesion_random_previous_auc": 0.75}


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


@kinds
def test_a_summary_has_the_columns_its_rows_allow(kind):
    subject = made(kind)
    rows = everything(subject)
    found = summary(rows)
    lesions = ("lesion", "lesion_top_mean", "lesion_random_previous", "lesion_random_mean")
    ratios = ("mixed_ratio", "mixed_ratio_different")
    assert set(found) == {
        *(f"{name}_auc" for name in (*lesions, "noise", "fgsm", "pgd")),
        *(
            f"{name}{matched}{end}"
            for name in ratios
            for matched in ("", "_matched")
            for end in ("", "_initial")
        ),
    }
    fast = accuracies(r for r in rows if r["evaluation"] == "fgsm")
    assert found["fgsm_auc"] == pytest.approx(area([*fast], [*fast.values()]))
    by_stage = defaultdict(dict)
    for (stage, _, level), value in pick(rows, "accuracy", **PAPER).items():
        by_stage[stage][level] = value
    areas = [area([*curve], [*curve.values()]) for curve in by_stage.values()]
    assert found["lesion_auc"] == pytest.approx(sum(areas) / len(areas))
    ratios = by_decile(rows, "separation_different")
    assert found["mixed_ratio_different"] == pytest.approx(sum(ratios) / len(ratios))
    assert summary([]) == {}
    assert set(summary(r for r in rows if r["evaluation"] == "noise")) == {"noise_auc"}
