"""The catalogue of figures: what each shows, what a sweep must have for it, how it is drawn."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from analysis.plots.settings import own_settings  # before matplotlib

# isort: split
import pandas as pd
from matplotlib.figure import Figure

from analysis.measures import rates as rate_effects
from analysis.measures.cells import done
from analysis.measures.intervention import any_effects
from analysis.measures.search import Search, candidates
from analysis.plots import depth, files
from analysis.plots.curve import any_curve, speed_by_block
from analysis.plots.intervention import intervention
from analysis.plots.rate_scores import scores_against_rate
from analysis.plots.rates import has_rates, rate_against_epoch
from analysis.plots.robustness import (
    accuracy_against_noise,
    accuracy_against_units,
    accuracy_without_blocks,
    measured,
    mixed_by_distance,
)
from analysis.plots.scores import (
    factor_against_epoch,
    factors_against_gamma,
    lss_against_epoch,
    ots_against_m,
    scores_against_gamma,
)
from analysis.plots.stages import lss_by_stage, scores_by_stage
from analysis.plots.states import has_states, states_by_block
from analysis.plots.tracks import has_tracks, tracks_by_gamma, tracks_by_stage
from analysis.plots.trials import accuracy_against_score, pareto_front, search_history
from analysis.results import Results


class Spec(NamedTuple):
    """A figure of the catalogue."""

    function: Callable[..., Figure]  # takes the results, and the search or a table (see below)
    title: str
    paper: str  # the figure of the paper that has the same form
    alt: str
    caption: str
    needs: str  # what a sweep must have for this figure
    applies: Callable[..., bool]  # takes the results, and the search if ``of_search``
    of_search: bool = False  # both functions take the search as well
    table: str = ""  # the table of the report that the function takes as well

    def fits(self, results: Results, search: Search | None = None) -> bool:
        """Whether a sweep has what the figure needs."""
        return self.applies(results, search) if self.of_search else self.applies(results)

    def draw(
        self,
        results: Results,
        search: Search | None = None,
        tables: Mapping[str, pd.DataFrame] = {},
    ) -> Figure:
        """Draw the figure of a sweep that it applies to; see :func:`analysis.figures.draw`."""
        with own_settings():
            if self.of_search:
                figure = self.function(results, search)
            elif self.table:
                figure = self.function(results, tables.get(self.table))
            else:
                figure = self.function(results)
            files.clean(figure)
        return figure


def _any_done(results: Results) -> bool:
    return len(done(results)) > 0


def _any_factors(results: Results) -> bool:
    return bool(done(results).straightness_factor.notna().any())


def _any_stages(results: Results) -> bool:
    trials = done(results)
    trials = trials[trials.stages > 1]
    return not set(results.tracks.trial.unique()).isdisjoint(trials.trial)


def _any_prefixes(results: Results) -> bool:
    solved = results.tracks.trial[results.tracks.prefix_m.notna()]
    return bool(solved.isin(done(results).trial).any())


def _found(results: Results, search: Search | None, several: bool) -> bool:
    """Whether a search has found anything; it has one objective, or several."""
    if search is None or (len(search.objectives) > 1) != several:
        return False
    return len(candidates(results, search)) > 0


def _measured(*names: str) -> Callable[[Results], bool]:
    return partial(measured, names=names)


BASELINES = "Dotted: the same network before training. Dashed: "
RANGES = (
    "Dotted: the same network before training; two lines are the lowest and the highest, where "
    "other settings change that. Dashed: "
)
FREE = (
    "Dash-dotted: OTS when the displacements are shuffled between points; an OTS no higher than "
    "this says nothing about learning."
)
BANDS = (
    "mean over seeds, with the 95% t-interval as a band, cut off at impossible values and at the "
    "panel's edge; of two seeds each is a thin line"
)
BARS = (
    "mean over seeds, with the 95% t-interval as a bar, cut off at impossible values; of two seeds "
    "each is a dot"
)
TRACKS = (
    "Tracks of about 20 points of the trial with the smallest seed, along two random directions, "
    "the same for all trials. Hollow: the start of a track. Dots: after each block. Filled: the "
    "end, in the colour and form of the point's class. Above a panel are the trial's LSS and OTS, "
    "with the values before training in brackets. Scales differ by panel."
)
SIDES = f"Plain network against ResNet at up to four γ, with 0 among them: {BANDS}. "

FIGURES = {
    "lss_against_epoch": Spec(
        lss_against_epoch,
        "LSS during training",
        "Fig. 2",
        "LSS against epoch, a panel per dataset, K and network, a line per gamma",
        "LSS against epoch, a line per γ; epoch 0 is before training. Mean over points and "
        f"stages, then {BANDS}. {BASELINES}√n, the value for n independent directions. Solid: 1, a "
        "straight line, or an arrow to it where it is far below. Axes differ by panel.",
        "a trial that is done",
        _any_done,
    ),
    "factor_against_epoch": Spec(
        factor_against_epoch,
        "Straightness factor during training",
        "",
        "Straightness factor against epoch, a panel per dataset, K and network, a line per gamma",
        "The first factor of the geodesic excess against epoch, a line per γ; epoch 0 is before "
        f"training. Geometric mean over stages, then {BANDS}. {BASELINES}n, the value for n "
        "independent directions. Solid: 1, straight tracks at constant speed, or an arrow to it "
        "where it is far below. Axes differ by panel.",
        "a trial with a straightness factor",
        _any_factors,
    ),
    "rate_against_epoch": Spec(
        rate_against_epoch,
        "Effective learning rate during training",
        "",
        "Effective learning rate against epoch, a panel per dataset, K and network, a line per "
        "gamma",
        "How fast weights turn: the learning rate over (1 − momentum) |W|² under SGD, and times "
        "√size over |W| under Adam. |W| is that after each epoch, the learning rate the trial's "
        "highest, so the schedule is left out. Weights that a normalisation follows have no "
        "scale, so this is their whole learning rate, and γ raises it as it "
        f"shrinks them. Geometric mean over blocks, then {BANDS}. On the right, where "
        "there are any: weights of blocks that have a scale, like W2 of a ResNet. Axes differ by "
        "panel.",
        "a trial with effective learning rates",
        has_rates,
    ),
    "factors_against_gamma": Spec(
        factors_against_gamma,
        "Both factors of the geodesic excess against γ",
        "",
        "Straightness factor and transport factor against gamma, a line per network and K",
        f"At the end of training: {BARS}. Their product is the geodesic excess; the "
        f"geodesic has 1 in both. {BASELINES}n, the straightness factor of n independent "
        "directions.",
        "a trial with a straightness factor",
        _any_factors,
    ),
    "scores_against_depth": Spec(
        depth.scores_against_depth,
        "Accuracy and scores against the number of blocks",
        "",
        "Train loss, accuracies, LSS, geodesic excess and OTS against blocks per stage, by network",
        "Degradation (section 3.2, eq. 26): whether more blocks fit the train split worse. At the "
        f"end of training at up to two γ, the second one faint: {BARS}. {BASELINES}√n (LSS) and "
        "1/m (OTS), the values at random. n grows along the axis, and so do √n and the excess of a "
        "random track.",
        "trials with several numbers of blocks (depth)",
        depth.varies,
    ),
    "tracks_by_gamma": Spec(
        tracks_by_gamma,
        "Tracks in two dimensions",
        "Figs 3, 9 to 12",
        "Tracks of about 20 points in two dimensions, a row per network, a column per gamma",
        TRACKS,
        "tracks in two dimensions of a trial with K = 1",
        partial(has_tracks, several=False),
    ),
    "scores_against_gamma": Spec(
        scores_against_gamma,
        "Accuracy and scores against γ",
        "Fig. 4",
        "Clean train accuracy, test accuracy, LSS and OTS against gamma, a line per network and K",
        f"At the end of training: {BARS}. {BASELINES}√n (LSS) and 1/m (OTS), the values "
        f"at random. {FREE}",
        "a trial that is done",
        _any_done,
    ),
    "lss_by_stage": Spec(
        lss_by_stage,
        "LSS during training, stage by stage",
        "Fig. 5",
        "LSS against epoch, a row of panels per stage, a column per network, a line per gamma",
        f"LSS of each stage against epoch, with the first stage at the top; a line per γ. "
        f"Mean over points, then {BANDS}. {BASELINES}√n. Solid: 1, a straight line, or an arrow to "
        "it where it is far below. Axes differ by panel.",
        "a trial with K > 1",
        _any_stages,
    ),
    "scores_by_stage": Spec(
        scores_by_stage,
        "Scores stage by stage",
        "Fig. 6",
        "Test accuracy against gamma, and OTS and LSS against the stage, plain against ResNet",
        f"Left: test accuracy at up to four γ, with 0 among them. Right: OTS (above) and LSS "
        f"(below) of each stage at the end of training: {BARS}. {BASELINES}√n (LSS) and 1/m (OTS). "
        f"{FREE} A collapsed stage has no OTS.",
        "a trial with K > 1",
        _any_stages,
    ),
    "tracks_by_stage": Spec(
        tracks_by_stage,
        "Tracks in two dimensions, stage by stage",
        "Figs 13 to 16",
        "Tracks of about 20 points in two dimensions, a row per network, a column per stage",
        f"{TRACKS} Each network is shown at the γ with its best mean test accuracy.",
        "tracks in two dimensions of a trial with K > 1",
        partial(has_tracks, several=True),
    ),
    "speed_by_block": Spec(
        speed_by_block,
        "Speed of the curve of measures, block by block",
        "",
        "Wasserstein speed against the block, a row per dataset, K and stage, a column per network",
        "How far each block moves the cloud of points, as W₂ between the clouds before and after "
        "it, over W₂/n of the ends: the constant speed of the geodesic, which has 1 in every block "
        "(dashed). The mean of a line is the length of the curve over that of the geodesic. At the "
        f"end of training, {BANDS}. Dotted: the same networks before training. Axes "
        "differ by panel.",
        "the evaluation curve",
        any_curve,
    ),
    "accuracy_against_units": Spec(
        accuracy_against_units,
        "Accuracy as units are eliminated",
        "Fig. 7",
        "Test accuracy against the share of eliminated units of a block, plain against ResNet",
        "Test accuracy against the share of a block's units that are eliminated. Previous state: "
        "they are set back to their values before the block, as in the paper; at 1 the whole block "
        "is left out. Means: they are set to their mean over all points, which takes away what "
        "they say about a point. Lines with markers: the units that are most active for the "
        "point's class, as in the paper; lines without (dash-dotted): random units. A ResNet adds "
        "to the previous state, so it can be flat there whatever it has learned; compare both "
        f"replacements. {SIDES}Dotted: nothing eliminated. Dashed: chance; a network that has "
        "learnt nothing is flat as well.",
        "the evaluation lesion",
        _measured("lesion"),
    ),
    "accuracy_without_blocks": Spec(
        accuracy_without_blocks,
        "Accuracy without a block, or with two blocks exchanged",
        "",
        "Test accuracy without each block, and with neighbouring blocks exchanged",
        f"Test accuracy when block l alone is left out, and when it changes places with the next "
        f"block. {SIDES}Dotted: the network as it is. Dashed: chance.",
        "the evaluation lesion",
        _measured("skip", "swap"),
    ),
    "accuracy_against_noise": Spec(
        accuracy_against_noise,
        "Accuracy and variation rate under noise",
        "Fig. 8",
        "Accuracy and variation rate against the level of noise and attacks, plain against ResNet",
        f"Test accuracy, and how far the last state (l = n of the last stage) moves relative to "
        f"its size (eq. 49), against the level of Gaussian noise and the budget of attacks. "
        f"{SIDES}Dotted: accuracy without noise; in panels of the variation rate, how far the "
        "input of the blocks moves. Dashed: chance. A network that gives every point the same "
        "answer has a variation rate of 0, so read the rate together with the accuracy. Its scales "
        "differ by panel.",
        "one of the evaluations noise, fgsm, pgd",
        _measured("noise", "fgsm", "pgd"),
    ),
    "mixed_by_distance": Spec(
        mixed_by_distance,
        "Pairs mixed up, by the distance between their tracks",
        "",
        "How often noise mixes up pairs, by tenths of track distance, plain against ResNet",
        "Noise mixes up a pair of points when it moves the end of one track closer to the other's "
        "end than to its own (section 4.2, Fig. 1E). Pairs of two classes are sorted into tenths "
        "by the distance between their tracks (eq. 35), the closest first; shown is the share of a "
        "tenth that is mixed up, over that of all of these pairs. Any ends: tracks that end close "
        "together are close in eq. 35 as well, and are easily mixed up for that reason alone, even "
        "in the identity. Equally distant ends: each ten pairs whose ends are neighbours in "
        "distance are sorted by the distance of their tracks, so only what the tracks add is left. "
        f"{SIDES}Dotted: the untrained network. Dashed: 1, as often as all of these pairs. A line "
        "is missing where fewer than about 100 pairs are mixed up. Scales differ by panel.",
        "the evaluation separation",
        _measured("separation_different"),
    ),
    "states_by_block": Spec(
        states_by_block,
        "Separation of classes and effective rank, state by state",
        "",
        "Separation fuzziness and effective rank of each state, a line per gamma, by network",
        "Left: the fuzziness D of the classes in each state; a straight line means that every "
        "block separates the classes by the same factor (law of separation). Right: how many "
        f"dimensions a state uses. A line per γ after training, broken between stages: {BANDS}. "
        "Dotted: the same networks before training. Scales differ by panel.",
        "the spread of states; geosweep evaluate DIR scores adds it",
        has_states,
    ),
    "intervention": Spec(
        intervention,
        "Effect of a penalty on tracks, by its weight",
        "",
        "Change of LSS, test accuracy and robustness against the weight of a penalty, by network",
        "The value with the penalty minus the value without it, in cells that are otherwise equal: "
        "mean over seeds, with the 95% interval as a bar if both sides have three or more, over "
        "pairs where both sides have the same seeds, and Welch's otherwise. Bars are not corrected "
        "for multiple tests; the stars in the table are. Dashed: no change. LSS shows whether the "
        "penalty worked; the other panels only mean something where it did. Scales differ.",
        "trials with straightness_penalty or transport_penalty, and the same cells without it",
        any_effects,
        table="intervention",
    ),
    "scores_against_rate": Spec(
        scores_against_rate,
        "Scores against the effective learning rate",
        "",
        "Changes of LSS and accuracies by effective learning rate, by network and what changes it",
        "Change from the start of a line (hollow, γ = 0), against the effective learning rate of "
        "weights that have no scale (geometric mean over epochs, at the trial's highest learning "
        "rate). If γ acted through this rate alone, all lines would fall on one curve, and γ at a "
        "fixed rate would change nothing. If γ acted by itself alone, the lines without γ would be "
        "flat. Points on a shaded ground have the rate of the start, and stand in the order of γ. "
        "At the end of a line: its last γ, learning rate or initial scale. Bars: the 95% interval "
        "over three or more pairs of seeds, not corrected for multiple tests. A change of LSS "
        "counts from before training: smaller initial weights change it there. Axes differ.",
        "γ with and without renormalise, or other learning rates or initial scales at γ = 0",
        rate_effects.any_effects,
        table="rates",
    ),
    "accuracy_against_score": Spec(
        accuracy_against_score,
        "Test accuracy against LSS and OTS",
        "",
        "Test accuracy against LSS and against OTS, a point per trial, by network",
        "A point per trial, a row per dataset and K. Look at each network by itself: two networks "
        "that differ in both numbers form a trend even where neither has one. "
        f"{RANGES}√n and 1/m.",
        "a trial that is done",
        _any_done,
    ),
    "ots_against_m": Spec(
        ots_against_m,
        "OTS against m",
        "",
        "OTS and gap of the first m points against m, a panel per dataset, K and network",
        "OTS (left) and gap (right) of the first m points alone, at the end of training. OTS falls "
        "as m grows, and the paper never states its m: compare at equal m, and with the baselines "
        f"at that m. Mean over stages, then {BANDS}. Lines are shifted a little sideways so that "
        f"equal ones can be seen. {BASELINES}1/m, a random matching. Collapsed trials are left "
        "out.",
        "OTS of the first points alone",
        _any_prefixes,
    ),
    "pareto_front": Spec(
        pareto_front,
        "Pareto front of the search",
        "",
        "Objectives of the search against each other, a point per trial, with the Pareto front",
        "Every trial that is done, against two objectives of the search; the axes say which "
        "direction is better. Large points are on the Pareto front of all objectives; the line is "
        f"the front of the panel's two. {RANGES}√n and 1/m, the values at random.",
        "a search with several objectives",
        partial(_found, several=True),
        of_search=True,
    ),
    "search_history": Spec(
        search_history,
        "History of the search",
        "",
        "Objective of the search against the number of the trial, with the best so far",
        "Every trial that is done, in the order of training; the line is the best so far. "
        f"{RANGES}√n and 1/m, the values at random.",
        "a search with one objective",
        partial(_found, several=False),
        of_search=True,
    ),
}
