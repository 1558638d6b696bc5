"""The claims of the paper: what each says, where, and how a sweep is checked for it.

:mod:`analysis.claims` gives the verdicts. ``docs/claims.md`` lists the claims for users.
"""

from typing import NamedTuple

from analysis.measures import checks, paper
from analysis.measures.checks import EQUAL, LOW, SPREAD
from analysis.measures.comparisons import OPTIMAL, STRAIGHT, Check

FAR = 0.5  # An OTS higher by this or more is "far above" another.
FLAT = 0.05  # "Hardly changes": the network loses less than this share of its accuracy.
FIRST, BOTH = "v1", "v1, v3"  # versions of the paper: February 2021, and June 2026
DECAYED = "at each γ above 0 and up to 0.1, against the same network at γ = 0"
TRAINED = "after training, at each γ above 0 and up to 0.1, against the same trials before training"
CHOSEN = "chosen on one half of the seeds and judged on the other"


class Claim(NamedTuple):
    """A claim of the paper, and how it is checked."""

    name: str
    text: str
    place: str  # section and figure or table in the paper's first version
    compared: str  # both sides of a comparison; what they are apart from that is equal
    check: Check
    baseline: Check | None = None  # the same check before training
    version: str = FIRST  # of the paper; the later one makes the main claims for ResNets only
    everywhere: bool = False  # it is about all places together, so each comparison has to be sure


