"""Dictionaries from ids to indices: dense, append-only, and the same whoever writes at the same time."""

import random
from pathlib import Path
from threading import Barrier, Thread

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.errors import DataError
from recsys_spark.tables import Tables
from recsys_spark.transforms import ids

ODD = ["null", "0", "007", "a 'b' \"c\"", "two\nlines", "👩‍👩‍👧", "שלום עולם", "x" * 10_000, "NaN", "é"]


def frame(spark: SparkSession, names: list[str | None], partitions: int = 3) -> DataFrame:
    return spark.createDataFrame(spark.sparkContext.parallelize([(name,) for name in names], partitions), "id string")


def extended(known: DataFrame | None, names: DataFrame) -> dict[str, int]:
    rows, n = ids.extend(known, names, "id", "index")
    found = {row["id"]: row["index"] for row in rows.collect()}
    assert len(found) == n
    return found


def test_indices_are_dense_in_the_order_of_the_ids_whatever_the_rows(spark: SparkSession) -> None:
    names = ODD + [f"u{n}" for n in range(300)]
    expected = {name: place for place, name in enumerate(sorted(names, key=str.encode))}
    for seed in (1, 2):
        rows = random.Random(seed).choices(names, k=500) + names + [None]  # type: ignore[list-item]
        assert extended(None, frame(spark, rows, 1 + 3 * seed)) == expected


def test_a_known_index_never_moves_and_new_ones_follow_without_a_gap(spark: SparkSession) -> None:
    known = spark.createDataFrame([("b", 0), ("d", 1), ("0", 2)], "id string, index int")
    assert extended(known, frame(spark, ["a", "b", "c", "d", "null"])) == {"a": 3, "c": 4, "null": 5}
    assert extended(known, frame(spark, ["b", "d"])) == {}


def test_an_index_beyond_31_bits_fails_loudly(spark: SparkSession) -> None:
    known = spark.createDataFrame([("a", ids.LARGEST - 1)], "id string, index int")
    assert extended(known, frame(spark, ["a", "b"])) == {"b": ids.LARGEST}
    with pytest.raises(DataError, match="id: 2147483649 ids do not fit 31 bits; split the data set"):
        ids.extend(known, frame(spark, ["b", "c"]), "id", "index")


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_two_runs_that_extend_a_dictionary_at_the_same_time_give_no_index_twice(
    spark: SparkSession, tmp_path: Path, there: bool
) -> None:
    """Both read the dictionary before either writes, so that one of them must come second, and ask again."""
    tables = Tables(spark, str(tmp_path))
    names = {
        "first": [f"u{n}" for n in range(60)],
        "second": [f"u{n}" for n in range(30, 90)],
    }
    if there:
        rows = frame(spark, ["u1", "u40", "u80"]).withColumnRenamed("id", "user_id")
        tables.extend("gold.user_ids", lambda known: ids.extend(known, rows, "user_id", "user_index"))
    both, asked, errors = Barrier(2, timeout=60), {"first": 0, "second": 0}, []

    def run(name: str) -> None:
        mine = frame(spark, names[name]).withColumnRenamed("id", "user_id")

        def new_rows(known: DataFrame | None) -> tuple[DataFrame, int]:
            found = ids.extend(known, mine, "user_id", "user_index")
            asked[name] += 1
            if asked[name] == 1:
                both.wait()
            return found

        try:
            tables.extend("gold.user_ids", new_rows)
        except Exception as error:
            errors.append(error)

    writers = [Thread(target=run, args=(name,)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not errors
    assert sum(asked.values()) > 2, "one came second and asked again"
    found = {row["user_id"]: row["user_index"] for row in tables.read("gold.user_ids").collect()}
    assert tables.read("gold.user_ids").count() == 90
    assert sorted(found.values()) == list(range(90))
