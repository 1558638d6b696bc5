"""The precision in which this machine trains faster: bfloat16 or float32.

    python -m models.precision [cuda]

The hardware says whether it has instructions for bfloat16. A timing of about a second confirms
that they are faster, and is kept in the cache folder, one file for each kind of machine. Only the
timing needs torch, and runs in a process of its own, so that the command line stays quick.
"""

import hashlib
import json
import os
import platform
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from models.datasets import cache_folder

Precision = Literal["float32", "bfloat16"]

UNITS = ("avx512_bf16", "amx_bf16", "bf16")  # flags in /proc/cpuinfo: x86, x86, ARM
CAPABILITY = (8, 0)  # Earlier CUDA devices have no bfloat16 units.
WORTH = 1.2  # Take bfloat16 if it is this many times as fast, since it also rounds more.
SECONDS = 1.0  # of the timing
SIZES = {"cpu": (128, 1000), "cuda": (4096, 4096)}  # images and width of the layer that is timed


def kind_of_machine(device: str) -> tuple[str, bool]:
    """Describe this machine's hardware, and say whether it may have bfloat16 units.

    Args:
        device: ``cpu`` or ``cuda``. CUDA devices say themselves what they can do, in the timing.
    """
    if device == "cuda":
        known = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        models = [
            line for file in known for line in file.read_text().splitlines() if "Model" in line
        ]
        return " ".join(" ".join(sorted(set(models))).split()), bool(known)
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (li.partition(":") for li in lines)}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    units = [unit for unit in UNITS if unit in flags]
    name = facts.get("model name") or platform.machine()
    return f"{name}, {' '.join(units) or 'no bfloat16 units'}", bool(units)


def known(device: str) -> Precision | None:
    """The faster precision where no timing is needed; None if :func:`timed` has to find it."""
    machine, units = kind_of_machine(device)
    if not units:
        return "float32"
    try:
        found = json.loads(_place(machine).read_text())
        return "bfloat16" if float(found["speedup"]) >= WORTH else "float32"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def timed(device: str) -> Precision:
    """Time both precisions on this machine and keep the result in the cache folder."""
    machine, _ = kind_of_machine(device)
    found = speedup(device)
    place = _place(machine)
    with suppress(OSError):  # without a cache, the next sweep times again
        place.parent.mkdir(parents=True, exist_ok=True)
        written = place.with_name(f"{place.name}.{os.getpid()}.tmp")
        written.write_text(json.dumps({"machine": machine, "speedup": found}))
        written.replace(place)
    return "bfloat16" if found >= WORTH else "float32"


def speedup(device: str, seconds: float = SECONDS) -> float:
    """Time of a training step of one wide layer in float32 over that in bfloat16, on one thread.

    The two take turns, and the fastest of each counts, so that other work on the machine hardly
    matters.

    Args:
        device: ``cpu`` or ``cuda``.
        seconds: how long to try.
    """
    import torch

    if device == "cuda" and torch.cuda.get_device_capability() < CAPABILITY:
        return 0.0
    torch.set_num_threads(1)
    images, width = SIZES[device]
    layer = torch.nn.Linear(width, width, device=device)
    x = torch.randn(images, width, device=device, requires_grad=True)
    fastest = {False: float("inf"), True: float("inf")}
    end, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turns < 3:  # the first turn warms up
        for half in fastest:
            start = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=half):
                y = layer(x)
            y.float().square().mean().backward()
            x.grad.sum().item()  # type: ignore[union-attr]  # waits for a GPU
            spent = time.perf_counter() - start
            fastest[half] = min(fastest[half], spent) if turns else fastest[half]
        turns += 1
    return fastest[False] / fastest[True]


def _place(machine: str) -> Path:
    """The file that keeps the timing of this kind of machine with this version of torch."""
    key = hashlib.sha256(f"{machine}, torch {version('torch')}".encode()).hexdigest()[:16]
    return cache_folder() / "precision" / f"{key}.json"


def main(arguments: list[str]) -> dict[str, Any]:
    """Time this machine; see the top of this module."""
    device = arguments[0] if arguments else "cpu"
    return {"machine": kind_of_machine(device)[0], "precision": timed(device)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
