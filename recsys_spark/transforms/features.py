"""What is known of a user or an item as of a moment: a function a feature, all gathered in one pass over the events.

Only past events come in, so no feature can know more than the moment did. Counts are exact, sums are those of
`interactions.exact_sum`: the same bytes whatever the order of rows and partitions.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f

from recsys_spark.config import name_of
from recsys_spark.schemas import ITEM_ID, SCHEMAS, USER_ID
from recsys_spark.transforms.interactions import exact_sum

_DAY = 86_400_000_000  # microseconds
_PARTS = 2.0**20  # of 1, to which measures are rounded: room for sums of 8·10¹²


@dataclass(frozen=True)
class Moment:
    """When and how features are looked at: as_of, the windows before it, the clock of the place, the measures' names.

    means: the mean of each measure over all events, which levels are beside.
    """

    as_of: dt.datetime | None
    windows: tuple[dt.timedelta, ...] = ()
    trend: dt.timedelta = dt.timedelta(days=7)
    timezone: str = "UTC"
    measures: tuple[str, ...] = ()
    means: dict[str, float] = field(default_factory=dict)

    def within(self, window: dt.timedelta) -> Column:
        """Whether an event is in a window that ends at as_of."""
        assert self.as_of is not None
        try:
            return f.col("time") >= f.lit(self.as_of - window)
        except OverflowError:  # longer than the calendar
            return f.lit(True)


def recency(moment: Moment) -> Column:
    """Days from the last event to as_of: the R of RFM."""
    return _days(moment, f.max("time"))


def age(moment: Moment) -> Column:
    """Days from the first event to as_of."""
    return _days(moment, f.min("time"))


def events_in(moment: Moment) -> Column:
    """Events in each window before as_of, by its name, such as {"7d": 3}: the F of RFM, as it was and as it is."""
    counts = [(name_of(window), f.count_if(moment.within(window))) for window in moment.windows]
    return _map(counts, "bigint")


def trend(moment: Moment) -> Column:
    """log((n + 1) / (m + 1)), with n the events of the last trend window and m those of the one before; 0 is steady."""
    now, both = (f.count_if(moment.within(times * moment.trend)) for times in (1, 2))
    return f.log((now + 1) / (both - now + 1))


def sums(moment: Moment) -> Column:
    """Sum of each measure, of all events and in each window, such as {"spend": 9.5, "spend_7d": 2.0}: the M of RFM."""
    entries = []
    for place, name in enumerate(moment.measures):
        entries.append((name, _sum(place)))
        for window in moment.windows:
            entries.append((f"{name}_{name_of(window)}", _sum(place, moment.within(window))))
    return _map(entries, "double")


def means(moment: Moment) -> Column:
    """Mean of each measure over the events that have it, such as {"price": 2.5}; null where none has it."""
    return _map([(name, _mean(place)) for place, name in enumerate(moment.measures)], "double")


def levels(moment: Moment) -> Column:
    """Mean of each measure beside its mean over all events, such as a price level {"price": 1.5}: 50 % above."""
    entries = []
    for place, name in enumerate(moment.measures):
        whole = moment.means.get(name) or 0.0
        entries.append((name, _mean(place) / f.lit(whole) if whole else f.lit(None).cast("double")))
    return _map(entries, "double")


def hours(_: Moment) -> Column:
    """Shares of the 24 hours of the day, by the clock of source.timezone, in the events: array of 24, sum 1."""
    return _shares("_hour", 24)


def weekdays(_: Moment) -> Column:
    """Shares of the days of the week, Monday first, by the clock of source.timezone: array of 7, sum 1."""
    return _shares("_weekday", 7)


# By the name that a configuration has for it: the columns that it fills, each gathered from a group of events.
GATHERED: dict[str, dict[str, Callable[[Moment], Column]]] = {
    "recency": {"recency": recency},
    "age": {"age": age},
    "windows": {"events_in": events_in},
    "trend": {"trend": trend},
    "sums": {"sums": sums},
    "means": {"means": means},
    "levels": {"levels": levels},
    "hours": {"hours": hours},
    "weekdays": {"weekdays": weekdays},
}

_OF_TIME = {"recency", "age", "windows", "trend", "hours", "weekdays"}
_OF_MEASURES = {"sums", "means", "levels"}


def user_features(pairs: DataFrame, events: DataFrame, names: tuple[str, ...], moment: Moment) -> DataFrame:
    """Return what is known of each user of `pairs`: the columns of gold.user_features that the names fill.

    pairs: as `interactions` gives them; events: (user_id, item_id, time, measures) of the past, looked at once.
    """
    known = pairs.groupBy(USER_ID).agg(
        f.sum("events").alias("events"),
        f.count(f.lit(1)).alias("items"),
        f.min("first_time").alias("first_time"),
        f.max("last_time").alias("last_time"),
    )
    return _with_gathered(known, events, USER_ID, names, moment)


def item_features(known: DataFrame, events: DataFrame, names: tuple[str, ...], moment: Moment) -> DataFrame:
    """Return `known`, which is as `interactions.item_features` gives it, with the features of items that are named."""
    return _with_gathered(known, events, ITEM_ID, names, moment)


def mean_measures(events: DataFrame, measures: tuple[str, ...]) -> dict[str, float]:
    """Return the mean of each measure over all events that have it."""
    row = events.agg(*(_mean(place).alias(name) for place, name in enumerate(measures))).first()
    return {} if row is None else {name: mean for name, mean in row.asDict().items() if mean is not None}


def categories(pairs: DataFrame, category_of: DataFrame, most: int) -> DataFrame:
    """Return (user_id, category, categories): the category that most of a user's events are of, and shares of events.

    category_of: (item_id, category), each item once; events of other items count to the whole. The shares are of the
    `most` categories with most events, such as {"toys": 0.75}; ties by name.
    """
    counted = (
        pairs.join(category_of, ITEM_ID, "left")
        .groupBy(USER_ID, "category")
        .agg(f.sum("events").alias("events"))
        .groupBy(USER_ID)
        .agg(
            f.sum("events").alias("_all"),
            f.sort_array(f.collect_list(f.when(f.col("category").isNotNull(), _ranked("category")))).alias("_ranked"),
        )
    )
    best = f.slice("_ranked", 1, most)
    share = f.transform(best, lambda one: f.struct(one["name"], -one["order"] / f.col("_all")))
    return counted.where(f.size("_ranked") > 0).select(
        USER_ID, f.col("_ranked")[0]["name"].alias("category"), f.map_from_entries(share).alias("categories")
    )


def category_shares(known: DataFrame, category_of: DataFrame) -> DataFrame:
    """Return (item_id, category, category_share): the item's share of the events of its category."""
    named = known.select(ITEM_ID, "events").join(category_of.where(f.col("category").isNotNull()), ITEM_ID)
    whole = named.groupBy("category").agg(f.sum("events").alias("_all"))
    share = f.when(f.col("_all") > 0, f.col("events") / f.col("_all"))
    return named.join(f.broadcast(whole), "category").select(ITEM_ID, "category", share.alias("category_share"))


