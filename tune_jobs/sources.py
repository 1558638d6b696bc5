"""The data sets of a sweep: where each comes from, and whether it has images enough."""

from collections.abc import Mapping

from models import datasets, validation
from models.callables import Code
from models.config import LEAST_POINTS
from models.errors import DataError
from models.messages import plain
from scoring.tables import read_table
from tune_jobs.errors import SweepError
from tune_jobs.sweep import Sweep


def checksums(root: str) -> dict[str, str]:
    """The checksums of the data that the trials in a folder saw, by the names of the data sets."""
    rows = read_table(root, "trials", ["dataset", "data_checksum"]).to_pylist()
    return {row["dataset"]: row["data_checksum"] for row in rows if row["data_checksum"]}


def load(
    sweep: Sweep,
    files: Mapping[str, Code],
    data: str | None,
    download: bool,
    then: Mapping[str, str],
) -> tuple[dict[str, datasets.Dataset], dict[str, str], dict[str, int]]:
    """Load the data sets of a sweep, and check that they have as many images as its trials score.

    Args:
        sweep: as for :func:`tune_jobs.service.check`.
        files: the files of users that its trials name, by identity.
        data: as for :func:`tune_jobs.service.check`.
        download: likewise.
        then: for a sweep from its folder, the checksums of the data that its trials saw.

    Returns:
        The data sets, where each comes from, and the fewest test images that a trial scores; all
        by the names of the data sets.

    Raises:
        SweepError: one cannot be loaded, or has too few images.
    """
    loaded: dict[str, datasets.Dataset] = {}
    sources: dict[str, str] = {}
    smallest: dict[str, int] = {}
    file = plain(sweep.source)
    for trial in sweep.trials:
        name = trial.dataset
        if name not in loaded:
            try:
                if known := _seen(then.get(name)):
                    loaded[name] = known
                    sources[name] = datasets.source_of(known)
                elif name in files:
                    loaded[name] = _returned(name, files[name], lost=name in then)
                    sources[name] = datasets.source_of(loaded[name])
                else:
                    source = datasets.locate(name, data, sweep.beside)
                    if not (download or datasets.is_here(source, data)):
                        continue
                    sources[name] = source
                    loaded[name] = datasets.load(source, data, verify=True)
            except DataError as error:
                raise SweepError(f"{file}: dataset: {error}") from error
        images = len(loaded[name].y_train), len(loaded[name].y_test)
        try:
            most = validation.scorable(trial, images)
        except DataError as error:
            raise SweepError(f"{file}: {plain(name)}: {error}") from error
        if trial.points > most:
            held = " that are not held out" if trial.split == "train" and trial.validation else ""
            there = f"{plain(name)} has {most} {trial.split} image{'' if most == 1 else 's'}{held}"
            fix = f"so give points: {most} or fewer"
            if most < LEAST_POINTS:
                other = ", or score train images with split: train" if trial.split == "test" else ""
                fix = f"and a trial scores at least {LEAST_POINTS}; add images{other}"
            raise SweepError(f"{file}: points = {trial.points}: {there}, {fix}")
        if trial.split == "test":
            smallest[name] = min(trial.points, smallest.get(name, most))
    return loaded, sources, smallest


def _seen(checksum: str | None) -> datasets.Dataset | None:
    """The data that the trials of a folder saw, if the cache has it, wherever it came from."""
    return datasets.kept(checksum, verify=True) if checksum else None


def _returned(name: str, source: Code, lost: bool) -> datasets.Dataset:
    """What a user's function returns.

    A sweep's folder has a copy of the function's file, which does not find what lay beside it.

    Args:
        name: the function's identity.
        source: its file, or the copy.
        lost: trials of the folder saw its data, which the cache does not have.
    """
    try:
        return datasets.from_code(source)
    except DataError as error:
        if not lost:
            raise
        file = plain(name.rpartition(":")[0])
        raise DataError(
            f"{error}; this is the copy of {file} in the sweep's folder, far from the files beside "
            f"{file}, and the cache {plain(datasets.cache_folder())} has lost the data; geosweep "
            "run with the sweep file calls the function where it was, and fills the cache"
        ) from error
