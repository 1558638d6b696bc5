"""``recipe: paper``: what it stands for, and that the paper's tables run with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_sweeps import geosweep

from models.config import TrialConfig
from models.datasets import load
from models.training import train
from tune_jobs.sweep import read

K1 = {
    **{"recipe": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "schedule": "constant"},
    "initial_scale": 4,
}
FOLDED = {"recipe": "sgd", "learning_rate": 1e-2, "initialisation": "torch"}


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"dataset": "cifar10"}, K1),
        ({"dataset": "cifar10", "K": 4}, FOLDED),
        ({"dataset": "mnist"}, {"initialisation": "torch"}),
        ({"dataset": "mnist", "layers": "convolutional"}, K1),
        ({"dataset": "digits", "learning_rate": 0.1}, K1 | {"learning_rate": 0.1}),
    ],
)
def test_the_paper_recipe_is_replaced_before_the_id_is_formed(fields: dict, same: dict) -> None:
    short, long = TrialConfig(**fields, recipe="paper"), TrialConfig(**(fields | same))
    assert short == long
    assert short.trial == long.trial
    assert TrialConfig(**short.model_dump()) == long


@pytest.mark.parametrize("name", ["K", "stages"])
@pytest.mark.parametrize(
    ("text", "stages"), [("1", 1), (" 1", 1), (1.0, 1), ("1.0", 1), ("0x1", 1), ("4", 4)]
)
def test_the_paper_recipe_reads_k_as_a_number(name: str, text: object, stages: int) -> None:
    found = TrialConfig(dataset="cifar10", recipe="paper", **{name: text})
    assert found == TrialConfig(dataset="cifar10", recipe="paper", K=stages)


def test_the_paper_recipe_leaves_a_k_that_is_no_number_to_be_refused() -> None:
    with pytest.raises(ValueError, match="should be a number"):
        TrialConfig(dataset="cifar10", recipe="paper", K="one")


def test_an_architecture_has_no_paper_recipe() -> None:
    with pytest.raises(ValueError, match="recipe = paper belongs to the networks of Table 1"):
        TrialConfig(architecture="timm:resnet18", recipe="paper")


@pytest.mark.parametrize("name", ["table4", "table5", "table6", "table7", "figure2"])
def test_the_papers_tables_use_it_and_ours_is_one_setting_away(name: str) -> None:
    trials = [t for t in read(name).trials if t.dataset != "mnist"]
    assert {trial.recipe for trial in trials} == {"sgd"}
    for trial in read(name, ["recipe=adam"]).trials:
        fields = {"dataset", "network", "stages", "gamma", "epochs", "points"}
        assert trial == TrialConfig(**trial.model_dump(include=fields))


def test_exclude_knows_the_recipe_by_both_names() -> None:
    base = {"name": "a", "recipe": ["adam", "paper"], "gamma": [0, 1]}
    for group in ({"recipe": "paper"}, {"recipe": "sgd"}, {"schedule": "constant"}):
        left = read(base | {"exclude": [group]}).trials
        assert [trial.recipe for trial in left] == ["adam", "adam"]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cifar100.npz of that shape, but few train images."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 200), ("test", 10_000)):
        images = np.zeros((count, 32, 32, 3), np.uint8)
        images[:200] = draw.integers(0, 256, (200, 32, 32, 3))
        splits |= {f"x_{split}": images, f"y_{split}": np.arange(count) % 100}
    np.savez(folder / "cifar100.npz", **splits)
    return folder


def test_table_5_runs_on_a_file_that_is_put_in_the_data_folder(
    stand_in: Path, tmp_path: Path
) -> None:
    words = (
        "run",
        "table5",
        "--set",
        "epochs=2",
        "--set",
        "gamma=0,1e-2",
        "--set",
        "precision=float32",
    )
    code, out = geosweep(
        *words, "--data", str(stand_in), "--out", str(tmp_path / "out"), "--dry-run"
    )
    assert code == 0, out
    assert "4 cells" in out
    assert "will download" not in out


def test_a_trial_of_table_5_trains_on_it(stand_in: Path) -> None:
    (trial,) = read("table5", ["epochs=2", "gamma=1e-2", "network=plain"]).trials
    whole = load("cifar100", str(stand_in))
    data = replace(whole, x_test=whole.x_test[:100], y_test=whole.y_test[:100])
    small = trial.model_copy(update={"depth": 1, "points": 50, "epoch_points": 50})
    losses = [record["train_loss"] for record, *_ in train(small, data)]
    assert len(losses) == 3
    assert np.isfinite(losses[1:]).all()
