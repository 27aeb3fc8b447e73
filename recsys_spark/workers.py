"""What Python workers do once a process, and what the workers of a host share."""

import gc
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import Broadcast, SparkContext

PIECE_BYTES = 2**27  # of a shared array, that a worker holds at once

_settled = False
_mapped: dict[str, NDArray[Any]] = {}  # what this process has mapped, by name


def settle() -> None:
    """Take all that is imported by now out of the garbage collector's sight, once a process.

    Spark's worker collects garbage after every task, and walking the objects of NumPy, Numba and PyArrow costs
    more than a small task itself.
    """
    global _settled
    if not _settled:
        gc.collect()
        gc.freeze()
        _settled = True


def local_folder() -> Path:
    """Return the executor's own directory, which Spark deletes with it."""
    local = os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir())
    return Path(local.split(",")[0]) / "recsys-blocks"


@dataclass(frozen=True)
class Shared:
    """An array of the driver that all Python workers of an executor map from one file.

    It travels in pieces as Spark's broadcasts; the first worker that asks for it writes them to the executor's
    directory, so that a worker holds one piece at a time and the page cache the rest, once a host.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Broadcast[NDArray[Any]], ...]

    @classmethod
    def of(cls, context: SparkContext, array: NDArray[Any]) -> "Shared":
        """Ship an array (n, …)."""
        n_pieces = max(1, -(-array.nbytes // PIECE_BYTES))
        pieces = tuple(context.broadcast(piece) for piece in np.array_split(array, n_pieces))
        return cls(uuid.uuid4().hex, array.shape, array.dtype.str, pieces)

    def array(self) -> NDArray[Any]:
        """Return the array, mapped; for tasks."""
        if self.name not in _mapped:
            path = local_folder() / f"{self.name}.npy"
            if not path.exists():
                self._write(path)
            _mapped[self.name] = np.asarray(np.load(path, mmap_mode="r"))
        return _mapped[self.name]

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_suffix(f".{uuid.uuid4().hex}")
        out = np.lib.format.open_memmap(mine, mode="w+", dtype=np.dtype(self.dtype), shape=self.shape)
        start = 0
        for piece in self._values():
            out[start : start + len(piece)] = piece
            start += len(piece)
        out.flush()
        mine.replace(path)

    def _values(self) -> Iterator[NDArray[Any]]:
        for piece in self.pieces:
            yield piece.value
            vars(piece).pop("_value", None)  # the worker keeps a broadcast's value for as long as it lives
