"""Pitfalls of probing any torch module, each with a model built to trigger it."""

import gc
import weakref

import numpy as np
import pytest
import torch
from chains import WIDTH, Block, Chain, hooks_of, images, probed, walk_of, wanted_of
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from scoring.line_shape import line_shape_score
from scoring.probe import TrackProbe
from scoring.probing.errors import ProbeError, ProbeWarning
from scoring.probing.measured import ROUNDING


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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


# What blocks take and return


class Returns(Block):
    """Returns its state the way that ``pack`` packs it."""

    def __init__(self, pack):
        super().__init__()
        self.pack = pack

    def forward(self, *, hidden_states, scale=1.0):
        weights = torch.zeros(3)  # another tensor, as attention weights are
        return self.pack(weights, super().forward(hidden_states))


class Packed(Chain):
    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(hidden_states=x)
            if isinstance(x, dict):
                x = x["state"]
            elif not isinstance(x, torch.Tensor):
                x = x[-1]
        return self.head(x)


@pytest.mark.parametrize(
    "pack",
    [
        lambda weights, x: x,
        lambda weights, x: (x,),
        lambda weights, x: (None, weights, x),
        lambda weights, x: [weights, x],
        lambda weights, x: {"weights": weights, "state": x},
    ],
)
def test_a_block_may_return_a_tensor_a_tuple_a_list_or_a_dictionary(pack):
    model, x = Packed(*(Returns(pack) for _ in range(3))), images()
    result = probed(model, x)
    same = Chain()
    same.stem, same.blocks = model.stem, model.blocks
    wanted = wanted_of(same, x, block=lambda block, x: Block.forward(block, x))
    assert_array_equal(result.stages[0].points.score, wanted.score)


class Pair(Block):
    """Takes and returns a tuple, as blocks of one argument do that need two."""

    def forward(self, pair):
        x, scale = pair
        return super().forward(x * scale), scale


def test_a_block_may_take_a_tuple():
    model, x = nn.Sequential(Pair(), Pair(), Pair()), torch.randn(5, WIDTH)
    result = probed(model, (x, torch.ones(5, 1)))
    track = [x]
    for block in model:
        track.append(Block.forward(block, track[-1]).detach())
    assert_allclose(result.stages[0].points.score, line_shape_score(torch.stack(track)))


@pytest.mark.parametrize("blocks", ["auto", Block])
def test_a_sample_without_a_batch_is_an_error(blocks):
    model = nn.Sequential(Block(), Block())
    with pytest.raises(ProbeError, match=r"takes no tensor .* of shape \(batch, ...\)"):
        probed(model, torch.randn(WIDTH), blocks=blocks)


def test_blocks_that_are_never_called_are_named_as_such():
    class Around(Chain):
        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = x + block.layer(x)
            return self.head(x)

    model, x = Around(Block(), Block()), images()
    with pytest.raises(ProbeError, match=r"Block x 2: blocks.0, ...\n    none of them is called"):
        probed(model, x)
    wanted = wanted_of(model, x, block=lambda block, x: x + block.layer(x))
    result = probed(model, x, blocks=r"blocks\.\d\.layer", branches=True)
    assert_array_equal(result.stages[0].points.score, wanted.score)


def test_a_block_that_returns_no_state_is_an_error():
    class Nothing(Chain):
        def forward(self, x):
            for block in self.blocks:
                block(hidden_states=self.stem(x))

    model = Nothing(*(Returns(lambda weights, x: None) for _ in range(2)))
    with pytest.raises(ProbeError, match=r"blocks\.0 returns no tensor"):
        probed(model, images(), blocks=Returns)
    with pytest.raises(ProbeError, match="no residual blocks in Nothing"):
        probed(model, images())
    assert hooks_of(model) == 0


def test_a_stage_ends_where_the_shape_changes():
    class Wider(Block):
        def __init__(self):
            super().__init__()
            self.wider = nn.Linear(WIDTH, 2 * WIDTH)

        def forward(self, x):
            return self.wider(super().forward(x))

    model = Chain(Block(), Block(), Wider(), *(Block(2 * WIDTH) for _ in range(3)))
    model.head = nn.Linear(2 * WIDTH, 2)
    result = probed(model, images())
    assert [stage.blocks for stage in result.stages] == [
        ("blocks.0", "blocks.1"),
        ("blocks.3", "blocks.4", "blocks.5"),
    ]
    named = probed(model, images(), blocks=r"blocks\.\d")
    assert named.skipped == ["blocks.2: changes the shape: 6 to 12"]
    assert [len(stage.blocks) for stage in named.stages] == [2, 3]


