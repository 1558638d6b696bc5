"""Memory that a process keeps for its next step."""

import resource

import torch

from models.memory import keep_freed


def page_faults_of_a_large_tensor() -> int:
    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    torch.ones(4 * 2**20)  # 16 MiB; what follows finds its place
    before = faults()
    torch.ones(4 * 2**20)
    return faults() - before


def test_freed_memory_is_used_again_without_page_faults():
    if keep_freed():
        assert page_faults_of_a_large_tensor() < 100  # 4,096 pages
