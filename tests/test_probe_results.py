"""What the probe measures of any torch module: baselines, results, and how batches run."""

import copy
import json
from contextlib import suppress

import pytest
import torch
from chains import WIDTH, Block, Chain, hooks_of, images, probed, walk_of, wanted_of
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from scoring.probe import TrackProbe
from scoring.probing.errors import ProbeError, ProbeWarning
from scoring.probing.nulls import reinitialised

pytestmark = pytest.mark.usefixtures("seeded")


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


def test_a_normalisation_that_never_runs_leaves_the_others_as_they_are():
    class Spare(Chain):
        def __init__(self):
            super().__init__(Normed(), Normed(), Normed())
            self.spare = nn.BatchNorm1d(3)

    model, x = Spare(), images() * 3 + 2
    seen(model, x)
    wanted = wanted_of(seen(reinitialised(model), x), x).score
    result = probed(model, x, null="reinit")
    assert_allclose(result.nulls["reinit"][0].points.score, wanted, rtol=1e-6)


def test_each_module_is_a_null_of_its_own_and_keeps_its_mode():
    model, x = Chain(Block(), Block(), Block()).eval(), images()
    one, two = (Chain(Block(), Block(), Block()) for _ in range(2))
    one.blocks[1].eval()
    result = probed(model, x, null=[one, "reinit", two, one, "reinit"])
    assert list(result.nulls) == ["null", "reinit", "null_2"]
    for name, other in (("null", one), ("null_2", two)):
        assert_array_equal(result.nulls[name][0].points.score, wanted_of(other, x).score)
    assert "lss_null_2" in result.frame()
    assert [part.training for part in (one, one.blocks[0], one.blocks[1])] == [True, True, False]


def test_a_model_is_no_null_of_itself():
    model = Chain(Block(), Block(), Block())
    for null in (model, nn.Sequential(model), [copy.deepcopy(model), model]):
        with pytest.raises(ProbeError, match="null: the model itself; pass a copy"):
            TrackProbe(model, null=null)


def test_a_null_that_fails_in_some_batches_is_told():
    class Fails(Chain):
        def forward(self, x):
            if x.abs().max() > 100:
                raise KeyError
            return super().forward(x)

    def run(*batches):
        with torch.no_grad(), TrackProbe(model, null=other):
            for batch in batches:
                with suppress(KeyError):
                    model(batch)

    model, other = Chain(Block(), Block()), Fails(Block(), Block())
    told = "null has fewer points than the model, as it ran through 1 of 2 batches"
    with pytest.warns(ProbeWarning, match=told):
        run(images(), 1000 * images())
    with pytest.raises(ProbeError, match="null: null ran through no batch"):
        run(1000 * images())


def test_normalisations_of_a_null_that_fails_are_as_they_were():
    class Fails(Normed):
        def forward(self, x):
            super().forward(x)
            raise KeyError

    model = seen(Chain(Normed(), Normed()).eval(), images())
    other = Chain(Normed(), Fails())
    with pytest.raises(KeyError), torch.no_grad(), TrackProbe(model, Normed, null=other):
        model(images())
    norm = other.blocks[0].norm
    assert (norm.momentum, norm.training, int(norm.num_batches_tracked)) == (0.1, True, 0)
    assert_array_equal(norm.running_mean, torch.zeros(WIDTH))


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


@pytest.mark.parametrize("null", ["reinit", "shuffle"])
def test_a_lazy_model_has_baselines_once_it_was_called(null):
    model = Chain(Block(), Block(), Block())
    model.stem = nn.LazyLinear(WIDTH)
    with pytest.raises(ProbeError, match=r"null: stem gets its shape .*call the model once first"):
        probed(model, images(), null=null)
    model(images())
    assert null in probed(model, images(), null=null).nulls


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
