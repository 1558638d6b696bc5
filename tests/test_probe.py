"""The probe for any torch module: tokens, and the choice of blocks."""

import pytest
import torch
from chains import WIDTH, Block, Chain, images, probed
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from scoring.line_shape import line_shape_score
from scoring.probe import TrackProbe
from scoring.probing.blocks import candidates
from scoring.probing.errors import ProbeError
from scoring.probing.values import kept, own_mask, padding

pytestmark = pytest.mark.usefixtures("seeded")


# Tokens


class Attention(nn.Module):
    """Blocks of states (b, t, d) that mix tokens, behind a mask."""

    def __init__(self, n=3):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(n))

    def forward(self, x, attention_mask=None):
        for layer in self.layers:
            x = layer(x)
        return x

    def track(self, x):
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]).detach())
        return torch.stack(states)  # (n + 1, b, t, d)


TAKEN = {
    "all": lambda track: track.flatten(2),
    "each": lambda track: track.flatten(1, 2),
    "first": lambda track: track[:, :, 0],
    "last": lambda track: track[:, :, -1],
    "mean": lambda track: track.double().mean(2),
}


@pytest.mark.parametrize("tokens", TAKEN)
def test_a_point_is_a_sample_or_a_token(tokens):
    model, x = Attention(), torch.randn(5, 4, WIDTH)
    result = probed(model, *x.split(3), tokens=tokens)
    track = TAKEN[tokens](model.track(x))
    assert_allclose(result.stages[0].points.score, line_shape_score(track), rtol=1e-12)


LENGTHS = (4, 2, 1)


@pytest.mark.parametrize("tokens", TAKEN)
@pytest.mark.parametrize("left", [False, True])
def test_padding_changes_no_score(tokens, left):
    model = Attention()
    samples = [torch.randn(1, length, WIDTH) for length in LENGTHS]
    padded, mask = torch.randn(3, 4, WIDTH), torch.zeros(3, 4, dtype=torch.long)
    for row, sample in enumerate(samples):
        here = slice(4 - LENGTHS[row], 4) if left else slice(0, LENGTHS[row])
        padded[row, here], mask[row, here] = sample[0], 1
    with torch.no_grad(), TrackProbe(model, tokens=tokens) as probe:
        model(padded, attention_mask=mask)
    wanted = [line_shape_score(TAKEN[tokens](model.track(sample))) for sample in samples]
    assert_allclose(probe.result.stages[0].points.score, torch.cat(wanted), rtol=1e-6)
    with torch.no_grad(), TrackProbe(model, tokens=tokens, mask=lambda given: mask) as other:
        model(padded)
    assert_array_equal(other.result.frame().lss, probe.result.frame().lss)


def test_padding_of_a_decoder_has_a_mask_of_its_own():
    given = dict.fromkeys(("src_key_padding_mask", "tgt_key_padding_mask", "x"), torch.zeros(1))
    assert list(padding(given, decoder=False)) == ["src_key_padding_mask"]
    assert list(padding(given, decoder=True)) == ["tgt_key_padding_mask"]


KEPT = torch.tensor([[True, True, False], [True, True, True]])
ADDED = torch.zeros(2, 3).masked_fill(~KEPT, -torch.inf)  # to the attention
LEAST = torch.finfo(torch.float16).min


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("attention_mask", KEPT),
        ("attention_mask", KEPT.long()),
        ("attention_mask", KEPT.float()),
        ("attention_mask", ADDED),
        ("attention_mask", ADDED.half().clamp(min=LEAST)),
        ("src_key_padding_mask", ~KEPT),
        ("src_key_padding_mask", ADDED),
        ("key_padding_mask", ADDED.bfloat16()),
    ],
)
def test_a_mask_may_choose_tokens_or_be_added_to_the_attention(name, mask):
    assert_array_equal(kept(mask, name), KEPT)
    if mask.is_floating_point() and (mask < 0).any():  # another batch of the loop has no padding
        assert kept(torch.zeros_like(mask), name).all()
        assert_array_equal(own_mask(mask, torch.zeros(2, 3, 4), "layers.0"), KEPT)


