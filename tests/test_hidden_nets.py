"""What users' networks hide at first: stages, randomness, and what no checkpoint holds."""

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
from tune_jobs.blocks import check, find

DIGITS = (1, 8, 8)


def config(name, **given):
    code = find_code(f"hidden_nets.py:{name}", Path(__file__).parent)
    load(code)
    return TrialConfig(architecture=code.identity, **given)


def found(name, **given):
    return find(config(name, **given), DIGITS, 10)


def network(name, blocks):
    made = build(config(name), DIGITS, 10, blocks)
    assert isinstance(made, Custom)
    return made.eval()


def test_two_chains_that_do_nothing_at_first_are_two_stages():
    assert found("Towers").blocks == [("blocks.0", "blocks.1"), ("blocks.2", "blocks.3")]


@pytest.mark.parametrize("name", ["adding", "scaling", "mapping"])
def test_what_changes_nothing_at_first_still_lies_between_blocks(name):
    with pytest.raises(CodeError, match=r"blocks\.1 takes another state than blocks\.0 returned"):
        found(name)


def test_what_shows_only_with_other_images_ends_the_walk():
    blocks = found("clipping").blocks
    made, x = network("clipping", blocks), torch.randn(3, *DIGITS)
    assert len(list(made.states(x))) == 4
    with pytest.raises(CodeError, match=r"block blocks\.1 takes another state than the block bef"):
        list(made.states(1e4 * x))
    assert len(list(made.train().states(1e4 * x))) == 4  # where blocks may be left out


def test_another_precision_between_blocks_is_no_other_state():
    blocks = found("rounding").blocks
    assert [len(names) for names in blocks] == [4]
    assert len(list(network("rounding", blocks).states(torch.randn(3, *DIGITS)))) == 5


def test_blocks_may_turn_states_round_for_their_attention():
    assert found("Turned").shapes == [(2, 4)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "dropped",
            "other states on a second pass in evaluation mode; dropout needs training=self",
        ),
        ("beside", "depend on the other images of its batch.*needs track_running_stats=True"),
    ],
)
def test_states_of_an_image_that_depend_on_anything_else_are_refused(name, message):
    with pytest.raises(CodeError, match=message):
        found(name)


@pytest.mark.parametrize(
    ("name", "given"), [("Half", {}), ("Half", {"model.mixed": True}), ("Chaotic", {})]
)
def test_rounding_is_no_dependence_on_other_images(name, given):
    assert [len(names) for names in found(name, **given).blocks] == [30 if name == "Chaotic" else 3]


@pytest.mark.parametrize(("kind", "start"), [("Bernoulli", 1), ("Bernoulli", 0), ("Poisson", 0)])
def test_weights_may_have_bounds_that_training_keeps(kind, start):
    given = {"model.kind": kind, "model.start": start}
    assert [len(names) for names in found("Bounded", **given).blocks] == [3]
    with pytest.raises(CodeError, match=r"fails in a step of recipe sgd: ValueError: Expected par"):
        check(config("Bounded", recipe="sgd", learning_rate=1e3, **given), DIGITS, 10)


def test_what_only_training_shows_between_blocks_is_refused_before_a_trial():
    assert [len(names) for names in found("Fading").blocks] == [4]
    with pytest.raises(CodeError, match=r"blocks\.2 takes another state than the block before"):
        check(config("Fading"), DIGITS, 10)


def test_states_without_numbers_are_refused():
    with pytest.warns(UserWarning, match="zero-element"), pytest.raises(CodeError, match="no numb"):
        found("Empty")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Counting",
            "Counting has other logits after it was loaded .*: steps is a buffer with pers",
        ),
        ("Remembering", "it keeps something that no checkpoint holds; make that a buffer"),
    ],
)
def test_what_no_checkpoint_holds_is_refused(name, message):
    with pytest.raises(CodeError, match=message):
        check(config(name), DIGITS, 10)


@pytest.mark.parametrize(("name", "given"), [("Counting", {"model.kept": True}), ("Constant", {})])
def test_what_a_checkpoint_or_the_code_holds_is_not_refused(name, given):
    assert [len(names) for names in check(config(name, **given), DIGITS, 10).blocks] == [3]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_gamma_penalises_weights_with_one_row_or_column():
    made = network("Narrow", ())
    names = {id(p): name.removeprefix("model.") for name, p in made.named_parameters()}
    under = {names[id(p)] for p in decayed(made, "all")[0]}
    assert under == {
        *("stem.weight", "head.weight", *(f"blocks.{k}.one.weight" for k in range(3))),
        *("gate.weight", "wide.weight", "convolution.weight", "single.weight"),
        *("recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "cell.weight_ih", "cell.weight_hh"),
        *("old.weight_v", "new.parametrizations.weight.original1"),
        *("spectral.parametrizations.weight.original", "rel_pos.parametrizations.weight.original"),
        *("attention.in_proj_weight", "attention.out_proj.weight"),
        *(f"{a}.{b}" for a in ("thin", "low") for b in ("weight", "lora_a", "lora_b")),
    }


def test_initial_weights_are_not_changed_by_the_search_for_blocks():
    before = build(config("scaling"), DIGITS, 10).state_dict()
    with pytest.raises(CodeError):
        found("scaling")
    assert_close(build(config("scaling"), DIGITS, 10).state_dict(), before, rtol=0, atol=0)
