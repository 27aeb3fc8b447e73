import datetime as dt
import itertools
import random
import re
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import Holdout
from recsys_spark.transforms.splits import known_pairs, learnt_from, sliding, split
from tests.generated import through_spark

SCHEMA = "user_id string, item_id string, time timestamp, event string, value double, _part string"
DAY = dt.timedelta(days=1)
START = dt.datetime(2011, 11, 1, tzinfo=dt.UTC)
Row = tuple[str, str, dt.datetime, str | None, float | None, str]


def log(seed: int = 1, users: int = 40) -> list[Row]:
    """Users with 1 to `users` events on 12 items, over ten days, some pairs repeated, in both parts."""
    draw = random.Random(seed)
    names = [
        "null",
        "0",
        "a 'quoted' \"one\"",
        "two\nlines",
        "👩‍👩‍👧",
        *(f"user {n}" for n in range(users - 5)),
    ]
    return [
        (
            user,
            str(draw.randrange(12)),
            START + DAY * draw.randrange(10),
            "buy",
            float(place),
            draw.choice(["source", "holdout"]),
        )
        for number, user in enumerate(names)
        for place in range(number + 1)
    ]


def frame(spark: SparkSession, rows: list[Row], partitions: int = 2) -> DataFrame:
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, partitions), SCHEMA)


def rows_of(data: DataFrame) -> list[Row]:
    return sorted((*row[:2], row[2].astimezone(dt.UTC), *row[3:]) for row in data.collect())


def both(spark: SparkSession, rows: list[Row], *how: object, partitions: int = 2) -> tuple[list[Row], list[Row]]:
    past, future = split(frame(spark, rows, partitions), *how)  # type: ignore[arg-type]
    assert past.columns == future.columns == [name.split()[0] for name in SCHEMA.split(", ")]
    return rows_of(past), rows_of(future)


def test_as_of_parts_past_from_future_and_belongs_to_the_future(spark: SparkSession) -> None:
    rows = log()
    as_of = START + 4 * DAY
    past, future = both(spark, rows, as_of, None, None)
    assert past == sorted(row for row in rows if row[2] < as_of)
    assert future == sorted(row for row in rows if row[2] >= as_of)
    assert min(row[2] for row in future) == as_of


def test_the_future_ends_before_its_horizon(spark: SparkSession) -> None:
    rows = log()
    as_of = START + 4 * DAY
    past, future = both(spark, rows, as_of, 2 * DAY, None)
    assert past == sorted(row for row in rows if row[2] < as_of)
    assert {row[2] for row in future} == {as_of, as_of + DAY}


def test_without_as_of_and_holdout_all_is_past(spark: SparkSession) -> None:
    rows = log()
    assert both(spark, rows, None, None, None) == (sorted(rows), [])
    assert both(spark, rows, None, DAY, None) == (sorted(rows), [])


@pytest.mark.parametrize("as_of", [None, START + 4 * DAY])
def test_a_published_split_parts_by_part_and_as_of_ends_the_past(
    spark: SparkSession, as_of: dt.datetime | None
) -> None:
    rows = log()
    past, future = both(spark, rows, as_of, None, Holdout(path=("test.csv",)))
    assert past == sorted(row for row in rows if row[5] == "source" and (as_of is None or row[2] < as_of))
    assert future == sorted(row for row in rows if row[5] == "holdout")


def test_what_a_published_split_gives_away_is_counted_by_pairs(spark: SparkSession) -> None:
    rows = log()
    past, future = split(frame(spark, rows), None, None, Holdout(path=("test.csv",)))
    pairs = {part: {row[:2] for row in rows if row[5] == part} for part in ("source", "holdout")}
    found = [tuple(row) for row in known_pairs(past, future).collect()]
    assert sorted(found) == sorted(pairs["source"] & pairs["holdout"]) and found
    for how in (Holdout(random=0.4), Holdout(users=0.5)):
        assert known_pairs(*split(frame(spark, rows), None, None, how)).count() == 0


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_the_random_split_holds_out_the_rounded_share_of_each_users_items_but_never_all(
    spark: SparkSession, share: float
) -> None:
    rows = log()
    past, future = both(spark, rows, None, None, Holdout(random=share))
    assert sorted(past + future) == sorted(rows)
    kept, held, items = defaultdict(set), defaultdict(set), defaultdict(set)
    for part, which in ((past, kept), (future, held), (rows, items)):
        for row in part:
            which[row[0]].add(row[1])
    for user, own in items.items():
        assert not kept[user] & held[user]
        assert len(held[user]) == min(int(share * len(own) + 0.5), len(own) - 1)


