"""What an epoch draws: its batches, their order, and crops and mirror images."""

import math

import pytest
import reference
import torch
from tiny_training import CONVOLUTIONAL, tiny
from torch.testing import assert_close

from models import training
from models.config import TrialConfig
from models.training import Draws, train


def draws(count=40, epoch=1, **config):
    return Draws(TrialConfig(**CONVOLUTIONAL | config), count, epoch, torch.device("cpu"))


@pytest.mark.parametrize(
    ("count", "sizes"), [(40, [16, 16, 8]), (32, [16, 16]), (33, [16, 16]), (34, [16, 16, 2])]
)
def test_an_epoch_sees_every_image_once_but_for_a_batch_of_one(count, sizes):
    batches = draws(count).batches
    assert [len(batch) for batch in batches] == sizes
    seen = torch.cat(list(batches)).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(count))


def test_batch_normalisation_meets_no_batch_of_one():
    """A last state of one pixel: one image alone has no variance."""
    config = TrialConfig(**CONVOLUTIONAL | {"stages": 4, "epochs": 1})
    *_, last = train(config, tiny(side=8, train=config.batch_size + 1))
    assert math.isfinite(last.record["train_loss"])


def test_order_differs_between_epochs_and_seeds_and_not_with_gamma():
    one = torch.cat(list(draws().batches))
    assert_close(torch.cat(list(draws(gamma=0.1, network="plain").batches)), one)
    assert not torch.equal(torch.cat(list(draws(epoch=2).batches)), one)
    assert not torch.equal(torch.cat(list(draws(seed=8).batches)), one)


def test_an_augmented_image_is_a_crop_of_its_frame_or_the_mirror_image_of_one():
    x = torch.randint(1, 256, (12, 6, 7, 2), dtype=torch.uint8)  # neither square nor symmetric
    seen = draws(12, augment=True)
    for batch in torch.randperm(12).split(5):
        for i, image in zip(batch.tolist(), seen.images(x, batch), strict=True):
            windows = reference.crops_and_flips(x[i].tolist(), training.PAD)
            assert len(windows) == 9 * 9 * 2
            down, right = seen.corner[i].tolist()
            assert image.tolist() == windows[(9 * down + right) * 2 + int(seen.flip[i])]


def test_every_crop_and_both_sides_are_drawn_about_equally_often():
    count = 162 * 100
    seen = draws(count, augment=True)
    place = (seen.corner[:, 0] * 9 + seen.corner[:, 1]) * 2 + seen.flip
    drawn = place.bincount(minlength=162).double()
    assert drawn.shape == (162,)
    assert_close(drawn, torch.full((162,), 100.0).double(), rtol=0.5, atol=0)


def test_without_augmentation_images_are_as_they_are():
    x = torch.randint(256, (12, 6, 7, 2), dtype=torch.uint8)
    batch = torch.tensor([3, 1, 11])
    assert_close(draws(12).images(x, batch), x[batch])
