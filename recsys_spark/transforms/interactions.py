"""From valid events to weighted interactions: one row a user and item, in sums that no order can change."""

import datetime as dt
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.config import Features

# Weights are added as integers of this resolution: integer sums are exact, so that neither the order of
# rows nor of partial sums shows in the result. 2^63 / 2^32 is room for a sum of 2·10⁹.
_RESOLUTION = float(2**32)


def event_weight(features: Features, as_of: dt.datetime | None) -> Column:
    """Return an event's weight: of its type, by its value, and of its age at as_of.

    w = weight(event) · g(value) · 2^(−age / half_life), with g = 1, value or log(1 + value).
    """
    weight = f.lit(1.0)
    if features.events is not None:
        pairs = [literal for name, value in features.events.items() for literal in (f.lit(name), f.lit(float(value)))]
        weight = f.element_at(f.create_map(*pairs), f.col("event"))
    if features.value == "multiply":
        weight = weight * f.col("value")
    elif features.value == "log1p":
        weight = weight * f.log1p(f.col("value"))
    if features.half_life is not None and as_of is not None:
        weight = weight * decay(as_of, features.half_life)
    return weight


def decay(as_of: dt.datetime, half_life: dt.timedelta, time: str = "time") -> Column:
    """Return 2^(−age / half_life) of a row's time, its age counted back from as_of."""
    micros = f.lit(round(as_of.timestamp() * 1e6)) - f.unix_micros(f.col(time))
    return f.pow(f.lit(2.0), -micros.cast("double") / f.lit(half_life.total_seconds() * 1e6))


def exact_sum(weight: Column) -> Column:
    """Return the sum of numbers to a resolution of 2^-32, the same whatever the order."""
    return f.sum(f.round(weight * f.lit(_RESOLUTION)).cast("long")).cast("double") / f.lit(_RESOLUTION)


def interactions(events: DataFrame, features: Features, as_of: dt.datetime | None) -> DataFrame:
    """Return (user_id, item_id, weight, events, event_types, recent, first_time, last_time), one row a pair.

    weight is features.transform of the weights of the pair's valid events; event_types are the types of them,
    sorted, null where features.events names none; recent is the sum of 2^(−age / popularity_half_life), or of 1
    where the log has no time.
    """
    total = exact_sum(event_weight(features, as_of))
    recent = exact_sum(_decayed(as_of, features.popularity_half_life, "time"))
    return events.groupBy("user_id", "item_id").agg(
        transformed(features.transform, total, f.count(f.lit(1))).alias("weight"),
        f.count(f.lit(1)).alias("events"),
        _event_types(features).alias("event_types"),
        recent.alias("recent"),
        f.min("time").alias("first_time"),
        f.max("time").alias("last_time"),
    )


def transformed(transform: str, total: Column, events: Column) -> Column:
    """Return a pair's weight from the sum of its events' weights and their number."""
    return {"sum": total, "mean": total / events, "log1p": f.log1p(total), "binary": f.lit(1.0)}[transform]


def pair_totals(
    events: DataFrame, features: Features, as_of: dt.datetime | None, half_lives: Sequence[dt.timedelta | None]
) -> DataFrame:
    """Return (user_id, item_id, events, event_types, total_0, …): sums of event weights with each half-life."""
    totals = [
        exact_sum(event_weight(features.model_copy(update={"half_life": life}), as_of)).alias(f"total_{place}")
        for place, life in enumerate(half_lives)
    ]
    return events.groupBy("user_id", "item_id").agg(
        f.count(f.lit(1)).alias("events"), _event_types(features).alias("event_types"), *totals
    )


def _event_types(features: Features) -> Column:
    """Return the distinct types of a group's events, sorted: as bits of one number while they are gathered."""
    names = sorted(features.events or ())
    if not names:
        return f.lit(None).cast("array<string>")
    bits = [literal for place, name in enumerate(names) for literal in (f.lit(name), f.lit(1 << place))]
    seen = f.bit_or(f.element_at(f.create_map(*bits), f.col("event")))
    return f.array_compact(
        f.array(*(f.when(seen.bitwiseAND(1 << place) > 0, name) for place, name in enumerate(names)))
    )


def popularities(events: DataFrame, as_of: dt.datetime | None, half_lives: Sequence[dt.timedelta]) -> DataFrame:
    """Return what is popular with each half-life, as `item_features` has it with one: one row an item.

    item_id, popularity, popularity_decayed_0, …, adoptions_decayed_0, …, last_time.
    """
    recent = [exact_sum(_decayed(as_of, life, "time")).alias(f"recent_{n}") for n, life in enumerate(half_lives)]
    pairs = events.groupBy("user_id", "item_id").agg(
        *recent, f.min("time").alias("first_time"), f.max("time").alias("last_time")
    )
    sums = []
    for place, life in enumerate(half_lives):
        sums.append(exact_sum(f.col(f"recent_{place}")).alias(f"popularity_decayed_{place}"))
        sums.append(exact_sum(_decayed(as_of, life, "first_time")).alias(f"adoptions_decayed_{place}"))
    users = f.count(f.lit(1)).cast("double").alias("popularity")
    return pairs.groupBy("item_id").agg(users, *sums, f.max("last_time").alias("last_time"))


def item_features(pairs: DataFrame, as_of: dt.datetime | None, half_life: dt.timedelta) -> DataFrame:
    """Return what is known of each item, from `interactions`: its events, users and popularity.

    popularity counts users. popularity_decayed sums `recent`: all events by their age. adoptions_decayed counts users
    by the age of their first event: who has an item already and uses it again says little about who will take it up.
    """
    return pairs.groupBy("item_id").agg(
        f.sum("events").alias("events"),
        f.count(f.lit(1)).alias("users"),
        f.count(f.lit(1)).cast("double").alias("popularity"),
        exact_sum(f.col("recent")).alias("popularity_decayed"),
        exact_sum(_decayed(as_of, half_life, "first_time")).alias("adoptions_decayed"),
        f.min("first_time").alias("first_time"),
        f.max("last_time").alias("last_time"),
    )


def _decayed(as_of: dt.datetime | None, half_life: dt.timedelta, time: str) -> Column:
    """Return the weight of a row by the age of its time, 1 where the log has none."""
    return f.lit(1.0) if as_of is None else decay(as_of, half_life, time)