def test_the_random_split_depends_on_neither_order_nor_partitions_nor_other_users(
    spark: SparkSession,
) -> None:
    rows = log()
    how = (None, None, Holdout(random=0.3))
    past, future = both(spark, rows, *how)
    for seed in (1, 2):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert both(spark, shuffled, *how, partitions=1 + 4 * seed) == (past, future)
    some = {row[0] for row in rows[::3]}
    alone = both(spark, [row for row in rows if row[0] in some], *how)
    assert alone == ([row for row in past if row[0] in some], [row for row in future if row[0] in some])


def test_repeating_an_event_moves_no_pair(spark: SparkSession) -> None:
    rows = log()
    _, future = both(spark, rows, None, None, Holdout(random=0.3))
    _, again = both(spark, rows + rows[::2], None, None, Holdout(random=0.3))
    assert {row[:2] for row in again} == {row[:2] for row in future}


def test_no_task_has_all_events_of_a_robot_only_its_distinct_items(spark: SparkSession, tmp_path: Path) -> None:
    rows = [("robot", str(n % 5), START, "buy", 1.0, "source") for n in range(400)]
    frame(spark, rows).write.parquet(str(tmp_path / "log"))
    past, future = split(spark.read.parquet(str(tmp_path / "log")), None, None, Holdout(random=0.4))
    assert (past.count(), future.count()) == (240, 160)
    for part in (past, future):
        plan = part._jdf.queryExecution().optimizedPlan().toString()
        steps = re.findall(r"\b(Window|Aggregate|Relation)\b(?= \[)", plan)
        assert steps == ["Relation", "Window", "Window", "Aggregate", "Relation"], "what is ranked was made distinct"


def test_another_seed_holds_out_other_items(spark: SparkSession) -> None:
    futures = [both(spark, log(), None, None, Holdout(random=0.3, seed=seed))[1] for seed in (1, 2, 2**40)]
    assert futures[0] != futures[1] != futures[2] != futures[0]


def test_every_item_is_as_likely_to_be_held_out(spark: SparkSession) -> None:
    rows = [(f"u{user}", str(item), START, None, None, "source") for user in range(600) for item in range(5)]
    past, future = split(frame(spark, rows), None, None, Holdout(random=0.4))
    assert past.count() == 600 * 3
    counts = [row["count"] for row in future.groupBy("item_id").count().collect()]
    # 240 of 600 each; the standard deviation is √(600 · 0.4 · 0.6) = 12.
    assert len(counts) == 5 and all(abs(count - 240) < 4 * 12 for count in counts)


def test_as_of_ends_the_log_that_is_split_at_random(spark: SparkSession) -> None:
    rows, as_of = log(), START + 4 * DAY
    early = [row for row in rows if row[2] < as_of]
    assert both(spark, rows, as_of, None, Holdout(random=0.3)) == both(spark, early, None, None, Holdout(random=0.3))


def cut_of(rows: list[Row], n: int) -> dt.datetime | None:
    """Where the future of one user's rows begins: at the n-th last first event of an item, if anything is before."""
    first: dict[str, dt.datetime] = {}
    for row in sorted(rows, key=lambda row: row[2]):
        first.setdefault(row[1], row[2])
    moments = sorted(first.values())
    cut = moments[max(0, len(moments) - n)]
    return cut if cut > moments[0] else None


@pytest.mark.parametrize("n", [1, 3])
def test_the_last_new_items_of_each_user_and_all_after_them_are_future(spark: SparkSession, n: int) -> None:
    rows, as_of = log(), START + 9 * DAY
    known = [row for row in rows if row[2] < as_of]
    by_user = defaultdict(list)
    for row in known:
        by_user[row[0]].append(row)
    cuts = {user: cut_of(own, n) for user, own in by_user.items()}
    assert sum(cut is not None for cut in cuts.values()) > 20
    past, future = both(spark, rows, as_of, None, Holdout(last=n))
    assert sorted(past + future) == sorted(known)
    assert future == sorted(row for row in known if cuts[row[0]] is not None and row[2] >= cuts[row[0]])
    shuffled = random.Random(3).sample(rows, len(rows))
    assert both(spark, shuffled, as_of, None, Holdout(last=n), partitions=7) == (past, future)


