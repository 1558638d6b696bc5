"""Trained networks of a sweep's folder, loaded for a user's own script."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from models.config import TrialConfig
from models.datasets import load
from models.network import build
from models.training import standardiser
from models.validation import of_trained
from scoring import handover, places, storage
from scoring.tables import read_row, write_table
from tune_jobs import checkpoints, code, folder, service, sweep, trial
from tune_jobs.api import load_network
from tune_jobs.errors import SweepError
from tune_jobs.tuning import Setup


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    ["layers: fully_connected\nvalidation: 0.2", "architecture: own_net.py:one\nmodel.width: 12"],
)
def test_a_loaded_network_has_the_accuracy_in_its_row(tmp_path, reports, fields):
    file, root = tmp_path / "my.yaml", str(tmp_path / "out")
    shutil.copy(Path(__file__).with_name("own_net.py"), tmp_path)
    file.write_text(f"epochs: 1\npoints: 60\nepoch_points: 20\n{fields}\n")
    request = service.check(sweep.read(str(file)), root, None, None)
    (config,) = request.sweep.trials
    code.put(root, request.code)
    folder.claim(root, request.sweep)
    trial.run_trial(config.model_dump(), Setup(root, request.sources))
    handover.finish(root, config.trial, threads=1)
    file.with_name("own_net.py").unlink()  # the folder has its own copy

    network, loaded = load_network(root, config.trial)
    assert loaded == config
    assert not network.training
    data = of_trained(loaded, load(loaded.dataset))
    with torch.no_grad():
        logits = network(standardiser(data, "cpu")(torch.from_numpy(data.x_test)))
    accuracy = (logits.argmax(1).numpy() == data.y_test).mean()
    assert accuracy == pytest.approx(read_row(root, "trials", config.trial)["test_accuracy"])


def stored(root: Path, config: TrialConfig, **change) -> torch.nn.Module:
    """A network with other weights than its first ones, as a folder keeps it."""
    network = build(config, (1, 8, 8), 10)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01)
    row = {"trial": config.trial, **config.row(1), "status": "done"} | change
    write_table(str(root), "trials", config.trial, [{"image": "1 x 8 x 8", "classes": 10} | row])
    checkpoints.write(
        str(root), config.trial, {"epoch": 1, "network": network.state_dict(), "optimizer": {}}
    )
    return network.eval()


@pytest.mark.parametrize(
    "fields",
    [
        {"network": "plain", "seed": 3, "layers": "fully_connected"},
        {"K": 2, "depth": 1, "renormalise": True, "recipe": "paper", "momentum": 0.5},
        {"depth": 2, "normalisation": "final", "gamma": 0.1},
    ],
)
def test_a_loaded_network_has_the_weights_that_were_stored(tmp_path, fields):
    config = TrialConfig(**fields)
    wanted = stored(tmp_path, config)
    network, loaded = load_network(tmp_path, config.trial)
    assert loaded == config
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert_close(network(images), wanted(images), rtol=0, atol=0)
    assert [stage for stage, _ in network.states(images)][-1] == config.stages


def test_a_network_that_cannot_be_loaded_is_named_with_its_folder(tmp_path):
    root, config = str(tmp_path), TrialConfig(layers="fully_connected")
    with pytest.raises(SweepError, match=f"^{root}: no sweep here"):
        load_network(root, "0123456789ab")
    folder.claim(root, sweep.read("demo"))
    with pytest.raises(SweepError, match=f"^{root}: trial 0123456789ab is not in this folder"):
        load_network(root, "0123456789ab")
    missing = sweep.read("demo").trials[0].trial
    with pytest.raises(SweepError, match=f"^{root}: trial {missing} has no results yet"):
        load_network(root, missing)
    stored(tmp_path, config, image=None)
    with pytest.raises(SweepError, match=f"^{root}: trial {config.trial} .done. has no size"):
        load_network(root, config.trial)
    stored(tmp_path, config)
    storage.delete(root, places.checkpoint(config.trial))
    with pytest.raises(SweepError, match=f"no weights of trial {config.trial} were kept"):
        load_network(root, config.trial)
    other = build(TrialConfig(), (1, 8, 8), 10)
    checkpoints.write(root, config.trial, {"epoch": 1, "network": other.state_dict()})
    with pytest.raises(storage.Damaged, match=config.trial):
        load_network(root, config.trial)
