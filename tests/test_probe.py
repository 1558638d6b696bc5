"""The probe for any torch module: tokens, the choice of blocks, baselines and results."""

import copy
import json

import pytest
import torch
from chains import WIDTH, Block, Chain, hooks_of, images, probed, walk_of, wanted_of
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from scoring.line_shape import line_shape_score
from scoring.probe import TrackProbe
from scoring.probing.blocks import candidates
from scoring.probing.errors import ProbeError, ProbeWarning
from scoring.probing.nulls import reinitialised
from scoring.probing.values import padding


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
    kept = torch.tensor([[True, True, False]])
    given = {"src_key_padding_mask": ~kept, "tgt_key_padding_mask": kept}
    assert_array_equal(padding(given, decoder=False)[0], kept)
    assert_array_equal(padding(given, decoder=True)[0], ~kept)


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


# Baselines and results


def test_each_null_is_measured_on_the_same_batches():
    model, batches = Chain(Block(), Block(), Block(), Block()), (images(), images(3))
    fresh = reinitialised(model)
    assert not torch.equal(fresh.stem.weight, model.stem.weight)
    result = probed(model, *batches, null=["reinit", "shuffle", fresh])
    wanted = wanted_of(fresh, *batches)
    for name in ("reinit", "null"):
        assert_array_equal(result.nulls[name][0].points.score, wanted.score)
    assert set(result.nulls["shuffle"][0].blocks) == set(result.stages[0].blocks)
    row = result.rows()[0]
    assert_allclose(row["lss_reinit"], wanted.score.mean())
    assert row["lss_shuffle"] not in (row["lss"], row["lss_reinit"])
    assert_allclose(row["lss_random"], 2.0)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return x + self.layer(self.norm(x).relu())


