"""Table 1 of the paper: the shape of every stage, and how many blocks it has.

:func:`architecture` is the rule behind its rows; it also serves image sizes and numbers of blocks
that the paper does not have. K = 2 and 3 are the first stages of K = 4.
"""

from dataclasses import dataclass
from math import prod

SMALL_SIDE = 16  # Smaller images get a quarter of the channels and a tenth of the width.


@dataclass(frozen=True)
class Architecture:
    """One row of Table 1: ``shapes[k]`` is the shape of a state in stage k + 1."""

    layers: str
    image: tuple[int, int, int]  # channels, height, width
    shapes: tuple[tuple[int, ...], ...]
    blocks: int  # n, of each stage
    classes: int

    @property
    def dimensions(self) -> tuple[int, ...]:
        """d_k of each stage."""
        return tuple(prod(shape) for shape in self.shapes)


def usual_depth(layers: object, stages: object) -> int:
    """n, the number of blocks of each stage in Table 1.

    >>> usual_depth("convolutional", 1), usual_depth("convolutional", 4)
    (10, 5)
    """
    return 10 if layers == "convolutional" and stages == 1 else 5


def architecture(
    layers: str,
    image: tuple[int, int, int],
    stages: int,
    classes: int,
    blocks: int | None = None,
) -> Architecture:
    """The row of Table 1 for this image size, or the same rule applied to another size.

    Args:
        layers: ``fully_connected`` or ``convolutional``.
        image: channels, height and width of an image.
        stages: the paper's K, 1 to 4; 1 for fully connected layers.
        classes: number of outputs of the head.
        blocks: n, the number of blocks of each stage, without transitions; by default Table 1's.

    Raises:
        ValueError: there is no such row: K outside 1 to 4, or K > 1 fully connected.

    >>> architecture("convolutional", (3, 32, 32), 4, 10).shapes
    ((64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4))
    >>> architecture("convolutional", (1, 8, 8), 2, 10).shapes  # digits
    ((16, 8, 8), (32, 4, 4))
    """
    if not 1 <= stages <= (4 if layers == "convolutional" else 1):
        raise ValueError(f"Table 1 has no {layers} network with K = {stages}")
    blocks = usual_depth(layers, stages) if blocks is None else blocks
    _, height, width = image
    small = max(height, width) < SMALL_SIDE
    if layers == "fully_connected":
        return Architecture(layers, image, ((100 if small else 1000,),), blocks, classes)
    channels = 16 if small else 64
    shapes = [
        (channels << k, -(-height // (1 << k)), -(-width // (1 << k)))
        for k in range(max(stages, 2))
    ]
    if stages == 1:  # half the channels of stage 1 at the resolution of stage 2
        shapes = [(channels // 2, *shapes[1][1:])]
    return Architecture(layers, image, tuple(shapes[:stages]), blocks, classes)
