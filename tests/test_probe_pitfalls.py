"""Pitfalls of probing any torch module, each with a model built to trigger it."""

import gc
import weakref

import numpy as np
import pytest
import torch
from chains import WIDTH, Block, Chain, hooks_of, images, probed, walk_of, wanted_of
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.utils.checkpoint import checkpoint

from scoring.line_shape import line_shape_score
from scoring.probe import TrackProbe
from scoring.probing.errors import ProbeError, ProbeWarning
from scoring.probing.measured import ROUNDING

pytestmark = pytest.mark.usefixtures("seeded")


# In-place operations


class InPlace(Block):
    """Adds to its input in place, so that input and output are one tensor."""

    def forward(self, x):
        return x.add_(torch.tanh(self.layer(x)))


def test_a_block_that_overwrites_its_input_is_measured_before_it_does():
    model, x = Chain(*(InPlace() for _ in range(3))), images()
    track = [model.stem(x).detach()]
    for block in model.blocks:
        track.append(block(track[-1].clone()).detach())
    result = probed(model, x)
    assert_allclose(result.stages[0].points.score, line_shape_score(torch.stack(track)))


class Spoiled(Chain):
    """Overwrites every state after the next block took it."""

    def forward(self, x):
        states = [self.stem(x)]
        for block in self.blocks:
            states.append(block(states[-1]))
            states[-2].zero_()
        return self.head(states[-1])


def test_a_state_that_is_overwritten_later_has_been_reduced_before():
    model, x = Spoiled(Block(), Block(), Block()), images()
    result = probed(model, x)
    assert_array_equal(result.stages[0].points.score, wanted_of(model, x).score)


class Rectified(Chain):
    """Changes the states between its blocks, in place."""

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu_(block(x))
        return self.head(x)


def test_a_state_that_changes_between_two_blocks_ends_a_stage():
    result = probed(Rectified(Block(), Block(), Block()), images(), blocks=Block)
    assert [len(stage.blocks) for stage in result.stages] == [1, 1, 1]
    assert "blocks.1: takes another state than blocks.0 returned" in result.skipped
    assert result.frame().lss.isna().all()
    assert "not measurable" in str(result)


# Compiled and wrapped models


def test_a_compiled_model_is_probed_though_it_was_compiled_before():
    model, x = Chain(Block(), Block(), Block()), images()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(x)
        with TrackProbe(compiled) as probe:
            compiled(x)
        assert hooks_of(model) == 0
    assert_array_equal(probe.result.stages[0].points.score, wanted_of(model, x).score)


def test_a_model_that_is_never_called_is_an_error():
    model = Chain(Block(), Block())
    with (
        pytest.raises(ProbeError, match="Chain was not called while the probe watched"),
        TrackProbe(model),
    ):
        pass
    with (
        pytest.raises(ProbeError, match="blocks ran 2 times outside of one: call the model"),
        TrackProbe(model),
    ):
        model.forward(images())
    assert hooks_of(model) == 0


@pytest.mark.parametrize("name", ["DataParallel", "FullyShardedDataParallel", "FSDPModule"])
def test_a_model_spread_over_devices_is_refused(name):
    wrapper = type(name, (nn.Sequential,), {})
    with pytest.raises(ProbeError, match=f"of type {name}.*plain model on one device"):
        TrackProbe(wrapper(Chain(Block(), Block())))


def test_a_model_that_is_really_sharded_is_refused(tmp_path):
    distributed = torch.distributed
    distributed.init_process_group("gloo", f"file://{tmp_path}/store", world_size=1, rank=0)
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        model = Chain(Block(), Block())
        mesh = init_device_mesh("cpu", (1,))
        fully_shard(model.blocks[1], mesh=mesh)  # changes the class of this part in place
        with pytest.raises(ProbeError, match=r"in blocks\.1 of type FSDPModule: its"):
            TrackProbe(model)
        fully_shard(model, mesh=mesh)
        with pytest.raises(ProbeError, match="a model of type FSDPModule"):
            TrackProbe(model)
    finally:
        distributed.destroy_process_group()


