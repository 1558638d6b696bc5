"""Tables 1 to 7 in the paper's layout: what was measured here, what the paper has, the difference.

A table is made for every data set, K and m of a sweep, in the form of Tables 4 and 5 (K = 1) or 6
and 7 (K > 1), with the paper's numbers beside it where the paper has that network.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.measures import layout, paper
from analysis.measures.cells import as_strings, done, mean_interval, varying, without_collapsed
from analysis.results import Results

QUANTITIES = {
    "train_accuracy": "Train accuracy",
    "test_accuracy": "Test accuracy",
    "ots": "OTS",
    "lsr": "LSR",
    "lss": "LSS",
}
SHARE = "segment_share"
KEY = ["dataset", "layers", "stages", "m", "setting"]
ORDER = [
    *("table", *KEY, "network", "gamma", "gamma_printed", "quantity", "segment"),
    *("here", "here_ci95", "here_std", "seeds", "paper", "paper_std", "difference"),
]
SOURCES = ("here", "paper", "difference")
MOST = 40  # values of gamma in one table; a search has hundreds, and a table of its own
COLUMNS = {"tracks": ["trial", "epoch", "stage", "shares"]}  # what is read of the larger tables


class PaperTable(NamedTuple):
    """A table as the paper lays it out."""

    name: str  # of its files: table_4, or table_4_form_digits for what the paper has not
    title: str
    rows: pd.DataFrame  # texts; columns are pairs (quantity, network)
    notes: tuple[str, ...]
    numbers: pd.DataFrame  # the rows of :func:`side_by_side` that it shows


def side_by_side(results: Results) -> pd.DataFrame:
    """Every number of Tables 2 to 7 that the sweep has, or that the paper has of its networks.

    Args:
        results: of :func:`analysis.results.load`; trials that are done count.

    Returns:
        A row for each data set, layers, K, m, other setting that varies, network, gamma,
        quantity and segment: ``table`` of the paper, or null; ``here``, the mean over seeds;
        ``here_ci95``, the half-width of its 95% t-interval; ``here_std``, the deviation over
        stages (ddof = 0, K > 1), mean over seeds; ``seeds``; ``paper`` and ``paper_std``;
        ``difference``, here less paper. Accuracies, OTS and shares are fractions, LSR and LSS
        dimensionless. Train accuracy is the running one, on augmented images, as the paper's
        seems to be. OTS of collapsed trials is missing.
    """
    trials, by = _done(results)
    if not len(trials):
        return pd.DataFrame(columns=ORDER)
    scores = mean_interval(trials, by, [*QUANTITIES])
    deviations = trials.groupby(by, dropna=False)[["ots_std", "lsr_std", "lss_std"]].mean()
    seeds = trials.groupby(by, dropna=False)[[*QUANTITIES]].count()
    parts = [
        pd.DataFrame(
            {
                "quantity": name,
                "segment": pd.NA,
                "here": scores[name],
                "here_ci95": scores[f"{name}_ci95"],
                "here_std": deviations.get(f"{name}_std", np.nan),
                "seeds": seeds[name],
            }
        )
        for name in QUANTITIES
    ]
    table = pd.concat([part.reset_index() for part in [*parts, _shares(results, trials, by)]])
    table.loc[table.stages == 1, "here_std"] = np.nan
    whole = pd.concat([_with_paper(key, group) for key, group in table.groupby(KEY, dropna=False)])
    whole = whole[whole.here.notna() | whole.paper.notna()]
    whole["difference"] = whole.here - whole.paper
    return whole[ORDER].astype({"table": "Int64"}).reset_index(drop=True)


def paper_tables(results: Results) -> Iterator[PaperTable]:
    """The tables of a sweep as the paper lays them out, texts for reading.

    Yields:
        Table 1, then for each data set, K, m and other setting its scores, and at K = 1 the
        segment shares of each network. In a row: what was measured ``here`` (mean over seeds ±
        half-width of the 95% t-interval, deviation over stages in brackets), then the
        ``paper``'s number and the ``difference`` where the paper has one. The first two rows
        are nulls: before training, and at random.
    """
    if not len(done(results)):
        return
    yield _architectures(results)
    names: Counter[str] = Counter()
    for table in _all(results):
        names[table.name] += 1  # a sweep may have a table at several m
        again = f"_{names[table.name]}" if names[table.name] > 1 else ""
        yield table._replace(name=table.name + again)


def _all(results: Results) -> Iterator[PaperTable]:
    trials, _ = _done(results)
    whole = side_by_side(results)
    whole["setting"] = whole.setting.fillna("")
    for key, group in whole.groupby(KEY, sort=True):
        place = dict(zip(KEY, key, strict=True))  # type: ignore[call-overload]
        if group.gamma.nunique() > MOST:
            continue
        own = trials[(trials[KEY].astype("object").fillna("") == pd.Series(place)).all(axis=1)]
        yield _scores(place, group[group.quantity != SHARE], own)
        shares = group[group.quantity == SHARE]
        for network, rows in shares.groupby("network"):
            yield _share_table(place, str(network), rows)


def _done(results: Results) -> tuple[pd.DataFrame, list[str]]:
    """Trials that are done, with what else varies as one text; and what makes a cell."""
    trials = without_collapsed(done(results))
    others = [name for name in varying(results.trials) if name != "layers"]
    texts = [", ".join(f"{n} = {row[n]}" for n in others) for row in trials.to_dict("records")]
    return trials.assign(m=trials.points, setting=texts), [*KEY, "network", "gamma"]


def _shares(results: Results, trials: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over seeds of the segment shares after training, at K = 1; indexed as the scores."""
    tracks = as_strings(results.tracks[["trial", "epoch", "shares"]]).dropna(subset=["shares"])
    tracks = tracks.merge(trials[trials.stages == 1][["trial", *by]])
    last = tracks[tracks.epoch == tracks.groupby("trial").epoch.transform("max")]
    rows = last.explode("shares").rename(columns={"shares": "here"})
    rows = rows.assign(segment=rows.groupby("trial").cumcount() + 1, quantity=SHARE)
    rows["here"] = rows.here.astype("float64")
    means = mean_interval(rows, [*by, "quantity", "segment"], ["here"])
    means["seeds"] = rows.groupby([*by, "quantity", "segment"], dropna=False).here.count()
    means["here_std"] = np.nan
    return means.reset_index(["quantity", "segment"])


