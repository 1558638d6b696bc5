"""Networks of libraries and of users: how they are built, followed and penalised."""

import inspect
import threading
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torchvision.models import get_model_builder, list_models

from models.callables import find as find_code
from models.callables import load
from models.config import TrialConfig
from models.custom import Custom, build_custom
from models.datasets import load as load_data
from models.errors import CodeError
from models.fits import check
from models.libraries import no_weights
from models.network import build, decayed, in_channels_last
from models.pulled import pulled
from models.training import train, untrained
from tune_jobs.blocks import find
from tune_jobs.trainable import check_trainable

DIGITS = (1, 8, 8)
same = partial(assert_close, rtol=0, atol=0)


def config(name: str, **given) -> TrialConfig:
    code = find_code(f"own_net.py:{name}", Path(__file__).parent)
    load(code)
    return TrialConfig(architecture=code.identity, epochs=2, points=30, **given)


def network(name: str, **given) -> Custom:
    trial = config(name, **given)
    found = find(trial, DIGITS, 10)
    made = build(trial, DIGITS, 10, found.blocks)
    assert isinstance(made, Custom)
    return made.eval()


def images(count=5):
    return torch.randn(count, *DIGITS, generator=torch.Generator().manual_seed(1))


def test_the_blocks_of_a_users_network_are_found_by_stage():
    found = find(config("two"), DIGITS, 10)
    assert found.blocks == [("parts.0.0", "parts.0.1"), ("parts.1.0",)]
    assert (found.shapes, found.dimensions) == ([(8,), (4,)], [8, 4])
    first, *stages = found.lines()
    assert first.endswith("takes images 1 x 8 x 8")
    assert stages[0] == "stage 1: 2 x 8: parts.0.0, parts.0.1"
    assert stages[1].endswith("a single block, so its line shape is not measurable")


def test_its_states_are_those_of_a_walk_by_hand():
    made = network("two")
    x, net = images(), made.model
    states = [net.stem(x.flatten(1))]
    states += [net.parts[0][0](states[0])]
    states += [net.parts[0][1](states[1])]
    later = [net.between[0](states[2])]
    later += [net.parts[1][0](later[0])]
    seen = list(made.states(x))
    assert [stage for stage, _ in seen] == [1, 1, 1, 2, 2]
    for (_, state), wanted in zip(seen, [*states, *later], strict=True):
        same(state, wanted)
    same(made.classify(seen[-1][1]), made(x))
    tracked, logits = made.tracked(x)
    same(logits, made(x))
    for (_, state), (_, wanted) in zip(tracked, seen, strict=True):
        same(state, wanted)


def test_the_state_of_a_block_is_the_one_that_the_probe_followed():
    made, x = network("named"), images()
    first, *_ = made.states(x)
    same(first[1], made.model.stem(x.flatten(1)))


def test_walks_side_by_side_do_not_see_each_other():
    made, some = network("one"), [images(3), 2 * images(4)]
    alone = [list(made.states(x)) for x in some]
    together = zip(*(made.states(x) for x in some), strict=True)
    for place, pair in enumerate(together):
        for (_, state), walk in zip(pair, alone, strict=True):
            same(state, walk[place][1])


def test_a_walk_holds_one_state_and_one_that_is_left_early_leaves_no_thread():
    before, made = threading.active_count(), network("one")
    walk = made.states(images())
    held = [state for _, (_, state) in zip(range(3), walk, strict=False)]
    walk.close()
    assert threading.active_count() == before
    assert len(held) == 3
    assert not any(part._forward_hooks for part in made.model.modules())
    seen = []
    with torch.no_grad():
        for _, state in made.states(images()):
            seen.append(weakref.ref(state))
            assert [ref() is not None for ref in seen] == [False] * (len(seen) - 1) + [True]


def test_a_state_that_its_block_overwrites_is_yielded_as_it_was():
    made, x = network("in_place"), images()
    with torch.no_grad():
        states = [state for _, state in made.states(x)]
        for state, wanted, part in zip(states[:-1], states[1:], made.model.parts[0], strict=True):
            same(wanted, part(state.clone()))


