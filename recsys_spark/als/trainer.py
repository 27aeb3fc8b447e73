"""The epoch: the fixed side's rows solved where they are, then the moving side by one conjugate gradient over all.

The derivation is in docs/algorithm.md. What moves over the network are arrays of the moving side's size.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.linalg import eigenbasis, gramian, rotate
from recsys_spark.als.objective import Objective
from recsys_spark.als.passes import Products, Solve, counts_pass, products_pass, rows_pass
from recsys_spark.blocks.store import Blocks
from recsys_spark.errors import DataError

Floats = NDArray[np.float32]

# What the objective may rise by in an epoch, as a share of it, before it is an error and not rounding.
_ROUNDING = 1e-4
_FOLD_STEPS = 100  # at most; the shortfall ends nearly all rows before


@dataclass(frozen=True)
class Settings:
    """How long and how exactly to solve; the fields are those of `config.Als`."""

    epochs: int
    tolerance: float = 0.0
    row_steps: int = 20
    row_shortfall: float = 1e-4
    moving_steps: int = 5
    moving_shortfall: float = 0.4


class DivergedError(DataError):
    """The objective is no number, or rises."""


@dataclass(frozen=True)
class Epoch:
    """The state after an epoch: all there is to resume from.

    factors (n_columns, rank) of the moving side; the objective after it; seconds and jobs that it took.
    """

    number: int
    factors: Floats
    objective: float
    seconds: float
    jobs: int


def train(
    blocks: Blocks, factors: Floats, objective: Objective, settings: Settings, done: Sequence[float] = ()
) -> Iterator[Epoch]:
    """Yield the epochs after those whose objectives are `done`, which led to `factors` (n_columns, rank).

    Ends after settings.epochs, or as soon as an epoch improves the objective by less than settings.tolerance
    of it. Raises DivergedError where the objective is no number or rises, TryAgainError where blocks are lost
    again and again.
    """
    n = len(factors)
    counts, _ = blocks.repeat(lambda: blocks.total(counts_pass, n, "interactions of each moving factor", 8 * n))
    reg = objective.row_regularization(counts, blocks.n_rows)
    objectives = list(done)
    while len(objectives) < settings.epochs and not converged(objectives, settings.tolerance):
        number = len(objectives) + 1
        label = f"epoch {number} of {settings.epochs}"
        started = time.perf_counter()

        def one(factors: Floats = factors, number: int = number, label: str = label) -> tuple[Floats, float, int]:
            return _epoch(blocks, factors, objective, reg, settings, number, label)

        factors, loss, jobs = blocks.repeat(one)
        _check(label, objectives, loss)
        objectives.append(loss)
        yield Epoch(number, factors, loss, time.perf_counter() - started, jobs)


def converged(objectives: Sequence[float], tolerance: float) -> bool:
    """Whether the last epoch improved the objective by less than a share of it; never at a tolerance of 0.

    >>> converged([100.0, 50.0], 0.01), converged([100.0, 50.0, 49.9], 0.01), converged([100.0, 100.001], 0.0)
    (False, True, False)
    """
    return tolerance > 0 and len(objectives) > 1 and objectives[-2] - objectives[-1] < tolerance * abs(objectives[-2])


def _check(label: str, before: Sequence[float], loss: float) -> None:
    """Raise DivergedError unless an epoch's objective is a number and no more than that of the epoch before."""
    if not np.isfinite(loss):
        raise DivergedError(f"{label}: the objective is {loss}; raise als.regularization or look at the weights")
    if before and loss - before[-1] > _ROUNDING * abs(before[-1]):
        raise DivergedError(
            f"{label}: the objective rose from {before[-1]:,.6g} to {loss:,.6g}; raise als.regularization, or "
            "als.row_steps and als.moving_steps, which solve more exactly"
        )


def fold_solve(factors: Floats, objective: Objective, shortfall: float) -> Solve:
    """Return how rows are solved against factors that stay, as when histories are folded in: to the shortfall."""
    return rows_solve(factors, objective, _FOLD_STEPS, shortfall)


