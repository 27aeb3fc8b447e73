from pathlib import Path

import numpy as np
import pytest

from recsys_spark.blocks.layout import TILE, BlockMissingError, open_block, write_block


def triples(n_rows: int, n_columns: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    keys = rng.permutation(np.unique(rng.integers(0, n_rows * n_columns, n)))
    rows, columns = (keys // n_columns).astype(np.int32), (keys % n_columns).astype(np.int32)
    return rows * 7 + 3, columns, (keys % 5 + 1).astype(np.float32)


def test_a_block_holds_every_entry_once_in_both_orders(tmp_path) -> None:
    rows, columns, values = triples(2 * TILE + 10, 30, 4000, seed=1)
    path, n_rows = write_block(tmp_path, rows, columns, values, 30)
    block = open_block(str(path))
    wanted = sorted(zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True))
    by_row = np.repeat(block.rows, np.diff(block.offsets))
    assert list(zip(by_row.tolist(), block.columns.tolist(), block.values.tolist(), strict=True)) == wanted
    by_run = np.repeat(block.runs, np.diff(block.starts))
    again = zip(block.rows[block.run_rows].tolist(), by_run.tolist(), block.run_values.tolist(), strict=True)
    assert sorted(again) == wanted
    assert n_rows == len(block.rows) == len(set(rows.tolist()))


def test_runs_go_tile_by_tile_and_column_by_column(tmp_path) -> None:
    rows, columns, values = triples(3 * TILE, 20, 5000, seed=2)
    block = open_block(str(write_block(tmp_path, rows, columns, values, 20)[0]))
    tiles = block.run_rows // TILE
    keys = tiles.astype(np.int64) * 20 + np.repeat(block.runs, np.diff(block.starts))
    assert (np.diff(keys) >= 0).all()
    first = block.starts[:-1]
    assert (np.diff(keys[first]) > 0).all()


def test_the_order_of_the_triples_does_not_change_a_byte(tmp_path) -> None:
    rows, columns, values = triples(900, 40, 3000, seed=3)
    order = np.random.default_rng(9).permutation(len(rows))
    one, _ = write_block(tmp_path / "a", rows, columns, values, 40)
    two, _ = write_block(tmp_path / "b", rows[order], columns[order], values[order], 40)
    names = sorted(file.name for file in one.iterdir())
    assert names == sorted(file.name for file in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_equal_values_are_stored_once(tmp_path) -> None:
    rows, columns, _ = triples(100, 10, 300, seed=4)
    path, _ = write_block(tmp_path, rows, columns, np.full(len(rows), 2.5, np.float32), 10)
    block = open_block(str(path))
    assert block.values.tolist() == block.run_values.tolist() == [2.5]


def test_a_block_that_is_gone_says_so(tmp_path) -> None:
    with pytest.raises(BlockMissingError):
        open_block(str(tmp_path / "nothing.block"))


class Planted:
    """What runs code where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_a_pickle_in_the_place_of_an_array_is_not_loaded(tmp_path) -> None:
    path, _ = write_block(tmp_path, *triples(100, 10, 300, seed=6), 10)
    block, marker = open_block(str(path)), tmp_path / "ran"
    for name in ("values", "rows-of-1"):
        np.save(path / f"{name}.npy", np.array([Planted(marker)], dtype=object), allow_pickle=True)
    np.load(path / "values.npy", allow_pickle=True)
    marker.unlink()  # so it does run where it is loaded
    with pytest.raises(ValueError):
        open_block(str(path))
    with pytest.raises(ValueError):
        block.load("rows-of-1")
    assert not marker.exists()


def test_an_array_left_beside_a_block_is_whole_or_not_there(tmp_path) -> None:
    rows, columns, values = triples(100, 10, 300, seed=5)
    block = open_block(str(write_block(tmp_path, rows, columns, values, 10)[0]))
    with pytest.raises(BlockMissingError):
        block.load("rows-of-1")
    block.save("rows-of-1", np.arange(6, dtype=np.float32).reshape(2, 3))
    assert block.load("rows-of-1").tolist() == [[0, 1, 2], [3, 4, 5]]
    block.drop("rows-of-*")
    with pytest.raises(BlockMissingError):
        block.load("rows-of-1")