def _with_paper(key: tuple, group: pd.DataFrame) -> pd.DataFrame:
    """What was measured at one key, joined with all numbers the paper has of it."""
    dataset, layers, stages, *_ = key
    known = paper.numbers()
    known = known[(known.dataset == dataset) & (known.stages == stages)]
    if layers != "convolutional":
        known = known[:0]
    on = ["network", "gamma", "quantity", "segment"]
    known = known[["table", *on, "gamma_printed", "paper", "paper_std"]]
    group, known = (frame.astype({"segment": "Int64"}) for frame in (group, known))
    joined = group.drop(columns=KEY).merge(known, on=on, how="outer", sort=True)
    return joined.assign(**dict(zip(KEY, key, strict=True)))


def _architectures(results: Results) -> PaperTable:
    trials, _ = _done(results)
    names = ["dataset", "layers", "stages", "image", "shapes", "blocks", "classes"]
    rows = []
    for key, found in trials[names].drop_duplicates().groupby(names[:3]):
        here = found.iloc[0]
        known = paper.ARCHITECTURES
        known = known[(known[names[:3]] == list(key)).all(axis=1)]
        for source, frame in (("here", here.to_frame().T), ("paper", known)):
            for row in frame.to_dict("records"):
                rows.append({"source": source} | row)
    table = pd.DataFrame(rows, columns=["dataset", "stages", "source", "layers", *names[3:]])
    heads = ["Data set", "K", "", "Layers", "Data dim.", "Intermediate dim.", "Blocks", "Classes"]
    for name in ("blocks", "classes"):
        table[name] = table[name].astype("float").map("{:g}".format).replace("nan", "–")
    shown = table.astype("object").fillna("–").astype("str")
    shown["layers"] = shown.layers.str.replace("_", " ")
    shown.columns = pd.MultiIndex.from_tuples([(head, "") for head in heads])
    return PaperTable("table_1", f"Table 1: {paper.TITLES[1]}", shown, (), table)


def _scores(place: dict[str, Any], group: pd.DataFrame, trials: pd.DataFrame) -> PaperTable:
    """The form of Tables 4 and 5, or with deviations over stages of 6 and 7."""
    quantities = [n for n in QUANTITIES if place["stages"] == 1 or n != "train_accuracy"]
    pairs = [(n, net) for n in quantities for net in sorted(group.network.unique())]
    nulls: list[dict] = []
    for title, column in (("before training", "initial"), ("at random", "random")):
        nulls.append({("γ", ""): title, ("", ""): "null"})
        for n, net in pairs:
            if f"{n}_{column}" in trials:
                mean = trials[trials.network == net][f"{n}_{column}"].mean()
                nulls[-1][n, net] = _number(n, mean)
    return _laid_out(place, nulls + _rows(group), pairs, group, "")


