"""A made-up sweep whose networks were evaluated, and the names of its figures."""

from pathlib import Path

from made_up import made_up_trial

EVERY = ("lesion", "noise", "fgsm", "pgd", "separation")
NAMES = [
    *("accuracy_against_units", "accuracy_without_blocks"),
    *("accuracy_against_noise", "mixed_by_distance"),
]


def evaluated_sweep(root: Path) -> Path:
    """Plain networks, which are fragile, and ResNets; 2 gammas x 2 seeds, one never evaluated."""
    for gamma in (0.0, 1e-3):
        for seed in (0, 1):
            for network, fragile in (("plain", 4.0 + seed), ("resnet", 0.01)):
                made_up_trial(root, network, gamma, seed, tried=EVERY, fragile=fragile)
    made_up_trial(root, "resnet", 0.0, 2)
    made_up_trial(root, "plain", 0.0, 2, status="failed")
    return root
