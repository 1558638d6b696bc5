"""Table 1: the dimensions of every network the paper trains, and of those beside it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures import architecture
from models.network import Network

CIFAR_STAGES = ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4))
# As printed, for 1 x 28 x 28 and 3 x 32 x 32 images: shapes of the stages, blocks of each stage.
TABLE_1 = {
    ("fully_connected", (1, 28, 28), 1): (((1000,),), 5),
    ("convolutional", (3, 32, 32), 1): (((32, 16, 16),), 10),
    ("convolutional", (3, 32, 32), 4): (CIFAR_STAGES, 5),
}


@pytest.mark.parametrize("row", TABLE_1, ids=str)
def test_the_rule_gives_what_the_paper_prints(row):
    layers, image, stages = row
    made = architecture(layers, image, stages, classes=10)
    assert (made.shapes, made.blocks) == TABLE_1[row]
    assert (made.layers, made.image, made.classes) == (layers, image, 10)


def test_mnist_has_five_fully_connected_blocks_of_a_thousand_units():
    row = architecture("fully_connected", (1, 28, 28), 1, 10)
    assert (row.shapes, row.dimensions, row.blocks) == (((1000,),), (1000,), 5)


def test_cifar_in_one_stage_has_ten_blocks_in_8192_dimensions():
    row = architecture("convolutional", (3, 32, 32), 1, 100)
    assert (row.shapes, row.dimensions, row.blocks) == (((32, 16, 16),), (8192,), 10)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_fewer_stages_are_the_first_ones_of_four(stages):
    row = architecture("convolutional", (3, 32, 32), stages, 10)
    assert (row.shapes, row.blocks) == (CIFAR_STAGES[:stages], 5)
    assert row.dimensions == (65536, 32768, 16384, 8192)[:stages]


@pytest.mark.parametrize(
    ("layers", "stages"), [("fully_connected", 1), ("convolutional", 1), ("convolutional", 3)]
)
def test_another_number_of_blocks_changes_nothing_else(layers, stages):
    usual = architecture(layers, (1, 8, 8), stages, 10)
    assert architecture(layers, (1, 8, 8), stages, 10, 7) == replace(usual, blocks=7)


def test_digits_get_a_quarter_of_the_channels_and_a_tenth_of_the_width():
    digits = (1, 8, 8)
    assert architecture("convolutional", digits, 1, 10).shapes == ((8, 4, 4),)
    assert architecture("convolutional", digits, 4, 10).shapes == (
        *((16, 8, 8), (32, 4, 4)),
        *((64, 2, 2), (128, 1, 1)),
    )
    assert architecture("fully_connected", digits, 1, 10).shapes == ((100,),)


def test_convolutional_mnist_halves_28_to_14_to_7_to_4():
    mnist = (1, 28, 28)
    assert architecture("convolutional", mnist, 1, 10).shapes == ((32, 14, 14),)
    assert architecture("convolutional", mnist, 4, 10).shapes == (
        *((64, 28, 28), (128, 14, 14)),
        *((256, 7, 7), (512, 4, 4)),
    )


@pytest.mark.parametrize(
    ("layers", "stages"),
    [("convolutional", 0), ("convolutional", 5), ("fully_connected", 0), ("fully_connected", 2)],
)
def test_a_number_of_stages_that_table_1_has_not_is_refused(layers, stages):
    with pytest.raises(ValueError, match=f"no {layers} network with K = {stages}"):
        architecture(layers, (3, 32, 32), stages, 10)


@settings(max_examples=8)
@given(
    st.sampled_from(["plain", "resnet"]),
    st.integers(1, 4),
    st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70)),
    st.integers(1, 100),
)
def test_a_network_of_any_image_size_has_the_states_of_its_row(network, stages, image, classes):
    with torch.device("meta"):  # shapes alone: no weights, no arithmetic
        made = Network(architecture("convolutional", image, stages, classes), network, "batch")
        seen = [(k, tuple(x.shape[1:])) for k, x in made.eval().states(torch.zeros(2, *image))]
        assert made(torch.zeros(2, *image)).shape == (2, classes)
    row = made.shape
    assert seen == [(k, s) for k, s in enumerate(row.shapes, 1) for _ in range(row.blocks + 1)]
