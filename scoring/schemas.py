"""The tables of a sweep: their columns with types, units and meanings. Needs pyarrow only.

:mod:`scoring.tables` reads and writes them; ``docs/columns.md`` lists them for users.
"""

import pyarrow as pa

from scoring.columns import CONFIG, KEY, LIST, LOSSES, REAL, TEXT, TIME, WHOLE, columns

FORMAT = "1"  # in the metadata of every file; raised when a column changes its meaning


Row = tuple[str, pa.DataType, str, str]


def _both(name: str, unit: str, meaning: str) -> list[Row]:
    """A column of real numbers, followed by its baseline: the same before training."""
    before = f"baseline: {name} before training"
    return [(name, REAL, unit, meaning), (f"{name}_initial", REAL, unit, before)]


def _curve(name: str, meaning: str, shuffled: bool = False) -> list[Row]:
    """Columns of the trials table for a number of the evaluation curve and its baselines."""
    unit = "fraction" if name == "block_ots" else "1"
    found = _both(f"curve_{name}", unit, meaning)
    if shuffled:
        control = "baseline: of displacements shuffled between points"
        found.append((f"curve_{name}_shuffled", REAL, unit, control))
    return found


TRIALS = [
    *KEY,
    *CONFIG,
    *columns(
        (
            "status",
            TEXT,
            "",
            "done, diverged (a loss or state not finite), stopped (by asha) or failed",
        ),
        ("epochs_done", WHOLE, "", "finished passes over the train split"),
    ),
    *LOSSES,
    *columns(
        ("geodesic_excess", REAL, "1", "action over W2^2, see tracks: geometric mean over stages"),
        ("straightness_factor", REAL, "1", "n sum E_l / C, see tracks: geometric mean over stages"),
        ("transport_factor", REAL, "1", "C / W2^2, see tracks: geometric mean over stages"),
        ("geodesic_excess_without_drift", REAL, "1", "without the mean step of each block"),
        ("straightness_factor_without_drift", REAL, "1", "its first factor"),
        ("transport_factor_without_drift", REAL, "1", "its second factor"),
        ("transport_share", REAL, "1", "0: optimal, 1: a random matching; mean over stages"),
        ("geodesic_excess_initial", REAL, "1", "baseline: before training, at the same m"),
        ("straightness_factor_initial", REAL, "1", "baseline: straightness_factor before training"),
        ("transport_factor_initial", REAL, "1", "baseline: transport_factor before training"),
        ("geodesic_excess_without_drift_initial", REAL, "1", "baseline: before training"),
        ("straightness_factor_without_drift_initial", REAL, "1", "baseline: before training"),
        ("transport_factor_without_drift_initial", REAL, "1", "baseline: before training"),
        ("transport_share_initial", REAL, "1", "baseline: transport_share before training"),
        ("lss", REAL, "1", "line-shape score: mean over points, then over stages"),
        ("lss_std", REAL, "1", "standard deviation over the stages (ddof = 0)"),
        ("inverse_lss", REAL, "1", "mean of 1/LSS over points, then over stages; in [0, 1]"),
        ("lsr", REAL, "1", "line-shape ratio: mean over points, then over stages"),
        ("lsr_std", REAL, "1", "standard deviation over the stages (ddof = 0)"),
        ("ots", REAL, "fraction", "optimal-transport score at m = points: mean over stages"),
        ("ots_std", REAL, "fraction", "standard deviation over the stages (ddof = 0)"),
        ("gap", REAL, "1", "W2^2 over the network's cost, in [0, 1]: mean over stages"),
        (
            "movement",
            REAL,
            "1",
            "least of any stage that has not collapsed, see tracks; 0: identity",
        ),
        ("suboptimality", REAL, "1", "certified: W2^2 is at most this share above the optimum"),
        ("ties", WHOLE, "points", "see tracks; sum over stages"),
        ("collapsed", pa.bool_(), "", "whether some stage has collapsed, so that its OTS is NaN"),
        ("lss_initial", REAL, "1", "baseline: lss before training"),
        ("inverse_lss_initial", REAL, "1", "baseline: inverse_lss before training"),
        ("lsr_initial", REAL, "1", "baseline: lsr before training"),
        ("ots_initial", REAL, "fraction", "baseline: ots before training, at the same m"),
        ("gap_initial", REAL, "1", "baseline: gap before training, at the same m"),
        ("lss_random", REAL, "1", "baseline: sqrt(n), independent directions in high dimension"),
        ("ots_random", REAL, "fraction", "baseline: 1/m, for a random matching"),
        ("ots_shuffled", REAL, "fraction", "baseline: OTS of shuffled displacements, see tracks"),
        ("gap_shuffled", REAL, "1", "baseline: gap of shuffled displacements, see tracks"),
        ("ots_shuffled_initial", REAL, "fraction", "ots_shuffled before training"),
        ("gap_shuffled_initial", REAL, "1", "gap_shuffled before training"),
        *_both("energy", "squared distance", "kinetic energy: sum over blocks, mean over stages"),
        *_both("lss_scaled", "1", "lss on states of equal size, see tracks: mean over stages"),
        *_both("lss_without_drift", "1", "lss without mean steps, see tracks: mean over stages"),
        *_both("relative_energy", "1", "see tracks: sum over blocks, mean over stages"),
        *_both("curvature", "degree", "angle of successive segments, see tracks: mean over stages"),
        *_both("spacing", "1", "variation of step lengths, see tracks: mean over stages"),
        *_both("fuzziness_slope", "1", "law of separation, see tracks: mean over stages"),
        *_both("fuzziness_fit", "1", "R^2 of the law of separation, see tracks: mean over stages"),
        *_both("nc1", "1", "neural collapse of the last stage, see tracks; 0: collapsed classes"),
        *_both("effective_rank", "dimensions", "of the last state of a stage: mean over stages"),
        *_both("turning", "1", "cosine of successive segments: mean in a stage, then over stages"),
        *_both("separated", "fraction", "pairs of points that satisfy eq. 41: mean over stages"),
        *_both("not_monotone", "fraction", "pairs of points that violate eq. 38: mean over stages"),
        ("evaluations", TEXT, "", "JSON: evaluations in the robustness table, with their settings"),
        (
            "lesion_auc",
            REAL,
            "fraction",
            "trapezoidal area under accuracy, divided by the range of shares: mean over stages",
        ),
        ("lesion_top_mean_auc", REAL, "fraction", "lesion_auc with each unit set to its mean"),
        ("lesion_random_previous_auc", REAL, "fraction", "lesion_auc of random units"),
        ("lesion_random_mean_auc", REAL, "fraction", "lesion_auc of random units, set to means"),
        (
            "noise_auc",
            REAL,
            "fraction",
            "trapezoidal area under accuracy, divided by the range of levels of random noise",
        ),
        (
            "fgsm_auc",
            REAL,
            "fraction",
            "trapezoidal area under accuracy, divided by the range of levels of FGSM",
        ),
        (
            "pgd_auc",
            REAL,
            "fraction",
            "trapezoidal area under accuracy, divided by the range of levels of PGD",
        ),
        *_both("mixed_ratio", "1", "mixed-up share of the closest decile, over that of all pairs"),
        ("mixed_ratio_matched", REAL, "1", "among ten pairs of equally distant ends; 1: no effect"),
        ("mixed_ratio_matched_initial", REAL, "1", "baseline: before training"),
        ("mixed_ratio_different", REAL, "1", "mixed_ratio for pairs of two classes"),
        ("mixed_ratio_different_initial", REAL, "1", "baseline: before training"),
        ("mixed_ratio_different_matched", REAL, "1", "mixed_ratio_matched of two classes"),
        ("mixed_ratio_different_matched_initial", REAL, "1", "baseline: before training"),
        ("curve_m", WHOLE, "points", "m of the columns below, of the evaluation curve"),
        *_curve("length_ratio", "curve of measures over the geodesic: geometric mean over stages"),
        *_curve("speed_variation", "coefficient of variation of W2 over blocks: mean over stages"),
        *_curve("speed_factor", "1 + speed_variation^2: geometric mean over stages"),
        *_curve("block_factor", "sum E_l / sum W2^2 of blocks: geometric mean over stages", True),
        *_curve("block_ots", "OTS of single blocks: mean over blocks and stages", True),
        *_curve(
            "polar_share",
            "|own - matched step|^2 over energy, both summed over blocks (eq. 15): mean over "
            "stages",
        ),
        ("curve_blocks", WHOLE, "", "blocks behind the OTS and polar share: not collapsed"),
        ("curve_blocks_initial", WHOLE, "", "the same before training"),
        ("image", TEXT, "", "channels x height x width of an image"),
        ("classes", WHOLE, "", "number of classes of the data set"),
        ("shapes", TEXT, "", "shape of a state in each stage"),
        ("blocks", WHOLE, "", "n, the number of blocks in each stage; null if they differ"),
        ("weight_decay", REAL, "", "weight_decay of the optimizer, which is gamma"),
        ("decoupled", pa.bool_(), "", "gamma is decoupled decay, no L2 penalty; null: it is one"),
        ("parameters", WHOLE, "", "number of trainable parameters"),
        ("seconds", REAL, "s", "time of all epochs, with evaluation and line shape"),
        ("scoring_seconds", REAL, "s", "time to solve the assignment problems"),
        ("started_at", TIME, "", "when the first epoch began"),
        ("trained_at", TIME, "", "when the last epoch ended"),
        ("released_at", TIME, "", "when the trial's CPU or GPU was released"),
        ("scored_at", TIME, "", "when the assignments were solved and the tables written"),
        ("device", TEXT, "", "device that trained it"),
        ("threads", WHOLE, "", "number of CPU threads of torch"),
        ("host", TEXT, "", "name of the machine"),
        ("versions", TEXT, "", "versions of geosweep, python and torch"),
        ("revision", TEXT, "", "git revision of geosweep's source, with -dirty if it was changed"),
        ("data_checksum", TEXT, "", "checksum of the data set's images and labels"),
        ("peak_memory", REAL, "GB", "peak memory of the process that trained it last"),
        ("peak_gpu_memory", REAL, "GB", "peak memory of torch on the GPU; null without a GPU"),
        ("error", TEXT, "", "last line of the traceback of a failed trial"),
    ),
]

