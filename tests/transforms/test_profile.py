"""The data profile, by hand on a small log and by NumPy on a drawn one."""

import datetime as dt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from recsys_spark.transforms.profile import QUANTILES, as_frame, profile, quantiles


def test_a_profile_counts_what_is_there(spark: SparkSession) -> None:
    pairs = spark.createDataFrame(
        [(1, False, True), (3, False, True), (1, True, False)], "events bigint, hidden boolean, core boolean"
    )
    users = spark.createDataFrame([("u", 4, 2), ("v", 1, 1)], "user_id string, events bigint, items bigint")
    items = spark.createDataFrame([("null", 2, 4), ("b", 1, 1)], "item_id string, users bigint, events bigint")
    days = [dt.datetime(2024, 3, day, 23, 59, tzinfo=dt.UTC) for day in (1, 9, 1, 1, 1)]
    times = spark.createDataFrame([(time,) for time in [*days, None]], "time timestamp")
    lines = profile(pairs, users, items, times, 8, {"bad_time": 1, "missing_user": 2})
    assert lines == sorted(lines, key=lambda line: (line[0], line[1] or ""))
    found = {(measure, key): value for measure, key, value in lines}
    assert len(found) == len(lines)
    expected = {
        ("rows", None): 8, ("refused", None): 3, ("refused", "bad_time"): 1, ("refused", "missing_user"): 2,
        ("events", None): 5, ("users", None): 2, ("items", None): 2, ("pairs", None): 3, ("density", None): 3 / 4,
        ("hidden_pairs", None): 1, ("trained_pairs", None): 2, ("repeated_pairs", None): 1 / 3,
        ("repeats", None): 2 / 5, ("events_of_day", "2024-03-01"): 4, ("events_of_day", "2024-03-09"): 1,
        ("top_item", "null"): 2,
        ("top_item", "b"): 1, ("items_of_user", "p50"): 1, ("items_of_user", "p100"): 2, ("events_of_user", "p75"): 4,
        ("users_of_item", "p0"): 1, ("events_of_item", "p99"): 4,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert as_frame(spark, lines).count() == len(lines)
    timeless = profile(pairs, users, items, times.where("time IS NULL"), 8, {})
    assert {line[0] for line in lines} - {line[0] for line in timeless} == {"events_of_day"}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200))
def test_quantiles_are_numpys_inverted_cdf(sizes: list[int]) -> None:
    counts = dict(zip(*(part.tolist() for part in np.unique(sizes, return_counts=True)), strict=True))
    exact = np.quantile(sizes, QUANTILES, method="inverted_cdf")
    assert quantiles(counts) == dict(zip(QUANTILES, exact.tolist(), strict=True))