CLAIMS = (
    Claim(
        "decay_straightens",
        "Weight decay lowers LSS: with γ up to 0.1 tracks end straighter than without",
        "5.2, Fig. 2",
        f"LSS {DECAYED}",
        checks.decay_lowers("lss"),
    ),
    Claim(
        "decay_straightens_resnets",
        "Weight decay lowers the LSS of ResNets: with γ up to 0.1 their tracks end straighter than "
        "without",
        "5.2, Fig. 2",
        f"LSS of ResNets {DECAYED}",
        checks.decay_lowers("lss", "resnet"),
        version=BOTH,
    ),
    Claim(
        "training_straightens",
        "With weight decay (γ up to 0.1) LSS falls during training",
        "5.2, Fig. 2",
        f"LSS {TRAINED}",
        checks.training_lowers("lss"),
    ),
    Claim(
        "training_straightens_resnets",
        "With weight decay (γ up to 0.1) the LSS of ResNets falls during training",
        "5.2, Fig. 2",
        f"LSS of ResNets {TRAINED}",
        checks.training_lowers("lss", "resnet"),
        version=BOTH,
    ),
    Claim(
        "curve_shortens",
        "With weight decay (γ up to 0.1) the curve of measures comes nearer to a geodesic "
        "during training: its W₂ length over that of the geodesic falls",
        "2.2",
        f"Wasserstein length ratio {TRAINED}",
        checks.training_lowers("curve_length_ratio"),
    ),
    Claim(
        "curve_shortens_resnets",
        "With weight decay (γ up to 0.1) the curve of measures of ResNets comes nearer to a "
        "geodesic during training: its W₂ length over that of the geodesic falls",
        "2.2",
        f"Wasserstein length ratio of ResNets {TRAINED}",
        checks.training_lowers("curve_length_ratio", "resnet"),
        version=BOTH,
    ),
    Claim(
        "constant_speed",
        "With weight decay (γ up to 0.1) the curve of measures comes nearer to constant speed "
        "during training: W₂ varies less over blocks (the paper does not measure it)",
        "2.2, eq. 4",
        f"speed variation {TRAINED}",
        checks.training_lowers("curve_speed_variation"),
    ),
    Claim(
        "constant_speed_resnets",
        "With weight decay (γ up to 0.1) the curve of measures of ResNets comes nearer to constant "
        "speed during training: W₂ varies less over blocks (the paper does not measure it)",
        "2.2, eq. 4",
        f"speed variation of ResNets {TRAINED}",
        checks.training_lowers("curve_speed_variation", "resnet"),
        version=BOTH,
    ),
    Claim(
        "decay_lowers_energy",
        "Weight decay lowers the kinetic energy of the blocks (the mechanism; the paper does not "
        "measure it)",
        "2.3, eqs 9 to 12",
        f"energy {DECAYED}",
        checks.decay_lowers("energy"),
    ),
    Claim(
        "plain_degrades",
        "Plain networks degrade: with the most blocks the train loss ends higher than with the "
        "fewest",
        "3.2, eq. 26",
        "clean train loss of plain networks: with the most blocks against the fewest, at the "
        "same γ",
        checks.more_blocks("plain", 1),
    ),
    Claim(
        "resnet_deepens",
        "ResNets do not degrade: with the most blocks the train loss ends lower than with the "
        "fewest",
        "1, 3.3",
        "clean train loss of ResNets: with the most blocks against the fewest, at the same γ",
        checks.more_blocks("resnet", -1),
    ),
    Claim(
        "decay_against_degradation",
        "Weight decay (γ up to 0.1) acts against degradation: it lowers the train loss of plain "
        "networks with the most blocks",
        "3.3",
        f"clean train loss of the plain networks with the most blocks {DECAYED}",
        checks.decay_helps_deep,
    ),
    Claim(
        "straighter_is_better",
        "Straighter tracks go with higher test accuracy: over γ, accuracy rises as LSS falls",
        "5.3, Fig. 4",
        "rank correlation of LSS with test accuracy over γ, of each network by itself, against 0",
        checks.with_accuracy,
    ),
    Claim(
        "window",
        "From γ = 1e-3 to 1e-2 at K = 1, LSS drops and both accuracies rise",
        "5.3, Fig. 4",
        "LSS, running train accuracy and test accuracy at K = 1: at the largest γ from 1e-3 to "
        "1e-2 against the smallest",
        checks.window,
        everywhere=True,
    ),
    Claim(
        "heavy",
        "γ above 0.1 hurts both accuracies (K = 1)",
        "5.3, Fig. 4",
        "running train accuracy and test accuracy at K = 1: at the smallest γ above 0.1 against "
        "the largest γ above 0 and up to 0.1",
        checks.heavy,
        everywhere=True,
    ),
    Claim(
        "same_gamma",
        "The best train and the best test accuracy occur at nearly the same γ (the γ of the best "
        f"train accuracy costs less than {EQUAL} of test accuracy)",
        "4.2, Fig. 4",
        "test accuracy, from 3 γ on: at the γ of the best running train accuracy against the "
        f"best other γ, {CHOSEN}",
        checks.same_gamma,
    ),
    Claim(
        "ots_falls",
        "A ResNet's OTS falls towards 0 as its train accuracy rises (K = 1)",
        "5.3, Fig. 4",
        "ResNets at K = 1: rank correlation of OTS with running train accuracy over γ, against "
        f"0; and OTS at the γ of the highest train accuracy, against {LOW}",
        checks.falling,
        everywhere=True,
    ),
    Claim(
        "resnet_straighter",
        "A ResNet's LSS is below the plain network's everywhere",
        "5.4, Figs 4 to 6",
        "LSS: ResNet against plain network at the same γ",
        checks.networks("lss", -1),
        checks.networks("lss_initial", -1),
        version=BOTH,
        everywhere=True,
    ),
    Claim(
        "resnet_nearer_optimal",
        f"With several stages a ResNet's OTS is far above the plain network's (by {FAR} or more)",
        "5.4, Fig. 6 (K = 4)",
        "OTS at K > 1: ResNet against plain network at the same γ and m",
        checks.networks("ots", 1, FAR, several=True),
        checks.networks("ots_initial", 1, FAR, several=True),
        version=BOTH,
    ),
    Claim(
        "equal_training",
        "With several stages both networks fit the train split equally well (accuracies within "
        f"{EQUAL}), but the ResNet is better on the test split",
        "5.4, Tables 6 and 7 (K = 4)",
        "running train accuracy at K > 1: whether the 95% interval of the difference of both "
        f"networks is within {EQUAL}; and test accuracy: ResNet against plain network at the "
        "same γ",
        checks.equal_training,
        everywhere=True,
    ),
    Claim(
        "stages_straighten",
        "With several stages LSS is lower than with one",
        "5.4, Fig. 5 (K = 4)",
        "LSS: K > 1 against K = 1, of the same network at the same γ, at any m",
        checks.more_stages("lss"),
        checks.more_stages("lss_initial"),
    ),
    Claim(
        "later_straighter",
        "Later stages are straighter than early ones: each stage than the one before it",
        "5.4, Fig. 5",
        "LSS of each stage against the stage before it, in the same trials",
        checks.later_stages("lss"),
        checks.later_stages("lss_initial"),
        everywhere=True,
    ),
    Claim(
        "stages_vary",
        "The variance of scores over stages is large (deviations of LSS over stages above "
        f"{SPREAD:.0%} of the mean)",
        "5.4, Tables 6 and 7",
        "deviation of LSS over the stages of a trial as a share of its mean, at K > 1, against "
        f"{SPREAD}",
        checks.stages_vary,
    ),
    Claim(
        "best_gamma",
        "The best γ is 1e-2 at K = 1; at K = 4 it is 5e-3 for a ResNet, 1e-3 for a plain network",
        "5.4, Tables 4 to 7",
        "test accuracy of convolutional networks at K = 1 and 4, from 3 γ on: at the paper's "
        f"best γ against the best other γ, which is {CHOSEN}",
        checks.best_gamma,
    ),
    Claim(
        "mnist",
        "On MNIST at γ = 5e-4 a ResNet's tracks are nearly straight and its map nearly optimal "
        f"(the paper has LSS {paper.FIGURE_3['lss']} and OTS {paper.FIGURE_3['ots']}; here LSS up "
        f"to {STRAIGHT} and OTS from {OPTIMAL} are enough)",
        "5.2, Fig. 3",
        f"LSS against {STRAIGHT} and OTS against {OPTIMAL}, of ResNets on MNIST at γ = 5e-4",
        checks.figure_3,
        everywhere=True,
    ),
    Claim(
        "units",
        "As the most active units are set back to the previous state a ResNet's accuracy hardly "
        f"changes (a mean loss below {FLAT:.0%} of it); the plain network's falls",
        "7.1, Fig. 7",
        "share of accuracy lost to lesions: ResNet against plain network at the same γ, and "
        f"ResNet against {FLAT}",
        checks.units(FLAT),
        everywhere=True,
    ),
    Claim(
        "units_to_mean",
        "The same as the most active units are set to their means (a control that the paper lacks: "
        "in a ResNet the previous state differs little, whatever was learned)",
        "7.1, Fig. 7",
        "share of accuracy lost to lesions by means: ResNet against plain network at the same "
        f"γ, and ResNet against {FLAT}",
        checks.units(FLAT, "lesion_top_mean_lost"),
        everywhere=True,
    ),
    Claim(
        "noise",
        "Under random and adversarial noise a ResNet's accuracy falls more slowly",
        "7.2, Fig. 8",
        "share of accuracy lost to random noise, FGSM and PGD: ResNet against plain network at "
        "the same γ",
        checks.noise("noise_lost", "fgsm_lost", "pgd_lost"),
    ),
    Claim(
        "variation",
        "Noise moves the end of a ResNet's tracks less (variation rate at l = n, eq. 49)",
        "7.2, Fig. 8",
        "variation rate under random noise, FGSM and PGD: ResNet against plain network at the "
        "same γ",
        checks.noise("noise_variation", "fgsm_variation", "pgd_variation"),
    ),
    Claim(
        "mixed_first",
        "Noise first mixes up points whose tracks come close: of pairs of two classes with equally "
        "distant ends it mixes up the closest tenth of tracks more often than all, and than in the "
        "untrained network",
        "4.2, Fig. 1E",
        "mixed ratio of two classes at equal ends: against 1, or against its value before "
        "training in the same trials if that is larger",
        checks.mixed_first,
        checks.mixed_first_untrained,
    ),
)
