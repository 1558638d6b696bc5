"""Networks on noisy images: variation rates (Fig. 8), and which tracks are mixed up (Fig. 1E)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoring.robustness.subject import Subject, compared, draws, evaluating, joined, result_row
from scoring.separation import ROUNDING, Separation

DECILES = 10


class Pairs(NamedTuple):
    """Pairs of points in a stage, each a tensor of m (m - 1) / 2 values."""

    distance: Tensor  # of their tracks, eq. (35)
    end: Tensor  # distance of their ends without noise
    mixed: Tensor  # share of both orders that is mixed up: 0, 1/2 or 1
    two_classes: Tensor  # whether they are of two classes


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
    subject: Subject, level: float = 32, points: int = 1000, seed: int = 0, controls: bool = True
) -> list[dict[str, Any]]:
    """Whether noise mixes up the points whose tracks come close to each other: section 4.2.

    A pair (s, t) is mixed up if the end x_s^(n) of s with noise is nearer to the end of t
    without noise than to the end of s without noise. Pairs are sorted into deciles by the
    distance of their tracks without noise, eq. (35).

    A pair with close ends is close by eq. (35) as well, and easy to mix up for that reason alone,
    even where the network is the identity. So there are two controls. Pairs are *matched*: sorted
    by the distance of their ends without noise, each ten neighbours in this order are a set of
    practically equal end distance, and within a set the pair with the closest tracks is in the
    first decile, the next one in the second, and so on. (Up to nine pairs with the most distant
    ends are in no set.) Here the identity has the same share in every decile. And all is repeated
    with the untrained network and its own distances, because a random network need not have equal
    shares.

    Args:
        subject: the network and its points.
        level: sigma, in pixel values.
        points: use at most this many points, the first ones.
        seed: seed of the noise; the same seed gives the same noise as in :func:`noise`.
        controls: whether to match pairs, and to repeat all with the untrained network if the
            subject can make it.

    Returns:
        For each stage a row for each decile, the closest pairs first, with ``mixed``, the share
        of its ordered pairs that are mixed up, and ``distance``, its mean track distance. A row
        of level 0 has both over all pairs: the baseline, if track distance did not matter. Rows
        ``separation`` are about all pairs, ``separation_different`` about pairs of two classes.
        With controls, ``mixed_matched`` is the share among matched pairs, and ``mixed_initial``
        and ``mixed_matched_initial`` are the shares in the untrained network. NaN where there are
        no pairs, or where states are not finite. Memory: ten states of all points, and some
        (2 m, 2 m) matrices.
    """
    few = replace(subject, images=subject.images[:points], labels=subject.labels[:points])
    rows = _mixed(few, level, seed, controls)
    if controls and few.untrained is not None:
        untrained = replace(few, network=few.untrained())
        for row, initial in zip(rows, _mixed(untrained, level, seed, controls), strict=True):
            row["mixed_initial"] = initial["mixed"]
            row["mixed_matched_initial"] = initial["mixed_matched"]
    return rows


def _mixed(subject: Subject, level: float, seed: int, controls: bool) -> list[dict[str, Any]]:
    """The rows of :func:`mixing` for one network."""
    rows = []
    with evaluating(subject.network):
        walks = []
        for places, pixels, _ in subject.parts():
            noisy = pixels + level * draws("normal", seed, places, pixels)
            walks.append((subject.walk(pixels), subject.walk(noisy)))
        clean, noisy = zip(*walks, strict=True)
        together = zip(joined(clean), joined(noisy), strict=True)
        for stage, states in groupby(together, lambda pair: pair[0][0]):
            tracks, ends = Separation(), Separation()
            last = torch.empty(0)
            for (_, state), (_, last) in states:  # noqa: B007
                tracks.update(state)
            ends.update(torch.cat([tracks.last, last]))
            m, apart = len(subject.images), ends.distances()
            away = apart[m:, :m]  # from each noisy end to each end without noise
            mixed = away < (1 - ROUNDING) * away.diagonal()[:, None]
            rates = mixed.double().masked_fill(~away.isfinite(), torch.nan)
            p, q = torch.triu_indices(m, m, 1, device=away.device)
            pairs = Pairs(
                tracks.distances()[p, q],
                apart[p, q],
                (rates[p, q] + rates[q, p]) / 2,
                subject.labels[p] != subject.labels[q],
            )
            rows += _deciles(stage, m, pairs, controls)
    return rows


def _deciles(stage: int, m: int, pairs: Pairs, controls: bool) -> Iterator[dict[str, Any]]:
    """The rows of a stage: of all pairs, and of pairs of two classes."""
    order = pairs.distance.argsort(stable=True)
    for name, some in (
        ("separation", order),
        ("separation_different", order[pairs.two_classes[order]]),
    ):
        sets = _matched(some, pairs) if controls else None
        for decile, own in enumerate((some, *some.tensor_split(DECILES))):
            row = result_row(
                name,
                level=decile,
                unit="decile of track distance",
                m=m,
                stage=stage,
                mixed=pairs.mixed[own].mean().item(),
                distance=pairs.distance[own].mean().item(),
            )
            if sets is not None:
                own = sets if decile == 0 else sets[:, decile - 1]
                row["mixed_matched"] = pairs.mixed[own].mean().item()
            yield row


def _matched(some: Tensor, pairs: Pairs) -> Tensor:
    """Indices of pairs in sets of ten with neighbouring end distances, int64 (sets, 10).

    Args:
        some: indices of the pairs to match, in the order of their track distance.
        pairs: of the stage.
    """
    count = len(some) // DECILES
    by_end = pairs.end[some].argsort(stable=True)[: count * DECILES].view(count, DECILES)
    return some[by_end.sort(dim=1).values]  # places in ``some`` are ranks of track distance
