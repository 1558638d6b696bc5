"""Facts recorded with the results: the source's revision and the peak memory."""

import os
import resource
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any


def revision() -> str:
    """Git revision of this source, with ``-dirty`` if it has changes; empty outside git.

    Source that was sent to a cluster has no git history; ``GEOSWEEP_REVISION`` gives its revision.
    """
    if "GEOSWEEP_REVISION" in os.environ:
        return os.environ["GEOSWEEP_REVISION"]
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    tracked = ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def reset_peaks(device: str) -> None:
    """Restart what :func:`peaks` measures: the process may have run a larger trial before."""
    with suppress(OSError):  # not Linux, or not allowed: the peak then covers the whole process
        Path("/proc/self/clear_refs").write_text("5")
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peaks(device: str) -> dict[str, Any]:
    """``peak_memory`` and, on a GPU, ``peak_gpu_memory`` since :func:`reset_peaks`, in GB."""
    found = {"peak_memory": _peak_memory() / 1e9}
    if device == "cuda":
        import torch

        found["peak_gpu_memory"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def _peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
