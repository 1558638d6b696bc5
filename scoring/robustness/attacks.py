"""Adversarial images: FGSM and PGD within a budget of pixel values (Fig. 8)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from scoring.line_shape import wide
from scoring.robustness.subject import PIXELS, Subject, compared, correct, draws, point_losses

STRIDE = 2.5  # total length of the steps of PGD, in budgets: enough to cross the ball and return


def fgsm(subject: Subject, levels: Iterable[float]) -> list[dict[str, Any]]:
    """Accuracy and variation rates under the fast gradient sign method: eq. (49), Fig. 8 right.

    The changed image is x + eps sign(dL/dx), clipped to valid pixels, where L is the
    cross-entropy of the true class. (Eq. (49) as printed gives Vr_a the argument sigma, the
    level of the random noise; epsilon_a is meant.) All levels use the same gradient.

    Args:
        subject: the network and its points.
        levels: eps, in pixel values, >= 0; 0 is always added.

    Returns:
        Rows ``fgsm`` as :func:`scoring.robustness.subject.compared` gives them.
    """

    def change(places: range, pixels: Tensor, labels: Tensor) -> Callable[[float], Tensor]:
        uphill, _ = ascent(subject, pixels, labels)
        return lambda level: clipped(pixels + level * uphill, pixels)

    return compared("fgsm", subject, levels, change)


def pgd(
    subject: Subject, levels: Iterable[float], steps: int = 10, seed: int = 0
) -> list[dict[str, Any]]:
    """Accuracy and variation rates under projected gradient descent; see :func:`pgd_images`.

    Args:
        subject: the network and its points.
        levels: eps, in pixel values, >= 0; 0 is always added.
        steps: number of gradient steps at each level.
        seed: seed of the random starts; a point starts in the same direction at all levels.

    Returns:
        Rows ``pgd`` as :func:`scoring.robustness.subject.compared` gives them. At no level is
        their accuracy above that of :func:`fgsm`.
    """

    def change(places: range, pixels: Tensor, labels: Tensor) -> Callable[[float], Tensor]:
        uphill, _ = ascent(subject, pixels, labels)
        start = draws("uniform", seed, places, pixels)
        return lambda level: pgd_images(subject, pixels, labels, level, steps, start, uphill)

    return compared("pgd", subject, levels, change)


def pgd_images(
    subject: Subject,
    pixels: Tensor,
    labels: Tensor,
    level: float,
    steps: int,
    start: Tensor,
    uphill: Tensor,
) -> Tensor:
    """Images that projected gradient descent (Madry et al. 2018) finds within a budget.

    From a random start, ``steps`` steps of 2.5 eps / steps along the sign of the gradient, each
    projected to the ball |x - pixels| <= eps and to valid pixels. Each point keeps the worst of
    all images on the way and of FGSM's: an image that the network gets wrong is worse than one
    it gets right, then the higher loss counts. So no point is safer than under FGSM.

    Args:
        subject: the network.
        pixels: (b, ...), 0 to 255.
        labels: true classes (b,).
        level: eps, in pixel values.
        steps: number of steps.
        start: (b, ...), in [-1, 1]: where to start, in units of eps.
        uphill: signs of the gradient at ``pixels``, (b, ...): FGSM's step.

    Returns:
        (b, ...), 0 to 255, within eps of ``pixels``. See :func:`clipped` for pixels beyond that.
    """
    low, high = clipped(pixels - level, pixels), clipped(pixels + level, pixels)
    worst = clipped(pixels + level * uphill, pixels)
    wrong, loss = _harm(subject.logits(worst), labels)
    x = clipped(pixels + level * start, pixels)
    for step in range(steps + 1):
        if step < steps:
            uphill, logits = ascent(subject, x, labels)
        else:
            logits = subject.logits(x)
        wrong_here, loss_here = _harm(logits, labels)
        worse = (wrong_here & ~wrong) | ((wrong_here == wrong) & (loss_here > loss))
        worst = torch.where(wide(worse, x), x, worst)
        wrong, loss = wrong | wrong_here, torch.where(worse, loss_here, loss)
        x = (x + STRIDE * level / steps * uphill).clamp(low, high)
    return worst


def ascent(subject: Subject, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Signs of the gradient of each point's cross-entropy in its pixels, and the logits.

    The gradient in the logits is (1 - p_y) (q - e_y), with q the softmax over all classes but
    y. Only its sign matters, so the positive factor is left out. It would round to 0 where the
    network is confident, and a network would look robust only because it is confident.

    Args:
        subject: the network.
        pixels: (b, ...), 0 to 255.
        labels: true classes (b,), of at least two.

    Returns:
        Tensor (b, ...) of -1, 0 and 1, and logits (b, classes). No parameter gets a gradient.
    """
    place = labels[:, None]
    with torch.enable_grad():
        x = pixels.detach().requires_grad_()
        logits = subject.logits(x)
        others = logits.detach().scatter(1, place, -torch.inf).softmax(1)
        (gradient,) = torch.autograd.grad(logits, x, others.scatter(1, place, -1.0))
    return gradient.sign(), logits.detach()


def clipped(changed: Tensor, pixels: Tensor) -> Tensor:
    """Changed images with valid pixel values: 0 to 255, or up to a pixel's own value beyond that.

    So no pixel changes only because it was not valid.

    Args:
        changed: (b, ...).
        pixels: the images before, (b, ...).

    >>> clipped(torch.tensor([-3.0, 259.0, 259.0]), torch.tensor([1.0, 251.0, 256.0]))
    tensor([  0., 255., 256.])
    """
    return changed.clamp(pixels.clamp(max=0.0), pixels.clamp(min=PIXELS))


def _harm(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the network is wrong, and its loss, (b,) each."""
    return ~correct(logits, labels), point_losses(logits, labels)
