"""What mattered: the value of every trial against each setting, as one picture."""

from collections.abc import Sequence
from pathlib import Path

from recsys_spark.tuning.search import Done

_LOG = {"regularization", "alpha0"}


def plot(trials: Sequence[Done], popularity: float, k: int, path: Path) -> None:
    """Draw NDCG@k of trials, best over their epochs, by each setting; a line where the best popularity list is."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    names = list(trials[0].settings)
    figure, axes = plt.subplots(2, -(-len(names) // 2), figsize=(10, 5.6), sharey=True, squeeze=False)
    best = max(trials, key=lambda trial: trial.best)
    for name, axis in zip(names, axes.flat, strict=False):
        for trial in trials:
            colour = "tab:red" if trial is best else "tab:gray" if trial.stopped else "tab:blue"
            axis.scatter([trial.settings[name]], [trial.best], s=18, color=colour)
        axis.axhline(popularity, color="black", linewidth=0.8, linestyle="--")
        axis.set_xlabel(name)
        if name in _LOG:
            axis.set_xscale("log")
        axis.tick_params(axis="x", labelrotation=30 if isinstance(best.settings[name], str) else 0)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel(f"NDCG@{k} on the windows")
    figure.suptitle("red: the best trial; gray: stopped early; dashed: the best popularity list", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
