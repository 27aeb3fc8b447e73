"""Rules that judge a row by others: whatever the order and the partitions, the same rows are refused."""

import datetime as dt
import random
import re
from collections import Counter, defaultdict
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import HeavyUsers, Source
from recsys_spark.transforms import limits
from recsys_spark.transforms.limits import judge, refuse_duplicates, refuse_heavy_users

DAY = dt.timedelta(days=1)
START = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
SCHEMA = (
    "user_id string, item_id string, time timestamp, reason string, _file string, _line bigint, _part string, "
    "record struct<user:string,item:string,note:string>"
)
Row = tuple[Any, ...]


def row(
    user: str | None,
    line: int,
    item: str = "i",
    at: dt.datetime = START,
    file: str = "f",
    reason: str | None = None,
    part: str = "source",
    note: str | None = None,
) -> Row:
    return (user, item, at, reason, file, line, part, (user, item, note))


def frame(spark: SparkSession, rows: list[Row], partitions: int = 2) -> DataFrame:
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, partitions), SCHEMA)


def reasons_of(judged: DataFrame, rows: list[Row]) -> list[str | None]:
    """The reasons in the order of `rows`; each row is there exactly once."""
    found = {(row["_file"], row["_line"]): row["reason"] for row in judged.collect()}
    assert judged.columns == [field.split()[0] for field in SCHEMA.split(", ")][:8]
    assert len(found) == len(rows)
    return [found[row[4], row[5]] for row in rows]


def test_of_lines_that_are_alike_in_all_columns_the_first_by_file_and_line_stays(spark: SparkSession) -> None:
    rows = [
        row("u", 7, file="a"),
        row("u", 2, file="b"),
        row("u", 9, file="a"),
        row("u", 3, file="b", note="another"),  # differs in a column that nothing is made of
        row("u", 4, file="b", note=""),  # an empty note is not a missing one
        row("u", 5, file="b", part="holdout"),
        row("u", 1, file="a", reason="returned"),  # refused already: it is nobody's first
        row("u", 0, file="a", reason="returned"),
        row(None, 8, reason="missing_user"),
    ]
    expected = [None, "duplicate_line", "duplicate_line", None, None, None, "returned", "returned", "missing_user"]
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert reasons_of(refuse_duplicates(frame(spark, shuffled, seed * 3)), rows) == expected


def crowd(seed: int = 1) -> list[Row]:
    """Users with up to 12 events on each of four days; some rows are refused already, some are of a holdout."""
    draw = random.Random(seed)
    rows = []
    for user in ["null", "0", "👩‍👩‍👧", "a\nb", *(f"u{n}" for n in range(12))]:
        for day in range(4):
            for _ in range(draw.randrange(13) if draw.random() < 0.7 else 0):
                kind = draw.random()
                reason, part = ("returned" if kind < 0.1 else None), ("holdout" if kind > 0.9 else "source")
                at = START + DAY * day + dt.timedelta(minutes=draw.randrange(30))
                rows.append(row(user, len(rows), at=at, reason=reason, part=part))
    return [*rows, *(row(None, len(rows) + n, reason="missing_user") for n in range(20))]


def judged_rows(rows: list[Row], as_of: dt.datetime | None) -> list[Row]:
    return [row for row in rows if row[3] is None and row[6] == "source" and (as_of is None or row[2] < as_of)]


@pytest.mark.parametrize("as_of", [None, START + 2 * DAY])
def test_all_events_of_a_user_with_too_many_on_a_day_before_as_of_are_refused(
    spark: SparkSession, as_of: dt.datetime | None
) -> None:
    rows = crowd()
    days = Counter((row[0], row[2].date()) for row in judged_rows(rows, as_of))
    heavy = {user for (user, _), n in days.items() if n > 8}
    assert 0 < len(heavy) < 12
    expected = [row[3] or ("too_many_events" if row[0] in heavy else None) for row in rows]
    found = refuse_heavy_users(frame(spark, rows), HeavyUsers(events_a_day=8), as_of)
    assert reasons_of(found, rows) == expected


