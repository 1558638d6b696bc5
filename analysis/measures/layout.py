"""Tables as people read them: headings, digits, Markdown and LaTeX."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from analysis.measures.cells import CELL
from analysis.measures.markup import csv_cell, latex_comment, latex_text, markdown_text, utf8
from scoring.schemas import CONFIG
from scoring.tables import ARGUMENT

# Columns that are left out if no row has a value: earlier versions did not write them.
LATER = [
    f"{name}{end}"
    for name in (
        "geodesic_excess",
        "straightness_factor",
        "transport_factor",
        "transport_share",
        "lss_scaled",
    )
    for end in ("", "_initial")
]
LATER += ["ots_shuffled", "suboptimality", "error", "warning", "setting"]
LATER += [f"lesion_{kind}_auc" for kind in ("top_mean", "random_previous", "random_mean")]
LATER += [
    f"mixed_ratio{pairs}{end}"
    for pairs in ("", "_different")
    for end in ("_initial", "_matched", "_matched_initial")
]
# Columns that are left out if every row has 0.
COUNTS = ["stopped", "diverged", "failed", "collapsed", "without_ots", "ties"]

HEADINGS = {
    "stages": "K",
    "gamma": "γ",
    "points": "m",
    "depth": "blocks per stage",
    "train_accuracy": "running train accuracy",
    "lss": "LSS",
    "lss_random": "√n",
    "lss_scaled": "LSS, equal size",
    "lss_without_drift": "LSS without drift",
    "fuzziness_fit": "R² of the law",
    "nc1": "NC1",
    "inverse_lss": "1/LSS",
    "lsr": "LSR",
    "ots": "OTS",
    "ots_shuffled": "OTS of shuffled displacements",
    "ots_random": "1/m",
    "lesion_auc": "lesion AUC",
    "lesion_top_mean_auc": "lesion AUC, means",
    "lesion_random_previous_auc": "lesion AUC, random units",
    "lesion_random_mean_auc": "lesion AUC, random units, means",
    "noise_auc": "noise AUC",
    "fgsm_auc": "FGSM AUC",
    "pgd_auc": "PGD AUC",
    "mixed_ratio_matched": "mixed ratio at equal ends",
    "mixed_ratio_different": "mixed ratio, two classes",
    "mixed_ratio_different_matched": "mixed ratio, two classes at equal ends",
    "separation_m": "m of pairs",
    "lesion_lost": "lost to lesions",
    "lesion_top_mean_lost": "lost to lesions by means",
    "lesion_random_previous_lost": "lost to lesions of random units",
    "lesion_random_mean_lost": "lost to lesions of random units by means",
    "noise_lost": "lost to random noise",
    "fgsm_lost": "lost to FGSM",
    "pgd_lost": "lost to PGD",
    "noise_variation": "variation rate under random noise",
    "fgsm_variation": "variation rate under FGSM",
    "pgd_variation": "variation rate under PGD",
    "curve_length_ratio": "Wasserstein length ratio",
    "curve_speed_variation": "speed variation",
    "curve_block_factor": "block factor",
    "curve_block_factor_shuffled": "block factor of shuffled displacements",
    "curve_block_ots": "OTS of blocks",
    "curve_block_ots_shuffled": "OTS of blocks, shuffled displacements",
    "curve_polar_share": "polar share",
    "rho": "Spearman ρ",
    "low": "95% from",
    "high": "95% to",
}
DECIMALS = {
    "geodesic_excess": 2,
    "straightness_factor": 2,
    "transport_factor": 3,
    "transport_share": 3,
    "lss": 2,
    "lss_scaled": 2,
    "lss_without_drift": 2,
    "relative_energy": 2,
    "curvature": 1,
    "spacing": 2,
    "fuzziness_slope": 3,
    "fuzziness_fit": 2,
    "nc1": 3,
    "effective_rank": 1,
    "lsr": 2,
    "inverse_lss": 3,
    "ots": 3,
    "gap": 3,
    "curve_length_ratio": 3,
    "curve_speed_variation": 3,
    "curve_block_factor": 3,
    "curve_block_ots": 3,
    "curve_polar_share": 3,
    "rho": 2,
    "low": 2,
    "high": 2,
    "auc": 3,
    "clean_train_loss": 3,
    "wrong": 1,
    "mixed_ratio": 2,
    "mixed_ratio_different": 2,
    "mixed_ratio_matched": 2,
    "mixed_ratio_different_matched": 2,
    "lss_random": 2,
}


WITHOUT = (
    "A mean without an interval is of one seed, or of seeds that all gave the same number: no "
    "spread is no evidence."
)


def heading(name: str) -> str:
    """The heading of a column, or the name of a score, as people read it.

    >>> heading("lss"), heading("lss_initial"), heading("test_accuracy")
    ('LSS', 'LSS before training', 'test accuracy')
    """
    if name in HEADINGS:
        return HEADINGS[name]
    if name.startswith(ARGUMENT):
        return name
    if name.endswith("_initial"):
        return f"{heading(name.removesuffix('_initial'))} before training"
    return name.replace("_", " ")


def network_name(network: object) -> str:
    """A network's name as people read it."""
    return "ResNet" if network == "resnet" else str(network)


