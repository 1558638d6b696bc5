"""Plain networks and ResNets: one set of weights, with and without the identity maps."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import relu
from torch.testing import assert_close

from models.architectures import architecture
from models.config import TrialConfig
from models.network import Network, build, decayed

DIGITS = (1, 8, 8)
ROWS = [
    {"layers": "fully_connected"},
    {"layers": "fully_connected", "normalisation": "batch"},
    {"layers": "convolutional", "stages": 1},
    {"layers": "convolutional", "stages": 2, "normalisation": "none"},
    {"layers": "convolutional", "stages": 4},
    {"layers": "convolutional", "stages": 2, "normalisation": "final"},
    {"layers": "convolutional", "stages": 2, "depth": 3},
]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row.values())))
both = pytest.mark.parametrize("kind", ["plain", "resnet"])


def made(kind, **row):
    return build(TrialConfig(network=kind, **row), DIGITS, 10)


def images(count=3):
    return torch.randn(count, *DIGITS, generator=torch.Generator().manual_seed(0))


@rows
def test_plain_networks_and_resnets_share_names_shapes_and_initial_weights(row):
    plain, resnet = made("plain", **row).state_dict(), made("resnet", **row).state_dict()
    assert list(plain) == list(resnet)
    for name in plain:
        assert_close(plain[name], resnet[name], rtol=0, atol=0)


@both
@rows
def test_a_network_hands_out_n_plus_one_states_of_each_stage_in_order(kind, row):
    network = made(kind, **row).eval()
    stages, n = len(network.shape.shapes), network.shape.blocks
    seen = [(k, tuple(state.shape)) for k, state in network.states(images())]
    assert len(seen) == stages * (n + 1)
    assert seen == [
        (k, (3, *s)) for k, s in enumerate(network.shape.shapes, 1) for _ in range(n + 1)
    ]


@both
@rows
def test_the_head_reads_the_last_state(kind, row):
    network = made(kind, **row).eval()
    *_, (_, last) = network.states(images())
    assert_close(network.classify(last), network(images()), rtol=0, atol=0)


@rows
def test_the_step_of_a_resnet_is_the_whole_block_of_its_plain_twin(row):
    """x + v(x) and v(x), with the same v."""
    plain, resnet = made("plain", **row).eval(), made("resnet", **row).eval()
    for k, blocks in enumerate(resnet.stages):
        x = torch.randn(3, *resnet.shape.shapes[k], generator=torch.Generator().manual_seed(k))
        for place, block in enumerate(blocks):
            assert_close(block(x), x + plain.stages[k][place](x))


def test_a_transition_puts_a_one_by_one_convolution_in_place_of_the_identity():
    plain, resnet = (made(k, layers="convolutional", stages=2).eval() for k in ("plain", "resnet"))
    x = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    shortcut = resnet.transitions[0].shortcut
    assert (shortcut.kernel_size, shortcut.stride) == ((1, 1), (2, 2))
    assert_close(resnet.transitions[0](x), plain.transitions[0](x) + shortcut(x))


def test_a_block_is_two_weight_layers_each_after_a_normalisation_and_a_relu():
    """Eq. (10): W2 relu(N2(W1 relu(N1(x))))."""
    block = made("plain", layers="fully_connected", normalisation="batch").stages[0][0]
    x = torch.randn(7, 100, generator=torch.Generator().manual_seed(0))

    def normal(z):
        return (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()

    first = relu(normal(x)) @ block.weight1.weight.T
    assert_close(block(x), relu(normal(first)) @ block.weight2.weight.T)


@both
def test_states_follow_from_the_blocks_one_by_one(kind):
    network = made(kind, layers="convolutional", stages=2).eval()
    x, k = network.stem(images()), 0
    states = []
    for k in range(2):
        x = network.transitions[0](x) if k else x
        states.append(x)
        for block in network.stages[k]:
            x = block(x)
            states.append(x)
    for (_, seen), wanted in zip(network.states(images()), states, strict=True):
        assert_close(seen, wanted, rtol=0, atol=0)


@both
@rows
def test_going_on_from_any_state_is_the_rest_of_the_walk(kind, row):
    network = made(kind, **row).eval()
    n = network.shape.blocks
    walk = list(network.states(images()))
    for place, (k, state) in enumerate(walk):
        rest = list(network.resume(state, k, range(place % (n + 1) + 1, n + 1)))
        assert [j for j, _ in rest] == [j for j, _ in walk[place:]]
        for (_, seen), (_, wanted) in zip(rest, walk[place:], strict=True):
            assert_close(seen, wanted, rtol=0, atol=0)


@both
@rows
@pytest.mark.parametrize("training", [False, True])
def test_a_state_that_was_handed_out_is_never_written_into(kind, row, training):
    network = made(kind, **row).train(training)
    states, copies = [], []
    for _, state in network.states(images()):
        states.append(state)
        copies.append(state.clone())
    list(network.resume(states[0], 1, [2, 1]))
    for state, copy in zip(states, copies, strict=True):
        assert_close(state, copy, rtol=0, atol=0)


def test_blocks_come_in_the_order_that_is_asked_for():
    network = made("resnet", layers="convolutional", stages=2).eval()
    (first, _, third, *_), x = network.stages[1], torch.randn(2, 32, 4, 4)
    seen = [state for _, state in network.resume(x, 2, [3, 1, 3])]
    wanted = [x, third(x), first(third(x)), third(first(third(x)))]
    for one, other in zip(seen, wanted, strict=True):
        assert_close(one, other, rtol=0, atol=0)
    assert [state is x for _, state in network.resume(x, 2, [])] == [True]


@pytest.mark.parametrize(("stage", "blocks"), [(0, [1]), (3, [1]), (1, [0]), (1, [6]), (2, [-1])])
def test_a_stage_or_a_block_that_is_not_there_is_refused(stage, blocks):
    network = made("plain", layers="convolutional", stages=2)
    with pytest.raises(ValueError, match="2 stages of 5 blocks"):
        next(network.resume(torch.zeros(1, 16, 8, 8), stage, blocks))


def test_the_head_averages_over_pixels_only_when_there_are_several_stages():
    assert made("plain", layers="convolutional", stages=1).head.in_features == 8 * 4 * 4
    assert made("plain", layers="convolutional", stages=2).head.in_features == 32


@both
@rows
def test_weight_norms_are_those_of_the_two_weights_of_each_block(kind, row):
    network = made(kind, **row)
    norms = network.weight_norms()
    assert len(norms) == len(network.shape.shapes)
    weights = dict(network.named_parameters())
    for k, stage in enumerate(norms):
        wanted = [
            sum(weights[f"stages.{k}.{place}.weight{i}.weight"].norm().item() ** 2 for i in (1, 2))
            for place in range(network.shape.blocks)
        ]
        assert stage == pytest.approx(wanted, rel=1e-5)


def test_weight_norms_grow_with_the_square_of_the_weights_and_not_with_biases():
    network = made("resnet", layers="fully_connected")
    (before,) = network.weight_norms()
    with torch.no_grad():
        for block in network.stages[0]:
            block.weight1.weight.mul_(3)
            block.weight2.weight.zero_()
            block.weight2.bias.fill_(7)
        norms = [block.weight1.weight.square().sum().item() for block in network.stages[0]]
    (after,) = network.weight_norms()
    assert after == pytest.approx(norms)
    assert all(0 < new < 9 * old for new, old in zip(after, before, strict=True))


def test_a_network_that_is_not_its_row_of_table_1_is_refused():
    row = architecture("convolutional", DIGITS, 2, 10)
    wrong = replace(row, shapes=(row.shapes[0], (32, 3, 3)))
    with pytest.raises(ValueError, match="where Table 1 has"):
        Network(wrong, "resnet", "batch")


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = made("resnet", seed=5, gamma=0.0).state_dict()
    torch.manual_seed(2)
    same = made("resnet", seed=5, gamma=0.1, epochs=3, recipe="sgd").state_dict()
    other = made("resnet", seed=6).state_dict()
    for name in one:
        assert_close(same[name], one[name], rtol=0, atol=0)
    assert not torch.equal(other["stem.weight"], one["stem.weight"])


def test_initial_weights_are_he_normal_and_biases_zero():
    network = made("plain", layers="fully_connected")
    for layer in (m for m in network.modules() if isinstance(m, nn.Linear)):
        assert_close(layer.weight.std().item(), (2 / layer.in_features) ** 0.5, rtol=0.1, atol=0)
        assert_close(layer.bias, torch.zeros_like(layer.bias))


def names_of(network, parameters):
    names = {id(p): name for name, p in network.named_parameters()}
    return {names[id(p)] for p in parameters}


@both
@rows
@pytest.mark.parametrize("decay", ["all", "blocks"])
def test_gamma_weighs_weight_matrices_and_never_biases_or_normalisations(kind, row, decay):
    network = made(kind, **row)
    under, free = (names_of(network, group) for group in decayed(network, decay))
    matrices = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.requires_grad
    }
    if decay == "blocks":
        matrices = {name for name in matrices if name.startswith("stages.")}
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    assert under == matrices
    assert free == trainable - matrices


def test_gamma_on_all_weighs_stem_transitions_and_head_and_on_blocks_does_not():
    network = made("resnet", layers="convolutional", stages=2)
    outside = {"stem.weight", "head.weight"}
    outside |= {f"transitions.0.{w}.weight" for w in ("weight1", "weight2", "shortcut")}
    everything = names_of(network, decayed(network, "all")[0])
    blocks = names_of(network, decayed(network, "blocks")[0])
    assert everything - blocks == outside


def test_the_shortcut_that_a_plain_network_leaves_out_is_trained_by_nobody():
    plain, resnet = (made(k, layers="convolutional", stages=3) for k in ("plain", "resnet"))
    for network, trained in ((plain, False), (resnet, True)):
        grouped = {id(p) for group in decayed(network, "all") for p in group}
        shortcuts = [block.shortcut.weight for block in network.transitions]
        assert [id(w) in grouped for w in shortcuts] == [trained] * 2
    plain(images(4)).sum().backward()
    assert all(block.shortcut.weight.grad is None for block in plain.transitions)
    missing = [n for n, p in plain.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
