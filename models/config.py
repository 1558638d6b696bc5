"""The configuration of one trial: flat, frozen, validated, with an id.

The same flat mapping is Ray's parameter space, MLflow's parameters and the first columns of the
trials table, so there is no conversion layer.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    model_serializer,
    model_validator,
)

from models.architectures import usual_depth
from models.callables import is_code
from models.fields import Real, Text, Whole, scalar
from models.paper import PAPER, expanded
from models.recipes import DECOUPLED, LEARNING_RATE, MOMENTUM
from models.together import OWN, problem

CIFAR = ("cifar10", "cifar100")
MNIST = ("mnist", "fashion_mnist")
DATASETS = ("digits", *MNIST, *CIFAR)  # by name; others by the path of a file
LONGEST_PATH = 4096  # characters; Linux takes no longer one
LEAST_POINTS = 2
MOST = 10_000_000  # images of a batch, or points: more than any data set here has
DEEPEST = 1000  # blocks of a stage; He et al. (2016) went to 500 blocks in all
MOST_HELD_OUT = 0.9  # of the train split; the rest is trained on
LARGEST = 1e6  # weight or learning rate; no training survives one that comes near this

LIBRARIES = ("torchvision", "timm")  # whose networks an architecture can name
ARGUMENT = "model."  # starts the name of a keyword argument of an architecture

USUAL = {  # of Table 1's networks, unless they are given
    "network": "resnet",
    "stages": 1,
    "initialisation": "he",
    "initial_scale": 1.0,
    "renormalise": False,
}


def _named_or_file(dataset: str) -> str:
    if dataset not in DATASETS and not dataset.endswith(".npz") and not is_code(dataset):
        raise ValueError(
            f"should be one of {', '.join(DATASETS)}, the path of an .npz file, or FILE.py:CALLABLE"
        )
    if len(dataset) > LONGEST_PATH:
        raise ValueError(f"should be a path of at most {LONGEST_PATH} characters")
    return dataset


def _named_or_code(architecture: str) -> str:
    library, _, name = architecture.partition(":")
    if not (library in LIBRARIES and name.strip()) and not is_code(architecture):
        raise ValueError("should be torchvision:NAME, timm:NAME or FILE.py:CALLABLE")
    if len(architecture) > LONGEST_PATH:
        raise ValueError(f"should be at most {LONGEST_PATH} characters long")
    return architecture


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"should be a regular expression ({error})") from None
    return text


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise ValueError("should be the name of a keyword argument, like width")
    return name


Argument = Annotated[Text, AfterValidator(_identifier)]
Scalar = Annotated[Any, PlainValidator(scalar)]


class TrialConfig(BaseModel):
    """Everything that decides the numbers of one trial.

    Fields left at None take the value that suits the data set and the recipe, so a
    constructed configuration is complete, except for ``depth``: None stays, and stands for
    Table 1's number of blocks. With an ``architecture`` the fields in :data:`OWN` stay None, and
    keyword arguments ``model.NAME`` are gathered in ``model``. Unknown fields are refused.

    >>> TrialConfig(dataset="mnist", network="plain", gamma=5e-4).layers
    'fully_connected'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: Annotated[
        Text,
        AfterValidator(_named_or_file),
        Field(
            description="digits, mnist, fashion_mnist, cifar10, cifar100, an .npz file, or "
            "FILE.py:CALLABLE"
        ),
    ] = "digits"
    architecture: Annotated[
        Text,
        AfterValidator(_named_or_code),
        Field(description="another network: torchvision:NAME, timm:NAME or FILE.py:CALLABLE"),
    ] = None  # type: ignore[assignment]
    model: tuple[tuple[Argument, Scalar], ...] = Field(
        default=None,
        description="keyword arguments of the architecture, each as model.NAME",
    )  # type: ignore[assignment]
    block_pattern: Annotated[
        Text,
        AfterValidator(_expression),
        Field(max_length=1000, description="regular expression for the names of its blocks"),
    ] = None  # type: ignore[assignment]
    network: Literal["plain", "resnet"] = Field(
        default=None, description="without and with identity maps; resnet"
    )  # type: ignore[assignment]
    layers: Literal["fully_connected", "convolutional"] = Field(
        default=None,
        description="Table 1's layer type; fully connected for MNIST",
        validate_default=False,
    )  # type: ignore[assignment]
    stages: Whole = Field(
        default=None,
        ge=1,
        le=4,
        description="the paper's K: parts of equal dimension, 1 to 4; 1",
        validation_alias=AliasChoices("stages", "K"),
    )  # type: ignore[assignment]
    depth: Whole = Field(
        default=None,
        ge=1,
        le=DEEPEST,
        description="n, the blocks of each stage, 1 to 1000; Table 1's: 10 for K = 1 "
        "convolutional, else 5",
    )  # type: ignore[assignment]
    initialisation: Literal["he", "torch"] = Field(
        default=None,
        description="initial weights: he, He normal with biases 0; or torch, that of torch's "
        "layers, with a sixth of the variance; he",
    )  # type: ignore[assignment]
    initial_scale: Real = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="W1 and W2 of every block start at so many times their initial weights; above "
        "0 and at most 1e6; 1",
    )  # type: ignore[assignment]
    renormalise: bool = Field(
        default=None,
        description="after every step, weights that a normalisation follows return to their "
        "initial norm, and gamma leaves them out; false",
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
    recipe: Literal[(*LEARNING_RATE, PAPER)] = Field(  # type: ignore[valid-type]
        default="adam",
        description=f"optimizer: {', '.join(LEARNING_RATE)}; SGD has momentum 0.9, all else is "
        "torch's default; or paper, which stands for the fields of our reading of the paper",
    )
    learning_rate: Real = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="the highest: at the first step, or after the warm-up; above 0 and at most "
        "1e6; 1e-3 for adam, adamw, sgd, radam and rmsprop, 2e-3 for nadam and adamax, 1e-2 for "
        "adagrad and adafactor, 1 for adadelta",
    )  # type: ignore[assignment]
    momentum: Real = Field(
        default=None, ge=0, lt=1, description="of SGD, from 0 up to 1, without 1; 0.9"
    )  # type: ignore[assignment]
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine",
        description="of the learning rate after the warm-up: falls to 0 on a cosine, or stays",
    )
    warmup: Real = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="epochs, also parts of one, in which the learning rate rises evenly from near "
        "0; 0 to 10^6, and below epochs",
    )
    normalisation: Literal["batch", "final", "none"] = Field(
        default=None,
        description="N in a block: batch, final (batch, and once more before the head) or none; "
        "batch for convolutional layers, else none",
    )  # type: ignore[assignment]
    augment: bool = Field(default=None, description="crop (pad 4) and flip; CIFAR only")  # type: ignore[assignment]
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of training; scores are always taken in float32"
    )
    split: Literal["test", "train"] = Field(
        default="test",
        description="whose first images are scored and evaluated: test, or train, as they are and "
        "without those held out",
    )
    points: Whole = Field(
        default=None,
        ge=LEAST_POINTS,
        le=MOST,
        description="m: images of the split scored before training and at the end, the first m; 2 "
        "to 10^7 and at most all there are; 1000 (digits: 500)",
        validation_alias=AliasChoices("points", "m"),
    )  # type: ignore[assignment]
    epoch_points: Whole = Field(
        default=1000,
        ge=1,
        le=MOST,
        description="images scored after every other epoch, at most; 1 to 10^7",
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
        if not isinstance(given, dict):
            return given
        if given.get("recipe") == PAPER and given.get("architecture") is not None:
            raise ValueError(
                "recipe = paper belongs to the networks of Table 1, so give another recipe with an "
                "architecture"
            )
        given = without_paper(given)
        flat = {name: v for name, v in given.items() if str(name).startswith(ARGUMENT)}
        filled = completed({name: v for name, v in given.items() if name not in flat})
        if flat and "model" not in filled:
            filled["model"] = tuple(sorted((n.removeprefix(ARGUMENT), v) for n, v in flat.items()))
        elif flat:
            filled |= flat  # which is an error
        return filled

    @model_validator(mode="after")
    def _fits_together(self) -> "TrialConfig":
        if said := problem(self):
            raise ValueError(said)
        return self

    @property
    def trial(self) -> str:
        """The trial's id: 12 hexadecimal digits that depend on nothing but this configuration.

        Fields at their default are left out of the hash, so a field that later work adds does
        not rename what is already done. For the same reason a default must never change. A depth
        is left out if it is Table 1's, which trials without one have, and so are values in
        :data:`USUAL`, and the momentum that a recipe has anyway.
        """
        usual = {name for name, value in USUAL.items() if getattr(self, name) == value}
        if self.depth == usual_depth(self.layers, self.stages):
            usual.add("depth")
        if self.momentum == MOMENTUM.get(self.recipe):
            usual.add("momentum")
        given = self.model_dump(exclude_defaults=True, exclude=usual)
        canonical = json.dumps(given, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the architecture, by name."""
        return dict(self.model or ())

    def row(self, stages: int = 0) -> dict[str, Any]:
        """The columns of a trial's row that the configuration gives.

        The name of an architecture is also in the column ``network``, by which tables and figures
        are grouped.

        Args:
            stages: how many the architecture has; 0 if that is not known.
        """
        arguments = json.dumps(self.arguments, sort_keys=True) if self.model else None
        row = {"trial": self.trial, **self.model_dump(), "model": arguments}
        row["decoupled"] = self.recipe in DECOUPLED
        named = {"network": self.architecture, "stages": stages}
        return row if self.architecture is None else row | named

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "TrialConfig":
        """The configuration of a row of the trials table."""
        known = {name: row[name] for name in cls.model_fields}  # null in an older version
        if known["architecture"] is not None:
            known |= dict.fromkeys(OWN)
            arguments = json.loads(known.pop("model") or "{}")
            known |= {f"{ARGUMENT}{name}": value for name, value in arguments.items()}
        return cls.model_validate(known)

    @model_serializer(mode="wrap")
    def _flat(self, dump: Any) -> dict[str, Any]:
        fields = dump(self)
        arguments = fields.pop("model", None) or ()
        return fields | {f"{ARGUMENT}{name}": value for name, value in arguments}


def without_paper(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a trial with ``recipe: paper`` replaced by the fields that it stands for."""
    return expanded(given, given.get("dataset", "digits") in MNIST)


def completed(given: dict[str, Any]) -> dict[str, Any]:
    """Fields of a trial with those filled in whose defaults depend on data set and recipe.

    Nothing is validated, so this also works on a combination that cannot be trained.

    >>> completed({"dataset": "mnist", "gamma": None})["layers"]
    'fully_connected'
    """
    filled = {name: value for name, value in given.items() if value is not None}
    dataset, recipe = filled.get("dataset", "digits"), filled.get("recipe", "adam")
    if "architecture" not in filled:
        for name, value in USUAL.items():
            if name != "stages" or "K" not in filled:
                filled.setdefault(name, value)
        filled.setdefault("layers", "fully_connected" if dataset in MNIST else "convolutional")
        flat = filled["layers"] == "fully_connected"
        filled.setdefault("normalisation", "none" if flat else "batch")
    filled.setdefault("augment", dataset in CIFAR)
    if "m" not in filled:
        filled.setdefault("points", 500 if dataset == "digits" else 1000)
    if isinstance(recipe, str) and recipe in LEARNING_RATE:
        filled.setdefault("learning_rate", LEARNING_RATE[recipe])
        if recipe in MOMENTUM:
            filled.setdefault("momentum", MOMENTUM[recipe])
    return filled
