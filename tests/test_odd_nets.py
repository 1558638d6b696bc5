"""Habits of users' networks: which of them a sweep supports, and what it says about the others."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from models.callables import find as find_code
from models.callables import load
from models.config import TrialConfig
from models.custom import Custom
from models.errors import CodeError
from models.network import build, decayed
from tune_jobs.blocks import Found, check, find

DIGITS = (1, 8, 8)
NOTHING = pytest.mark.filterwarnings("ignore")  # what torch says about old or odd ways


def config(name: str, **given) -> TrialConfig:
    code = find_code(f"odd_nets.py:{name}", Path(__file__).parent)
    load(code)
    return TrialConfig(architecture=code.identity, **given)


def checked(name: str, **given) -> Found:
    return check(config(name, **given), DIGITS, 10)


def network(name: str, **given) -> Custom:
    trial = config(name, **given)
    made = build(trial, DIGITS, 10, find(trial, DIGITS, 10).blocks)
    assert isinstance(made, Custom)
    return made


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("Injected", {}),
        ("Injected", {"model.start": 0}),  # nothing shows until it is trained
        ("Skipping", {}),
        ("Averaging", {}),
    ],
)
def test_a_network_that_keeps_activations_on_self_is_refused(name, given):
    with pytest.raises(CodeError, match=r"keeps activations on self.* pass them to the blocks as"):
        find(config(name, **given), DIGITS, 10)


@pytest.mark.parametrize("refused", [2, 3, 5, 7])
def test_a_network_that_does_not_take_a_number_of_images_is_refused_in_a_line(refused):
    with pytest.raises(CodeError, match=r"fails on .*: ValueError: other batches only") as told:
        checked("Few", **{"model.refused": refused})
    assert refused == 2 or f"fails on {refused} images in evaluation mode" in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_a_weight_that_cannot_be_changed_is_refused_by_name():
    with pytest.raises(CodeError, match=r"Expanded\S+ gain cannot be changed in place: Runt"):
        checked("Expanded")


@pytest.mark.parametrize("name", ["Looking", "Dropping", "mixed", "simple", "Frozen"])
def test_harmless_habits_are_supported(name):
    found = checked(name, transport_penalty=0.1 if name == "Frozen" else 0)
    assert [len(names) for names in found.blocks] == [3]


def test_a_network_that_draws_random_numbers_in_evaluation_mode_is_refused():
    with pytest.raises(CodeError, match="gives other states on a second pass in evaluation mode"):
        checked("Noisy")


def test_a_depth_that_depends_on_the_images_is_refused_when_it_shows():
    trial = config("Halting", block_pattern=r"blocks\.\d")
    found = find(trial, DIGITS, 10)
    deep = build(trial, DIGITS, 10, found.blocks)
    deep.eval()
    many = "block blocks.0 ran 2 times, 5 were found: the depth depends on the images"
    with pytest.raises(CodeError, match=many):
        list(deep.states(100 * torch.ones(2, *DIGITS)))
    deep.train()  # where blocks may be left out
    assert len(list(deep.states(100 * torch.ones(2, *DIGITS)))) == 5


def test_a_walk_that_runs_more_blocks_than_were_found_is_no_shorter_track():
    trial = config("Halting", block_pattern=r"blocks\.\d")
    blocks = [(f"blocks.{k}" for k in range(3))]
    short = build(trial, DIGITS, 10, [tuple(names) for names in blocks])
    with pytest.raises(CodeError, match=r"blocks\.0 ran 5 times, 1 was found"):
        list(short.eval().states(torch.zeros(2, *DIGITS)))


def test_a_track_of_training_begins_before_the_first_block_that_is_not_left_out():
    made, x = network("Dropping").train(), torch.randn(4, *DIGITS)
    counts = set()
    for seed in range(8):
        torch.manual_seed(seed)
        ran = int((torch.rand(3) < 0.5).sum())
        torch.manual_seed(seed)
        states, _ = made.tracked(x)
        counts.add(len(states))
        assert len(states) == (ran + 1 if ran else 0)
        if ran:
            assert_close(states[0][1], made.model.stem(x.flatten(1)), rtol=0, atol=0)
    assert len(counts) > 2


def test_gamma_leaves_normalisations_tables_and_tokens_alone_but_no_layer():
    made = network("positions")
    names = {id(p): name.removeprefix("model.") for name, p in made.named_parameters()}
    under = {names[id(p)] for p in decayed(made, "blocks")[0]}
    wanted = {"one.weight", "rel_pos_layer.weight", "position_wise"}
    assert under == {f"blocks.{k}.{name}" for k in range(3) for name in wanted}


def test_each_block_counts_the_weights_that_it_shares_once():
    made = network("Shared")
    shared = made.model.stem[1].weight
    squares = {p: float(p.detach().square().sum()) for p in made.parameters()}
    wanted = [squares[b.one.weight] + squares[shared] for b in made.model.blocks]
    assert made.weight_norms() == [pytest.approx(wanted)]
    under, _ = decayed(made, "blocks")  # its first name lies in the stem
    assert sum(p is shared for p in under) == 1
    assert len(under) == 4


@NOTHING
@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("extra", {}, r"blocks\.0\._extra_state cannot be read back from a checkpoint; get_extra"),
        ("lost", {}, "Net cannot go on from a checkpoint: ValueError: nothing can be put back"),
        ("complex_net", {}, r"step of recipe adam: .*blocks\.0\.filter is complex: store its real"),
        ("complex_net", {"recipe": "sgd"}, "in a step of recipe sgd.*torch.view_as_complex"),
        ("sparse", {}, r"blocks\.0\.table\.weight has sparse gradients.*sparse=False"),
        ("sparse", {"recipe": "nadam"}, "has sparse gradients, which no recipe takes"),
        ("scripted", {}, "returns a scripted model: it runs no hooks; return the original one"),
        ("Recomputed", {"transport_penalty": 1}, "transport_penalty does nothing.*reentrant=False"),
        ("Recomputed", {"straightness_penalty": 1}, "straightness_penalty does nothing.*stage 1"),
        ("Auxiliary", {}, "returns tuple for 4 images in training.*give model.aux_logits: false"),
    ],
)
def test_what_only_training_would_show_is_refused_before(name, given, message):
    with pytest.raises(CodeError, match=message):
        checked(name, **given)


@NOTHING
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("complex_net", {"recipe": "nadam"}),
        ("Recomputed", {}),
        ("Recomputed", {"model.reentrant": False, "transport_penalty": 1}),
    ],
)
def test_what_trains_is_not_refused(name, given):
    assert [len(names) for names in checked(name, **given).blocks] == [3]


def test_a_scale_that_comes_from_the_first_images_does_not_come_from_zeros():
    made = build(config("activation"), DIGITS, 10)
    made(torch.randn(20, *DIGITS))
    assert 0.1 < float(made.model.blocks[0].scale.detach().min()) < 100


@pytest.mark.parametrize("name", ["activation", "Lazy", "Late", "mixed"])
def test_weights_that_are_loaded_stay_after_the_first_call(name):
    trial, images = config(name), torch.randn(6, *DIGITS)
    trained, again = (build(trial, DIGITS, 10) for _ in range(2))
    trained(images)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.1)
    wanted = trained.eval()(images)
    again.load_state_dict(trained.state_dict())
    assert again.training
    assert_close(again.eval()(images), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["Lazy", "Late"])
def test_layers_that_the_first_call_makes_are_there(name):
    one, two = (build(config(name), DIGITS, 10) for _ in range(2))
    assert one.model.head.weight.shape == (10, 8)
    assert_close(one.state_dict(), two.state_dict(), rtol=0, atol=0)
    assert checked(name).parameters == sum(p.numel() for p in one.parameters())


@pytest.mark.parametrize("how", ["whole", "blocks", "inside"])
def test_a_compiled_network_has_the_states_of_the_one_that_was_compiled(how):
    made, x = network("compiled", **{"model.how": how}).eval(), torch.randn(3, *DIGITS)
    plain = build(config("Net"), DIGITS, 10).eval().model
    with torch.no_grad():
        states = [state for _, state in made.states(x)]
        wanted = [plain.stem(x.flatten(1))]
        for block in plain.blocks:
            wanted.append(block(wanted[-1]))
        assert_close(states, wanted, rtol=0, atol=0)
        assert_close(made(x), plain(x), rtol=0, atol=0)
