"""The configuration of a trial: complete, frozen, and with one name for ever."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.config import TrialConfig
from models.network import build

SOME = {
    "dataset": "cifar10",
    "network": "plain",
    "stages": 4,
    "gamma": 5e-3,
    "seed": 3,
    "recipe": "sgd",
    "points": 2000,
}


def test_the_id_of_a_trial_never_changes():
    """Results on users' disks are filed under these names."""
    assert TrialConfig().trial == "fd88449f4c9a"
    assert TrialConfig(**SOME).trial == "b44ac5a1b7d5"


def test_a_penalty_of_weight_zero_is_no_other_trial():
    none = {"transport_penalty": 0, "straightness_penalty": 0.0}
    assert TrialConfig(**SOME, **none).trial == "b44ac5a1b7d5"


def test_usual_weights_momentum_and_schedule_are_no_other_trial():
    usual = {"initialisation": "he", "initial_scale": 1, "renormalise": False}
    usual |= {"momentum": 0.9, "schedule": "cosine"}
    assert TrialConfig(**SOME, **usual).trial == "b44ac5a1b7d5"
    assert TrialConfig(recipe="adamw", schedule="cosine").trial == TrialConfig(recipe="adamw").trial


def test_the_id_is_the_same_in_every_process():
    code = f"from models.config import TrialConfig; print(TrialConfig(**{SOME!r}).trial)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == TrialConfig(**SOME).trial


@given(st.permutations(list(SOME)))
def test_the_order_of_the_fields_does_not_change_the_id(order):
    assert TrialConfig(**{name: SOME[name] for name in order}).trial == TrialConfig(**SOME).trial


@given(st.sets(st.sampled_from(sorted(TrialConfig.model_fields))))
def test_writing_a_default_out_does_not_change_the_id(names):
    config = TrialConfig(**SOME)
    written = SOME | {name: getattr(config, name) for name in names}
    assert TrialConfig(**written).trial == config.trial
    assert TrialConfig(**config.model_dump()) == config
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("dataset", "mnist"), ("network", "plain"), ("layers", "fully_connected")),
        *(("stages", 2), ("gamma", 1e-3), ("decay", "blocks"), ("seed", 1), ("epochs", 3)),
        *(("batch_size", 64), ("recipe", "sgd"), ("learning_rate", 0.1), ("augment", True)),
        *(("normalisation", "none"), ("precision", "bfloat16"), ("warmup", 1.5)),
        *(("depth", 3), ("validation", 0.1)),
        *(("points", 50), ("epoch_points", 50), ("clean_train_every", 5)),
        *(("transport_penalty", 1e-3), ("straightness_penalty", 0.1)),
        *(("architecture", "net.py:f#0123456789ab"), ("model", (("width", 8),))),
        ("block_pattern", "a.*"),
        *(("initialisation", "torch"), ("initial_scale", 4), ("renormalise", True)),
        *(("momentum", 0.5), ("schedule", "constant"), ("split", "train")),
    ],
)
def test_every_field_has_a_part_in_the_id(field, value):
    others = {"architecture": "timm:x"} if field in ("model", "block_pattern") else {}
    others |= {"recipe": "sgd"} if field == "momentum" else {}
    assert TrialConfig(**others, **{field: value}).trial != TrialConfig(**others).trial


def test_every_field_is_in_the_test_above():
    (mark,) = test_every_field_has_a_part_in_the_id.pytestmark
    assert {field for field, _ in mark.args[1]} == set(TrialConfig.model_fields)


def test_whole_numbers_and_fractions_are_the_same_gamma():
    ids = {TrialConfig(gamma=zero).trial for zero in (0, 0.0, -0.0, "0")}
    assert ids == {TrialConfig().trial}
    assert TrialConfig(gamma=1).trial == TrialConfig(gamma=1.0).trial


def test_the_papers_letters_are_understood():
    assert TrialConfig(dataset="cifar10", K=4, m=300) == TrialConfig(
        dataset="cifar10", stages=4, points=300
    )


