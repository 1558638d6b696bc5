"""Networks on noisy images: variation rates (Fig. 8), and which tracks are mixed up (Fig. 1E)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from scoring.robustness.subject import Subject, compared, draws, evaluating, joined, result_row
from scoring.separation import ROUNDING, Separation

DECILES = 10


def noise(subject: Subject, levels: Iterable[float], seed: int = 0) -> list[dict[str, Any]]:
    """Accuracy and variation rates under Gaussian noise: Vr_r of eq. (49), Fig. 8 left.

    Args:
        subject: the network and its points.
        levels: sigma, in pixel values, >= 0; 0 is always added. The noisy images are not
            clipped. The noise of a point has the same direction at all levels.
        seed: seed of the noise.

    Returns:
        Rows ``noise`` as :func:`scoring.robustness.subject.compared` gives them.
    """

    def change(places: range, pixels: Tensor, _: Tensor) -> Callable[[float], Tensor]:
        direction = draws("normal", seed, places, pixels)
        return lambda level: pixels + level * direction

    return compared("noise", subject, levels, change)


def mixing(
    subject: Subject, level: float = 32, points: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Whether noise mixes up the points whose tracks come close to each other: section 4.2.

    A pair (s, t) is mixed up if the end x_s^(n) of s with noise is nearer to the end of t
    without noise than to the end of s without noise. Pairs are sorted into deciles by the
    distance of their tracks without noise, eq. (35). Note that a pair with close ends is close
    by eq. (35) as well, and easy to mix up for that reason alone.

    Args:
        subject: the network and its points.
        level: sigma, in pixel values.
        points: use at most this many points, the first ones.
        seed: seed of the noise; the same seed gives the same noise as in :func:`noise`.

    Returns:
        For each stage a row for each decile, the closest pairs first, with ``mixed``, the share
        of its ordered pairs that are mixed up, and ``distance``, its mean track distance. A row
        of level 0 has both over all pairs: the baseline, if track distance did not matter. Rows
        ``separation`` are about all pairs, ``separation_different`` about pairs of two classes.
        NaN where there are no pairs, or where states are not finite. Memory: ten states of all
        points, and some (2 m, 2 m) matrices.
    """
    few = replace(subject, images=subject.images[:points], labels=subject.labels[:points])
    rows = []
    with evaluating(few.network):
        walks = []
        for places, pixels, _ in few.parts():
            noisy = pixels + level * draws("normal", seed, places, pixels)
            walks.append((few.walk(pixels), few.walk(noisy)))
        clean, noisy = zip(*walks, strict=True)
        together = zip(joined(clean), joined(noisy), strict=True)
        for stage, states in groupby(together, lambda pair: pair[0][0]):
            tracks, ends = Separation(), Separation()
            last = torch.empty(0)
            for (_, state), (_, last) in states:  # noqa: B007
                tracks.update(state)
            ends.update(torch.cat([tracks.last, last]))
            m = len(few.images)
            away = ends.distances()[m:, :m]  # from each noisy end to each end without noise
            mixed = away < (1 - ROUNDING) * away.diagonal()[:, None]
            rates = mixed.double().masked_fill(~away.isfinite(), torch.nan)
            rows += _deciles(stage, tracks.distances(), rates, few.labels)
    return rows


def _deciles(
    stage: int, distances: Tensor, mixed: Tensor, labels: Tensor
) -> Iterator[dict[str, Any]]:
    m = len(labels)
    p, q = torch.triu_indices(m, m, 1, device=distances.device)
    distance, rate = distances[p, q], (mixed[p, q] + mixed[q, p]) / 2  # mean of both orders
    order = distance.argsort(stable=True)
    two = (labels[p] != labels[q])[order]
    for name, pairs in (("separation", order), ("separation_different", order[two])):
        for decile, some in enumerate((pairs, *pairs.tensor_split(DECILES))):
            yield result_row(
                name,
                level=decile,
                unit="decile of track distance",
                m=m,
                stage=stage,
                mixed=rate[some].mean().item(),
                distance=distance[some].mean().item(),
            )
