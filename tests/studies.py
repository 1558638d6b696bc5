"""Studies of made-up trials, which nothing trains."""

from tune_jobs import sweep
from tune_jobs.search import Span
from tune_jobs.study import Study

SPACE = {
    "gamma": Span(low=1e-5, high=0.1),
    "network": {"plain": {"network": "plain"}, "resnet": {"network": "resnet"}},
}
FIXED = {"layers": "fully_connected", "epochs": 3}


def made_up(config) -> dict:
    """A row as if the cell had been trained; better towards gamma = 0.01 and ResNet."""
    return {
        "status": "done",
        "test_accuracy": 0.9 - abs(config.gamma - 0.01) - 0.1 * (config.network == "plain"),
        "lss": 2 + config.gamma,
    }


def run(study: Study, trials: int) -> list[str]:
    """Suggest and tell some trials, one after the other."""
    for _ in range(trials):
        config = study.suggest()
        study.tell(config.trial, made_up(config))
    return [config.trial for config in study.cells]


def asked(tmp_path, text: str, *settings: str):
    (tmp_path / "s.yaml").write_text(text)
    return sweep.read(str(tmp_path / "s.yaml"), settings)


def study_of(root: str, found, known=(), again: bool = False) -> Study:
    return Study(root, found.search, found.space, found.fixed, known, again, found.rules)