@pytest.mark.parametrize("limit", [{"events_a_day": 4}, {"quantile": 0.5}])
def test_capped_users_keep_their_latest_events_and_the_future_counts_for_nothing(
    spark: SparkSession, limit: dict[str, Any]
) -> None:
    rows, as_of = crowd(), START + 3 * DAY
    groups: dict[Any, list[Row]] = defaultdict(list)
    for one in judged_rows(rows, as_of):
        groups[one[0] if "quantile" in limit else (one[0], one[2].date())].append(one)
    sizes = sorted(map(len, groups.values()))
    most = limit.get("events_a_day") or sizes[-(-len(sizes) // 2) - 1]
    late = {one[5] for group in groups.values() for one in sorted(group, key=lambda one: (one[2], one[5]))[:-most]}
    assert late
    expected = [row[3] or ("too_many_events" if row[5] in late else None) for row in rows]
    how = HeavyUsers.model_validate({**limit, "action": "cap"})
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert reasons_of(refuse_heavy_users(frame(spark, shuffled, 1 + 4 * seed), how, as_of), rows) == expected


@pytest.mark.parametrize("few", [0, 100_000], ids=["many-groups", "few-groups"])
@pytest.mark.parametrize("action", ["cap", "refuse"])
def test_no_task_ranks_or_looks_up_all_events_of_a_robot(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, action: str, few: int
) -> None:
    """Its events are ranked in shares; where heavy groups are few, rows stay where they are read."""
    monkeypatch.setattr(limits, "_FEW", few)
    rows = [row("robot", line, at=START + dt.timedelta(seconds=line)) for line in range(400)] + [row("u", 400)]
    how = HeavyUsers.model_validate({"quantile": 0.5, "action": action})
    found = refuse_heavy_users(frame(spark, rows, 4), how, None)
    kept = 1 if action == "cap" else 0
    assert reasons_of(found, rows) == ["too_many_events"] * (400 - kept) + [None] * (kept + 1)
    steps = found._jdf.queryExecution().optimizedPlan().toString().splitlines()
    ranked = [step for step in steps if "Window [" in step]
    assert len(ranked) == (2 if action == "cap" else 0) and all("__share" in step for step in ranked[1:])
    joins = [step for step in steps if re.search(r"\bJoin\b", step)]
    assert joins and all(("strategy=broadcast" in step) == bool(few) for step in joins)


def test_which_of_a_capped_users_events_at_one_time_stay_does_not_depend_on_their_lines(spark: SparkSession) -> None:
    how, items = HeavyUsers(events_a_day=2, action="cap"), ["a", "b", "c", "d"]
    for order in (items, items[::-1], ["c", "a", "d", "b"]):
        rows = [row("u", line, item) for line, item in enumerate(order)]
        found = dict(zip(order, reasons_of(refuse_heavy_users(frame(spark, rows), how, None), rows), strict=True))
        assert {item for item, reason in found.items() if reason is None} == {"c", "d"}


def test_what_nobody_asks_for_refuses_nothing(spark: SparkSession) -> None:
    rows = [row("u", 0), row("u", 1)]
    given = frame(spark, rows)
    assert judge(given, Source(path=("log.parquet",)), None) is given
    both = Source(path=("log.parquet",), duplicates="refuse", heavy_users=HeavyUsers(quantile=0.5))
    assert reasons_of(judge(given, both, None), rows) == [None, "duplicate_line"]


def test_a_log_without_a_good_row_has_no_heavy_users(spark: SparkSession) -> None:
    rows = [row(None, 0, reason="missing_user")]
    for action in ("cap", "refuse"):
        how = HeavyUsers.model_validate({"quantile": 0.9, "action": action})
        assert reasons_of(refuse_heavy_users(frame(spark, rows), how, None), rows) == ["missing_user"]
