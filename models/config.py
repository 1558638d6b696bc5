"""The configuration of one trial: flat, frozen, validated, with an id.

The same flat mapping is Ray's parameter space, MLflow's parameters and the first columns of the
trials table, so there is no conversion layer.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, model_validator

from models.architectures import usual_depth
from models.fields import Real, Text, Whole

CIFAR = ("cifar10", "cifar100")
MNIST = ("mnist", "fashion_mnist")
DATASETS = ("digits", *MNIST, *CIFAR)  # by name; any .npz file by its path
LONGEST_PATH = 4096  # characters; Linux takes no longer one
MOST = 10_000_000  # images of a batch, or points: more than any data set here has
DEEPEST = 1000  # blocks of a stage; He et al. (2016) went to 500 blocks in all
MOST_HELD_OUT = 0.9  # of the train split; the rest is trained on
LARGEST = 1e6  # weight or learning rate; no training survives one that comes near this

# Those of torch, but for SGD and RMSprop: without a final normalisation SGD diverges at 1e-2, and
# RMSprop hardly learns.
LEARNING_RATE = {
    "adam": 1e-3,
    "sgd": 1e-3,
    "adamw": 1e-3,
    "nadam": 2e-3,
    "radam": 1e-3,
    "adamax": 2e-3,
    "adagrad": 1e-2,
    "adadelta": 1.0,
    "rmsprop": 1e-3,
    "adafactor": 1e-2,
}
DECOUPLED = ("adamw", "adafactor")  # Their gamma shrinks weights apart from the loss.


def _named_or_npz(dataset: str) -> str:
    if dataset not in DATASETS and not dataset.endswith(".npz"):
        raise ValueError(f"should be one of {', '.join(DATASETS)}, or the path of an .npz file")
    if len(dataset) > LONGEST_PATH:
        raise ValueError(f"should be a path of at most {LONGEST_PATH} characters")
    return dataset


class TrialConfig(BaseModel):
    """Everything that decides the numbers of one trial.

    Fields left at None take the value that suits the data set and the recipe, so a
    constructed configuration is complete, except for ``depth``: None stays, and stands for
    Table 1's number of blocks. Unknown fields are refused.

    >>> TrialConfig(dataset="mnist", network="plain", gamma=5e-4).layers
    'fully_connected'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: Annotated[
        Text,
        AfterValidator(_named_or_npz),
        Field(description="digits, mnist, fashion_mnist, cifar10, cifar100, or an .npz file"),
    ] = "digits"
    network: Literal["plain", "resnet"] = Field(
        default="resnet", description="without and with identity maps"
    )
    layers: Literal["fully_connected", "convolutional"] = Field(
        default=None,
        description="Table 1's layer type; fully connected for MNIST",
        validate_default=False,
    )  # type: ignore[assignment]
    stages: Whole = Field(
        default=1,
        ge=1,
        le=4,
        description="the paper's K: parts of equal dimension, 1 to 4",
        validation_alias=AliasChoices("stages", "K"),
    )
    depth: Whole = Field(
        default=None,
        ge=1,
        le=DEEPEST,
        description="n, the blocks of each stage, 1 to 1000; Table 1's: 10 for K = 1 "
        "convolutional, else 5",
    )  # type: ignore[assignment]
    gamma: Real = Field(
        default=0.0,
        ge=0,
        le=LARGEST,
        description="weight of the L2 penalty, 0 to 1e6: the optimizer's coupled weight_decay; "
        "decoupled weight decay for adamw and adafactor",
    )
    decay: Literal["all", "blocks"] = Field(
        default="all", description="weight matrices under gamma: all of F (eq. 17) or blocks (14)"
    )
    transport_penalty: Real = Field(
        default=0.0,
        ge=0,
        le=LARGEST,
        description="weight in the loss of the batch's kinetic energy, 0 to 1e6; the energy, the "
        "sum over blocks of mean |x^(l) - x^(l-1)|^2, is of the order of d",
    )
    straightness_penalty: Real = Field(
        default=0.0,
        ge=0,
        le=LARGEST,
        description="weight in the loss of the batch's mean LSS - 1, 0 to 1e6",
    )
    seed: Whole = Field(
        default=0, ge=0, lt=2**63, description="initial weights and order of data, 0 to 2^63 - 1"
    )
    validation: Real = Field(
        default=0.0,
        ge=0,
        le=MOST_HELD_OUT,
        description="share of the train split held out of training to choose by, 0 to 0.9; new "
        "searches without objectives take 0.1",
    )
    epochs: Whole = Field(
        default=200, ge=1, le=1_000_000, description="passes over the train split, 1 to 10^6"
    )
    batch_size: Whole = Field(default=128, ge=2, le=MOST, description="images a step, 2 to 10^7")
    recipe: Literal[tuple(LEARNING_RATE)] = Field(  # type: ignore[valid-type]
        default="adam",
        description=f"optimizer: {', '.join(LEARNING_RATE)}; SGD has momentum 0.9, all else is "
        "torch's default; the learning rate falls to 0 on a cosine",
    )
    learning_rate: Real = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="the highest: at the first step, or after the warm-up; above 0 and at most "
        "1e6; 1e-3 for adam, adamw, sgd, radam and rmsprop, 2e-3 for nadam and adamax, 1e-2 for "
        "adagrad and adafactor, 1 for adadelta",
    )  # type: ignore[assignment]
    warmup: Real = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="epochs, also parts of one, in which the learning rate rises evenly from near "
        "0; 0 to 10^6, and below epochs",
    )
    normalisation: Literal["batch", "none"] = Field(
        default=None, description="N in a block; batch for convolutional layers, else none"
    )  # type: ignore[assignment]
    augment: bool = Field(default=None, description="crop (pad 4) and flip; CIFAR only")  # type: ignore[assignment]
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of training; scores are always taken in float32"
    )
    points: Whole = Field(
        default=None,
        ge=2,
        le=MOST,
        description="m: test images scored before training and at the end, the first m; 2 to "
        "10^7 and at most all there are; 1000 (digits: 500)",
        validation_alias=AliasChoices("points", "m"),
    )  # type: ignore[assignment]
    epoch_points: Whole = Field(
        default=1000,
        ge=1,
        le=MOST,
        description="test images scored after every other epoch, at most; 1 to 10^7",
    )
    clean_train_every: Whole = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="clean train images are evaluated every so many epochs, 1 to 10^6, and at the "
        "ends",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: object) -> object:
        return completed(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _fits_together(self) -> "TrialConfig":
        if self.layers == "fully_connected" and self.stages > 1:
            raise ValueError(
                f"K = {self.stages} needs layers: convolutional; Table 1's fully connected "
                "network has one stage (K = 1)"
            )
        if self.warmup > 0 and self.warmup >= self.epochs:
            raise ValueError(
                f"warmup = {self.warmup:g} should be below epochs = {self.epochs}, or there is "
                "nothing after it"
            )
        return self

    @property
    def trial(self) -> str:
        """The trial's id: 12 hexadecimal digits that depend on nothing but this configuration.

        Fields at their default are left out of the hash, so a field that later work adds does
        not rename what is already done. For the same reason a default must never change. A depth
        is left out if it is Table 1's, which trials without one have.
        """
        usual = {"depth"} if self.depth == usual_depth(self.layers, self.stages) else None
        given = self.model_dump(exclude_defaults=True, exclude=usual)
        canonical = json.dumps(given, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def completed(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of a trial with those filled in whose defaults depend on data set and recipe.

    Nothing is validated, so this also works on a combination that cannot be trained.

    >>> completed({"dataset": "mnist", "gamma": None})["layers"]
    'fully_connected'
    """
    filled = {name: value for name, value in given.items() if value is not None}
    dataset, recipe = filled.get("dataset", "digits"), filled.get("recipe", "adam")
    filled.setdefault("layers", "fully_connected" if dataset in MNIST else "convolutional")
    filled.setdefault("normalisation", "none" if filled["layers"] == "fully_connected" else "batch")
    filled.setdefault("augment", dataset in CIFAR)
    if "m" not in filled:
        filled.setdefault("points", 500 if dataset == "digits" else 1000)
    if isinstance(recipe, str) and recipe in LEARNING_RATE:
        filled.setdefault("learning_rate", LEARNING_RATE[recipe])
    return filled
