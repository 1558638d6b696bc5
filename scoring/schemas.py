"""The tables of a sweep: their columns with types, units and meanings. Needs pyarrow only.

:mod:`scoring.tables` reads and writes them; ``docs/columns.md`` lists them for users.
"""

import pyarrow as pa

FORMAT = "1"  # in every file's metadata; raised when a column changes its meaning


def _fields(*rows: tuple[str, pa.DataType, str, str]) -> list[pa.Field]:
    """Columns from (name, type, unit, meaning)."""
    return [pa.field(n, t, metadata={"unit": unit, "meaning": text}) for n, t, unit, text in rows]


TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
LIST = pa.list_(REAL)
TIME = pa.timestamp("us", tz="UTC")

KEY = _fields(
    ("trial", TEXT, "", "the trial's id, a hash of its configuration"),
    ("dataset", TEXT, "", "name, or path of an .npz file"),
    ("network", TEXT, "", "plain or resnet"),
    ("stages", WHOLE, "", "K, parts of equal dimension"),
    ("gamma", REAL, "", "weight of the L2 penalty"),
    ("seed", WHOLE, "", "of the initial weights and the order of data"),
)

CONFIG = _fields(
    ("layers", TEXT, "", "fully_connected or convolutional"),
    ("decay", TEXT, "", "weight matrices under gamma: all or blocks"),
    ("transport_penalty", REAL, "", "weight in the loss of the kinetic energy of the tracks"),
    ("straightness_penalty", REAL, "", "weight in the loss of the mean LSS - 1"),
    ("epochs", WHOLE, "", "passes over the train split, as asked for"),
    ("batch_size", WHOLE, "images", "a step"),
    ("recipe", TEXT, "", "adam or sgd"),
    ("learning_rate", REAL, "", "at the first step"),
    ("normalisation", TEXT, "", "batch or none"),
    ("augment", pa.bool_(), "", "crop and flip"),
    ("precision", TEXT, "", "of training: float32 or bfloat16"),
    ("points", WHOLE, "points", "m scored at initialisation and at the end"),
    ("epoch_points", WHOLE, "points", "m scored after every other epoch"),
)

LOSSES = _fields(
    ("train_loss", REAL, "nat", "running mean over the (augmented) images trained on"),
    ("train_accuracy", REAL, "fraction", "running, on the (augmented) images trained on"),
    ("clean_train_loss", REAL, "nat", "first train images as they are, as many as test has"),
    ("clean_train_accuracy", REAL, "fraction", "on the same clean train images"),
    ("test_loss", REAL, "nat", "test split"),
    ("test_accuracy", REAL, "fraction", "test split"),
)

