"""The search for settings: trials that learn from those before them, and stop early where they fall behind."""

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from recsys_spark.config import Config, Tune

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Done:
    """A trial that has ended: its settings, its value after each number of epochs, and whether it was stopped early."""

    settings: dict[str, Any]
    values: dict[int, float]
    stopped: bool

    @property
    def best(self) -> float:
        """Return its best value."""
        return max(self.values.values())


class Search:
    """Asks for settings, trial by trial, by a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011).

    Trials are stopped by successive halving (Li et al., MLSys 2020). What is asked next is a function of the seed and
    of the trials that are done, so that a search that goes on asks what an uninterrupted one would have. The first is
    `first`, of which every setting lies within the bounds that are searched.
    """

    def __init__(
        self, tune: Tune, half_lives: Sequence[str], first: Mapping[str, Any], done: Iterable[Done] = ()
    ) -> None:
        self._first = dict(first)
        self._space: dict[str, BaseDistribution] = {
            "half_life": CategoricalDistribution(half_lives),
            "transform": CategoricalDistribution(tune.transforms),
            "rank": CategoricalDistribution(tune.ranks),
            "regularization": FloatDistribution(*tune.regularization, log=True),
            "alpha0": FloatDistribution(*tune.alpha0, log=True),
            "nu": FloatDistribution(*tune.nu),
        }
        self._seed = tune.seed
        self._rungs = len(tune.epochs)
        self._done: list[FrozenTrial] = []
        for trial in done:
            self.tell(trial)

    def tell(self, done: Done) -> None:
        """Learn from a trial."""
        steps = dict(enumerate(done.values.values(), start=1))
        # Under these names the pruner looks for what a trial competes with at its rungs, steps 1, 2, 4 and so on.
        rungs = {f"completed_rung_{rung}": steps[2**rung] for rung in range(len(steps)) if 2**rung in steps}
        self._done.append(
            create_trial(
                state=TrialState.PRUNED if done.stopped else TrialState.COMPLETE,
                params=done.settings,
                distributions=self._space,
                value=done.best,
                intermediate_values=steps,
                system_attrs=rungs,
            )
        )

    def ask(self) -> "Asked":
        """Return the next trial."""
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=self._seed + len(self._done), n_startup_trials=8),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        )
        study.add_trials(self._done)
        if not self._done:
            study.enqueue_trial(self._first)
        return Asked(study.ask(self._space))


class Asked:
    """A trial that runs."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._step = 0
        self.settings: dict[str, Any] = dict(trial.params)

    def falls_behind(self, value: float) -> bool:
        """Report the value after one more rung of epochs; return whether to stop."""
        self._step += 1
        self._trial.report(value, self._step)
        return bool(self._trial.should_prune())


def own_settings(config: Config, lives: Mapping[str, dt.timedelta | None]) -> dict[str, Any]:
    """Return what a configuration itself says of what is searched, or what comes nearest to it within the bounds.

    lives: the half-lives that are tried, by name.
    """
    als, features, tune = config.als, config.features, config.tune

    def apart(name: str) -> float:
        life, own = lives[name], features.half_life
        return abs(math.log(life / own)) if life and own else math.inf if life or own else 0.0

    def within(bounds: tuple[float, float], value: float) -> float:
        return min(max(value, bounds[0]), bounds[1])

    return {
        "half_life": min(lives, key=apart),
        "transform": features.transform if features.transform in tune.transforms else tune.transforms[0],
        "rank": min(tune.ranks, key=lambda rank: abs(rank - als.rank)),
        "regularization": within(tune.regularization, als.regularization),
        "alpha0": within(tune.alpha0, als.alpha0),
        "nu": within(tune.nu, als.nu),
    }


def ascend(
    value: Callable[[Mapping[str, float]], float],
    grids: Mapping[str, Sequence[float]],
    start: Mapping[str, float],
) -> dict[str, float]:
    """Return where a function is highest along every coordinate of grids, one after another, from a start.

    It ends after a round of all coordinates that gains nothing; of equals the earlier stays.

    >>> ascend(lambda at: -((at["x"] - 2) ** 2) - at["y"], {"x": [0, 1, 2, 3], "y": [0, 1]}, {"x": 0, "y": 1})
    {'x': 2, 'y': 0}
    """
    here, best = dict(start), value(start)
    while True:
        before = best
        for name, choices in grids.items():
            for choice in choices:
                there = here | {name: choice}
                found = value(there)
                if found > best:
                    here, best = there, found
        if best <= before:
            return here
