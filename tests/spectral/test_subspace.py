"""The leading eigenvectors, against NumPy on matrices whose spectra are planted."""

import itertools

import numpy as np
import pytest

from recsys_spark.spectral.subspace import Subspace


def planted(values: np.ndarray, seed: int = 1) -> np.ndarray:
    n = len(values)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return (basis * values) @ basis.T


def iterated(matrix: np.ndarray, width: int, steps: int, most: int = 4) -> Subspace:
    start = np.random.default_rng(2).standard_normal((len(matrix), width)).astype(np.float32)
    space = Subspace(start, most)
    for _ in range(steps):
        if space.directions is None:
            break
        space.add((matrix @ space.directions).astype(np.float32))
    return space


@pytest.mark.parametrize("most", [2, 4, 10])
def test_values_and_vectors_are_those_of_the_matrix(most: int) -> None:
    values = np.concatenate([[1.0, 0.9, 0.8, 0.7, 0.6], np.linspace(0.3, 0, 195)])
    matrix = planted(values)
    space = iterated(matrix, 5, 20, most)
    assert space.values == pytest.approx(values[:5], rel=1e-5)
    vectors = space.vectors()
    assert vectors.T @ vectors == pytest.approx(np.eye(5), abs=1e-4)
    _, exact = np.linalg.eigh(matrix)
    angles = np.linalg.svd(exact[:, -5:].T @ vectors)[1]  # cosines between the two subspaces
    assert angles.min() > 1 - 1e-4


def test_equal_values_are_all_found() -> None:
    values = np.concatenate([[1.0, 1.0, 1.0, 0.5], np.zeros(56)])
    space = iterated(planted(values), 4, 6)
    assert space.values == pytest.approx(values[:4], abs=1e-5)


def test_it_ends_where_the_matrix_maps_into_the_basis() -> None:
    values = np.concatenate([[2.0, 1.0], np.zeros(18)])
    space = iterated(planted(values), 4, 10)
    assert space.directions is None
    assert space.values == pytest.approx(values[:4], abs=1e-5)


def test_the_values_only_grow() -> None:
    matrix = planted(np.linspace(1, 0, 100) ** 2)
    sums = [iterated(matrix, 6, steps, most=3).values.sum() for steps in range(1, 12)]
    assert all(after >= before - 1e-5 for before, after in itertools.pairwise(sums))
    assert sums[-1] <= np.sort(np.linspace(1, 0, 100) ** 2)[-6:].sum() + 1e-5


@pytest.mark.parametrize("steps", [3, 6])
def test_residuals_are_those_of_the_vectors(steps: int) -> None:
    matrix = planted(np.linspace(1, 0, 100) ** 2)
    space = iterated(matrix, 6, steps)
    vectors = space.vectors().astype(np.float64)
    exact = np.linalg.norm(matrix @ vectors - vectors * space.values, axis=0)
    assert space.residuals() == pytest.approx(exact, abs=1e-5)
    assert exact.max() > 1e-4