def test_users_held_out_are_learnt_nothing_from_and_keep_a_history(spark: SparkSession) -> None:
    rows, how = log(users=80), Holdout(users=0.3, of_items=0.5, seed=2)
    past, future = both(spark, rows, None, None, how)
    assert sorted(past + future) == sorted(rows)
    data = frame(spark, rows)
    learnt = {row[0] for row in data.where(learnt_from(how)).select("user_id").distinct().collect()}
    held = {row[0] for row in rows} - learnt
    assert 12 < len(held) < 36  # 24 of 80; the standard deviation is 4
    assert {row[0] for row in future} <= held <= {row[0] for row in past}
    for user in held:
        kept, hidden = ({row[1] for row in part if row[0] == user} for part in (past, future))
        assert not kept & hidden
        assert len(hidden) == min(int(0.5 * len(kept | hidden) + 0.5), len(kept | hidden) - 1)
    other = {row[0] for row in data.where(learnt_from(Holdout(users=0.3, seed=3))).select("user_id").collect()}
    assert other != learnt
    more = {row[0] for row in data.where(learnt_from(Holdout(users=0.5, seed=2))).select("user_id").collect()}
    assert more < learnt, "who is held out of few is held out of more"
    assert data.where(learnt_from(None)).count() == len(rows)


@given(st.integers(1, 400), st.integers(1, 40), st.one_of(st.none(), st.integers(1, 5)))
def test_moments_of_a_backtest_are_a_horizon_apart_and_end_with_the_log(
    days: int, horizon: int, most: int | None
) -> None:
    last = START + days * DAY
    moments = sliding(START, last, horizon * DAY, most)
    assert most is None or len(moments) <= most
    assert all(late - early == horizon * DAY for early, late in itertools.pairwise(moments))
    assert all(moment > START for moment in moments)
    if moments:
        assert moments[-1] + horizon * DAY == last + dt.timedelta(microseconds=1)
        assert len(moments) == most or moments[0] - horizon * DAY <= START


def test_no_two_moments_of_a_backtest_judge_by_the_same_event(spark: SparkSession) -> None:
    rows = log()
    moments = sliding(START, max(row[2] for row in rows), 2 * DAY)
    parts = [[rows_of(part) for part in split(frame(spark, rows), moment, 2 * DAY, None)] for moment in moments]
    assert len(moments) > 1 and all(past and future for past, future in parts)
    judged = [row for _, future in parts for row in future]
    assert sorted(judged) == sorted(row for row in rows if row[2] >= moments[0])
    for moment, (past, _) in zip(moments, parts, strict=True):
        assert past == sorted(row for row in rows if row[2] < moment)


def test_horizons_of_no_length_are_refused() -> None:
    with pytest.raises(ValueError, match="must be longer than nothing"):
        sliding(START, START + DAY, dt.timedelta(0))


LOG = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyzw"), st.integers(0, 6)), min_size=25, max_size=25)


@pytest.mark.generated
@pytest.mark.parametrize(
    "how", [{"random": 0.4}, {"last": 1}, {"last": 2}, {"users": 0.5}], ids=lambda how: "-".join(map(str, how))
)
def test_every_split_is_exclusive_complete_and_never_takes_a_whole_history(
    spark: SparkSession, how: dict[str, float]
) -> None:
    @through_spark()
    @given(LOG)
    def check(drawn: list[tuple[str, str, int]]) -> None:
        rows = [(user, item, START + day * DAY, None, float(n), "source") for n, (user, item, day) in enumerate(drawn)]
        past, future = both(spark, rows, None, None, Holdout.model_validate(how))  # type: ignore[arg-type]
        assert sorted(past + future, key=lambda row: row[4]) == rows
        assert {row[0] for row in past} == {row[0] for row in rows}
        if "last" in how:
            for user in {row[0] for row in future}:
                begin = min(row[2] for row in future if row[0] == user)
                assert all(row[2] < begin for row in past if row[0] == user), "nothing past is after what is future"
                new = {row[1] for row in future if row[0] == user} - {row[1] for row in past if row[0] == user}
                assert len(new) >= how["last"]
        else:
            assert not {row[:2] for row in past} & {row[:2] for row in future}

    check()