class Branches(Chain):
    """Adds what its blocks return: the ordinary way to write a residual network by hand."""

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Branch(Block):
    def forward(self, x):
        return torch.tanh(self.layer(x))


@pytest.mark.parametrize("blocks", ["auto", Branch])
def test_blocks_that_return_what_is_added_are_noticed(blocks):
    model, x = Branches(Branch(), Branch(), Branch()), images()
    with pytest.raises(ProbeError, match="what 2 of them return is added to their input: pass "):
        probed(model, x, blocks=blocks)
    result = probed(model, x, blocks=blocks, branches=True)
    wanted = wanted_of(model, x, block=lambda block, x: x + block(x))
    assert_array_equal(result.stages[0].points.score, wanted.score)
    assert hooks_of(model) == 0


class Added(nn.Module):
    """Adds what its part returns, times a scale; norms may come before it or after the sum."""

    def __init__(self, scale=1.0, before=None, after=None):
        super().__init__()
        self.part, self.scale = Branch(), scale
        self.before, self.after = before or nn.Identity(), after or nn.Identity()

    def forward(self, x):
        return self.after(x + self.scale * self.part(self.before(x)))


def test_the_sum_of_a_branch_and_its_input_is_checked_also_after_the_last_block():
    model, x = Chain(*(Added() for _ in range(3))), images()
    result = probed(model, x, blocks=r"blocks\.\d\.part", branches=True)
    assert [block["sum_error"] for block in result.blocks()] == [0, 0, 0]
    assert np.isnan([block["sum_error"] for block in probed(model, x).blocks()]).all()
    free = Branches(Branch(), Branch(), Branch())  # only the next block shows the sum
    errors = [b["sum_error"] for b in probed(free, x, blocks=Branch, branches=True).blocks()]
    assert errors[:2] == [0, 0]
    assert np.isnan(errors[2])


@pytest.mark.parametrize(
    ("how", "least", "most"),
    [
        ({"scale": 0.5}, 0.49, 0.51),
        ({"before": nn.LayerNorm(WIDTH)}, 0.1, 99),
        ({"after": nn.LayerNorm(WIDTH)}, 0.1, 99),
        ({"scale": 0.0}, 0.99, 1.01),
    ],
    ids=["layer scale", "norm before", "norm after", "dropped"],
)
def test_a_branch_that_is_not_simply_added_gives_a_warning(how, least, most):
    model, x = Chain(*(Added(**how) for _ in range(3))), images()
    with pytest.warns(ProbeWarning, match=r"input of blocks\.0\.part plus .* and 2 more like it"):
        result = probed(model, x, blocks=r"blocks\.\d\.part", branches=True)
    errors = [block["sum_error"] for block in result.blocks()]
    assert len(errors) == 3
    assert least <= min(errors) <= max(errors) <= most


def test_the_state_is_taken_before_a_final_norm():
    class Normed(Chain):
        def __init__(self, *blocks):
            super().__init__(*blocks)
            self.head = nn.Sequential(nn.LayerNorm(WIDTH), self.head)

    model, x = Normed(Block(), Block()), images()
    assert_array_equal(probed(model, x).stages[0].points.score, wanted_of(model, x).score)


class Wandering(Chain):
    """Control flow that depends on values, which symbolic tracing cannot follow."""

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            if float(x.sum()) > -1e9:
                x = block(x)
        return self.head(x)


def test_control_flow_that_depends_on_values_is_followed():
    model, x = Wandering(Block(), Block(), Block()), images()
    assert_array_equal(probed(model, x).stages[0].points.score, wanted_of(model, x).score)


def test_a_module_that_is_called_twice_is_two_blocks():
    block, other = Block(), Block()
    model, x = Chain(block, other, block, block), images()
    result = probed(model, x, x)
    (stage,) = result.stages
    assert stage.blocks == ("blocks.0", "blocks.1", "blocks.0 (call 2)", "blocks.0 (call 3)")
    assert_array_equal(stage.points.score, wanted_of(model, x, x).score)


def test_a_batch_that_runs_other_blocks_is_an_error():
    class Dropping(Chain):
        def forward(self, x):
            x = self.stem(x)
            for block in list(self.blocks)[: len(x)]:
                x = block(x)
            return self.head(x)

    with pytest.raises(ProbeError, match=r"batch 2 ran blocks blocks\.0, blocks\.1; the first"):
        probed(Dropping(Block(), Block(), Block()), images(3), images(2))


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


# Number formats


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
