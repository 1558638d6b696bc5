"""Optimizers by name, with what each has by default."""

# torch's defaults, except for SGD and RMSprop: without a final normalisation SGD diverges at 1e-2,
# and RMSprop hardly learns.
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
MOMENTUM = {"sgd": 0.9}  # Other recipes have no momentum that can be set.
SIGNED = ("adam", "adamw", "nadam", "radam", "adamax", "rmsprop")
"""Recipes that move each weight by about the learning rate, whatever the size of its gradient."""