TRIALS = [
    *KEY,
    *CONFIG,
    *_fields(
        ("status", TEXT, "", "done, diverged (a loss not finite), stopped (by asha) or failed"),
        ("epochs_done", WHOLE, "", "passes over the train split, as done"),
    ),
    *LOSSES,
    *_fields(
        ("lss", REAL, "1", "line-shape score: mean over points, then over stages"),
        ("lss_std", REAL, "1", "deviation over the stages (ddof = 0)"),
        ("inverse_lss", REAL, "1", "mean of 1/LSS over points, then over stages; in [0, 1]"),
        ("lsr", REAL, "1", "line-shape ratio: mean over points, then over stages"),
        ("lsr_std", REAL, "1", "deviation over the stages (ddof = 0)"),
        ("ots", REAL, "fraction", "optimal-transport score at m = points: mean over stages"),
        ("ots_std", REAL, "fraction", "deviation over the stages (ddof = 0)"),
        ("gap", REAL, "1", "W2^2 over the network's cost, in [0, 1]: mean over stages"),
        ("movement", REAL, "1", "of the stage that moves its points least: 0 is the identity"),
        ("suboptimality", REAL, "1", "proved: W2^2 is at most this share above the optimum"),
        ("ties", WHOLE, "points", "matched otherwise at the same cost, over all stages"),
        ("collapsed", pa.bool_(), "", "some stage has collapsed: its OTS is NaN"),
        ("lss_initial", REAL, "1", "null: lss before training"),
        ("inverse_lss_initial", REAL, "1", "null: inverse_lss before training"),
        ("lsr_initial", REAL, "1", "null: lsr before training"),
        ("ots_initial", REAL, "fraction", "null: ots before training, at the same m"),
        ("gap_initial", REAL, "1", "null: gap before training, at the same m"),
        ("lss_random", REAL, "1", "null: sqrt(n), independent directions in high dimension"),
        ("ots_random", REAL, "fraction", "null: 1/m, a random matching"),
        ("energy", REAL, "squared distance", "kinetic energy: sum over blocks, mean over stages"),
        ("energy_initial", REAL, "squared distance", "null: energy before training"),
        ("turning", REAL, "1", "cosine of successive segments: mean over a stage, then stages"),
        ("turning_initial", REAL, "1", "null: turning before training"),
        ("separated", REAL, "fraction", "pairs as far apart as eq. 41 has it: mean over stages"),
        ("separated_initial", REAL, "fraction", "null: separated before training"),
        ("not_monotone", REAL, "fraction", "pairs against eq. 38: mean over stages"),
        ("not_monotone_initial", REAL, "fraction", "null: not_monotone before training"),
        ("evaluations", TEXT, "", "JSON: those in the robustness table, with their settings"),
        ("lesion_auc", REAL, "fraction", "mean accuracy as units are eliminated: over stages"),
        ("noise_auc", REAL, "fraction", "mean accuracy over the levels of random noise"),
        ("fgsm_auc", REAL, "fraction", "mean accuracy over the budgets of FGSM"),
        ("pgd_auc", REAL, "fraction", "mean accuracy over the budgets of PGD"),
        ("mixed_ratio", REAL, "1", "closest decile's share of pairs mixed up, over that of all"),
        ("mixed_ratio_different", REAL, "1", "the same, of pairs of two classes"),
        ("image", TEXT, "", "channels x height x width of an image"),
        ("classes", WHOLE, "", "of the data set"),
        ("shapes", TEXT, "", "of a state, stage by stage (Table 1)"),
        ("blocks", WHOLE, "", "n, blocks of each stage"),
        ("weight_decay", REAL, "", "the optimizer's coupled weight_decay that was used"),
        ("parameters", WHOLE, "", "trainable parameters"),
        ("seconds", REAL, "s", "training, evaluation and line shape, all epochs"),
        ("scoring_seconds", REAL, "s", "assignment problems"),
        ("started_at", TIME, "", "first epoch begun"),
        ("trained_at", TIME, "", "last epoch ended"),
        ("released_at", TIME, "", "the trial's CPU or GPU given back"),
        ("scored_at", TIME, "", "assignments solved, tables written"),
        ("device", TEXT, "", "what trained it"),
        ("threads", WHOLE, "", "of torch on the CPU"),
        ("host", TEXT, "", "name of the machine"),
        ("versions", TEXT, "", "of geosweep, python and torch"),
        ("revision", TEXT, "", "git's, of geosweep's source; -dirty if it was changed"),
        ("data_checksum", TEXT, "", "of the data set's images and labels"),
        ("peak_memory", REAL, "GB", "most that the process which trained it last has held"),
        ("peak_gpu_memory", REAL, "GB", "most that torch has held on the GPU; null without one"),
        ("error", TEXT, "", "last line of the traceback of a failed trial"),
    ),
]

EPOCHS = [
    *KEY,
    *_fields(("epoch", WHOLE, "", "0 is the network at initialisation")),
    *LOSSES,
    *_fields(
        ("learning_rate", REAL, "", "of the last step"),
        ("seconds", REAL, "s", "of the epoch with its evaluation and line shape"),
        ("finished_at", TIME, "", "its last number known"),
        ("lss", REAL, "1", "mean over points, then over stages"),
        ("inverse_lss", REAL, "1", "mean over points, then over stages; in [0, 1]"),
        ("lsr", REAL, "1", "mean over points, then over stages"),
    ),
]

