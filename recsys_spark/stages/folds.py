"""A model of gold.models as what ranks: read from the tables, folded as its kind is."""

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Row

from recsys_spark.als.baseline import Baseline
from recsys_spark.als.trainer import fold_solve
from recsys_spark.config import Config
from recsys_spark.errors import DataError
from recsys_spark.memory import Ranking, check_ranking
from recsys_spark.runs import Run
from recsys_spark.stages.models import FACTORS, FITTED, VECTORS, objective_of, read_factors, read_vectors
from recsys_spark.topk.folds import AlsFold, Blend, Fold, SpectralFold

Ints = NDArray[np.int32]


def fold_of(run: Run, model: Row) -> tuple[Ints, Fold]:
    """Return the dictionary indices (n,), ascending, of a factor model's items, and its fold."""
    kind = model["kind"]
    if kind not in FITTED:
        raise DataError(f"model {model['model_id']} is of kind {kind}, which has no factors")
    _check_memory(run, model)
    found = [_als(run, model)] if kind in FACTORS else []
    found += [_spectral(run, model)] if kind in VECTORS else []
    indices, fold = found[0]
    if len(found) == 1:
        return indices, fold
    others, second = found[1]
    if not np.array_equal(indices, others):
        raise DataError(f"model {model['model_id']}: gold.item_factors and gold.item_vectors have other items each")
    return indices, Blend(fold, second, run.config.topk.spectral.weight)


def _check_memory(run: Run, model: Row) -> None:
    """Refuse a model that does not fit before its factors are read."""
    kind, where = model["kind"], {"model_id": model["model_id"]}
    config = Config.model_validate_json(model["config"])
    ranks = ((config.als.rank,) if kind in FACTORS else ()) + ((config.spectral.rank,) if kind in VECTORS else ())
    if kind in FACTORS:
        items = run.tables.read_slice("gold.item_factors", {**where, "epoch": model["epochs"]})
    else:
        items = run.tables.read_slice("gold.item_vectors", where)
    encrypted = run.spark.sparkContext.getConf().get("spark.io.encryption.enabled", "false") == "true"
    check_ranking(run.spark, Ranking(items.count(), ranks, encrypted), model["model_id"])


def _als(run: Run, model: Row) -> tuple[Ints, Fold]:
    als = Config.model_validate_json(model["config"]).als
    indices, factors, biases = read_factors(run, "gold.item_factors", model["model_id"], model["epochs"])
    if factors.shape[1] != als.rank:
        raise DataError(
            f"gold.item_factors: those of model {model['model_id']} have rank {factors.shape[1]}, its configuration "
            f"says {als.rank}; train it again under a new run id"
        )
    baseline = None
    if als.objective == "explicit":
        baseline = Baseline(model["mean"], biases, als.damping if als.baseline == "biases" else None)
    return indices, AlsFold(fold_solve(factors, objective_of(als), run.config.topk.shortfall), baseline)


def _spectral(run: Run, model: Row) -> tuple[Ints, Fold]:
    spectral = Config.model_validate_json(model["config"]).spectral
    indices, vectors, degrees = read_vectors(run, model["model_id"])
    own = run.config.topk.spectral.exponent
    exponent = spectral.item_exponent if own is None else own
    return indices, SpectralFold.of(vectors, degrees, spectral.item_exponent, exponent)
