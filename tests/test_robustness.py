"""Noise and attacks on tiny trained networks: against plain loops, and what must hold anyway."""

import copy
import math
from collections import defaultdict
from dataclasses import replace

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from subjects import DEFAULTS, KINDS, accuracy, kinds, made, pick
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from scoring.robustness.areas import COLUMNS as SUMMARIES
from scoring.robustness.areas import area, summary
from scoring.robustness.attacks import ascent, fgsm, pgd, pgd_images
from scoring.robustness.noise import noise
from scoring.robustness.run import evaluate
from scoring.robustness.subject import draws

COLUMNS = {
    *("evaluation", "stage", "block", "replacement", "units", "level", "unit", "m"),
    *("accuracy", "loss", "variation_rate", "mixed", "distance"),
    *("mixed_initial", "mixed_matched", "mixed_matched_initial"),
}
PAPER = {"evaluation": "lesion", "replacement": "previous", "units": "top"}


def accuracies(rows):
    return {level: value for (_, _, level), value in pick(rows, "accuracy").items()}


def assert_same(rows, wanted, **tolerance):
    for one, other in zip(rows, wanted, strict=True):
        for name, value in other.items():
            if isinstance(value, float):
                value = pytest.approx(value, nan_ok=True, **tolerance)
            assert one[name] == value


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


@kinds
def test_a_network_whose_logits_are_not_numbers_is_right_about_nothing(kind):
    subject = made(kind)
    network = copy.deepcopy(subject.network)
    network.head.bias.data.fill_(math.nan)
    broken = replace(subject, network=network, labels=torch.zeros_like(subject.labels))
    rows = everything(broken)
    found = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    assert len(found) > 10
    assert set(found) == {0}


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


@kinds
@pytest.mark.parametrize("experiment", [fgsm, pgd])
def test_attacks_stay_within_budget_of_pixels_that_are_brighter_than_white(kind, experiment):
    subject, seen = made(kind), []
    images = subject.images.float() * 1.5
    assert images.max() > 300
    watched = replace(
        subject,
        images=images,
        standardise=lambda x: (seen.append(x), subject.standardise(x))[1],
    )
    experiment(watched, [3])
    for changed in seen:
        assert (changed - images).abs().max() <= 3 + 1e-4
        assert (changed[images <= 255] <= 255).all()


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
    assert set(found) == {name for name in SUMMARIES if not name.startswith("curve_")}
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