def seen(model, x):
    """The model after its normalisations have seen a batch, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None
    model.train()(x)
    return model.eval()


def test_normalisations_of_a_baseline_see_the_first_batch_if_those_of_the_model_saw_data():
    batches = images() * 3 + 2, images(3)
    model = Chain(Normed(), Normed(), Normed()).eval()
    fresh = Chain(Normed(), Normed(), Normed()).eval()
    wanted = wanted_of(reinitialised(model), *batches).score  # of normalisations that saw nothing
    untrained = probed(model, *batches, null="reinit")
    assert_array_equal(untrained.nulls["reinit"][0].points.score, wanted)

    seen(model, images())
    result = probed(model, *batches, null=["reinit", fresh])
    for name, again in (("reinit", reinitialised(model)), ("null", copy.deepcopy(fresh))):
        wanted = wanted_of(seen(again, batches[0]), *batches).score
        assert_allclose(result.nulls[name][0].points.score, wanted, rtol=1e-6)
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm1d):  # the user's own model is as it was
            assert_array_equal(module.running_mean, torch.zeros(WIDTH))
            assert module.momentum == 0.1
            assert not module.num_batches_tracked
    with pytest.warns(ProbeWarning, match="keep mean 0 and variance 1: Expected more than 1"):
        probed(model, batches[0][:1], null="reinit")


def test_batches_may_run_with_gradients_without_and_in_inference_mode():
    model, batches = Chain(Block(), Block(), Block()), [images(), images(), images()]
    with torch.inference_mode(), TrackProbe(model, null=["reinit", "shuffle"]) as probe:
        model(batches[0])
        with torch.inference_mode(False), torch.no_grad():
            model(batches[1])
        with torch.inference_mode(False):
            model(batches[2])
    wanted = wanted_of(model, *batches)
    assert_array_equal(probe.result.stages[0].points.score, wanted.score)
    assert_allclose(probe.result.stages[0].points.drift, wanted.drift)


def test_weights_that_no_module_resets_lose_their_order_but_no_value():
    class Token(Chain):
        def __init__(self, *blocks):
            super().__init__(*blocks)
            self.token = nn.Parameter(torch.randn(20))

    model = Token(Block(), Block())
    state = torch.get_rng_state()
    other = reinitialised(model)
    assert_array_equal(torch.get_rng_state(), state)
    assert not torch.equal(other.token, model.token)
    assert_array_equal(other.token.detach().sort().values, model.token.detach().sort().values)


def test_attention_is_reset_as_torch_initialises_it():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(9.0)
    attention = reinitialised(model).self_attn
    assert attention.in_proj_weight.abs().max() < 1
    assert not attention.in_proj_bias.any()
    assert not attention.out_proj.bias.any()


def test_two_probes_may_run_at_once():
    model, x = Chain(Block(), Block(), Block()), images()
    one, two = TrackProbe(model, null="reinit"), TrackProbe(model, null="shuffle", transport=4)
    with torch.no_grad(), one, two:
        model(x)
    alone = probed(model, x, null="shuffle", transport=4)
    assert_array_equal(one.result.frame().lss, alone.frame().lss)
    assert two.result.rows() == alone.rows()
    assert hooks_of(model) == 0


def test_a_module_that_cannot_be_reset_is_an_error():
    class Needy(Block):
        def reset_parameters(self, gain):
            pass

    with pytest.raises(ProbeError, match=r"reset_parameters of Needy failed .*built again"):
        probed(nn.Sequential(Needy(), Needy()), torch.randn(3, WIDTH), null="reinit")


def test_stages_are_in_the_order_of_their_first_calls():
    class Other(Block):
        pass

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.late = nn.ModuleList([Other(), Other()])
            self.early = nn.ModuleDict({"deep": nn.ModuleList([Block(), Block()])})

        def forward(self, x):
            for block in (*self.early["deep"], *self.late):
                x = block(x)
            return x

    result = probed(Two(), torch.randn(3, WIDTH), null="shuffle")
    assert [stage.blocks[0] for stage in result.stages] == ["early.deep.0", "late.0"]


def test_transport_takes_the_first_points_of_all_batches():
    model = Chain(Block(), Block(), Block())
    batches = images(5), images(5)
    with torch.no_grad():
        track = torch.stack([state for _, state in walk_of(model)(torch.cat(batches)[:8])])
    from scoring.geodesic import geodesic_excess, wasserstein_curve

    row = probed(model, *batches, transport=8).rows()[0]
    excess, curve = geodesic_excess(track), wasserstein_curve(track)
    assert row["transport_points"] == 8
    assert row["m"] == 10
    assert_allclose(row["geodesic_excess"], excess.excess, rtol=1e-5)
    assert_allclose(row["transport_factor"], excess.transport, rtol=1e-5)
    assert_allclose(row["speeds"], curve.speeds, rtol=1e-5)
    assert_allclose(row["length_ratio"], curve.length_ratio, rtol=1e-5)
    product = row["block_factor"] * row["speed_factor"] * row["length_ratio"] ** 2
    assert_allclose(product, row["geodesic_excess"], rtol=1e-5)


def test_a_result_is_a_table_a_frame_and_json():
    result = probed(Chain(Block(), Block(), Block()), images(), transport=5, null="reinit")
    text = str(result)
    assert [line.split()[0] for line in text.splitlines()[:4]] == ["stage", "blocks", "m", "d"]
    small = str(probed(Chain(Block(), Block(), Block()), images()))
    assert small.splitlines()[0].split()[:4] == ["stage", "blocks", "m", "d"]
    assert "rank at m = 7, the first points" in small
    assert "LSS reinit" in text
    assert "stage 1: blocks.0 to blocks.2" in text
    assert repr(result) == text
    assert result.frame().lss[0] == result.rows()[0]["lss"]
    assert [row["name"] for row in result.blocks()] == ["blocks.0", "blocks.1", "blocks.2"]
    assert json.loads(json.dumps(result.to_dict()))["stages"][0]["blocks"] == 3


def test_a_point_that_is_not_finite_gives_no_transport():
    model, x = Chain(Block(), Block()), images()
    x[0, 0] = torch.nan
    row = probed(model, x, transport=5).rows()[0]
    assert "ots" not in row
    assert "some states are not finite" in str(probed(model, x))
    assert row["still_points"] >= 1