def test_the_module_inside_distributed_data_parallel_is_probed():
    class DistributedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    model, x = Chain(Block(), Block()), images()
    result = probed(DistributedDataParallel(model), x)
    assert_array_equal(result.stages[0].points.score, wanted_of(model, x).score)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_a_scripted_model_is_refused():
    model = torch.jit.trace(Chain(Block(), Block()), images())
    with pytest.raises(ProbeError, match="a scripted model: it runs no hooks"):
        TrackProbe(model)


# Nothing stays


def test_nothing_stays_after_an_exception():
    model, x = Chain(Block(), Block(), Block()), images()
    states = []

    class Fails(Block):
        def forward(self, x):
            states.append(weakref.ref(x))
            raise KeyError("out of memory")

    model.blocks.append(Fails())
    probe = TrackProbe(model, blocks=r"blocks\.\d", transport=5, null="shuffle")
    with pytest.raises(KeyError), torch.no_grad(), probe:
        model(x)
    gc.collect()
    assert hooks_of(model) == 0
    assert states[0]() is None
    assert not [o for o in gc.get_referents(probe.__dict__) if isinstance(o, torch.Tensor)]
    with pytest.raises(ProbeError, match="once its context has ended"):
        _ = probe.result


def test_a_batch_that_fails_on_the_way_does_not_count():
    class Fails(Block):
        fail = False

        def forward(self, x):
            if self.fail:
                raise KeyError
            return super().forward(x)

    model = Chain(Block(), Fails(), Block())
    one, two = images(), images()
    with torch.no_grad(), TrackProbe(model, blocks=r"blocks\.\d") as probe:
        model(one)
        model.blocks[1].fail = True
        with pytest.raises(KeyError):
            model(two)
        model.blocks[1].fail = False
        model(two)
    assert_array_equal(probe.result.stages[0].points.score, wanted_of(model, one, two).score)
    assert_allclose(probe.result.stages[0].points.drift, wanted_of(model, one, two).drift)


def test_hooks_of_the_user_stay():
    model = Chain(Block(), Block())
    model.blocks[0].register_forward_hook(lambda *_: None)
    probed(model, images())
    assert hooks_of(model) == 1