def friends(graph: DataFrame, pairs: DataFrame, most: int) -> DataFrame:
    """Return (user_id, friends, friends_items): friends with a history, and how many of them have which item.

    graph: distinct (user_id, friend_id). The items are the `most` that most friends have, such as {"i7": 3}; ties by
    name. Hidden pairs count for nothing.
    """
    theirs = pairs.where(~f.col("hidden")).select(f.col(USER_ID).alias("friend_id"), ITEM_ID)
    active = theirs.select("friend_id").distinct()
    number = graph.join(active, "friend_id", "left_semi").groupBy(USER_ID).agg(f.count(f.lit(1)).alias("friends"))
    shared = graph.join(theirs, "friend_id").groupBy(USER_ID, ITEM_ID).agg(f.count(f.lit(1)).alias("events"))
    first = Window.partitionBy(USER_ID).orderBy(f.desc("events"), ITEM_ID)
    top = shared.withColumn("_place", f.row_number().over(first)).where(f.col("_place") <= most)
    listed = top.groupBy(USER_ID).agg(f.sort_array(f.collect_list(_ranked(ITEM_ID))).alias("_ranked"))
    counts = f.transform("_ranked", lambda one: f.struct(one["name"], -one["order"]))
    items = listed.select(USER_ID, f.map_from_entries(counts).alias("friends_items"))
    return number.join(items, USER_ID, "left")


def conformed(features: DataFrame, table: str) -> DataFrame:
    """Return features with the columns of a table's schema; those that the configuration does not name are null."""
    return features.select(
        *(
            f.col(column.name)
            if column.name in features.columns
            else f.lit(None).cast(column.dataType).alias(column.name)
            for column in SCHEMAS[table].fields
        )
    )


def _with_gathered(known: DataFrame, events: DataFrame, key: str, names: tuple[str, ...], moment: Moment) -> DataFrame:
    """Add the named features that a group of events tells; those of time, or measures, where the log has such."""
    missing = (_OF_TIME if moment.as_of is None else set()) | (set() if moment.measures else _OF_MEASURES)
    wanted = [name for name in names if name in GATHERED and name not in missing]
    columns = [make(moment).alias(column) for name in wanted for column, make in GATHERED[name].items()]
    if not columns:
        return known
    clocked = events.select(key, "time", "measures", *_clock(moment))
    return known.join(clocked.groupBy(key).agg(*columns), key, "left")


def _clock(moment: Moment) -> list[Column]:
    local = f.from_utc_timestamp("time", moment.timezone)
    return [f.hour(local).alias("_hour"), f.weekday(local).alias("_weekday")]


def _days(moment: Moment, time: Column) -> Column:
    assert moment.as_of is not None
    micros = f.lit(round(moment.as_of.timestamp() * 1e6)) - f.unix_micros(time)
    return micros.cast("double") / f.lit(float(_DAY))


def _sum(place: int, where: Column | None = None) -> Column:
    return f.coalesce(exact_sum(f.get("measures", f.lit(place)), _PARTS, where=where), f.lit(0.0))


def _mean(place: int) -> Column:
    amount = f.get("measures", f.lit(place))
    return exact_sum(amount, _PARTS) / f.nullif(f.count(amount), f.lit(0))


def _shares(column: str, n: int) -> Column:
    counts = (f.count_if(f.col(column) == value) / f.count(f.lit(1)) for value in range(n))
    return f.array(*counts)


def _map(entries: list[tuple[str, Column]], kind: str) -> Column:
    if not entries:
        return f.lit(None).cast(f"map<string,{kind}>")
    return f.create_map(*(part for name, value in entries for part in (f.lit(name), value.cast(kind))))


def _ranked(name: str) -> Column:
    """A struct that sorts by events, most first, then by name."""
    return f.struct((-f.col("events")).alias("order"), f.col(name).alias("name"))
