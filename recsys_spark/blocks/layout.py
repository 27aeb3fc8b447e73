"""One block of histories as flat arrays: how it is built from triples, written, and mapped.

A block holds whole rows (histories of the fixed side) as CSR for the solve:

    rows     (n,)    int32    index of each row, ascending
    offsets  (n + 1) int32    entries of row r are offsets[r]:offsets[r + 1]
    columns  (nnz,)  int32    positions on the moving side, ascending within a row
    values   (nnz,)  float32  values of the interactions

and once more by tiles of TILE rows, column by column within a tile, for the passes of the moving side:
the factors of a tile's rows stay in the second-level cache while every column of the tile is summed.

    runs        (m,)     int32    column of each run of equal columns within a tile
    starts      (m + 1,) int32    entries of run k are starts[k]:starts[k + 1]
    run_rows    (nnz,)   int32    place of each entry's row within the block
    run_values  (nnz,)   float32  values in this order

Where all values of a block are equal, `values` and `run_values` are one number, (1,).
"""

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

TILE = 512

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class BlockMissingError(RuntimeError):
    """A block's files are not where this task runs: the block must be built again."""


@numba.njit(cache=True, nogil=True)
def _stable_order(keys: Ints, n_keys: int, order: Ints) -> Ints:
    """Counting sort: the permutation that sorts keys[order], equal keys in their order so far."""
    counts = np.zeros(n_keys + 1, np.int64)
    for key in keys:
        counts[key + 1] += 1
    for key in range(n_keys):
        counts[key + 1] += counts[key]
    out = np.empty_like(order)
    for place in order:
        key = keys[place]
        out[counts[key]] = place
        counts[key] += 1
    return out


@dataclass(frozen=True)
class Block:
    """A mapped block; the arrays are described at the head of this module."""

    path: Path
    rows: Ints
    offsets: Ints
    columns: Ints
    runs: Ints
    starts: Ints
    run_rows: Ints
    values: Floats
    run_values: Floats

    def load(self, name: str) -> Floats:
        """Map an array that a task left beside the block; raises BlockMissingError where it is not."""
        return _map(self.path / f"{name}.npy")

    def save(self, name: str, array: Floats) -> None:
        """Leave an array beside the block, whole or not at all; raises BlockMissingError where the block is not."""
        target = self.path / f"{name}.npy"
        unfinished = self.path / f"{name}.{uuid.uuid4().hex}.tmp"
        try:
            with unfinished.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            unfinished.rename(target)
        except FileNotFoundError as error:
            raise BlockMissingError(str(self.path)) from error

    def drop(self, pattern: str) -> None:
        """Delete the arrays beside the block whose names match a glob."""
        for file in self.path.glob(f"{pattern}.npy"):
            file.unlink(missing_ok=True)


_ARRAYS = ("rows", "offsets", "columns", "runs", "starts", "run_rows", "values", "run_values")


def open_block(path: str) -> Block:
    """Map the block that `write_block` left at a path; raises BlockMissingError where it is not."""
    folder = Path(path)
    return Block(folder, *(_map(folder / f"{name}.npy") for name in _ARRAYS))


def _map(file: Path) -> NDArray[Any]:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise BlockMissingError(str(file)) from error


def write_block(folder: Path, rows: Ints, columns: Ints, values: Floats, n_columns: int) -> tuple[Path, int]:
    """Write triples in any order as a block in a new folder of its own; return it and the number of rows.

    The bytes depend on the set of triples only, each (row, column) of which must stand once.
    """
    if len(rows) >= 2**31:
        raise ValueError(f"a block of {len(rows)} entries is too large; make als.block_interactions smaller")
    names, inverse = np.unique(rows, return_inverse=True)
    places: Ints = inverse.astype(np.int32)
    by_column = _stable_order(columns, n_columns, np.arange(len(rows), dtype=np.int32))
    by_row = _stable_order(places, len(names), by_column)
    offsets = np.zeros(len(names) + 1, np.int32)
    np.cumsum(np.bincount(places, minlength=len(names)), out=offsets[1:])
    places, columns, values = places[by_row], columns[by_row], values[by_row]

    by_tile = _stable_order(columns, n_columns, np.arange(len(rows), dtype=np.int32))
    tiles: Ints = places // np.int32(TILE)
    by_tile = _stable_order(tiles, int(tiles[-1]) + 1 if len(tiles) else 0, by_tile)
    run_columns, run_tiles = columns[by_tile], tiles[by_tile]
    first = np.ones(len(rows), bool)
    first[1:] = (run_columns[1:] != run_columns[:-1]) | (run_tiles[1:] != run_tiles[:-1])
    starts = np.flatnonzero(first).astype(np.int32)

    equal = len(values) > 0 and bool((values == values[0]).all())
    arrays: dict[str, NDArray[Any]] = {
        "rows": names.astype(np.int32),
        "offsets": offsets,
        "columns": columns,
        "runs": run_columns[starts],
        "starts": np.append(starts, len(rows)).astype(np.int32),
        "run_rows": places[by_tile],
        "values": values[:1] if equal else values,
        "run_values": values[:1] if equal else values[by_tile],
    }
    unfinished = folder / f"{uuid.uuid4().hex}.tmp"
    unfinished.mkdir(parents=True)
    try:
        for name, array in arrays.items():
            np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
        return unfinished.rename(unfinished.with_suffix(".block")), len(names)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