TRACKS = [
    *KEY,
    *_fields(
        ("epoch", WHOLE, "", "0 is the network at initialisation"),
        ("stage", WHOLE, "", "k, 1 to K"),
        ("split", TEXT, "", "train or test"),
        ("blocks", WHOLE, "", "n, segments of a track"),
        ("dimension", WHOLE, "", "d of a state"),
        ("m", WHOLE, "points", "the first m of the split"),
        ("still_points", WHOLE, "points", "that never move: in no mean"),
        ("zero_segments", WHOLE, "segments", "of length 0 in tracks that move: left out of n"),
        ("lss", REAL, "1", "mean over points"),
        ("lss_std", REAL, "1", "deviation over points (ddof = 0)"),
        ("inverse_lss", REAL, "1", "mean of 1/LSS over points, in [0, 1]"),
        ("lsr", REAL, "1", "mean over points"),
        ("lsr_std", REAL, "1", "deviation over points (ddof = 0)"),
        ("shares", LIST, "fraction", "of the track's length, per segment; sums to 1"),
        ("lss_random", REAL, "1", "null: sqrt(n)"),
        ("lss_initial", REAL, "1", "null: lss before training"),
        ("inverse_lss_initial", REAL, "1", "null: inverse_lss before training"),
        ("lsr_initial", REAL, "1", "null: lsr before training"),
        ("ots", REAL, "fraction", "first and last epoch only; NaN: collapsed, or not measured"),
        ("ots_random", REAL, "fraction", "null: 1/m"),
        ("ots_initial", REAL, "fraction", "null: ots before training, at the same m"),
        ("ots_by_class", pa.list_(REAL), "fraction", "OTS of the points of each class"),
        ("gap", REAL, "1", "optimal over network cost, in [0, 1]"),
        ("gap_initial", REAL, "1", "null: gap before training, at the same m"),
        ("network_cost", REAL, "squared distance", "mean over points of |x - y|^2"),
        ("optimal_cost", REAL, "squared distance", "W2^2, the mean under the optimal matching"),
        ("movement", REAL, "1", "network_cost less a common shift, over the spreads of the ends"),
        ("suboptimality", REAL, "1", "proved: optimal_cost is at most this share too high"),
        ("ties", WHOLE, "points", "that another matching of the same cost matches otherwise"),
        ("collapsed", pa.bool_(), "", "inputs or outputs all equal within rounding: no OTS"),
        ("prefix_m", pa.list_(WHOLE), "points", "the first 100, 300, ... points, and all m"),
        ("prefix_ots", pa.list_(REAL), "fraction", "ots of these points alone"),
        ("prefix_gap", pa.list_(REAL), "1", "gap of these points alone"),
        ("solve_rounds", WHOLE, "", "passes over all pairs that the assignment took"),
        ("solve_edges", WHOLE, "", "pairs of points kept as candidates"),
        ("solve_seconds", REAL, "s", "of the assignment"),
        ("energy", LIST, "squared distance", "mean over points of |x^(l) - x^(l-1)|^2, per block"),
        ("weight_norms", LIST, "", "|W1|_F^2 + |W2|_F^2, per block"),
        ("energy_ratio", LIST, "squared distance", "energy over weight_norms, per block (eq. 11)"),
        ("cosines", LIST, "1", "of segments l and l + 1, l = 1 to n - 1: means over points"),
        (
            "projected",
            pa.list_(pa.float32()),
            "distance",
            "first and last epoch: tracks of the "
            "first 50 points times a fixed Gaussian (2, d) matrix, flat from (n + 1, points, 2)",
        ),
        # From here on of fewer points, and at the first and the last epoch only: else null.
        ("separation_m", WHOLE, "points", "of this and the columns below: the first ones"),
        ("straight_distance", LIST, "distance", "of x^(l) to eq. 5's line, l = 0 to n: means"),
        ("separated", REAL, "fraction", "pairs with d >= B (eq. 41), up to rounding"),
        ("separated_same", REAL, "fraction", "of pairs of one class"),
        ("separated_different", REAL, "fraction", "of pairs of two classes"),
        ("separation_ratio", REAL, "1", "mean d/B over pairs with B > 0, in [0, sqrt(2)]"),
        ("separation_ratio_same", REAL, "1", "over pairs of one class"),
        ("separation_ratio_different", REAL, "1", "over pairs of two classes"),
        ("not_monotone", REAL, "fraction", "pairs with <f(x) - f(y), x - y> < 0 (eq. 38)"),
    ),
]

SAMPLES = [
    *KEY,
    *_fields(
        ("epoch", WHOLE, "", "the last one"),
        ("stage", WHOLE, "", "k, 1 to K"),
        ("split", TEXT, "", "train or test"),
        ("point", WHOLE, "", "place in the split, from 0"),
        ("label", WHOLE, "", "true class"),
        ("prediction", WHOLE, "", "the network's class"),
        ("lss", REAL, "1", "of this point; NaN if it never moves"),
        ("lsr", REAL, "1", "of this point; NaN if it never moves"),
        ("permutation", WHOLE, "", "sigma(i), the output this input is matched to"),
        ("own_cost", REAL, "squared distance", "|x_i - y_i|^2"),
        ("matched_cost", REAL, "squared distance", "|x_i - y_sigma(i)|^2"),
    ),
]

ROBUSTNESS = [
    *KEY,
    *_fields(
        ("evaluation", TEXT, "", "lesion, skip, swap, noise, fgsm, pgd, separation(_different)"),
        ("of", TEXT, "", "name in a sweep file that it belongs to: skip and swap to lesion"),
        ("settings", TEXT, "", "JSON: of that evaluation"),
        ("stage", WHOLE, "", "k, 1 to K; null: the whole network"),
        ("block", WHOLE, "", "l, 0 to n; null: the whole stage or network"),
        ("level", REAL, "", "how much of it, see unit; of separation a decile, 0 for all pairs"),
        ("unit", TEXT, "", "of the level; pixel values: 0 is black, 255 white"),
        ("m", WHOLE, "points", "the first m of the test split; of a rate, those it is a mean of"),
        ("accuracy", REAL, "fraction", "on the test points; at level 0 the null"),
        ("loss", REAL, "nat", "mean cross-entropy"),
        ("variation_rate", REAL, "1", "mean |x^(l) - x_c^(l)| / |x^(l)| (eq. 49)"),
        ("mixed", REAL, "fraction", "ordered pairs whose ends the noise mixes up"),
        ("distance", REAL, "distance", "mean track distance (eq. 35) of these pairs"),
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
