"""The training loop: the same numbers every time, also across an interruption."""

import io
import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from models import fits, training
from models.config import LEARNING_RATE, TrialConfig
from models.datasets import Dataset, load
from models.network import build, decayed
from models.penalties import straightness_penalty, transport_penalty
from models.training import Draws, diverged, standardiser, train, untrained


def tiny(side=16, channels=3, train=40, test=16, classes=3):
    """A data set of coloured noise, each class brighter than the one before."""
    draw = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        noise = draw.integers(0, 100, (count, side, side, channels))
        splits[f"x_{split}"] = (noise + 60 * labels[:, None, None, None]).astype(np.uint8)
        splits[f"y_{split}"] = labels
    mean, std = ([float(f())] * channels for f in (splits["x_train"].mean, splits["x_train"].std))
    return Dataset(**splits, classes=classes, mean=tuple(mean), std=tuple(std))


CONVOLUTIONAL = {"dataset": "tiny.npz", "batch_size": 16, "epochs": 3, "seed": 7}
OTHERS = [recipe for recipe in LEARNING_RATE if recipe not in ("adam", "sgd")]
CONNECTED = {"dataset": "tiny.npz", "layers": "fully_connected", "batch_size": 16, "epochs": 3}


def run(data, checkpoint=None, **config):
    """Records without their times, checkpoints as saved on disk, and the last weights."""
    records, saved, weights = [], [], {}
    for record, network, state in train(TrialConfig(**config), data, checkpoint=checkpoint):
        file = io.BytesIO()
        torch.save(state, file)
        saved.append(file.getvalue())
        assert record["seconds"] > 0
        records.append({k: v for k, v in record.items() if k != "seconds"})
        weights = {k: v.clone() for k, v in network.state_dict().items()}
    return records, saved, weights


def assert_same(one, other):
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert_close(other[name], one[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["adam", "sgd"])
@pytest.mark.parametrize("network", ["plain", "resnet"])
@pytest.mark.parametrize("shape", [CONVOLUTIONAL, CONNECTED])
@pytest.mark.parametrize("normalisation", ["batch", "none"])
def test_every_checkpoint_of_a_trial_is_one_of_that_trial(shape, network, recipe, normalisation):
    data = tiny()
    fields = shape | {"network": network, "recipe": recipe, "normalisation": normalisation}
    config = TrialConfig(**fields | {"epochs": 1})
    for _, _, state in train(config, data):
        fits.check(config, data, state)
        moments = {
            number: {name: value for name, value in of.items() if name != "step"}
            for number, of in state["optimizer"]["state"].items()
        }
        uncounted = state | {"optimizer": {"state": moments, "param_groups": []}}
        if recipe == "sgd":  # an earlier version saved torch.optim's state
            fits.check(config, data, uncounted)
        else:
            with pytest.raises(ValueError, match="another recipe"):
                fits.check(config, data, uncounted)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OTHERS)
def test_a_checkpoint_of_another_optimizer_is_not_one_of_that_trial(recipe):
    data = tiny(side=8)
    config = TrialConfig(**CONNECTED | {"epochs": 1, "recipe": recipe})
    *_, (_, _, state) = train(config, data)
    fits.check(config, data, state)
    for other in {"adam", "sgd", *OTHERS} - {recipe}:
        own = config.model_copy(update={"recipe": other})
        if {recipe, other} <= {"adam", "adamw", "radam"}:  # they keep the same moments
            fits.check(own, data, state)
        else:
            with pytest.raises(ValueError, match="another recipe"):
                fits.check(own, data, state)


def images_of(data, split):
    """Standardised images (m, c, h, w), by the book."""
    x = torch.from_numpy(getattr(data, f"x_{split}")).double().permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (data.mean, data.std))
    return ((x - mean) / std).float()


@pytest.mark.parametrize("config", [CONVOLUTIONAL, CONNECTED])
def test_the_untrained_network_can_be_made_again_without_training(config):
    config = TrialConfig(**config)
    before = next(train(config, tiny())).network.state_dict()
    assert_same(before, untrained(config, tiny()).state_dict())


