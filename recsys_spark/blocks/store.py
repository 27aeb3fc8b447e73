"""Blocks of histories beside the executors: built by one job, mapped by every pass, rebuilt when lost.

The JVM holds one small row a block (its number, path and sizes), persisted: an executor that is lost takes
its files with it, and Spark recomputes its rows, which writes the files anew.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from py4j.protocol import Py4JJavaError
from pyspark import RDD, Broadcast, StorageLevel
from pyspark.errors import PythonException
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.blocks.layout import Block, BlockMissingError, open_block, write_block
from recsys_spark.errors import TryAgainError
from recsys_spark.faults import AGAIN, MORE_MEMORY
from recsys_spark.session import described
from recsys_spark.workers import local_folder, settle

# Partial sums of all blocks together up to which the driver adds them itself.
COLLECTED_BYTES = 2**29

_REFERENCE = "block int, path string, n_rows int, n_entries long"

# A task of a pass: (block, the pass's broadcast arguments) -> picklable result.
Task = Callable[[Block, Any], Any]
# The same, of which the first result is an array that is added up over blocks.
SumTask = Callable[[Block, Any], tuple["Array", Any]]

Array = NDArray[Any]
Result = tuple[int, Any, bool]  # a block's number, its result, and whether its files were missing


def n_blocks(n_entries: int, block_entries: int, at_least: int) -> int:
    """Return how many blocks hold n_entries: fixed by the data and the configuration, never by the cluster."""
    return max(at_least, -(-n_entries // block_entries))


@dataclass
class Blocks:
    """Histories cut into blocks; `columns` names the moving side's indices by their position."""

    references: DataFrame
    columns: NDArray[np.int32]
    n_blocks: int
    n_rows: int
    n_entries: int

    def run(self, task: Task, argument: Any, description: str) -> list[Any]:
        """Run a task on every block and return the results in the order of blocks.

        Raises BlockMissingError where a task did not find its block: `rebuild`, then repeat what depends on it.
        """
        with self._job(argument, description) as shipped:
            found = self._rdd.mapPartitions(lambda rows: _run(rows, task, shipped.value)).collect()
        return _in_order(found)

    def total(
        self, task: SumTask, argument: Any, description: str, n_bytes: int, at_once: int = COLLECTED_BYTES
    ) -> tuple[Array, list[Any]]:
        """Return the sum over blocks of the arrays that a task yields, and its other results in the order of blocks.

        n_bytes is the size of such an array. Arrays that together are no more than `at_once` bytes are added on
        the driver; larger ones in pieces on the executors, by one small shuffle. Either way a block's part is
        added after that of the block before it, so the bytes of the sum are the same.
        """
        n_pieces = -(-n_bytes * self.n_blocks // at_once)
        if n_pieces <= 1:
            results = self.run(task, argument, description)
            return ordered_sum([array for array, _ in results]), [rest for _, rest in results]
        with self._job(argument, description) as shipped:
            found = (
                self._rdd.mapPartitions(lambda rows: _cut(_run(rows, task, shipped.value), n_pieces))
                .partitionBy(n_pieces + 1, int)
                .mapPartitions(_add_piece)
                .collect()
            )
        rests = _in_order([result for piece, result in found if piece == n_pieces])
        pieces = dict(found)
        return np.concatenate([pieces[piece] for piece in range(n_pieces)]), rests

    @contextmanager
    def _job(self, argument: Any, description: str) -> Iterator[Broadcast[Any]]:
        """Ship an argument for as long as a described job runs."""
        context = self.references.sparkSession.sparkContext
        shipped = context.broadcast(argument)
        try:
            with described(context, description):
                yield shipped
        finally:
            shipped.destroy()

    def frame(self, task: Callable[[Block, Any], pa.RecordBatch], argument: Any, schema: str) -> DataFrame:
        """Return a DataFrame of what a task yields for every block, for what grows with the rows."""
        shipped = self.references.sparkSession.sparkContext.broadcast(argument)

        def batches(references: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            settle()
            for batch in references:
                for path in batch.column("path").to_pylist():
                    yield task(open_block(path), shipped.value)

        return self.references.mapInArrow(batches, schema)

    def repeat(self, work: Callable[[], Any], tries: int = 3) -> Any:
        """Do work that runs passes; where blocks were lost, build them again and do it anew."""
        for _ in range(tries):
            try:
                return work()
            except BlockMissingError:
                self.rebuild()
            except (PythonException, Py4JJavaError) as error:  # of a task of `frame`, which Spark puts into words
                if BlockMissingError.__name__ not in str(error):
                    raise
                self.rebuild()
        raise TryAgainError(
            f"blocks were lost {tries} times in a row, as executors died or their disks were cleaned: {AGAIN}; if it "
            f"happens again, {MORE_MEMORY}"
        )

    def rebuild(self) -> None:
        """Forget where the blocks are, write them again, and delete what is left of the old ones."""
        old = self.paths
        self.references.unpersist(blocking=True)
        self.references = self.references.select("*")  # a frame keeps its first plan, and that its lost cache
        self._materialise()
        self._rdd.foreachPartition(lambda _: _delete(old))

    def close(self) -> None:
        """Delete the blocks."""
        self._rdd.foreachPartition(lambda rows: _delete([row.path for row in rows]))
        self.references.unpersist()

    def _materialise(self) -> None:
        self.references.persist(StorageLevel.MEMORY_AND_DISK)
        with described(self.references.sparkSession.sparkContext, "histories to blocks"):
            self._rdd: RDD[Any] = self.references.rdd  # where adaptive execution runs the shuffle
            sizes = self.references.select("path", "n_rows", "n_entries").collect()
        self.paths = [row.path for row in sizes]
        self.n_rows, self.n_entries = (sum(row[place] for row in sizes) for place in (1, 2))


def build(histories: DataFrame, columns: NDArray[np.int32], n: int) -> Blocks:
    """Cut histories into n blocks, each written beside the executor that built it.

    histories: row int, column int, value float, each pair once. Rows are dealt to blocks by their index.
    columns: the column indices there are, ascending; a block holds positions in it. Other columns are an error.
    """
    context = histories.sparkSession.sparkContext
    shipped = context.broadcast(columns)

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        filled = [batch for batch in batches if batch.num_rows]
        if not filled:
            return
        table = pa.Table.from_batches(filled)
        pairs, values = (column.to_numpy() for column in table.columns)
        rows, indices = (pairs >> 32).astype(np.int32), pairs.astype(np.int32)
        named = shipped.value
        places = np.full(named[-1] + 1, -1, np.int32)
        places[named] = np.arange(len(named), dtype=np.int32)
        positions = places[indices]
        if positions.min() < 0:
            raise ValueError(f"column {indices[positions < 0][0]} is none of those that the blocks are built for")
        settle()
        path, n_rows = write_block(local_folder(), rows, positions, values, len(named))
        block = [int(rows[0]) % n]
        yield pa.RecordBatch.from_pydict(
            {"block": block, "path": [str(path)], "n_rows": [n_rows], "n_entries": [len(rows)]},
            schema=_REFERENCES,
        )

    # One long holds both indices: what crosses to Python costs by the column.
    pair = f.shiftleft(f.col("row").cast("long"), 32).bitwiseOR(f.col("column").cast("long"))
    triples = histories.select(
        f.pmod(f.col("row").cast("int"), f.lit(n)).alias("block"),
        pair.alias("pair"),
        f.col("value").cast("float"),
    )
    dealt = triples.repartitionById(n, "block").drop("block")
    blocks = Blocks(dealt.mapInArrow(write, _REFERENCE), columns, n, 0, 0)
    blocks._materialise()
    return blocks


_REFERENCES = pa.schema(
    [("block", pa.int32()), ("path", pa.string()), ("n_rows", pa.int32()), ("n_entries", pa.int64())]
)


def ordered_sum(parts: list[Array]) -> Array:
    """Add arrays of one shape in the order given, into the first."""
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _run(rows: Iterable[Any], task: Task, argument: Any) -> Iterator[Result]:
    settle()
    for row in rows:
        try:
            yield row.block, task(open_block(row.path), argument), False
        except BlockMissingError:
            yield row.block, None, True


def _in_order(found: Iterable[Result]) -> list[Any]:
    """Return the results in the order of blocks; raise BlockMissingError where there is one without."""
    by_block = sorted(found, key=lambda result: result[0])
    lost = [block for block, _, missing in by_block if missing]
    if lost:
        raise BlockMissingError(f"blocks {lost} are not where their tasks ran")
    return [result for _, result, _ in by_block]


def _cut(found: Iterable[Result], n_pieces: int) -> Iterator[tuple[int, Any]]:
    """Cut the arrays of a task's results by rows: (piece, (block, rows)), and under n_pieces what is not added."""
    for block, result, missing in found:
        array, rest = (None, None) if missing else result
        yield n_pieces, (block, rest, missing)
        if array is not None:
            for piece, rows in enumerate(np.array_split(array, n_pieces)):
                yield piece, (block, rows)


def _add_piece(pieces: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Add the arrays of one piece in the order of blocks; pass on what is not added."""
    parts = []
    for piece, part in pieces:
        if len(part) == 3:
            yield piece, part
        else:
            parts.append((part[0], part[1], piece))
    if parts:
        parts.sort(key=lambda part: part[0])
        yield parts[0][2], ordered_sum([rows for _, rows, _ in parts])


def _delete(paths: Iterable[str]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