EPOCHS = [
    *KEY,
    *columns(("epoch", WHOLE, "", "number of the epoch; 0 is the network before training")),
    *LOSSES,
    *columns(
        ("learning_rate", REAL, "", "learning rate of the last step"),
        ("effective_rate", REAL, "1", "effective learning rate of blocks: geometric mean"),
        ("effective_rate_others", REAL, "1", "of weights of blocks that have a scale"),
        ("effective_rate_head", REAL, "1", "of the head, which has a scale"),
        ("seconds", REAL, "s", "time of the epoch, with evaluation and line shape"),
        ("finished_at", TIME, "", "when its last value was known"),
        ("straightness_factor", REAL, "1", "n sum E_l / C, see tracks: geometric mean over stages"),
        ("straightness_factor_without_drift", REAL, "1", "without the mean step of each block"),
        ("lss", REAL, "1", "line-shape score: mean over points, then over stages"),
        ("inverse_lss", REAL, "1", "mean of 1/LSS over points, then over stages; in [0, 1]"),
        ("lsr", REAL, "1", "line-shape ratio: mean over points, then over stages"),
    ),
]

TRACKS = [
    *KEY,
    *columns(
        ("epoch", WHOLE, "", "number of the epoch; 0 is the network before training"),
        ("stage", WHOLE, "", "k, 1 to K"),
        ("split", TEXT, "", "train or test"),
        ("blocks", WHOLE, "", "n, the number of segments of a track"),
        ("dimension", WHOLE, "", "d, the dimension of a state"),
        ("m", WHOLE, "points", "number of points, the first ones of the split"),
        ("still_points", WHOLE, "points", "points that never move, left out of LSS and LSR"),
        ("zero_segments", WHOLE, "segments", "of length 0 in tracks that move; not in LSS"),
        ("geodesic_excess", REAL, "1", "n sum E_l / W2^2, E_l energy: >= 1; 1 on the geodesic"),
        (
            "straightness_factor",
            REAL,
            "1",
            "n sum E_l / C, C network_cost: >= 1; n for random directions",
        ),
        ("transport_factor", REAL, "1", "C / W2^2, network_cost over optimal_cost: >= 1"),
        ("geodesic_excess_without_drift", REAL, "1", "without the mean step of each block"),
        ("straightness_factor_without_drift", REAL, "1", "its first factor"),
        ("transport_factor_without_drift", REAL, "1", "its second factor"),
        ("transport_share", REAL, "1", "0 optimal, 1 random: (C - W2^2) / (random C - W2^2)"),
        ("geodesic_excess_initial", REAL, "1", "baseline: before training, at the same m"),
        ("straightness_factor_initial", REAL, "1", "baseline: straightness_factor before training"),
        ("transport_factor_initial", REAL, "1", "baseline: before training, at the same m"),
        ("lss", REAL, "1", "line-shape score: mean over points"),
        ("lss_std", REAL, "1", "standard deviation over points (ddof = 0)"),
        ("inverse_lss", REAL, "1", "mean of 1/LSS over points, in [0, 1]"),
        ("lsr", REAL, "1", "line-shape ratio: mean over points"),
        ("lsr_std", REAL, "1", "standard deviation over points (ddof = 0)"),
        ("shares", LIST, "fraction", "of the track's length, per segment: means; sums to 1"),
        ("lss_random", REAL, "1", "baseline: sqrt(n), independent directions in high dimension"),
        ("lss_initial", REAL, "1", "baseline: lss before training"),
        ("inverse_lss_initial", REAL, "1", "baseline: inverse_lss before training"),
        ("lsr_initial", REAL, "1", "baseline: lsr before training"),
        ("ots", REAL, "fraction", "OTS in the first and last epoch; NaN if collapsed"),
        ("ots_random", REAL, "fraction", "baseline: 1/m, for a random matching"),
        ("ots_initial", REAL, "fraction", "baseline: ots before training, at the same m"),
        (
            "ots_shuffled",
            REAL,
            "fraction",
            "baseline: OTS of x_i -> x_i + v_j, v = y - x, j in random order",
        ),
        ("gap_shuffled", REAL, "1", "baseline: gap of the same map"),
        ("ots_by_class", pa.list_(REAL), "fraction", "ots of the points of each class"),
        ("gap", REAL, "1", "optimal_cost over network_cost, in [0, 1]"),
        ("gap_initial", REAL, "1", "baseline: gap before training, at the same m"),
        ("network_cost", REAL, "squared distance", "mean over points of |x - y|^2"),
        ("optimal_cost", REAL, "squared distance", "W2^2: |x - y|^2 in the optimal matching"),
        ("shift", REAL, "squared distance", "|mean y - mean x|^2, a part of both costs"),
        ("movement", REAL, "1", "network_cost without a common shift, over spread of x times y"),
        ("suboptimality", REAL, "1", "certified: optimal_cost is at most this share too high"),
        ("ties", WHOLE, "points", "points with another partner in some matching of the same cost"),
        ("collapsed", pa.bool_(), "", "all inputs or all outputs are equal within rounding"),
        ("prefix_m", pa.list_(WHOLE), "points", "100, 300, ... first points, and all m"),
        ("prefix_ots", pa.list_(REAL), "fraction", "ots of these first points alone"),
        ("prefix_gap", pa.list_(REAL), "1", "gap of these first points alone"),
        ("solve_rounds", WHOLE, "", "passes over all pairs to solve the assignment"),
        ("solve_edges", WHOLE, "", "pairs of points kept as candidates"),
        ("solve_seconds", REAL, "s", "time to solve the assignment"),
        ("shuffled_seconds", REAL, "s", "time to solve that of ots_shuffled"),
        ("energy", LIST, "squared distance", "per block: mean over points of |x^(l) - x^(l-1)|^2"),
        ("drift", LIST, "squared distance", "per block: |mean over points of x^(l) - x^(l-1)|^2"),
        ("weight_norms", LIST, "", "per block: |W1|_F^2 + |W2|_F^2"),
        (
            "effective_rate",
            LIST,
            "1",
            "per block: rate / ((1 - momentum) |W|^2), or Adam's; null: none",
        ),
        ("effective_rate_others", LIST, "1", "per block: of weights with a scale; null: none"),
        (
            "energy_ratio",
            LIST,
            "squared distance",
            "per block: energy over weight_norms (eq. 11); null with normalisation",
        ),
        ("cosines", LIST, "1", "of segments l and l + 1, for l = 1 to n - 1: means over points"),
        ("curvature", REAL, "degree", "angle between successive segments: mean; 90 at random"),
        ("spacing", REAL, "1", "coefficient of variation of a track's segments: mean over points"),
        (
            "projected",
            pa.list_(pa.float32()),
            "distance",
            "first and last epoch: tracks of the first 50 points in two dimensions, by a fixed "
            "Gaussian (2, d) matrix; flattened from (n + 1, points, 2)",
        ),
        # The columns below use fewer points, and are null except in the first and last epoch.
        ("separation_m", WHOLE, "points", "the first m points, for this and the columns below"),
        ("straight_distance", LIST, "distance", "from x^(l) to the line of eq. 5: means"),
        ("separated", REAL, "fraction", "pairs with d >= B (eq. 41), up to rounding"),
        ("separated_same", REAL, "fraction", "the same, among pairs of one class"),
        ("separated_different", REAL, "fraction", "the same, among pairs of two classes"),
        ("separation_ratio", REAL, "1", "mean of d/B over pairs with B > 0, in [0, sqrt(2)]"),
        ("separation_ratio_same", REAL, "1", "the same, over pairs of one class"),
        ("separation_ratio_different", REAL, "1", "the same, over pairs of two classes"),
        ("not_monotone", REAL, "fraction", "pairs with <f(x) - f(y), x - y> < 0, against eq. 38"),
        *_both("lss_scaled", "1", "lss on states of equal root mean square, one factor per state"),
        *_both("lss_without_drift", "1", "lss without the mean step of each block"),
        ("relative_energy", LIST, "1", "per block: energy over the variance of x^(l-1)"),
        ("fuzziness", LIST, "1", "D_l = tr(S_w S_b^+) of the classes in x^(l), l = 0 to n"),
        ("fuzziness_slope", REAL, "1", "slope of log D_l over l: below 0 where classes come apart"),
        ("fuzziness_fit", REAL, "1", "R^2 of that line: 1 if blocks separate classes equally"),
        ("nc1", REAL, "1", "D_n over the number of classes: 0 in neural collapse"),
        ("effective_rank", LIST, "dimensions", "of x^(l), l = 0 to n: exp of the entropy of sigma"),
        ("participation_ratio", LIST, "dimensions", "of x^(l): tr(S)^2 / tr(S^2), S covariance"),
    ),
]