def test_training_again_gives_the_same_numbers_bit_for_bit():
    one, other = (run(tiny(), **CONVOLUTIONAL, augment=True) for _ in range(2))
    for record, again in zip(one[0], other[0], strict=True):
        assert_same(record, again)
    assert_same(one[2], other[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        CONVOLUTIONAL | {"recipe": "adam", "augment": True, "gamma": 1e-2},
        CONVOLUTIONAL | {"recipe": "sgd", "augment": True, "gamma": 1e-2},
        CONVOLUTIONAL | {"network": "plain", "stages": 2, "epochs": 2},
        CONNECTED | {"recipe": "adam", "gamma": 1e-2, "warmup": 1.5},
        *(CONNECTED | {"recipe": other, "gamma": 1e-2, "epochs": 2} for other in OTHERS),
    ],
    ids=["adam", "sgd", "plain in two stages", "fully connected", *OTHERS],
)
def test_a_trial_stopped_after_any_epoch_goes_on_as_if_it_had_not_been(config):
    data = tiny(side=16 if config.get("augment") else 8)
    records, saved, weights = run(data, **config)
    assert [r["epoch"] for r in records] == list(range(config["epochs"] + 1))
    for stopped, content in enumerate(saved[:-1]):
        checkpoint = torch.load(io.BytesIO(content), weights_only=True)
        later, _, resumed = run(data, checkpoint=checkpoint, **config)
        for wanted, record in zip(records[stopped + 1 :], later, strict=True):
            assert_same(wanted, record)
        assert_same(weights, resumed)


def test_a_finished_trial_has_nothing_to_go_on_with():
    _, saved, _ = run(tiny(side=8), **CONNECTED)
    checkpoint = torch.load(io.BytesIO(saved[-1]), weights_only=True)
    assert list(train(TrialConfig(**CONNECTED), tiny(side=8), checkpoint=checkpoint)) == []


def test_epoch_zero_is_the_network_at_initialisation():
    config, data = TrialConfig(**CONNECTED), tiny(side=8)
    first = next(train(config, data))
    assert first.record["epoch"] == 0
    for name in ("train_loss", "train_accuracy", "learning_rate"):
        assert math.isnan(first.record[name])
    assert not diverged(first.record, TrialConfig())
    assert_same(build(config, data.image, data.classes).state_dict(), first.network.state_dict())


def test_a_small_network_learns_digits():
    *_, last = train(TrialConfig(layers="fully_connected", epochs=3, batch_size=32), load("digits"))
    assert last.record["test_accuracy"] > 0.9


@pytest.mark.parametrize("augment", [False, True])
def test_clean_accuracies_are_taken_on_as_many_unchanged_images_as_test_has(augment):
    config, data = TrialConfig(**CONVOLUTIONAL | {"epochs": 1}, augment=augment), tiny()
    *_, (record, network, _) = train(config, data)
    network.eval()
    for prefix, split in (("clean_train", "train"), ("test", "test")):
        x, y = images_of(data, split)[:16], torch.from_numpy(getattr(data, f"y_{split}"))[:16]
        with torch.no_grad():
            logits = network(x)
        assert_close(record[f"{prefix}_loss"], cross_entropy(logits, y).item(), rtol=1e-4, atol=0)
        right = (logits.argmax(1) == y).sum().item()
        assert record[f"{prefix}_accuracy"] == right / 16


