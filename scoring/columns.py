"""Columns that several tables share, and those of a trial's configuration. Needs pyarrow only."""

import pyarrow as pa


def columns(*rows: tuple[str, pa.DataType, str, str]) -> list[pa.Field]:
    """Columns from (name, type, unit, meaning)."""
    return [pa.field(n, t, metadata={"unit": unit, "meaning": text}) for n, t, unit, text in rows]


TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
LIST = pa.list_(REAL)
TIME = pa.timestamp("us", tz="UTC")

KEY = columns(
    ("trial", TEXT, "", "the trial's id, a hash of its configuration"),
    ("dataset", TEXT, "", "name, path of an .npz file, or a user's function with a checksum"),
    ("network", TEXT, "", "plain or resnet, or the name of an architecture"),
    ("stages", WHOLE, "", "K, the number of stages: parts of equal dimension; 0: not known"),
    ("gamma", REAL, "", "weight of the L2 penalty; see decoupled in the trials table"),
    ("seed", WHOLE, "", "seed of the initial weights and of the order of the data"),
)

CONFIG = columns(
    ("architecture", TEXT, "", "network of a library or a user; its file's checksum after #"),
    ("model", TEXT, "", "JSON: its keyword arguments; each also has a column model.NAME"),
    ("block_pattern", TEXT, "", "names of its blocks, a regular expression; null: found"),
    ("layers", TEXT, "", "fully_connected or convolutional; null: see architecture"),
    ("depth", WHOLE, "", "blocks of each stage, as asked for; null: those of Table 1"),
    ("initialisation", TEXT, "", "initial weights: he or torch; null: see architecture"),
    ("initial_scale", REAL, "1", "initial W1 and W2 of blocks, as a multiple of the usual ones"),
    ("renormalise", pa.bool_(), "", "whether weights without a scale keep their initial norm"),
    ("decay", TEXT, "", "which weight matrices gamma applies to: all or blocks"),
    ("transport_penalty", REAL, "", "weight of the kinetic energy of the tracks in the loss"),
    ("straightness_penalty", REAL, "", "weight of the mean LSS - 1 in the loss"),
    ("validation", REAL, "fraction", "share of the train split held out to choose by"),
    ("epochs", WHOLE, "", "planned passes over the train split"),
    ("batch_size", WHOLE, "images", "images in each step"),
    ("recipe", TEXT, "", "the optimizer: adam, sgd, adamw, ..."),
    ("learning_rate", REAL, "", "the highest: of the first step, or after the warm-up"),
    ("momentum", REAL, "1", "of SGD; null for other recipes"),
    ("schedule", TEXT, "", "of the learning rate after the warm-up: cosine or constant"),
    ("warmup", REAL, "epochs", "in which the learning rate rises"),
    (
        "normalisation",
        TEXT,
        "",
        "batch, final (and before the head) or none; null: see architecture",
    ),
    ("augment", pa.bool_(), "", "whether images are randomly cropped and flipped"),
    ("precision", TEXT, "", "number format of training: float32 or bfloat16"),
    ("split", TEXT, "", "test or train: whose first images are scored; null: test"),
    ("points", WHOLE, "points", "m before training and after the last epoch"),
    ("epoch_points", WHOLE, "points", "m after every other epoch"),
    ("clean_train_every", WHOLE, "epochs", "between evaluations of clean train images"),
)

LOSSES = columns(
    ("train_loss", REAL, "nat", "running mean over the (augmented) training images"),
    ("train_accuracy", REAL, "fraction", "running mean over the (augmented) training images"),
    ("clean_train_loss", REAL, "nat", "first train images, not augmented, as many as test has"),
    ("clean_train_accuracy", REAL, "fraction", "on the same images as clean_train_loss"),
    ("validation_loss", REAL, "nat", "on the images held out of training; null without any"),
    ("validation_accuracy", REAL, "fraction", "on the images held out of training; null without"),
    ("test_loss", REAL, "nat", "on the test split"),
    ("test_accuracy", REAL, "fraction", "on the test split"),
)
