"""Answers: does gamma act on tracks and accuracy by itself, or through the effective rate?

They are drawn from the changes that :mod:`analysis.measures.rates` measures.
"""

from typing import Any

import pandas as pd

from analysis.measures.intervention import number
from analysis.measures.layout import first_word, heading, network_name, span
from analysis.measures.rates import (
    AS_IS,
    CLAIMED,
    FIXED,
    HALF,
    QUESTION,
    SURE,
)

YES, NO, MIXED, UNDECIDED, UNTRIED = "yes", "no", "mixed", "undecided", "not tried"
QUESTIONS = tuple(dict.fromkeys(QUESTION.values()))
WORDS = {-1: "lower", 1: "raise"}
RULES = (
    "Yes: some change is surely in that direction. No: some is surely in the other direction, or "
    f"surely less than {HALF:.0%} of what γ does as it is. Mixed: some changes say yes, others no. "
    "Undecided: none of these."
)


def answers(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network and outcome: three answers, and what they say together.

    Args:
        table: from :func:`analysis.measures.rates.effects`.

    Returns:
        Frame with dataset, stages, layers, network and what else varies, ``m``; ``outcome``, a
        column of the trials table; ``direction`` in which gamma is claimed to change it, ``lower``
        or ``raise``; ``as_is``, ``rate_fixed`` and ``higher_rate``: yes, no, mixed, undecided or
        not tried (see RULES), each with the numbers of one change (``<question>_numbers``): the
        largest that is sure, else the largest that is surely less than half, else the largest;
        and ``verdict``.
    """
    keys = [*table.loc[:, :"change"].columns[:-1], "m"]
    rows = []
    for key, own in table.groupby(keys, dropna=False, sort=False):
        for name, sign in CLAIMED.items():
            if own[f"{name}_change"].isna().all():
                continue
            row: dict[str, Any] = dict(zip(keys, key, strict=True))
            row |= {"outcome": name, "direction": WORDS[sign]}
            for question in QUESTIONS:
                asked_of = own[own.change.map(QUESTION).eq(question)]
                asked_of = asked_of[asked_of[f"{name}_change"].notna()]
                row[question] = _answer(asked_of, name, sign)
                row[f"{question}_numbers"] = _numbers(asked_of, name)
            rows.append(row | {"verdict": _verdict(*(row[q] for q in QUESTIONS))})
    told = [text for question in QUESTIONS for text in (question, f"{question}_numbers")]
    return pd.DataFrame(rows, columns=[*keys, "outcome", "direction", *told, "verdict"])


def _answer(rows: pd.DataFrame, name: str, sign: int) -> str:
    if not len(rows):
        return UNTRIED
    sure, up = rows[f"{name}_p_adjusted"] < SURE, sign * rows[f"{name}_change"] > 0
    agrees, against = sure & up, (sure & ~up) | _less(rows, name)
    if agrees.any():
        return MIXED if (against & ~agrees).any() else YES
    return NO if against.any() else UNDECIDED


def _numbers(rows: pd.DataFrame, name: str) -> str:
    """The largest change that is sure; without one, the largest that is surely less than half.

    If there is neither, the largest of all. So the numbers behind a no are a reason for it.
    """
    if not len(rows):
        return ""
    sure, less = rows[rows[f"{name}_p_adjusted"] < SURE], rows[_less(rows, name)]
    chosen = next(part for part in (sure, less, rows) if len(part))
    row = chosen.iloc[int(chosen[f"{name}_change"].abs().argmax())]
    told = number(name, row) + (f", surely less than {HALF:.0%} of γ's," if chosen is less else "")
    if row.change in (AS_IS, FIXED):
        return f"{told} at γ = {row.end:g}"
    return f"{told} at {row.change} {row.start:g} \N{RIGHTWARDS ARROW} {row.end:g}"


def _less(rows: pd.DataFrame, name: str) -> pd.Series:
    """Whether a change is surely less than half of what gamma does as it is."""
    return rows[f"{name}_less"].astype("boolean").fillna(False).astype("bool")


def _verdict(as_is: str, fixed: str, higher: str) -> str:
    """What the three answers say together. Mixed is yes here: it happens, if not everywhere."""
    does = {YES, MIXED}
    if as_is not in does:
        return "no sure effect of γ, so no cause to look for"
    if fixed in does:
        if higher in does:
            both = "both: γ by itself, and the effective rate"
            return both if MIXED not in (fixed, higher) else f"{both}, each at least in part"
        return "γ by itself" if higher == NO else "γ by itself, at least in part"
    if higher in does:
        alone = fixed == NO and higher == YES
        return "the effective rate" if alone else "the effective rate, at least in part"
    if fixed == NO:
        return "neither alone" if higher == NO else "mostly not γ by itself"
    return "undecided"


def sentences(table: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """The answers in words, a sentence per network and outcome, then what they rest on.

    Args:
        table: from :func:`analysis.measures.rates.effects`.
        found: from :func:`answers`.
    """
    if not len(found):
        return []
    said = [_sentence(row, found) for _, row in found.iterrows()]
    counts = span(pd.concat([table.seeds, table.seeds_before]))
    said.append(
        f"{RULES} A change is sure if its p value over seeds is below {SURE}, corrected for all "
        f"changes that answer the same question on this outcome (Holm); m = {span(table.m)}, "
        f"{counts} seeds a side."
    )
    return said


def _sentence(row: pd.Series, found: pd.DataFrame) -> str:
    names = [str(n) for n in found.loc[:, :"m"] if found[n].nunique(dropna=False) > 1]
    others = [f"{heading(n)} = {row[n]}" for n in names if n != "network"]
    place = ", ".join([first_word(network_name(row.network)), *others])
    told = [
        f"γ {row.direction}s it as it is: {_said(row, 'as_is')}",
        f"with the effective rate fixed: {_said(row, 'rate_fixed')}",
        f"a higher rate at γ = 0 {row.direction}s it: {_said(row, 'higher_rate')}",
    ]
    return f"{place}, {heading(row.outcome)}: {'; '.join(told)}. So: {row.verdict}."


def _said(row: pd.Series, question: str) -> str:
    numbers = row[f"{question}_numbers"]
    return f"{row[question]} ({numbers})" if numbers else row[question]


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """The answers as people read them.

    Args:
        found: from :func:`answers`.
    """
    texts = found.assign(
        outcome=[f"{d} {heading(n)}" for d, n in zip(found.direction, found.outcome, strict=True)]
    )
    for question in QUESTIONS:
        texts[question] = [_said(row, question) for _, row in found.iterrows()]
    left = [f"{question}_numbers" for question in QUESTIONS]
    return texts.drop(columns=["direction", *left])
