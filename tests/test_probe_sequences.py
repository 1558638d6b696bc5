"""Which axis of a sequence is the batch, which tokens are padding, and what the probe warns of."""

import warnings

import pytest
import torch
from chains import WIDTH, Block, probed
from numpy.testing import assert_allclose
from torch import nn

from scoring.line_shape import line_shape_score
from scoring.probe import TrackProbe
from scoring.probing.errors import ProbeWarning

pytestmark = pytest.mark.usefixtures("seeded")

SAMPLES, TOKENS = 5, 4


class Turning(nn.Module):
    """Blocks of (b, t, d) that turn it for their layer, which takes (t, b, d)."""

    def __init__(self, layer, turn=True):
        super().__init__()
        self.norm, self.layer, self.turn = nn.LayerNorm(WIDTH), layer, turn

    def forward(self, x):
        inner = self.norm(x).transpose(0, 1) if self.turn else self.norm(x)
        attends = isinstance(self.layer, nn.MultiheadAttention)
        out = self.layer(query=inner, key=inner, value=inner) if attends else self.layer(inner)
        return x + (out[0].transpose(0, 1) if self.turn else out[0])


LAYERS = {
    "attention": lambda: nn.MultiheadAttention(WIDTH, 2),
    "lstm": lambda: nn.LSTM(WIDTH, WIDTH),
    "gru": lambda: nn.GRU(WIDTH, WIDTH),
}


def chain(kind, **more):
    return nn.Sequential(*(Turning(LAYERS[kind](), **more) for _ in range(3))).eval()


def score(model, x, batch):
    """LSS of each sample, whose axis is ``batch``, from a walk by hand."""
    states = [x]
    for block in model:
        states.append(block(states[-1]).detach())
    return line_shape_score(torch.stack([s.transpose(0, batch) for s in states]).flatten(2))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("samples", [SAMPLES, 3])  # more samples than tokens, and fewer
