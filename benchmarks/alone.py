"""One assignment in a process of its own: seconds, peak memory and scores, as JSON.

    python -m benchmarks.alone x.npy y.npy

The files hold the inputs and outputs of a map, (m, d) each.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from scoring.transport import optimal_transport_score


def main() -> None:
    few = np.random.default_rng(0).normal(size=(2, 200, 9)).astype(np.float32)
    optimal_transport_score(*few)  # loads the compiled kernels
    x, y = (np.load(name) for name in sys.argv[1:])
    start = time.perf_counter()
    found = optimal_transport_score(x, y)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9  # of this process
    names = ("m", "ots", "gap", "suboptimality", "ties", "rounds", "edges")
    told = {"seconds": seconds, "peak_GB": peak} | {name: getattr(found, name) for name in names}
    print(json.dumps(told | {"prefixes": [prefix._asdict() for prefix in found.prefixes]}))


if __name__ == "__main__":
    main()