def test_gradients_pass_through_a_walk_or_not_as_where_it_is_asked_for():
    made, x = network("one"), images().requires_grad_()
    *_, (_, last) = made.states(x)
    (gradient,) = torch.autograd.grad(made.classify(last).sum(), x)
    assert gradient.any()
    with torch.no_grad():
        assert not any(state.requires_grad for _, state in made.states(x))


@pytest.mark.parametrize("channels", [1, 3])
def test_code_that_takes_views_of_states_trains(channels):
    made = in_channels_last(build(config("viewing"), (channels, 8, 8), 10))
    standardised = torch.rand(4, 8, 8, channels).permute(0, 3, 1, 2)
    made(standardised).sum().backward()


def test_an_error_of_a_network_comes_out_of_the_walk():
    with pytest.raises(RuntimeError, match="expanded size"):
        list(network("one").states(torch.zeros(2, 3, 8, 8)))


def test_a_function_that_hands_out_values_runs_only_as_far_as_asked():
    done = []

    def hand_out(give):
        for n in range(5):
            done.append(n)
            give(n)

    values = pulled(hand_out)
    assert [next(values), next(values)] == [0, 1]
    assert done == [0, 1]
    values.close()
    assert done == [0, 1]


def test_a_function_that_catches_every_error_is_left_as_well():
    def hand_out(give):
        for n in range(5):
            with suppress(BaseException):
                give(n)

    before, values = threading.active_count(), pulled(hand_out)
    assert next(values) == 0
    values.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("name", "kwargs", "taken", "stages"),
    [
        ("torchvision:resnet18", {}, (3, 8, 8), [2, 1, 1, 1]),
        ("torchvision:resnet34", {}, (3, 8, 8), [3, 3, 5, 2]),
        (
            "torchvision:vit_b_16",
            {"model.image_size": 32, "model.num_layers": 2},
            (3, 32, 32),
            None,
        ),
        ("timm:resnet18", {"model.in_chans": 1}, (1, 8, 8), [2, 1, 1, 1]),
    ],
)
def test_networks_of_libraries_take_small_grey_images(name, kwargs, taken, stages):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    if "model.num_layers" in kwargs:  # torchvision fixes it
        with pytest.raises(CodeError, match="num_layers"):
            build_custom(TrialConfig(architecture=name, **kwargs), DIGITS, 10)
        return
    found = find(TrialConfig(architecture=name, **kwargs), DIGITS, 10)
    assert found.taken == taken
    assert [len(names) for names in found.blocks] == stages


def test_what_fails_on_small_images_gets_larger_ones():
    trial = TrialConfig(architecture="torchvision:convnext_tiny")
    made = build_custom(trial, DIGITS, 10).eval()
    assert made.taken == (3, 32, 32)
    with torch.no_grad():
        assert made(images(2)).shape == (2, 10)


def test_the_seed_decides_the_weights_and_the_callers_random_numbers_go_on():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one, two, again = (network("one", seed=seed, gamma=g) for seed, g in ((0, 0), (1, 0), (0, 1)))
    same(torch.rand(3), wanted)
    same(one.state_dict(), again.state_dict())
    assert not torch.equal(one.model.stem.weight, two.model.stem.weight)


def test_gamma_penalises_weight_matrices_only():
    made = network("two")
    for decay, wanted in (
        ("all", {"stem", "between.0", "head", "parts"}),
        ("blocks", {"parts"}),
    ):
        under, free = decayed(made, decay)
        names = {id(p): n.removeprefix("model.") for n, p in made.named_parameters()}
        matrices = {names[id(p)] for p in under}
        assert all(name.endswith(".weight") and "norm" not in name for name in matrices)
        assert {n.rpartition(".")[0] if "parts" not in n else "parts" for n in matrices} == wanted
        assert len(under) + len(free) == len(names)


def test_tokens_positions_and_scales_of_a_transformer_are_not_penalised():
    trial = TrialConfig(architecture="torchvision:vit_b_32", **{"model.image_size": 32})
    made = build_custom(trial, DIGITS, 10)
    names = {id(p): name.removeprefix("model.") for name, p in made.named_parameters()}
    under = {names[id(p)] for p in decayed(made, "all")[0]}
    assert {"conv_proj.weight", "heads.head.weight"} <= under
    assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" in under
    assert not {"class_token", "encoder.pos_embedding", "encoder.ln.weight"} & under


