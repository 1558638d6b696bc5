"""Units that are eliminated, and blocks left out or exchanged, in tiny trained networks."""

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from subjects import DEFAULTS, KINDS, SHAPES, accuracy, kinds, made, pick

from scoring.robustness.areas import summary
from scoring.robustness.lesion import lesion, rearrangement
from scoring.robustness.run import evaluate
from scoring.robustness.subject import result_row


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
        eliminated = seen[1::2]  # after level 0, which is always there
        seen.clear()
        rows = rearrangement(replace(subject, network=Watched()))
        left_out = pick(rows, "accuracy", evaluation="skip", block=block)
        for logits in eliminated:  # of each stage, bit for bit
            assert any(torch.equal(logits, other) for other in seen)
        assert pick(cut, "accuracy", level=1) == left_out


@kinds
def test_eliminating_no_unit_changes_nothing(kind):
    subject = made(kind)
    wanted = accuracy(subject, subject.logits(subject.images.float()))
    assert set(pick(lesion(subject, [0]), "accuracy").values()) == {wanted}


@kinds
def test_lesions_have_the_unchanged_network_beside_them_as_noise_and_attacks_do(kind):
    """So 1 - area / clean accuracy is known whatever levels are given."""
    subject, both = made(kind), (["previous", "mean"], ["top", "random"])
    rows = lesion(subject, iter([0.5, 1]), 3, *both)
    assert rows == lesion(subject, [0, 1, 0.5, 0], 3, *both)
    clean = accuracy(subject, subject.logits(subject.images.float()))
    found = pick(rows, "accuracy", level=0)
    assert {stage for stage, _, _ in found} == {*subject.blocks()}
    assert {*found.values()} == {clean}
    for name in ("noise", "fgsm"):
        assert pick(evaluate(name, subject, {"levels": [8]}), "accuracy", level=0) == {
            (None, None, 0): clean
        }


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
        found = pick(lesion(subject, [1], 3, ["mean"]), "accuracy", stage=1, level=1)
        assert [*found.values()] == [pytest.approx(1 / 3)]


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


def test_lesions_of_earlier_versions_are_those_of_the_paper():
    old = [result_row("lesion", k, "", 10, 1, 3, accuracy=v) for k, v in ((0, 1.0), (1, 0.5))]
    new = [one | {"replacement": "previous", "units": "top"} for one in old]
    assert summary(old) == summary(new) == {"lesion_auc": 0.75}
    assert summary(one | {"units": "random"} for one in new) == {"lesion_random_previous_auc": 0.75}
