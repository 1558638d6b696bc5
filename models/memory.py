"""Memory that a process keeps for its next step instead of returning it to the system."""

import ctypes

# The parameters of glibc's mallopt, from malloc.h, and the largest threshold that it takes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes


def keep_freed() -> bool:
    """Let this process keep the memory that tensors on the CPU free, for the tensors that follow.

    Each step of training frees its states and gradients, and the next one needs as many again.
    By default glibc returns much of it to the system, and getting it back means a page fault for
    every 4 KiB. The process holds at most what it needed at its peak.

    Returns:
        Whether it does: False where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    never = 2**31 - 1
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, never))