def test_evaluation_does_not_depend_on_its_batches():
    config, data = TrialConfig(**CONVOLUTIONAL), tiny()
    network = build(config, data.image, data.classes)
    split = training.place(data, "train", "cpu")
    standardise = standardiser(data, "cpu")
    whole, *parts = (training.loss_and_accuracy(network, split, standardise, n) for n in (40, 7, 1))
    for part in parts:
        assert_close(part, whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("known", [1, 20, 40])
def test_images_whose_logits_are_known_are_not_evaluated_again(known):
    config, data = TrialConfig(**CONVOLUTIONAL), tiny()
    network = build(config, data.image, data.classes).eval()
    split, standardise = training.place(data, "train", "cpu"), standardiser(data, "cpu")
    with torch.no_grad():
        first = network(standardise(split.x[:known]))
    seen = []

    def counted(x):
        seen.append(len(x))
        return standardise(x)

    found = training.loss_and_accuracy(network, split, counted, 7, first)
    assert_close(found, training.loss_and_accuracy(network, split, standardise), rtol=1e-5, atol=0)
    assert sum(seen) == 40 - known


def test_images_are_standardised_channel_by_channel():
    x = torch.randint(256, (2, 4, 4, 3), dtype=torch.uint8)
    data = Dataset(*[None] * 4, classes=1, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    standard = standardiser(data, "cpu")(x)
    assert (standard.dtype, standard.shape) == (torch.float32, (2, 3, 4, 4))
    assert_close(standard[:, 2], (x[..., 2].float() - 3) / 6)


@pytest.mark.parametrize("recipe", ["adam", "sgd", "adagrad"])
def test_the_learning_rate_falls_to_zero_on_a_cosine(recipe):
    config = CONNECTED | {"epochs": 4, "recipe": recipe, "learning_rate": 0.01}
    records, _, _ = run(tiny(side=8), **config)
    steps = 3  # 40 images in batches of 16
    for record in records[1:]:
        done = (record["epoch"] * steps - 1) / (4 * steps)  # before the epoch's last step
        wanted = 0.01 * (1 + math.cos(math.pi * done)) / 2
        assert_close(record["learning_rate"], wanted, rtol=1e-12, atol=0)


def test_a_warm_up_rises_evenly_and_leaves_the_rest_to_the_cosine():
    """40 images in batches of 16: 3 steps an epoch, 6 of the warm-up, 6 after it."""
    config = TrialConfig(**CONNECTED | {"epochs": 4, "warmup": 2, "learning_rate": 0.07})
    rates = [training.rate_at(config, step, 3) for step in range(12)]
    assert_close(rates[:7], [0.01 * step for step in range(1, 8)])
    assert_close(rates[6:], [0.07 * (1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)])
    records, _, _ = run(tiny(side=8), **config.model_dump())
    assert [record["learning_rate"] for record in records[1:]] == rates[2::3]


@given(
    st.integers(1, 5), st.integers(1, 9), st.floats(0, 1, exclude_max=True), st.floats(1e-6, 1e6)
)
def test_no_learning_rate_is_above_the_given_one_or_below_zero(epochs, steps, share, rate):
    config = TrialConfig(
        **CONNECTED | {"epochs": epochs}, warmup=share * epochs, learning_rate=rate
    )
    rates = [training.rate_at(config, step, steps) for step in range(epochs * steps)]
    assert all(0 < each <= rate for each in rates)
    assert np.diff(np.sign(np.diff(rates))).max(initial=0) <= 0  # up, then down


@pytest.mark.parametrize("decay", ["all", "blocks"])
@pytest.mark.parametrize("recipe", ["adam", "sgd"])
def test_gamma_adds_gamma_times_the_weight_to_its_gradient(recipe, decay):
    """One step over the whole train split, by hand: along g = dL/dW + gamma W."""
    gamma, rate, data = 0.3, 1e-2, tiny(side=8)
    config = TrialConfig(
        **CONNECTED | {"epochs": 1, "batch_size": 40, "recipe": recipe},
        **{"gamma": gamma, "learning_rate": rate, "decay": decay},
    )
    network = build(config, data.image, data.classes)
    cross_entropy(network(images_of(data, "train")), torch.from_numpy(data.y_train)).backward()
    under = {id(p) for p in decayed(network, decay)[0]}
    *_, (_, trained, _) = train(config, data)
    for old, new in zip(network.parameters(), trained.parameters(), strict=True):
        g = old.grad + (gamma * old if id(old) in under else 0)
        plain = (g == 0) | (g.abs() > 1e-4)  # Adam's first step is the sign: not of rounding
        step = g if recipe == "sgd" else g / (g.abs() + 1e-8)
        assert_close(new[plain], (old - rate * step)[plain], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["adam", "sgd"])
def test_gamma_shrinks_the_weights(recipe):
    def size(gamma):
        config = CONNECTED | {"recipe": recipe, "gamma": gamma, "learning_rate": 1e-3}
        _, _, weights = run(tiny(side=8), **config)
        return sum(float((w**2).sum()) for name, w in weights.items() if "weight" in name)

    assert size(10.0) < size(1.0) < size(0.0)


def test_gamma_shrinks_nothing_but_the_blocks_where_it_weighs_only_them():
    def weights(**config):
        network = build(TrialConfig(**CONNECTED), (3, 8, 8), 3)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        config = {"recipe": "sgd", "gamma": 0.5} | config
        training.make_optimizer(network, TrialConfig(**CONNECTED, **config)).step(0.1)
        return network.state_dict()

    old = weights(gamma=0.0)
    new = weights(decay="blocks")
    for name, weight in old.items():
        shrunk = name.startswith("stages.") and name.endswith("weight")
        assert_close(new[name], weight * (1 - 0.1 * 0.5) if shrunk else weight)


def measured(**config):
    """LSS and kinetic energy on digits after a short training, and its last record."""
    config = {"layers": "fully_connected", "epochs": 3, "batch_size": 32} | config
    *_, (record, network, _) = train(TrialConfig(**config), load("digits"))
    split = training.place(load("digits"), "test", "cpu")
    network.eval()
    with torch.no_grad():
        states = list(network.states(standardiser(load("digits"), "cpu")(split.x[:200])))
    straightness, energy = straightness_penalty(states), transport_penalty(states)
    return 1 + straightness.item(), energy.item(), record


@pytest.mark.slow
@pytest.mark.parametrize("network", ["plain", "resnet"])
def test_the_straightness_penalty_straightens_and_the_transport_penalty_shortens(network):
    score, energy, record = measured(network=network)
    straighter, _, other = measured(network=network, straightness_penalty=1.0)
    assert straighter < 0.8 * score
    assert other["test_accuracy"] > 0.8
    _, less, another = measured(network=network, transport_penalty=1e-3)
    assert less < 0.5 * energy
    assert another["test_accuracy"] > 0.8
    for penalised in (other, another):  # the loss of a record is cross-entropy alone
        assert penalised["train_loss"] < record["train_loss"] + 1


@pytest.mark.parametrize("network", ["plain", "resnet"])
def test_penalties_are_added_to_the_loss_with_their_weights(network):
    """One step of SGD over the whole train split, by hand."""
    rate, data = 1e-3, tiny(side=8)
    config = TrialConfig(
        **CONVOLUTIONAL | {"epochs": 1, "batch_size": 40, "recipe": "sgd", "stages": 2},
        **{"network": network, "learning_rate": rate},
        **{"transport_penalty": 1e-3, "straightness_penalty": 0.5},
    )
    first = next(train(config, data)).network.train()
    states = list(first.states(images_of(data, "train")))
    y = torch.from_numpy(data.y_train)
    loss = cross_entropy(first.classify(states[-1][1]), y)
    (loss + 1e-3 * transport_penalty(states) + 0.5 * straightness_penalty(states)).backward()
    *_, (record, trained, _) = train(config, data)
    assert_close(record["train_loss"], loss.item(), rtol=1e-5, atol=0)
    for old, new in zip(first.parameters(), trained.parameters(), strict=True):
        if old.requires_grad:
            assert_close(new, old - rate * old.grad, rtol=1e-4, atol=1e-5)


def test_a_penalised_trial_trains_in_bfloat16_and_goes_on_where_it_was_stopped():
    config = CONNECTED | {"epochs": 2, "transport_penalty": 1e-4, "straightness_penalty": 0.1}
    *_, (record, _, _) = train(TrialConfig(**config, precision="bfloat16"), tiny(side=8))
    assert math.isfinite(record["train_loss"])
    records, saved, weights = run(tiny(side=8), **config)
    checkpoint = torch.load(io.BytesIO(saved[1]), weights_only=True)
    later, _, resumed = run(tiny(side=8), checkpoint=checkpoint, **config)
    assert_same(records[2], later[0])
    assert_same(weights, resumed)


def test_a_diverging_trial_ends_early_with_a_loss_that_is_not_finite():
    config = CONNECTED | {"epochs": 50, "recipe": "sgd", "learning_rate": 1e6}
    records, _, _ = run(tiny(side=8), **config)
    assert len(records) < 20
    assert [diverged(r, TrialConfig()) for r in records] == [False] * (len(records) - 1) + [True]


@pytest.mark.parametrize("name", ["train_loss", "clean_train_loss", "test_loss"])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_any_loss_that_is_not_finite_is_a_divergence(name, loss):
    fine = {"epoch": 1, "train_loss": 1.0, "clean_train_loss": 1.0, "test_loss": 1.0}
    assert not diverged(fine, TrialConfig())
    assert diverged(fine | {name: loss}, TrialConfig())


def test_clean_train_images_may_be_evaluated_every_few_epochs_and_at_the_ends():
    config = TrialConfig(**CONNECTED | {"epochs": 5})
    often, seldom = (
        [epoch.record for epoch in train(one, tiny(side=8))]
        for one in (config, config.model_copy(update={"clean_train_every": 2}))
    )
    for name in ("clean_train_loss", "clean_train_accuracy"):
        known = [not math.isnan(record[name]) for record in seldom]
        assert known == [True, False, True, False, True, True]
        assert [r[name] for r in seldom if r["epoch"] in (0, 2, 4, 5)] == [
            r[name] for r in often if r["epoch"] in (0, 2, 4, 5)
        ]
    assert [r["test_loss"] for r in seldom] == [r["test_loss"] for r in often]


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


def test_training_in_bfloat16_keeps_weights_and_evaluation_in_float32():
    *_, (record, network, _) = train(
        TrialConfig(**CONNECTED | {"epochs": 1}, precision="bfloat16"), tiny(side=8)
    )
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert math.isfinite(record["train_loss"])
    *_, (exact, _, _) = train(TrialConfig(**CONNECTED | {"epochs": 1}), tiny(side=8))
    assert exact["train_loss"] != record["train_loss"]
    assert_close(record["train_loss"], exact["train_loss"], rtol=0.05, atol=0)


def test_gradients_of_states_keep_the_layout_of_states():
    config, data = TrialConfig(**CONVOLUTIONAL), tiny()
    network = build(config, data.image, data.classes).to(memory_format=torch.channels_last)
    *_, (_, state) = network.states(images_of(data, "train"))
    logits, seen = network.classify(state), []
    state.register_hook(lambda g: seen.append(g.is_contiguous(memory_format=torch.channels_last)))
    logits.sum().backward()
    assert seen == [True]