def test_blocks_may_turn_states_for_a_layer_that_takes_tokens_first(kind, samples):
    model, x = chain(kind), torch.randn(samples, TOKENS, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = probed(model, x, null=["reinit", "shuffle"])
    assert_allclose(result.stages[0].points.score, score(model, x, 0), rtol=1e-5)
    assert len(result.nulls["shuffle"][0].points.score) == samples


@pytest.mark.parametrize("kind", LAYERS)
def test_states_are_tokens_first_where_the_layers_of_blocks_take_them_as_they_are(kind):
    model, x = chain(kind, turn=False), torch.randn(TOKENS, SAMPLES, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = probed(model, x)
    assert_allclose(result.stages[0].points.score, score(model, x, 1), rtol=1e-5)


def test_the_axis_of_the_first_batch_is_that_of_all_batches():
    model = chain("attention")
    first, second = torch.randn(SAMPLES, TOKENS, WIDTH), torch.randn(TOKENS, TOKENS, WIDTH)
    result = probed(model, first, second)
    wanted = torch.cat([score(model, x, 0) for x in (first, second)])
    assert_allclose(result.stages[0].points.score, wanted, rtol=1e-5)


def test_as_many_samples_as_tokens_give_a_warning_unless_the_user_says_which_is_which():
    model, x = chain("attention"), torch.randn(TOKENS, TOKENS, WIDTH)
    with pytest.warns(ProbeWarning, match="0 has as many samples as tokens .* batch_first=False"):
        probed(model, x)
    result = probed(model, x, batch_first=True)
    assert_allclose(result.stages[0].points.score, score(model, x, 0), rtol=1e-5)


class Windows(nn.Module):
    """Its blocks take parts of samples as if they were samples; it may hand tokens out first."""

    def __init__(self, how):
        super().__init__()
        self.blocks, self.how = nn.Sequential(Block(), Block(), Block()), how

    def forward(self, x):
        return self.blocks(x.flatten(0, 1) if self.how == "parts" else x.transpose(0, 1))


@pytest.mark.parametrize("how", ["parts", "tokens first"])
def test_points_that_are_no_samples_give_a_warning(how):
    model, x = Windows(how), torch.randn(SAMPLES, TOKENS, 2, WIDTH)
    count = SAMPLES * TOKENS if how == "parts" else TOKENS
    with pytest.warns(ProbeWarning, match=rf"blocks\.0 has {count} points .* have 5 along their"):
        probed(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probed(model, x, tokens="each")


class Masked(nn.Module):
    """Its states may have fewer tokens than its arguments; its mask has another shape then."""

    def __init__(self, stride=1, grid=False, full=0):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.stride, self.grid = stride, grid
        self.first = nn.Sequential(*(Block() for _ in range(2 * full)))

    def forward(self, x, attention_mask=None, src_key_padding_mask=None):
        x = self.first(x)[:, :: self.stride]
        return self.blocks(x.unflatten(1, (2, -1)) if self.grid else x)


KEPT = torch.ones(SAMPLES, TOKENS, dtype=torch.bool)
PADDED = KEPT.clone()
PADDED[0, 2:] = False


@pytest.mark.parametrize(
    "mask", [PADDED, PADDED.long(), PADDED[:, None, None], PADDED[:, None, None].log()]
)
def test_a_padding_mask_that_fits_no_state_gives_a_warning(mask):
    model = Masked(2 if mask.ndim == 2 else 1)
    told = r"attention_mask of shape \(5, .*pass mask=, a function"
    with pytest.warns(ProbeWarning, match=told), torch.no_grad(), TrackProbe(model):
        model(torch.randn(SAMPLES, TOKENS, WIDTH), attention_mask=mask)


def test_padding_that_only_later_blocks_cannot_leave_out_gives_a_warning_that_names_them():
    told = r"attention_mask of shape \(5, 4\) fits no state of blocks\.0, so .* in 2 more blocks"
    probe = TrackProbe(Masked(2, full=1), tokens="each")
    with pytest.warns(ProbeWarning, match=told), torch.no_grad(), probe:
        probe.model(torch.randn(SAMPLES, TOKENS, WIDTH), attention_mask=PADDED)
    assert [row["m"] for row in probe.result.rows()] == [18, 10]


def test_whole_numbers_say_nothing_about_padding_of_states_that_their_mask_does_not_fit():
    mask = (~PADDED[:, None, None]).long()
    told = r"src_key_padding_mask of shape \(5, 1, 1, 4\) fits no state"
    with pytest.warns(ProbeWarning, match=told), torch.no_grad(), TrackProbe(Masked()) as probe:
        probe.model(torch.randn(SAMPLES, TOKENS, WIDTH), src_key_padding_mask=mask)


@pytest.mark.parametrize("lead", [(), (1, 1), (SAMPLES, 1), (2 * SAMPLES,)])
@pytest.mark.parametrize("added", [False, True])
def test_a_causal_mask_is_no_padding(lead, added):
    mask = torch.ones(*lead, TOKENS, TOKENS, dtype=torch.bool).tril()
    mask = mask.log() if added else mask
    with warnings.catch_warnings(), torch.no_grad(), TrackProbe(Masked(full=1)) as probe:
        warnings.simplefilter("error")
        probe.model(torch.randn(SAMPLES, TOKENS, WIDTH), attention_mask=mask)


def test_a_square_mask_gives_a_warning_unless_another_batch_shows_what_it_is():
    x, mask = torch.randn(TOKENS, TOKENS, WIDTH), torch.ones(TOKENS, TOKENS).tril()
    told = r"attention_mask of shape \(4, 4\) is taken as \(samples, tokens\); if it is not, pass"
    with pytest.warns(ProbeWarning, match=told), torch.no_grad(), TrackProbe(Masked()) as probe:
        probe.model(x, attention_mask=mask)
    with warnings.catch_warnings(), torch.no_grad(), TrackProbe(Masked()) as probe:
        warnings.simplefilter("error")
        probe.model(x, attention_mask=mask)
        probe.model(torch.randn(SAMPLES, TOKENS, WIDTH), attention_mask=PADDED)


def test_masks_without_padding_or_of_other_blocks_give_no_warning():
    model, x = Masked(2), torch.randn(SAMPLES, TOKENS, WIDTH)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        with TrackProbe(model, tokens="each"):
            model(x, attention_mask=KEPT)  # no padding
        with TrackProbe(model, tokens="each"):
            model(x, attention_mask=PADDED[:, :2])  # it fits
            model(x[:, :2], attention_mask=PADDED)  # as when text is generated with a cache
        with TrackProbe(model, tokens="each", mask=lambda given: PADDED[:, :2]):
            model(x, attention_mask=PADDED)


@pytest.mark.parametrize("tokens", ["all", "each", "mean", "first", "last"])
def test_padding_of_a_grid_of_tokens_is_left_out(tokens):
    line, grid = Masked(), Masked(grid=True)
    grid.blocks = line.blocks
    x = torch.randn(SAMPLES, TOKENS, WIDTH)
    scores = []
    for model in (line, grid):
        with torch.no_grad(), TrackProbe(model, tokens=tokens, mask=lambda given: PADDED) as probe:
            model(x)
        scores.append(probe.result.stages[0].points.score)
    assert_allclose(*scores, rtol=1e-12)
