"""The curve of measures in Wasserstein space: its speed, block by block."""

from matplotlib.figure import Figure

from analysis.measures import cells
from analysis.measures.curve import INITIAL, TRAINED, by_block
from analysis.plots import by_gamma, panels, scales, style
from analysis.results import Results


def any_curve(results: Results) -> bool:
    """Whether a trial that is done has a speed of its curve of measures."""
    return bool(by_block(results).speed.notna().any())


def speed_by_block(results: Results) -> Figure:
    """W2 speed of each block next to the constant speed of the geodesic.

    Args:
        results: from :func:`analysis.results.load`; trials that are done are drawn.

    Returns:
        Figure with a row per dataset, K and stage, a column per network, and a line per gamma:
        n W2(mu_(l-1), mu_l) / W2(mu_0, mu_n) of each block l, the mean over seeds, which are drawn
        as in :mod:`analysis.plots.seeds`. The mean of a line is the Wasserstein line-shape ratio.
        Dashed: 1, the geodesic at constant speed. Dotted: the same networks before training. Axes
        differ by panel.
    """
    done, rows = cells.done(results), by_block(results).dropna(subset="speed")
    done = done.assign(points=done.trial.map(rows.groupby("trial").m.max()))  # m of the curve
    rows = rows.merge(done[panels.key_columns(done)], on="trial")
    if not len(rows):
        return style.nothing("no trial that is done has a curve of measures")
    shown = panels.fitting(done[done.trial.isin(rows.trial)])
    done = shown.trials
    rows = rows[rows.trial.isin(done.trial)]
    places = panels.rows_of(rows, shown.extra, "stage")
    networks, gammas = sorted(rows.network.unique()), sorted(rows.gamma.unique())
    figure, grid = style.sheet(
        len(places), len(networks), (3.4, 2.2 if len(places) == 1 else 1.8),
        gaps=(0.75, 0.7), beside=1.75, top=0.5, note=shown.note,
        titles=[
            f"{panels.data_name(at['dataset'])}, {panels.name(at | {'network': n}, shown.extra)}\nm"
            for at in places
            for n in networks
        ],
    )  # fmt: skip
    after = rows[rows.evaluation == TRAINED]
    for place, line in zip(places, grid, strict=True):
        for axes, network in zip(line, networks, strict=True):
            key = place | {"network": network}
            here = panels.at(rows, key)
            axes.set_visible(len(here) > 0)
            if not len(here):
                continue
            seen = [1.0, *by_gamma.lines(axes, panels.at(after, key), "block", "speed", gammas)]
            before = here[here.evaluation == INITIAL].groupby("block").speed.mean()
            axes.plot(before.index, before, linestyle=":", label=style.INITIAL, **style.BASELINE)
            axes.axhline(1, linestyle="--", label="geodesic", **style.BASELINE)
            scales.limit(axes, [*seen, *before], log=False)
            axes.set_ylim(bottom=0)
            scales.whole_axis(axes, 1, float(here.block.max()), pad=0.04)
            sizes = " or ".join(f"{int(m):,}" for m in sorted(here.m.unique()))
            stage = f"stage {place['stage']:.0f}, " if place["stages"] > 1 else ""
            name = panels.name(key, shown.extra)
            style.title(axes, f"{panels.data_name(place['dataset'])}, {name}\n{stage}m = {sizes}")
            panels.name_lowest(axes, "block l")
            if panels.is_first(axes):
                axes.set_ylabel("speed over the geodesic's")
    baselines = {f"same network\n{style.INITIAL}": ":", "1: geodesic at\nconstant speed": "--"}
    by_gamma.legend(figure, done, gammas, panels.seed_counts(done, after, ["speed"]), baselines)
    return figure