@pytest.mark.parametrize(
    ("dataset", "layers", "normalisation", "augment"),
    [
        ("digits", "convolutional", "batch", False),
        ("mnist", "fully_connected", "none", False),
        ("fashion_mnist", "fully_connected", "none", False),
        ("cifar10", "convolutional", "batch", True),
        ("cifar100", "convolutional", "batch", True),
        ("mine.npz", "convolutional", "batch", False),
        ("mine.py:made", "convolutional", "batch", False),
    ],
)
def test_what_is_left_out_suits_the_data_set(dataset, layers, normalisation, augment):
    config = TrialConfig(dataset=dataset)
    assert (config.layers, config.normalisation, config.augment) == (layers, normalisation, augment)
    none = {name for name, value in config.model_dump().items() if value is None}
    assert none == {"architecture", "block_pattern", "depth", "momentum"}


@pytest.mark.parametrize(
    ("given", "blocks"),
    [({}, 10), ({"K": 1}, 10), ({"K": "4"}, 5), ({"stages": 2}, 5), ({"dataset": "mnist"}, 5)],
)
def test_the_number_of_blocks_is_table_1_s_unless_it_is_given(given, blocks):
    assert TrialConfig(**given, depth=blocks).trial == TrialConfig(**given).trial
    assert build(TrialConfig(**given), (1, 8, 8), 10).shape.blocks == blocks
    assert len({TrialConfig(**given, depth=n).trial for n in (4, 5, 10, 11)}) == 4


def test_null_in_a_sweep_file_means_the_default():
    assert TrialConfig(layers=None, learning_rate=None, gamma=None, points=None) == TrialConfig()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gamma": -1e-3}, "greater than or equal to 0"),
        ({"gamma": float("nan")}, "finite"),
        ({"gamma": float("inf")}, "finite"),
        ({"stages": 7}, "less than or equal to 4"),
        ({"stages": 0}, "greater than or equal to 1"),
        ({"dataset": "mnist", "K": 2}, "fully connected network has one stage"),
        ({"layers": "fully_connected", "stages": 2}, "needs layers: convolutional"),
        ({"dataset": "imagenet"}, "one of digits, mnist, fashion_mnist, cifar10, cifar100"),
        ({"dataset": ["mnist"]}, "string"),
        ({"dataset": "mine.py"}, r"the path of an .npz file, or FILE\.py:CALLABLE"),
        ({"dataset": "torchvision:made"}, r"or FILE\.py:CALLABLE"),
        ({"network": "transformer"}, "'plain' or 'resnet'"),
        ({"recipe": "lion"}, "'adam', 'sgd', .* or 'paper'"),
        ({"recipe": ["adam"]}, "'adam', 'sgd', .* or 'paper'"),
        ({"recipe": {"adam": 1}}, "'adam', 'sgd', .* or 'paper'"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"warmup": -1}, "greater than or equal to 0"),
        ({"warmup": 2, "epochs": 2}, "warmup = 2 should be below epochs = 2"),
        ({"momentum": 0.5}, "momentum = 0.5 belongs to recipe: sgd; adam has none"),
        ({"momentum": 1, "recipe": "sgd"}, "less than 1"),
        ({"schedule": "step"}, "'cosine' or 'constant'"),
        ({"initialisation": "zero"}, "'he' or 'torch'"),
        ({"initial_scale": 0}, "greater than 0"),
        ({"dataset": "mnist", "renormalise": True}, "needs normalisation: batch or final; w"),
        ({"architecture": "timm:x", "initial_scale": 2}, "belongs to the networks of Table 1"),
        ({"architecture": "timm:x", "renormalise": True}, "belongs to the networks of Table 1"),
        ({"transport_penalty": -1}, "greater than or equal to 0"),
        ({"straightness_penalty": -1e-9}, "greater than or equal to 0"),
        ({"validation": 0.95}, "less than or equal to 0.9"),
        ({"depth": 0}, "greater than or equal to 1"),
        ({"depth": 1001}, "less than or equal to 1000"),
        ({"batch_size": 1}, "greater than or equal to 2"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"points": 1}, "greater than or equal to 2"),
        ({"weight_decay": 0.1}, "Extra inputs are not permitted"),
        ({"K": 1, "stages": 2}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_is_allowed(given, told):
    with pytest.raises(ValidationError, match=told):
        TrialConfig(**given)


def test_a_configuration_is_frozen_and_can_be_a_key():
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.gamma = 1.0
    assert {config: 1}[TrialConfig()] == 1