def test_a_padding_mask_of_whole_numbers_is_an_error():
    with pytest.raises(ProbeError, match=r"tgt_key_padding_mask: int64 does not say .* pass mask="):
        kept(KEPT.long(), "tgt_key_padding_mask")


def test_samples_of_several_lengths_need_single_tokens():
    model = Attention()
    with pytest.raises(ProbeError, match="take tokens='each'"):
        probed(model, torch.randn(2, 4, WIDTH), torch.randn(2, 3, WIDTH))
    result = probed(model, torch.randn(2, 4, WIDTH), torch.randn(2, 3, WIDTH), tokens="each")
    assert len(result.stages[0].points.score) == 14
    with pytest.raises(ProbeError, match="needs states"):
        probed(Chain(Block(), Block()), images(), tokens="each")


def test_states_with_tokens_first_are_turned_round():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=False, dropout=0.0)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    x = torch.randn(4, 5, 8)  # (t, b, d)
    states = [x]
    for part in model.layers:
        states.append(part(states[-1]).detach())
    track = torch.stack(states).transpose(1, 2).flatten(2)
    assert_allclose(probed(model, x).stages[0].points.score, line_shape_score(track), rtol=1e-12)


class Merging(Attention):
    """Drops half of its tokens after two blocks."""

    def forward(self, x):
        for layer in self.layers[:2]:
            x = layer(x)
        x = x[:, ::2]
        for layer in self.layers[2:]:
            x = layer(x)
        return x


def test_stages_may_have_different_numbers_of_points():
    model, x = Merging(4), torch.randn(5, 4, WIDTH)
    result = probed(model, *x.split(2), tokens="each", transport=12)
    assert [row["m"] for row in result.rows()] == [20, 10]
    assert [row["transport_points"] for row in result.rows()] == [12, 10]
    steps = model.track(x)[:3].flatten(1, 2).diff(dim=0).mean(1)
    assert_allclose(result.stages[0].points.drift, steps.square().sum(1), rtol=1e-5)


def test_a_mask_of_another_shape_is_an_error():
    model, x = Attention(), torch.randn(3, 4, WIDTH)
    with pytest.raises(ProbeError, match=r"mask: of shape \(4,\), but layers.0 has states \(3, 4"):
        probed(model, x, mask=lambda given: torch.ones(4))
    with pytest.raises(ProbeError, match=r"should be \(b, t\)"):
        probed(Chain(Block(), Block()), images(), mask=lambda given: torch.ones(7, 1))


# Choosing blocks


class Residual(nn.Module):
    """Stages of blocks as staged vision models have them: an outer type that repeats as well."""

    class Stage(nn.Module):
        def __init__(self, before, after, n):
            super().__init__()
            self.down = nn.Linear(before, after) if before != after else nn.Identity()
            self.blocks = nn.Sequential(*(Block(after) for _ in range(n)))

        def forward(self, x):
            return self.blocks(self.down(x))

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(self.Stage(4, 6, 2), self.Stage(6, 8, 3), self.Stage(8, 10, 2))

    def forward(self, x):
        return self.stages(x)