def rows_solve(factors: Floats, objective: Objective, steps: int, shortfall: float) -> Solve:
    """Prepare a solve of rows against the moving side's factors (n_columns, rank): rotate into their eigenbasis."""
    eigenvalues, basis = eigenbasis(gramian(factors))
    return Solve(rotate(factors, basis), eigenvalues, objective, steps, shortfall)


def _epoch(
    blocks: Blocks, factors: Floats, objective: Objective, reg: Floats, settings: Settings, number: int, label: str
) -> tuple[Floats, float, int]:
    """Return the moving side's factors after an epoch, the objective there, and the number of Spark jobs."""
    _check(label, (), float(np.abs(factors).max()))  # an eigenbasis of what is no number does not end
    solve = rows_solve(factors, objective, settings.row_steps, settings.row_shortfall)
    residual, parts = blocks.total(rows_pass, (solve, number), f"{label}: rows", factors.nbytes)
    gram = np.sum([gram for gram, _ in parts], axis=0)
    loss = sum(loss for _, loss in parts)
    if not np.isfinite(loss):
        return factors, loss, 1
    # Σ_all s² = tr(XᵀX·YᵀY), and YᵀY is diagonal in this basis.
    loss += objective.a0 * float(np.diag(gram) @ solve.eigenvalues)
    squares = np.einsum("ij,ij->i", solve.others, solve.others, dtype=np.float64)
    loss += float(np.einsum("i,i->", reg, squares))  # not by BLAS, whose threads would show in the last bits
    system = MovingSystem(blocks, gram, objective, reg, number, label)
    moved, gain, passes = system.solve(solve.others, residual, settings.moving_steps, settings.moving_shortfall)
    return moved, loss - gain, 1 + passes


@dataclass
class MovingSystem:
    """The normal equations of the moving side, all at once: (a0·XᵀX + λ_i + Σ_u w·x_u x_uᵀ) y_i = Σ_u t·x_u."""

    blocks: Blocks
    gram: NDArray[np.float64]
    objective: Objective
    regularization: Floats
    epoch: int
    label: str

    def solve(self, start: Floats, observed: Floats, steps: int, shortfall: float) -> tuple[Floats, float, int]:
        """Improve start (n, rank) by preconditioned CG, every row with step lengths of its own.

        observed (n, rank) is Σ_u (t − w·x_uᵀ y_i)·x_u at the start. In the eigenbasis of XᵀX, scaled by
        (a0·eigenvalues + λ_i)^-1/2, each row's system is the identity plus low rank. So what the objective
        could still fall by is at most ‖residual‖². Ends after `steps` passes, or as soon as that is at most a
        share `shortfall` of what it fell by. Returns the factors, by how much the objective fell, and the
        number of passes.
        """
        eigenvalues, basis = eigenbasis(self.gram)
        scale = 1 / np.sqrt(np.float32(self.objective.a0) * eigenvalues[None] + self.regularization[:, None])
        solution = rotate(start, basis) / scale
        residual = rotate(observed, basis) * scale - solution
        direction = residual.copy()
        norms = _row_dots(residual, residual)
        gain, passes = 0.0, 0
        while passes < steps:
            image = direction - rotate(self._products(rotate(direction * scale, basis.T), passes), basis) * scale
            passes += 1
            length = norms / np.maximum(_row_dots(direction, image), np.float32(1e-30))
            gain += float(np.einsum("i,i->", length, norms, dtype=np.float64))  # of a step: (r·r)² / (p·A p)
            solution += length[:, None] * direction
            residual -= length[:, None] * image
            new = _row_dots(residual, residual)
            if new.sum(dtype=np.float64) <= shortfall * gain:
                break
            direction *= (new / np.maximum(norms, np.float32(1e-30)))[:, None]
            direction += residual
            norms = new
        return rotate(solution * scale, basis.T), gain, passes

    def _products(self, directions: Floats, done: int) -> Floats:
        argument = Products(directions, self.objective, self.epoch)
        return self.blocks.total(products_pass, argument, f"{self.label}: step {done + 1}", directions.nbytes)[0]


def _row_dots(left: Floats, right: Floats) -> Floats:
    return np.einsum("ij,ij->i", left, right)
