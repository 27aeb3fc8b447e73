"""Singular vectors of normalised interactions, by passes over real blocks, against SciPy's."""

import shutil

import numpy as np
import pytest
import scipy.sparse as sp
from pyspark.sql import SparkSession
from scipy.sparse.linalg import svds

from recsys_spark.als.initial import initial_factors
from recsys_spark.blocks import store
from recsys_spark.spectral.subspace import Subspace
from recsys_spark.spectral.trainer import Settings, column_degrees, iterate
from tests.als.oracle import random_weights
from tests.als.test_trainer import blocks_of

RANK = 5


def normalised(weights: sp.csr_matrix, a: float, b: float) -> sp.csr_matrix:
    rows, columns = (np.maximum(np.asarray(weights.sum(axis)).ravel(), 1e-9) for axis in (1, 0))
    return (sp.diags(rows**-a) @ weights @ sp.diags(columns**-b)).tocsr()


def found(blocks: store.Blocks, a: float, b: float, tolerance: float = 1e-6, done: int = 0) -> tuple[Subspace, list]:
    def space() -> Subspace:
        return Subspace(initial_factors(np.arange(len(blocks.columns)), RANK, seed=1, scale=1.0), 4)

    degrees, settings = column_degrees(blocks, len(blocks.columns)), Settings(a, b, tolerance, 60)
    first, whole = space(), []
    whole = list(iterate(blocks, first, degrees, settings))
    if not done:
        return first, whole
    second = space()
    rest = list(iterate(blocks, second, degrees, settings, [step.product for step in whole[:done]]))
    assert [step.number for step in rest] == list(range(done + 1, len(whole) + 1))
    return second, whole[:done] + rest


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.4, 0.7), (0.0, 0.0)])
def test_the_singular_vectors_are_scipys(spark: SparkSession, a: float, b: float) -> None:
    weights = random_weights(120, 60, 0.15, seed=2)
    blocks = blocks_of(spark, weights)
    space, _ = found(blocks, a, b)
    _, values, right = svds(normalised(weights, a, b).astype(np.float64), k=RANK)
    assert np.sqrt(space.values) == pytest.approx(np.sort(values)[::-1], rel=1e-4)
    cosines = np.linalg.svd(right @ space.vectors())[1]
    assert cosines.min() > 1 - 1e-3
    blocks.close()


def test_the_bytes_do_not_depend_on_order_and_partitions(spark: SparkSession) -> None:
    weights = random_weights(50, 40, 0.2, seed=4)
    shuffled = np.random.default_rng(5).permutation(weights.nnz)
    seen = set()
    for order, parts in ((None, 1), (shuffled, 2), (shuffled[::-1], 5)):
        blocks = blocks_of(spark, weights, order=order, parts=parts)
        seen.add(found(blocks, 0.5, 0.5, 1e-2)[0].vectors().tobytes())
        blocks.close()
    assert len(seen) == 1


def test_it_goes_on_to_the_same_bytes(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(50, 40, 0.2, seed=6))
    whole, steps = found(blocks, 0.5, 0.5, 1e-3)
    assert len(steps) > 3
    assert found(blocks, 0.5, 0.5, 1e-3, done=2)[0].vectors().tobytes() == whole.vectors().tobytes()
    blocks.close()


def test_lost_block_files_are_written_again_and_the_vectors_stay_the_same(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(50, 40, 0.2, seed=9))
    whole, _ = found(blocks, 0.5, 0.5, 1e-3)
    degrees, lost = column_degrees(blocks, 40), blocks.paths[1]
    space = Subspace(initial_factors(np.arange(40), RANK, seed=1, scale=1.0), 4)
    for step in iterate(blocks, space, degrees, Settings(0.5, 0.5, 1e-3, 60)):
        if step.number == 2:
            shutil.rmtree(lost)
    assert lost not in blocks.paths
    assert space.vectors().tobytes() == whole.vectors().tobytes()
    blocks.close()


def test_a_tolerance_that_is_met_sooner_ends_sooner(spark: SparkSession) -> None:
    blocks = blocks_of(spark, random_weights(80, 60, 0.2, seed=7))
    loose, tight = (found(blocks, 0.5, 0.5, tolerance)[1] for tolerance in (0.1, 1e-5))
    assert len(loose) < len(tight)
    assert loose[-1].change <= 0.1 < loose[-2].change
    blocks.close()


def test_equal_values_are_kept_once_and_mean_the_same(spark: SparkSession) -> None:
    ones = random_weights(40, 30, 0.3, seed=8)
    ones.data[:] = 2.0
    nearly = ones.copy()
    nearly.data[0] *= 1 + 1e-6  # so that a block keeps all values
    vectors = []
    for weights in (ones, nearly):
        blocks = blocks_of(spark, weights)
        vectors.append(np.sqrt(found(blocks, 0.5, 0.5)[0].values))
        blocks.close()
    assert vectors[0] == pytest.approx(vectors[1], rel=1e-4)