SAMPLES = [
    *KEY,
    *columns(
        ("epoch", WHOLE, "", "number of the last epoch"),
        ("stage", WHOLE, "", "k, 1 to K"),
        ("split", TEXT, "", "train or test"),
        ("point", WHOLE, "", "index of the point in the split, from 0"),
        ("label", WHOLE, "", "true class"),
        ("prediction", WHOLE, "", "class that the network predicts"),
        ("lss", REAL, "1", "line-shape score of this point; NaN if it never moves"),
        ("lsr", REAL, "1", "line-shape ratio of this point; NaN if it never moves"),
        ("permutation", WHOLE, "", "sigma(i), the output that input i is matched to"),
        ("own_cost", REAL, "squared distance", "|x_i - y_i|^2"),
        ("matched_cost", REAL, "squared distance", "|x_i - y_sigma(i)|^2"),
    ),
]

ROBUSTNESS = [
    *KEY,
    *columns(
        (
            "evaluation",
            TEXT,
            "",
            "lesion, skip, swap, noise, fgsm, pgd, separation(_different), "
            "curve(_initial, _shuffled)",
        ),
        ("of", TEXT, "", "its name in a sweep file; skip and swap belong to lesion"),
        ("settings", TEXT, "", "JSON: settings of the evaluation"),
        ("stage", WHOLE, "", "k, 1 to K; null for the whole network"),
        ("block", WHOLE, "", "l, 0 to n; null for the whole stage or network"),
        ("replacement", TEXT, "", "lesion: previous (state, also if null) or mean (of the unit)"),
        ("units", TEXT, "", "lesion: top (most active, also if null) or random"),
        ("level", REAL, "", "strength, see unit; separation: the decile; null for curve"),
        ("unit", TEXT, "", "unit of the level; pixel values go from 0 (black) to 255 (white)"),
        (
            "m",
            WHOLE,
            "points",
            "number of points: the first m of the split; for a rate, the points that were averaged",
        ),
        ("accuracy", REAL, "fraction", "on these points; at level 0 the baseline"),
        ("loss", REAL, "nat", "mean cross-entropy on these points"),
        ("variation_rate", REAL, "1", "mean |x^(l) - x_c^(l)| / |x^(l)|, eq. 49"),
        ("mixed", REAL, "fraction", "ordered pairs of points whose ends the noise mixes up"),
        ("distance", REAL, "distance", "mean track distance of these pairs (eq. 35)"),
        ("mixed_initial", REAL, "fraction", "baseline: mixed in the untrained network"),
        ("mixed_matched", REAL, "fraction", "decile: the rank among ten pairs with equal ends"),
        ("mixed_matched_initial", REAL, "fraction", "baseline: in the untrained network"),
        # The columns below belong to the evaluation curve.
        ("speed", REAL, "distance", "W2 of the measures before and after the block, or the stage"),
        ("energy", REAL, "squared distance", "mean squared step of a block; stage: their sum"),
        ("ots", REAL, "fraction", "OTS of the map of the block, or of the stage"),
        ("gap", REAL, "1", "squared speed over the cost of this map, in [0, 1]"),
        (
            "polar_share",
            REAL,
            "1",
            "mean squared difference of own and matched step, over energy (eq. 15); stage: both "
            "summed over its blocks",
        ),
        ("length_ratio", REAL, "1", "stage: sum of the speeds of blocks over its own speed; >= 1"),
        ("speed_variation", REAL, "1", "stage: coefficient of variation of the speeds (eq. 4: 0)"),
        ("block_factor", REAL, "1", "stage: sum of energies over sum of squared speeds; >= 1"),
        ("speed_factor", REAL, "1", "stage: 1 + speed_variation^2"),
        (
            "geodesic_excess",
            REAL,
            "1",
            "stage: block_factor x speed_factor x length_ratio^2, exactly",
        ),
    ),
]

TABLES = {
    name: pa.schema(fields, metadata={"geosweep": FORMAT, "table": name})
    for name, fields in {
        "trials": TRIALS,
        "epochs": EPOCHS,
        "tracks": TRACKS,
        "samples": SAMPLES,
        "robustness": ROBUSTNESS,
    }.items()
}
