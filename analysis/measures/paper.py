"""The paper's own numbers: Gai and Zhang, *A Mathematical Principle of Deep Learning: Learn the
Geodesic Curve in the Wasserstein Space*, first version.

``paper_tables.csv`` has Tables 2 to 7, one number per row, with accuracies as fractions. Misprints
are corrected, and noted in a column of their own or in :data:`NOTES`; nothing else is changed.
"""

from functools import cache
from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("paper_tables.csv")

TITLES = {
    1: "Architectures",
    2: "Shares of a track's length by segment, plain network",
    3: "Shares of a track's length by segment, ResNet",
    4: "Plain network and ResNet with K = 1 on CIFAR-10",
    5: "Plain network and ResNet with K = 1 on CIFAR-100",
    6: "Plain network and ResNet with K = 4 on CIFAR-10",
    7: "Plain network and ResNet with K = 4 on CIFAR-100",
}

LAST_GAMMA = "The paper prints its last γ as 2e-2; by its place in the order it is 2e-1."
POINTS = {
    1: "The paper does not say its m: every OTS at K = 1 is a multiple of 1e-4, so m = 10,000.",
    4: "The paper does not say its m: 1000 and 2000 points explain every OTS at K = 4.",
}
SIZES = {1: (10_000,), 4: (1000, 2000)}  # K -> m that the paper's OTS may have, as in POINTS
NOTES = {
    2: ("Captioned K = 4 in the paper; ten segments are K = 1.",),
    3: ("Captioned K = 4 in the paper; ten segments are K = 1.",),
    4: (LAST_GAMMA, "The caption leaves out training accuracy, which the table has.", POINTS[1]),
    5: (LAST_GAMMA, POINTS[1]),
    6: ("The caption leaves out (std): deviation over the four stages (ddof = 0).", POINTS[4]),
    7: ("The caption leaves out (std): deviation over the four stages (ddof = 0).", POINTS[4]),
}

FOUR_STAGES = "64 x 32 x 32, 128 x 16 x 16, 256 x 8 x 8, 512 x 4 x 4"
ARCHITECTURES = pd.DataFrame(  # Table 1; cifar100 is the same as cifar10 except for its classes
    [
        ("mnist", "fully_connected", 1, "1 x 28 x 28", "1000", 5, 10),
        ("cifar10", "convolutional", 1, "3 x 32 x 32", "32 x 16 x 16", 10, 10),
        ("cifar10", "convolutional", 4, "3 x 32 x 32", FOUR_STAGES, 5, 10),
        ("cifar100", "convolutional", 1, "3 x 32 x 32", "32 x 16 x 16", 10, 100),
        ("cifar100", "convolutional", 4, "3 x 32 x 32", FOUR_STAGES, 5, 100),
    ],
    columns=["dataset", "layers", "stages", "image", "shapes", "blocks", "classes"],
)

FIGURE_3 = {"lss": 1.12, "ots": 0.96}  # ResNet on MNIST at gamma 5e-4


@cache
def numbers() -> pd.DataFrame:
    """Tables 2 to 7, one row per number.

    Returns:
        Frame with ``table``, ``dataset``, ``stages`` (K), ``network``, ``gamma`` without misprints
        and ``gamma_printed``, ``segment`` (1 to 10 in Tables 2 and 3, else null), ``quantity``
        (a column of the trials table, or ``segment_share``), ``paper`` (accuracies, OTS and
        shares as fractions) and ``paper_std``, its deviation over stages (Tables 6 and 7).

    >>> numbers().groupby("table").size().tolist()
    [90, 90, 90, 90, 40, 40]
    """
    names = {"value": "paper", "std_over_stages": "paper_std"}
    return pd.read_csv(FILE, dtype={"segment": "Int64"}).rename(columns=names)