def first_word(name: str) -> str:
    """A network's name at the start of a sentence; names with a colon stay as they are.

    >>> first_word("plain"), first_word("torchvision:resnet18")
    ('Plain', 'torchvision:resnet18')
    """
    return name if ":" in name else name[0].upper() + name[1:]


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "trial"), plural(2, "trial")
    ('1 trial', '2 trials')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def few(texts: Sequence[str], between: str = ", ") -> str:
    """The first texts of a list, and how many more there are.

    >>> few(["a", "b"]), few([*"abcdef"])
    ('a, b', 'a, b, c, d and 2 more')
    """
    rest = f" and {len(texts) - 4} more" if len(texts) > 4 else ""
    return between.join(texts[:4]) + rest


def span(values: pd.Series) -> str:
    """The smallest and the largest of some counts as a text; empty if there are none.

    >>> span(pd.Series([1000, 500, 700])), span(pd.Series([3.0, np.nan]))
    ('500 to 1,000', '3')
    """
    known = values.dropna()
    ends = dict.fromkeys((known.min(), known.max())) if len(known) else ()
    return " to ".join(f"{int(end):,}" for end in ends)


def sample(cells: pd.DataFrame) -> str:
    """The ``m`` and the ``seeds`` behind the scores of some cells, in words."""
    seeds = span(cells.seeds)
    return f"m = {span(cells.m)}, {seeds} {'seed' if seeds == '1' else 'seeds'} per cell"


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: texts, plain headings, ``mean ± half-width`` in one column.

    A mean without an interval stands alone; :func:`reason` says why. An OTS that is missing because
    its trials have collapsed reads "collapsed".
    """
    shown = {}
    for name in table.columns:
        if name.endswith("_ci95"):
            continue
        texts = [_text(name, value) for value in table[name]]
        if f"{name}_ci95" in table:
            halves = [_text(name, half) for half in table[f"{name}_ci95"]]
            texts = [f"{t} ± {h}" if h else t for t, h in zip(texts, halves, strict=True)]
        if name == "ots" and "collapsed" in table:
            lost = table.collapsed.fillna(0).astype("bool")
            texts = ["collapsed" if c and not t else t for t, c in zip(texts, lost, strict=True)]
        shown[heading(name)] = texts
    return pd.DataFrame(shown, dtype="str")


def reason(table: pd.DataFrame) -> str:
    """Why some means of several seeds have no interval; empty if all have one."""
    if "seeds" not in table or not (table.seeds > 1).any():
        return ""
    names = [name for name in table if f"{name}_ci95" in table]
    alone = [(table[name].notna() & table[f"{name}_ci95"].isna()).any() for name in names]
    return WITHOUT if any(alone) else ""


def _text(name: str, value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, int | float | np.number):
        return "" if pd.isna(value) else str(value)  # type: ignore[arg-type]
    if np.isnan(value):
        return ""
    kind = name.removesuffix("_initial").removesuffix("_shuffled")
    if kind in DECIMALS or kind.endswith(("accuracy", "_auc")):
        return f"{value:.{DECIMALS.get(kind, 3)}f}"
    if name == "suboptimality":
        return f"{value:.1g}"
    if name in ("p", "p_adjusted", "ots_random"):
        return f"{value:.2g}"
    if name.endswith("seconds"):
        return f"{value:.1f}"
    return f"{value:.6g}"


def fold(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Remove the columns that carry no information.

    These are columns of the configuration that hold one value, counts that are 0 in every row, and
    those of LATER where no row has a value.

    Returns:
        The narrower table, and the removed values as a phrase ("dataset = digits, K = 1").
    """
    arguments = [n for n in table if str(n).startswith(ARGUMENT)]
    names = [n for n in (*CELL, *(f.name for f in CONFIG), *arguments, "m") if n in table]
    same = [n for n in dict.fromkeys(names) if len(table) and table[n].nunique(dropna=False) == 1]
    first = readable(table[same].head(1))
    phrase = ", ".join(f"{n} = {first[n].iloc[0]}" for n in first if first[n].iloc[0])
    drop = [n for n in COUNTS if n in table and not table[n].any()]
    drop += [n for n in LATER if n in table and table[n].isna().all()]
    return table.drop(columns=[*same, *drop]), phrase


