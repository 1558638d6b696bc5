"""``recipe: paper``: our reading of how the paper trained, which no full training has confirmed.

The paper names no optimizer, rate, or initial weights. For K = 1 its Tables 2 to 5 fit SGD with a
small constant rate on blocks that start with large weights: at gamma 0 both networks train badly,
the first and last segments of a plain network are shorter than the others, as small states at
the ends and large ones between make them, and shares of segments change where r gamma s is about 1,
with r = rate / (1 - momentum) and s steps. For K = 4 the tables do not fit this: accuracy at gamma
0 is as high as usual. There we take SGD at its usual rate, on initial weights small enough not to
diverge. For MNIST the paper has two numbers. Of 19 trainings with one seed each, Adam on torch's
own initial weights comes nearest to its LSS (docs/results/mnist.md).
"""

from collections.abc import Mapping
from typing import Any

from models.fields import read_number

PAPER = "paper"
K1 = {
    "recipe": "sgd",
    "learning_rate": 1e-3,
    "momentum": 0.9,
    "schedule": "constant",
    "initial_scale": 4.0,
}
SEVERAL = {
    "recipe": "sgd",
    "learning_rate": 1e-2,
    "momentum": 0.9,
    "schedule": "cosine",
    "initialisation": "torch",
}
FLAT = {"recipe": "adam", "initialisation": "torch"}  # fully connected


def expanded(given: Mapping[str, Any], flat: bool) -> dict[str, Any]:
    """Fields of a trial without ``recipe: paper``, which is replaced by its fields.

    A field that is given stays as it is.

    Args:
        given: fields of a trial; None stands for a field that is not given.
        flat: whether the data set has fully connected networks by default.

    >>> expanded({"recipe": "paper", "K": 4, "learning_rate": 0.1}, False)["learning_rate"]
    0.1
    """
    if given.get("recipe") != PAPER:
        return dict(given)
    layers = given.get("layers") or ("fully_connected" if flat else "convolutional")
    stages = given.get("stages") or given.get("K") or 1
    if isinstance(stages, str):
        stages = read_number(stages.strip())
    fields = FLAT if layers == "fully_connected" else K1 if stages == 1 else SEVERAL
    own = {name: value for name, value in given.items() if value is not None and name != "recipe"}
    return {**given, **fields, **own}