def _share_table(place: dict[str, Any], network: str, group: pd.DataFrame) -> PaperTable:
    """The form of Tables 2 and 3."""
    pairs = [(f"S{segment}", "") for segment in sorted(group.segment.unique())]
    null = {("γ", ""): "equal steps", ("", ""): "null"}
    null |= {pair: _number(SHARE, 1 / len(pairs)) for pair in pairs}
    return _laid_out(place, [null, *_rows(group)], pairs, group, network)


def _rows(group: pd.DataFrame) -> list[dict[tuple[str, str], str]]:
    """A row for each gamma and source, its numbers by (quantity, network) or (segment, "")."""
    sources = SOURCES if group.paper.notna().any() else SOURCES[:1]
    rows = []
    for gamma, cells in group.groupby("gamma"):
        records = cells.to_dict("records")
        for source in sources:
            start = {("γ", ""): f"{gamma:g}", ("", ""): source}
            rows.append(start | {_column(cell): _text(source, cell) for cell in records})
    return rows


def _laid_out(
    place: dict[str, Any], rows: list[dict], pairs: list, group: pd.DataFrame, network: str
) -> PaperTable:
    shown = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples([("γ", ""), ("", ""), *pairs]))
    shown = shown.astype("object").fillna("–").astype("str")
    heads = [(QUANTITIES.get(a, a), layout.network_name(b)) for a, b in shown.columns]
    if place["stages"] > 1:
        heads = [(f"{a} (std)" if a in ("OTS", "LSR", "LSS") else a, b) for a, b in heads]
    shown.columns = pd.MultiIndex.from_tuples(heads)
    number = group.table.dropna().unique()
    where = f"{place['dataset']}, K = {place['stages']}, m = {place['m']:,}"
    where += f", {place['setting']}" * bool(place["setting"])
    if len(number):
        name, title = f"table_{number[0]}", f"Table {number[0]}: {paper.TITLES[number[0]]}"
        return PaperTable(name, f"{title} ({where})", shown, paper.NOTES[number[0]], group)
    form = 2 if network == "plain" else 3 if network else 4 if place["stages"] == 1 else 6
    dataset = "".join(c if c.isalnum() else "_" for c in place["dataset"])
    name = f"form_of_table_{form}_{dataset}_K{place['stages']}"
    title = paper.TITLES[form].partition(" with ")[0]
    title = f"In the form of Table {form}: {title} ({where})"
    return PaperTable(name, title, shown, (), group)


def _column(cell: Mapping[Any, Any]) -> tuple[str, str]:
    if cell["quantity"] == SHARE:
        return f"S{cell['segment']}", ""
    return cell["quantity"], cell["network"]


def _text(source: str, cell: Mapping[Any, Any]) -> str:
    """A number as it stands in a table: ``0.813 ± 0.02 (0.32)``."""
    if source == "difference":
        value = cell["difference"]
        return "–" if pd.isna(value) else "0" if value == 0 else f"{value:+.2g}"
    half = cell["here_ci95"] if source == "here" else np.nan
    deviation = cell[f"{source}_std"]
    text = _number(cell["quantity"], cell[source]) + f" ± {half:.1g}" * bool(np.isfinite(half))
    return text + f" ({deviation:.3g})" * bool(pd.notna(deviation))


def _number(name: str, value: float) -> str:
    """With the digits that the paper prints: three significant ones, or three decimals."""
    if pd.isna(value):
        return "–"
    if name.endswith("accuracy"):
        return f"{value:.3f}"
    return f"{value:#.3g}" if name in ("lss", "lsr") and value else f"{value:.3g}"


def as_text(table: PaperTable, form: str) -> str:
    """A table as ``csv`` or ``json`` (a row a number, all digits), ``md`` or ``latex``."""
    if form in ("csv", "json"):
        return layout.as_text(table.numbers, form)
    if form == "latex":
        notes = "".join(f"% {note}\n" for note in (table.title, *table.notes))
        return notes + layout.latex(table.rows)
    shown = table.rows.set_axis([f"{a} {b}".strip() for a, b in table.rows.columns], axis=1)
    notes = "".join(f"\n{note}\n" for note in table.notes)
    return f"{table.title}\n\n{layout.markdown(shown)}{notes}"