class Experts(nn.Module):
    """A block with repeated parts inside, as mixtures of experts have them."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(Branchy() for _ in range(4))

    def forward(self, x):
        return x + sum(expert(x) for expert in self.experts)


class Branchy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return torch.tanh(self.layer(x))


def test_auto_takes_blocks_within_stages_and_not_parts_of_blocks():
    result = probed(Residual(), images())
    assert [len(stage.blocks) for stage in result.stages] == [2, 3, 2]
    assert result.matched == ["Block x 7: stages.0.blocks.0, ..., stages.2.blocks.1"]
    result = probed(Chain(Experts(), Experts()), images())
    assert [stage.blocks for stage in result.stages] == [("blocks.0", "blocks.1")]


class Added(nn.Sequential):
    """A residual block that is written as a sequence with a forward of its own."""

    def forward(self, x):
        return x + super().forward(x)


def test_auto_takes_a_sequence_with_a_forward_of_its_own_and_not_its_parts():
    blocks = [Added(Branchy(), Branchy()) for _ in range(3)]
    result = probed(Chain(*blocks), images())
    assert result.matched == ["Added x 3: blocks.0, ..., blocks.2"]
    result = probed(Chain(*(nn.Sequential(Block(), Block()) for _ in range(3))), images())
    assert [len(stage.blocks) for stage in result.stages] == [6]  # a plain one is a stage


@pytest.mark.parametrize("stem", [1, 2, 5])
def test_auto_takes_the_outer_blocks_though_a_stem_has_units_of_their_kind(stem):
    model = Chain(*(Added(Branchy(), Branchy()) for _ in range(3)))
    model.stem = nn.Sequential(model.stem, *(Branchy() for _ in range(stem)))
    result = probed(model, images())
    assert [stage.blocks for stage in result.stages] == [("blocks.0", "blocks.1", "blocks.2")]
    more = f", and {stem - 1} more like it" if stem > 1 else ""
    told = f"stem.1: other Branchy are parts of other blocks{more}"
    assert result.skipped == [told]


class Other(Block):
    """A block of another type."""


class Turned(Chain):
    """Turns the state round before each sequence of blocks."""

    def forward(self, x):
        x = self.stem(x)
        for part in self.blocks:
            x = part(x.flip(1))
        return self.head(x)


def test_stages_of_alternating_types_are_in_the_order_of_their_calls():
    kinds = (Block, Other, Block)
    model = Turned(*(nn.Sequential(kind(), kind()) for kind in kinds))
    result = probed(model, *images().split(4), null=["reinit", "shuffle"])
    wanted = [(f"blocks.{k}.0", f"blocks.{k}.1") for k in range(3)]
    assert [stage.blocks for stage in result.stages] == wanted
    assert [row["stage"] for row in result.rows()] == [1, 2, 3]
    assert len(result.matched) == 2


def test_auto_says_what_there_is_where_it_finds_nothing():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())
    with pytest.raises(ProbeError, match=r"no repeated blocks.*\n.*\n  Linear x 2: 0, 2\n  ReLU x"):
        TrackProbe(model)
    assert "Linear x 2" in candidates(model)

    class Narrowing(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer = nn.Linear(width, width - 1)

        def forward(self, x):
            return self.layer(x)

    model = nn.Sequential(Narrowing(4), Narrowing(3))
    with pytest.raises(
        ProbeError, match=r"no residual blocks.*\n.*\n.*0 changes the shape: 4 to 3"
    ):
        probed(model, images())


@pytest.mark.parametrize(
    "blocks", [r"blocks\.\d", Block, ["blocks.0", "blocks.1", "blocks.2"], [Block]]
)
def test_blocks_are_chosen_by_expression_type_or_name(blocks):
    model = Chain(Block(), Block(), Block())
    assert len(probed(model, images(), blocks=blocks).stages[0].blocks) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": "nowhere"}, "nothing in the model matches 'nowhere'"),
        ({"blocks": ["blocks.9"]}, "no module is named 'blocks.9'"),
        ({"blocks": "("}, "no regular expression"),
        ({"blocks": r"blocks\.0.*"}, r"blocks\.0\.layer is part of blocks\.0"),
        ({"blocks": nn.Conv2d}, "matches 'Conv2d'"),
        ({"tokens": "some"}, "tokens: 'some'"),
        ({"transport": 1}, "transport: 1"),
        ({"null": "noise"}, "null: 'noise'"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(settings, message):
    with pytest.raises(ProbeError, match=message):
        TrackProbe(Chain(Block(), Block()), **settings)