def test_the_norms_of_blocks_are_what_gamma_penalises_in_them():
    made = network("two")
    norms = made.weight_norms()
    block = made.model.parts[0][1]
    wanted = sum(float(w.weight.detach().double().square().sum()) for w in (block.one, block.two))
    assert [len(stage) for stage in norms] == [2, 1]
    assert norms[0][1] == pytest.approx(wanted)


def test_training_that_was_interrupted_goes_on_bit_for_bit_also_with_dropout():
    trial = config("one", **{"model.drop": 0.5, "straightness_penalty": 0.1})
    data, blocks = load_data("digits"), find(trial, DIGITS, 10).blocks
    whole = [
        epoch.checkpoint | {"loss": epoch.record}
        for epoch in train(trial, data, "cpu", None, blocks)
    ]
    first = next(e for e in train(trial, data, blocks=blocks) if e.record["epoch"] == 1)
    check(trial, data, first.checkpoint, blocks)
    torch.manual_seed(99)  # another process
    (again,) = train(trial, data, "cpu", first.checkpoint, blocks)
    same(again.checkpoint["network"], whole[2]["network"])
    same(untrained(trial, data, blocks=blocks).state_dict(), untrained(trial, data).state_dict())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "uneven",
            r"own_net\.py:uneven#\w+: returns \(2, 7\) for two images; should return logits",
        ),
        ("nothing", "returns int; should return a torch.nn.Module"),
        ("eager", r"fails on images of shape \(1, 8, 8\) .*RuntimeError"),
    ],
)
def test_a_callable_that_makes_no_classifier_is_refused(name, message):
    with pytest.raises(CodeError, match=message):
        build_custom(config(name), DIGITS, 10)


def test_a_weight_without_a_part_in_the_loss_is_named():
    with pytest.raises(CodeError, match=r"Net: more\.weight has no part in the loss \(2 such"):
        check_trainable(build_custom(config("idle"), DIGITS, 10), config("idle"))


def test_a_network_is_tried_in_the_precision_of_its_trial():
    network = build_custom(config("exact"), DIGITS, 10)
    check_trainable(network, config("exact"))
    with pytest.raises(CodeError, match="Copying fails in training in bfloat16: RuntimeError"):
        check_trainable(network, config("exact", precision="bfloat16"))


def test_blocks_that_return_what_is_added_are_refused_with_the_field_that_names_others():
    with pytest.raises(
        CodeError,
        match=r"no residual blocks in Whole; name them with block_pattern[^$]*returns the sum",
    ):
        find(config("branches"), DIGITS, 10)
    with pytest.raises(CodeError, match="nothing in the model matches"):
        find(config("one", block_pattern="nowhere.*"), DIGITS, 10)
    assert find(config("one", block_pattern=r"parts\.0\.[12]"), DIGITS, 10).blocks == [
        ("parts.0.1", "parts.0.2")
    ]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("torchvision:resnet81", {}, "torchvision has no such model; did you mean resnet18"),
        ("torchvision:resnet18", {"model.weights": "DEFAULT"}, "weights are drawn at random"),
        ("torchvision:resnet18", {"model.width": 8}, "unexpected keyword argument 'width'"),
        ("torchvision:vgg11", {}, "no repeated blocks"),
    ],
)
def test_networks_that_a_library_does_not_have_are_refused(name, given, message):
    with pytest.raises(CodeError, match=message):
        find(TrialConfig(architecture=name, **given), DIGITS, 10)


def test_no_network_of_torchvision_is_given_weights():
    for name in list_models():
        takes = inspect.signature(get_model_builder(name)).parameters
        assert no_weights(name) == {one: None for one in takes if one.startswith("weights")}


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(CodeError, match=r"timm cannot be imported .*pip install timm"):
        build_custom(TrialConfig(architecture="timm:resnet18"), DIGITS, 10)


def test_a_file_that_was_not_loaded_is_named():
    trial = TrialConfig(architecture="other.py:f#0123456789ab")
    with pytest.raises(CodeError, match="this process has not loaded it"):
        build_custom(trial, DIGITS, 10)


def test_a_walk_cannot_begin_inside_of_it():
    with pytest.raises(NotImplementedError, match="cannot begin inside"):
        network("one").resume(torch.zeros(1, 8), 1, [1])
