"""Spectral factors beside ALS's on windows of the past: what a setting of both is worth, user by user.

What needs training is found once and kept: ALS's factors, and the singular vectors of each pair of exponents, of which
a smaller rank is the leading part. All else is ranking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.initial import initial_factors
from recsys_spark.config import Spectral
from recsys_spark.spectral import trainer
from recsys_spark.spectral.subspace import Subspace
from recsys_spark.topk.folds import AlsFold, Blend, Fold, SpectralFold
from recsys_spark.topk.prior import popularity_scales
from recsys_spark.tuning.judge import Ready, listed, ndcg, ready
from recsys_spark.tuning.window import Window

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

Point = Mapping[str, float]

ALONE = float("inf")  # the weight at which the spectral scores are all there is


@dataclass
class Mixer:
    """Judges points: settings by name.

    A point has weight, of spectral scores beside ALS's, prior_weight, popularity_exponent, where seen items may be
    listed repeat_weight and repeat_prior (in days), and where the weight is not 0 user_exponent, item_exponent, rank
    and list_exponent.

    als: ALS's fold of each window. life and transform: of the weights. popularity: the place of what is popular among
    the windows' popularities. rank is the largest that is asked for.
    """

    windows: Sequence[Window]
    als: Sequence[AlsFold]
    life: int
    transform: str
    popularity: int
    spectral: Spectral
    rank: int
    k: int
    _ready: list[Ready] = field(init=False)
    _users: list[Floats] = field(init=False)
    _vectors: dict[tuple[int, float, float], tuple[Floats, Doubles]] = field(default_factory=dict)
    _found: dict[tuple[tuple[str, float], ...], list[Doubles]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Solve the users of the windows once."""
        self._ready = [
            ready(each.sample, each.histories(self.life, self.transform), each.items(self.life)[0])
            for each in self.windows
        ]
        self._users = [
            fold.user_factors(given.offsets, given.columns, given.weights)
            for fold, given in zip(self.als, self._ready, strict=True)
        ]

    def value(self, point: Point) -> float:
        """Return the mean over windows of the mean NDCG of their users."""
        return float(np.mean([each.mean() for each in self.of_users(point)]))

    def gain(self, point: Point, other: Point) -> tuple[float, float]:
        """Return by how much a point's value is above another's, and the standard error of that difference.

        Windows are mostly of the same users: the error is the mean of theirs, as if one said nothing new after another.
        Beside a window's users are counted two more, one whose lists became perfect and one whose lists were, so that
        a few users who happen to agree say little (after Agresti and Coull, The American Statistician 1998).
        """
        differences = [
            np.concatenate([ours - theirs, [1.0, -1.0]])
            for ours, theirs in zip(self.of_users(point), self.of_users(other), strict=True)
        ]
        error = np.mean([np.sqrt(each.var(ddof=1) / len(each)) for each in differences])
        return float(np.mean([each.mean() for each in differences])), float(error)

    def of_users(self, point: Point) -> list[Doubles]:
        """Return the NDCG of every user of every window."""
        key = tuple(sorted(point.items()))
        if key not in self._found:
            self._found[key] = [self._judged(number, point) for number in range(len(self.windows))]
        return self._found[key]

    def _judged(self, number: int, point: Point) -> Doubles:
        window, given = self.windows[number], self._ready[number]
        fold, users = self._fold(number, point)
        popularity = window.popularities[self.popularity]
        scales = popularity_scales(popularity[given.items], point["popularity_exponent"])
        items = fold.item_factors() * scales[:, None]
        again = window.repeats(point.get("repeat_weight", 0.0), point.get("repeat_prior", 0.0), self.transform)
        lists = listed(given, users, items, popularity, point["prior_weight"], self.k, again)
        return ndcg(window.sample, lists)

    def _fold(self, number: int, point: Point) -> tuple[Fold, Floats]:
        """Return a window's fold at a point, and the factors of its users."""
        als, given = self.als[number], self._ready[number]
        if point["weight"] == 0:
            return als, self._users[number]
        vectors, degrees = self._singular(number, point["user_exponent"], point["item_exponent"])
        leading = np.ascontiguousarray(vectors[:, : int(point["rank"])])
        spectral = SpectralFold.of(leading, degrees, point["item_exponent"], point["list_exponent"])
        users = spectral.user_factors(given.offsets, given.columns, given.weights)
        if point["weight"] == ALONE:
            return spectral, users
        blend = Blend(als, spectral, point["weight"])
        return blend, blend.joined(self._users[number], users)

    def _singular(self, number: int, a: float, b: float) -> tuple[Floats, Doubles]:
        """Return a window's singular vectors (n_items, rank), the leading ones first, and its items' sums."""
        key = number, a, b
        if key not in self._vectors:
            window = self.windows[number]
            blocks = window.blocks(self.life, self.transform)
            _, hashes = window.items(self.life)
            space = Subspace(initial_factors(hashes, self.rank, self.spectral.seed, 1.0), self.spectral.most_blocks)
            degrees = trainer.column_degrees(blocks, len(hashes))
            settings = trainer.Settings(a, b, self.spectral.tolerance, self.spectral.steps)
            for _ in trainer.iterate(blocks, space, degrees, settings):
                pass
            self._vectors[key] = space.vectors(), degrees
        return self._vectors[key]
