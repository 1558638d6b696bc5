"""A sweep against the way of the tutorial: ``python -m benchmarks.sweep --tutorial``."""

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

import numpy as np
import ray
import torch

from benchmarks.rows import report
from benchmarks.training import machine

IMAGES, POINTS, EPOCHS = 10_000, 5000, 3

SWEEP = """
dataset: {data}
layers: fully_connected
network: [plain, resnet]
gamma: {gammas}
seeds: {seeds}
epochs: {epochs}
points: {points}
clean_train_every: {epochs}
precision: auto
resources: {{cpus: 1}}
"""

PEER = """
import sys
import ray
from ray import tune

def trial(config):
    import torch
    from scipy.optimize import linear_sum_assignment
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from benchmarks.training import Pictures
    from models.config import TrialConfig
    from models.datasets import load
    from models.network import build
    torch.set_num_threads(1)
    epochs, data = config.pop("epochs"), load(config["dataset"])
    network = build(TrialConfig(**config), data.image, data.classes)
    mean, std = ([value / 255 for value in part] for part in (data.mean, data.std))
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    pictures, held = (Pictures(data, len(data.y_train), transform) for _ in range(2))
    held.images, held.labels = data.x_test, data.y_test.tolist()
    loader = DataLoader(pictures, batch_size=128, shuffle=True)
    test = DataLoader(held, batch_size=128)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=config["gamma"])
    for epoch in range(epochs):
        network.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(network(inputs), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        network.eval()
        correct, first, last = 0, [], []
        with torch.no_grad():
            for inputs, labels in test:
                states = [state for _, state in network.states(inputs)]
                first.append(states[0])
                last.append(states[-1])
                correct += (network.classify(states[-1]).argmax(1) == labels).sum().item()
        if epoch + 1 < epochs:
            tune.report({"accuracy": correct / len(data.y_test)})
    cost = torch.cdist(torch.cat(first), torch.cat(last)).square().numpy()
    _, columns = linear_sum_assignment(cost)
    ots = float((columns == range(len(columns))).mean())
    tune.report({"accuracy": correct / len(data.y_test), "ots": ots})

folder, data, epochs, seeds, *gammas = sys.argv[1:]
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
results = tune.Tuner(
    tune.with_resources(trial, {"cpu": 1}),
    param_space={"dataset": data, "layers": "fully_connected", "epochs": int(epochs),
                 "network": tune.grid_search(["plain", "resnet"]),
                 "gamma": tune.grid_search([float(gamma) for gamma in gammas]),
                 "seed": tune.grid_search(list(range(int(seeds))))},
    run_config=tune.RunConfig(storage_path=folder, verbose=0),
).fit()
assert not results.num_errors
for result in results:
    print("TRIAL", result.config["network"], result.metrics["ots"])
"""


def swept(part: str, folder: Path, trials: int) -> tuple[float, dict[str, list[float]]]:
    """Wall seconds of a sweep, and the OTS of each network's trials at the end."""
    gammas, seeds = [5e-4, 0.0, 1e-4, 1e-3][: max(1, trials // 4)], min(2, trials // 2)
    data, out = str(folder / "some.npz"), str(folder / part)
    if part == "ours":
        settings = {"data": data, "gammas": gammas, "seeds": seeds, "epochs": EPOCHS}
        (folder / "sweep.yaml").write_text(SWEEP.format(**settings, points=POINTS))
        command = ["-m", "tune_jobs.cli", "run", str(folder / "sweep.yaml"), "--out", out]
        command += ["--no-report"]
    else:
        command = ["-c", PEER, out, data, str(EPOCHS), str(seeds), *map(str, gammas)]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], check=True, text=True, stdout=subprocess.PIPE)
    seconds = time.perf_counter() - start
    found: dict[str, list[float]] = defaultdict(list)
    if part == "ours":
        from analysis.results import load

        tables = load(out, tables=("trials", "tracks"))
        networks = tables.trials.set_index("trial").network
        last = tables.tracks[tables.tracks.epoch == EPOCHS]
        for name, ots in zip(last.trial, last.ots, strict=True):
            found[networks[name]].append(ots)
    for line in done.stdout.splitlines():
        if line.startswith("TRIAL"):
            _, network, ots = line.split()
            found[network].append(float(ots))
    return seconds, found


def compare(data: str, trials: int, parts: list[str]) -> None:
    """Run the sweeps, print the rows, and append them to the results."""
    rows = [["way", "trials", "m", "wall, s", "s a trial", "OTS plain", "OTS ResNet", "ratio"]]
    rows += [["---"] * len(rows[0])]
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        mnist = np.load(Path(data, "mnist.npz"))
        counts = {"train": IMAGES, "test": POINTS}
        keys = [(f"{what}_{split}", n) for split, n in counts.items() for what in "xy"]
        np.savez(Path(name, "some.npz"), **{key: mnist[key][:n] for key, n in keys})
        for part in parts:
            taken[part], ots = swept(part, Path(name), trials)
            count = sum(map(len, ots.values()))
            assert count == trials, f"{count} trials instead of {trials}"
            means = [f"{np.mean(ots[network]):.4f}" for network in ("plain", "resnet")]
            ratio = f"{taken[part] / taken['ours']:.1f}" if "ours" in taken else ""
            cells = [f"{POINTS:,}", f"{taken[part]:.0f}", f"{taken[part] / count:.1f}"]
            rows.append([part, str(count), *cells, *means, ratio])
            print(rows[-1], file=sys.stderr, flush=True)
    command = f"python -m benchmarks.sweep --tutorial --data FOLDER --trials {trials}"
    about = f"{machine()}, ray {ray.__version__}, torch {torch.__version__}"
    head = f"\n## A sweep against the tutorial's way, {date.today()}\n"
    report([head, f"`{command}`; {about}\n", *(f"| {' | '.join(row)} |" for row in rows)])
