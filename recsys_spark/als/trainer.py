"""The epoch: the fixed side's rows solved where they are, then the moving side by one conjugate gradient over all.

The derivation is in docs/algorithm.md. What moves over the network are arrays of the moving side's size.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_spark.als.linalg import eigenbasis, gramian, rotate
from recsys_spark.als.objective import Ials
from recsys_spark.als.passes import Products, Solve, Solved, counts_pass, products_pass, rows_pass
from recsys_spark.blocks.store import Blocks
from recsys_spark.errors import DataError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """How long and how exactly to solve; the fields are those of `config.Als`."""

    epochs: int
    row_steps: int = 8
    row_tolerance: float = 1e-2
    moving_steps: int = 3
    moving_tolerance: float = 0.1


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


def train(blocks: Blocks, factors: Floats, objective: Ials, settings: Settings, done: int = 0) -> Iterator[Epoch]:
    """Yield every epoch after the first `done`, which led to `factors` (n_columns, rank).

    Raises DataError where the objective is no longer a number, TryAgainError where blocks are lost again
    and again.
    """
    n_columns = len(factors)
    counts = blocks.repeat(
        lambda: sum(blocks.run(counts_pass, n_columns, "interactions of each factor on the moving side"))
    )
    reg = objective.row_regularization(counts, blocks.n_rows)
    for number in range(done + 1, settings.epochs + 1):
        label = f"epoch {number} of {settings.epochs}"
        started = time.perf_counter()

        def one(factors: Floats = factors, number: int = number, label: str = label) -> tuple[Floats, float, int]:
            return _epoch(blocks, factors, objective, reg, settings, number, label)

        factors, loss, jobs = blocks.repeat(one)
        yield Epoch(number, factors, loss, time.perf_counter() - started, jobs)


def rows_solve(factors: Floats, objective: Ials, steps: int, tolerance: float) -> Solve:
    """Prepare a solve of rows against the moving side's factors (n_columns, rank): rotate into their eigenbasis."""
    eigenvalues, basis = eigenbasis(gramian(factors))
    return Solve(rotate(factors, basis), eigenvalues, objective, steps, tolerance)


def _epoch(
    blocks: Blocks, factors: Floats, objective: Ials, reg: Floats, settings: Settings, number: int, label: str
) -> tuple[Floats, float, int]:
    """Return the moving side's factors after an epoch, the objective there, and the number of Spark jobs."""
    solve = rows_solve(factors, objective, settings.row_steps, settings.row_tolerance)
    parts: list[Solved] = blocks.run(rows_pass, (solve, number), f"{label}: rows")
    gram = np.sum([part.gram for part in parts], axis=0)
    loss = sum(part.loss for part in parts)
    if not np.isfinite(loss):
        raise DataError(f"{label}: the objective is {loss}; raise als.regularization or look at the weights")
    # Σ_all s² = tr(XᵀX·YᵀY), and YᵀY is diagonal in this basis.
    loss += objective.alpha0 * float(np.diag(gram) @ solve.eigenvalues)
    loss += float(reg @ np.einsum("ij,ij->i", solve.others, solve.others, dtype=np.float64))
    system = MovingSystem(blocks, gram, objective, reg, number, label)
    residual = ordered_sum([part.residual for part in parts])
    moved, gain, passes = system.solve(solve.others, residual, settings.moving_steps, settings.moving_tolerance)
    return moved, loss - gain, 1 + passes


def ordered_sum(parts: list[Floats]) -> Floats:
    """Add arrays of one shape in the order given, into the first."""
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


@dataclass
class MovingSystem:
    """The normal equations of the moving side, all at once: (a0·XᵀX + λ_i + Σ_u w·x_u x_uᵀ) y_i = Σ_u t·x_u."""

    blocks: Blocks
    gram: NDArray[np.float64]
    objective: Ials
    regularization: Floats
    epoch: int
    label: str

    def solve(self, start: Floats, observed: Floats, steps: int, tolerance: float) -> tuple[Floats, float, int]:
        """Improve start (n, rank) by preconditioned CG, every row with step lengths of its own.

        observed (n, rank) is Σ_u (t − w·x_uᵀ y_i)·x_u at the start. In the eigenbasis of XᵀX, scaled by
        (a0·eigenvalues + λ_i)^-1/2, each row's system is the identity plus low rank. Ends after `steps`
        passes, or as soon as the residual of all rows is at most `tolerance` times its start. Returns the
        factors, by how much the objective fell, and the number of passes.
        """
        eigenvalues, basis = eigenbasis(self.gram)
        scale = 1 / np.sqrt(np.float32(self.objective.alpha0) * eigenvalues[None] + self.regularization[:, None])
        begin = rotate(start, basis) / scale
        residual = rotate(observed, basis) * scale - begin
        first_residual = residual.copy()
        solution, direction = begin.copy(), residual.copy()
        norms = _row_dots(residual, residual)
        first = norms.sum(dtype=np.float64)
        passes = 0
        while passes < steps:
            image = direction + rotate(self._products(rotate(direction * scale, basis.T), passes), basis) * scale
            passes += 1
            length = norms / np.maximum(_row_dots(direction, image), np.float32(1e-30))
            solution += length[:, None] * direction
            residual -= length[:, None] * image
            new = _row_dots(residual, residual)
            if new.sum(dtype=np.float64) <= tolerance**2 * first:
                break
            direction *= (new / np.maximum(norms, np.float32(1e-30)))[:, None]
            direction += residual
            norms = new
        # A quadratic's fall between two points is the step times the sum of the residuals at its ends.
        gain = float(np.einsum("ij,ij->", solution - begin, residual + first_residual, dtype=np.float64))
        return rotate(solution * scale, basis.T), gain, passes

    def _products(self, directions: Floats, done: int) -> Floats:
        argument = Products(directions, self.objective, self.epoch)
        return ordered_sum(self.blocks.run(products_pass, argument, f"{self.label}: step {done + 1}"))


def _row_dots(left: Floats, right: Floats) -> Floats:
    return np.einsum("ij,ij->i", left, right)