def test_training_goes_on_as_without_a_probe():
    def losses(probe):
        torch.manual_seed(1)
        model = nn.Sequential(Block(), nn.Dropout(0.5), Block(), nn.Linear(WIDTH, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        found = []
        for _ in range(3):
            if probe:
                with TrackProbe(model, Block, null=["reinit", "shuffle"], transport=3):
                    loss = model(torch.randn(5, WIDTH)).square().mean()
            else:
                loss = model(torch.randn(5, WIDTH)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        return found

    assert losses(True) == losses(False)


@pytest.mark.parametrize("reentrant", [True, False])
def test_states_that_a_gradient_checkpoint_computes_again_do_not_count(reentrant):
    model, x = Chain(Block(), Block(), Block()), images().requires_grad_()
    with TrackProbe(model, null="shuffle") as probe:
        for _ in range(2):
            checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    wanted = wanted_of(model, x.detach(), x.detach())
    assert_array_equal(probe.result.stages[0].points.score, wanted.score)
    assert probe.result.batches == 2
    assert len(probe.result.nulls["shuffle"][0].points.score) == 14


def test_batches_without_points_do_not_count():
    model, none = Chain(Block(), Block(), Block()), torch.zeros(0, 4)
    one, two = images(), images()
    result = probed(model, none, one, none, two, transport=9, null=["reinit", "shuffle"])
    wanted = wanted_of(model, one, two)
    assert_array_equal(result.stages[0].points.score, wanted.score)
    assert_allclose(result.stages[0].points.drift, wanted.drift)
    assert result.batches == 2
    assert set(result.nulls) == {"reinit", "shuffle"}
    assert result.nulls["shuffle"][0].blocks == result.stages[0].blocks
    with pytest.raises(ProbeError, match="Chain was called on no points only"):
        probed(model, none)


# Number formats


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("points", [3, 50])  # fewer than numbers in a state, and more
def test_a_probe_changes_no_output(kind, points):
    model, x = Chain(Block(), Block(), Block()).to(kind), images(points).to(kind)
    with torch.no_grad():
        wanted = model(x)
        for settings in ({}, {"transport": 2}, {"null": ["reinit", "shuffle"]}):
            with TrackProbe(model, **settings) as probe:
                assert_array_equal(model(x).float(), wanted.float())
            assert [len(stage.blocks) for stage in probe.result.stages] == [3]


class Scaled(Block):
    """Its parameter has 32 bits, so its output has as well, whatever autocast does inside."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.1))

    def forward(self, x):
        return x + self.scale * self.layer(x)


class Exact(Block):
    def forward(self, x):
        return super().forward(x.float())


class Cast(Chain):
    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x).bfloat16()
        return self.head(x)


@pytest.mark.parametrize("made", [Chain, Cast])
def test_states_may_differ_in_precision(made):
    model, batches = made(Scaled(), Scaled(), Scaled()), (images(), images(3))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        states = [[model.stem(x)] for x in batches]
        for walk in states:
            for block in model.blocks:
                walk.append(block(walk[-1].bfloat16() if made is Cast else walk[-1]))
        result = probed(model, *batches, transport=5, null="reinit")
    (stage,) = result.stages
    track = [torch.cat([state.double() for state in pair]) for pair in zip(*states, strict=True)]
    assert_allclose(stage.points.score, line_shape_score(torch.stack(track)), rtol=1e-12)
    assert stage.kind == "bfloat16, float32"
    known = [not np.isnan(value) for value in stage.rounding]
    assert known == [made is Cast, made is Cast, False]  # of what the next block takes


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tokens", ["all", "each", "first", "last", "mean"])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_a_state_that_is_only_rounded_between_two_blocks_is_the_same_for_all_tokens(
    kind, tokens, shift
):
    class Cast(Chain):
        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block((x + shift).to(kind).float() if shift else x.to(kind))
            return self.head(x)

    model = Cast(*(Exact() for _ in range(3)))
    (*_, stage) = probed(model, torch.randn(5, 7, 4), tokens=tokens, blocks=Exact).stages
    assert len(stage.blocks) == (1 if shift else 3)
    assert stage.kind == ("float32" if shift else f"{kind}, float32".removeprefix("torch."))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_differences_of_16_bit_states_are_not_rounded(kind):
    model, x = Chain(Block(), Block(), Block()).to(kind), images().to(kind)
    result = probed(model, x)
    states = [state.double() for _, state in walk_of(model)(x)]
    (stage,) = result.stages
    assert_allclose(stage.points.score, line_shape_score(torch.stack(states).detach()), rtol=1e-12)
    assert stage.kind == str(kind).removeprefix("torch.")
    assert max(stage.rounding) < 0.1


def test_a_step_that_is_mostly_rounding_gives_a_warning():
    class Small(Block):
        def forward(self, x):
            return x + 2e-3 * torch.tanh(self.layer(x))

    model = Chain(Small(), Small(), Small())
    exact = probed(model, images(200))
    assert all(map(np.isnan, exact.stages[0].rounding))
    with pytest.warns(ProbeWarning, match=r"blocks\.\d: rounding to bfloat16 makes up about \d+%"):
        probed(model.bfloat16(), images(200).bfloat16())


def test_the_size_of_rounding_is_estimated_about_right():
    exact = torch.randn(50, 200)
    error = (exact.bfloat16().float() - exact).square().sum() / exact.square().sum()
    assert_allclose(ROUNDING * torch.finfo(torch.bfloat16).eps ** 2, float(error), rtol=0.2)
