"""What mattered: the value of every trial against each setting, as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys_spark.tuning.search import Done

_LOG = {"regularization", "alpha0"}


def plot(found: Sequence[tuple[Done, Mapping[str, Any]]], popularity: float, k: int, path: Path) -> None:
    """Draw NDCG@k of trials, best over their epochs, by each setting; a line where the best popularity list is.

    found: the trials, and of each where it was best, what needs no trial of its own.
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    trials = [(trial, {**trial.settings, **more}) for trial, more in found]
    names = list(trials[0][1])
    figure, axes = plt.subplots(3, -(-len(names) // 3), figsize=(10, 7.5), sharey=True, squeeze=False)
    best = max((trial for trial, _ in trials), key=lambda trial: trial.best)
    for name, axis in zip(names, axes.flat, strict=False):
        words = isinstance(trials[0][1][name], str)
        for trial, settings in sorted(trials, key=lambda each: (len(each[1][name]), each[1][name]) if words else 0):
            colour = "tab:red" if trial is best else "tab:gray" if trial.stopped else "tab:blue"
            axis.scatter([settings[name]], [trial.best], s=18, color=colour)
        axis.axhline(popularity, color="black", linewidth=0.8, linestyle="--")
        axis.set_xlabel(name)
        if name in _LOG:
            axis.set_xscale("log")
        axis.tick_params(axis="x", labelrotation=30 if words else 0)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    for row in axes:
        row[0].set_ylabel(f"NDCG@{k}")
    figure.suptitle(
        "on the windows; red: the best trial; gray: stopped early; dashed: the best popularity list", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