def as_text(table: pd.DataFrame, form: str) -> str:
    """A table as ``csv`` or ``json`` (all columns, all digits), ``md`` or ``latex`` (to read).

    Texts are escaped as :mod:`analysis.measures.markup` says; numbers stay numbers.
    """
    if form == "csv":
        return _csv(_each_text(table, csv_cell))
    if form == "json":
        whole = _each_text(table, utf8)
        return whole.to_json(orient="records", indent=1, date_format="iso") + "\n"
    if form not in ("md", "latex"):
        raise ValueError(f"form {form!r}; should be csv, json, md or latex")
    folded, phrase = fold(table)
    shown = readable(folded)
    if form == "latex":
        notes = [f"every row: {phrase}" if phrase else "", reason(table)]
        return "".join(latex_comment(note) for note in notes if note) + latex(shown)
    phrase, why = f"Every row: {markdown_text(phrase)}" if phrase else "", reason(table)
    note = f"{phrase}. {why}" if phrase and why else phrase or why
    return (f"{note}\n\n" if note else "") + markdown(shown)


def _csv(table: pd.DataFrame) -> str:
    """A table as CSV. A carriage return in a text is only kept if lines end with one, too."""
    text = table.to_csv(index=False)
    return table.to_csv(index=False, lineterminator="\r\n") if "\r" in text else text


def _each_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with every text changed, also those in columns of mixed kinds."""
    changed = table.copy()
    for name in table:
        if not isinstance(table[name].dtype, np.dtype) or table[name].dtype == "object":
            cells = [change(v) if isinstance(v, str) else v for v in table[name].astype("object")]
            if any(isinstance(value, str) for value in cells):
                changed[name] = pd.Series(cells, table.index, "object")
    return changed


def markdown(shown: pd.DataFrame) -> str:
    """A table of texts in Markdown."""
    heads, *rows = [[markdown_text(c) for c in row] for row in _rows(shown)]
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _rows(shown: pd.DataFrame) -> list[list[str]]:
    return [list(shown.columns), *shown.to_numpy().tolist()]


def latex(shown: pd.DataFrame) -> str:
    """A table of texts in LaTeX, with the rules of booktabs. Columns may be tuples of texts."""
    whole = shown.map(latex_text)
    whole.columns = whole.columns.map(
        lambda name: tuple(map(latex_text, name)) if isinstance(name, tuple) else latex_text(name)
    )
    return whole.to_latex(
        index=False, escape=False, column_format="l" * shown.shape[1], multicolumn_format="c"
    )
