"""What blocks of a user's model take and return, seen by the probe."""

import numpy as np
import pytest
import torch
from chains import WIDTH, Block, Chain, hooks_of, images, probed, wanted_of
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from scoring.line_shape import line_shape_score
from scoring.probing.errors import ProbeError, ProbeWarning

pytestmark = pytest.mark.usefixtures("seeded")


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


def test_blocks_that_are_one_module_can_be_named():
    model = Chain(*[Block()] * 3)
    with pytest.raises(ProbeError, match=r"blocks\.0 is there 3 times: name it, and each of its"):
        probed(model, images())
    assert probed(model, images(), blocks=r"blocks\.0").stages[0].blocks == (
        *("blocks.0", "blocks.0 (call 2)", "blocks.0 (call 3)"),
    )
    tied = Chain()
    tied.decoder = nn.ModuleDict({"proj": tied.stem, "norm": nn.LayerNorm(WIDTH)})
    with pytest.raises(ProbeError, match=r"'auto' could find\n"):
        probed(tied, images())


def test_a_batch_that_runs_other_blocks_is_an_error():
    class Dropping(Chain):
        def forward(self, x):
            x = self.stem(x)
            for block in list(self.blocks)[: len(x)]:
                x = block(x)
            return self.head(x)

    with pytest.raises(ProbeError, match=r"batch 2 ran blocks blocks\.0, blocks\.1; the first"):
        probed(Dropping(Block(), Block(), Block()), images(3), images(2))
