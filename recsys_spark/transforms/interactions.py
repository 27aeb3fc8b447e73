"""From valid events to weighted interactions: one row a user and item, in sums that no order can change."""

import datetime as dt
import math
import sys
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.config import Evaluation, Features

# Weights are added as integers of this resolution: integer sums are exact, so that neither the order of rows nor of
# partial sums shows in the result. High and low bits are added apart: there is room for sums of 2^63 / 2^16 = 1.4·10¹⁴.
_RESOLUTION = float(2**32)
_LOW = float(2**16)
_SMALL = 16.0


def event_weight(features: Features, as_of: dt.datetime | None) -> Column:
    """Return an event's weight: of its type, by its value, and of its age at as_of.

    w = weight(event) · g(value) · 2^(−age / half_life). With v the value, cut off at ±value_cap, g is 1, v,
    log(1 + v), or 1 from value_threshold on and else 0. A value below zero weighs against the item: g(−v) = −g(v).
    Types that hide the item weigh nothing.
    """
    weight = _timeless_weight(features)
    if features.half_life is not None and as_of is not None:
        weight = weight * decay(as_of, features.half_life)
    return weight


def is_negative(features: Features) -> Column:
    """Return whether an event speaks against the item: a type that hides it or weighs less than nothing, or its value.

    Null counts as no: compare a row's event type and value with what the configuration says of them.
    """
    against = [name for name, weight in (features.events or {}).items() if weight < 0]
    return f.coalesce(f.col("event").isin(*features.hides, *against), f.lit(False)) | f.coalesce(
        f.col("value") < 0, f.lit(False)
    )


def _speaks_for(features: Features) -> Column:
    """Return whether an event speaks for the item: it is not against it, and weighs more than nothing at any age."""
    return ~is_negative(features) & (_timeless_weight(features) > 0)


def decay(as_of: dt.datetime, half_life: dt.timedelta, time: str = "time") -> Column:
    """Return 2^(−age / half_life) of a row's time, its age counted back from as_of."""
    micros = f.lit(round(as_of.timestamp() * 1e6)) - f.unix_micros(f.col(time))
    return f.pow(f.lit(2.0), -micros.cast("double") / f.lit(half_life.total_seconds() * 1e6))


def exact_sum(
    weight: Column, parts: float = _RESOLUTION, *, where: Column | None = None, small: bool = False
) -> Column:
    """Return the sum of numbers, each rounded to one of so many parts of 1, the same whatever the order.

    where: of these rows alone, null where there is none; sums of one weight over several such sets round it once.
    small: no number is beyond ±_SMALL, so that one integer has room for 134 million of them; the bytes are the same.
    """

    def total(part: Column) -> Column:
        return f.sum(part if where is None else f.when(where, part)).cast("double")

    # Spark's round goes through decimals and would cost more than all else here.
    if small:
        return total(f.rint(weight * f.lit(parts)).cast("long")) / f.lit(parts)
    scaled = weight * f.lit(parts / _LOW)
    high = f.floor(scaled)
    low = f.rint((scaled - high) * f.lit(_LOW)).cast("long")
    return (total(high) * f.lit(_LOW) + total(low)) / f.lit(parts)


def interactions(
    events: DataFrame, features: Features, as_of: dt.datetime | None, learnt: Column | None = None
) -> DataFrame:
    """Return one row a pair: user_id, item_id, weight, events, type_bits, hidden, recent, adopted, first and last_time.

    weight is features.transform of the weights of the pair's valid events; type_bits are the types of them, for
    `with_event_types` to name. hidden: an event hides the item from the user, or those against it
    outweigh the others (unless `negative: keep`); its weight is 0. recent is the sum of 2^(−age /
    popularity_half_life) of the events that speak for the item, or of 1 where the log has no time. adopted: there are
    such events, the item is not hidden, and the user is one to learn from (`learnt`, as `splits.learnt_from` gives it;
    without it everyone is); a pair that is old enough to weigh nothing is adopted still.
    """
    total = _total(features, as_of)
    hidden = _hidden(features, total)
    recent = _recent(features, as_of, features.popularity_half_life)
    return events.groupBy("user_id", "item_id").agg(
        f.when(hidden, 0.0).otherwise(transformed(features.transform, total, f.count(f.lit(1)))).alias("weight"),
        f.count(f.lit(1)).alias("events"),
        _type_bits(features).alias("type_bits"),
        hidden.alias("hidden"),
        recent.alias("recent"),
        _adopted(features, hidden, learnt).alias("adopted"),
        f.min("time").alias("first_time"),
        f.max("time").alias("last_time"),
    )


def _total(features: Features, as_of: dt.datetime | None) -> Column:
    """Return the sum of the weights of a pair's events."""
    heaviest = max((abs(weight) for weight in (features.events or {}).values()), default=1.0)
    capped = features.value_cap or sys.float_info.max
    largest = {"multiply": capped, "log1p": math.log1p(capped)}
    small = heaviest * largest.get(features.value, 1.0) <= _SMALL
    return exact_sum(event_weight(features, as_of), small=small)


def _hidden(features: Features, total: Column) -> Column:
    """Return whether a pair's events hide the item from the user; total is the sum of their weights."""
    outweighed = f.max(is_negative(features)) & (total <= 0) if features.negative == "hide" else f.lit(False)
    hides = f.max(f.coalesce(f.col("event").isin(*features.hides), f.lit(False))) if features.hides else f.lit(False)
    return outweighed | hides


def _adopted(features: Features, hidden: Column, learnt: Column | None) -> Column:
    """Return whether a pair's events make the item popular; hidden: do they hide it from the user?"""
    speaks = f.max(_speaks_for(features)) & ~hidden
    return speaks if learnt is None else speaks & learnt


def transformed(transform: str, total: Column, events: Column) -> Column:
    """Return a pair's weight from the sum of its events' weights and their number."""
    return {"sum": total, "mean": total / events, "log1p": f.log1p(total),
            "binary": f.when(total > 0, 1.0).otherwise(0.0)}[transform]  # fmt: skip


def pair_totals(
    events: DataFrame, features: Features, as_of: dt.datetime | None, half_lives: Sequence[dt.timedelta | None]
) -> DataFrame:
    """Return (user_id, item_id, events, event_types, hidden, total_0, …): sums of weights with each half-life."""
    totals = [_total(features.model_copy(update={"half_life": life}), as_of) for life in half_lives]
    if features.negative == "hide":
        # With another half-life what speaks against an item may outweigh the rest: then nothing is left of the pair.
        totals = [f.greatest(total, f.lit(0.0)) for total in totals]
    pairs = events.groupBy("user_id", "item_id").agg(
        f.count(f.lit(1)).alias("events"),
        _type_bits(features).alias("type_bits"),
        _hidden(features, totals[0]).alias("hidden"),
        *(total.alias(f"total_{place}") for place, total in enumerate(totals)),
    )
    return with_event_types(pairs, features)


def _timeless_weight(features: Features) -> Column:
    """Return an event's weight by its type and value, whatever its age."""
    return _type_weight(features) * _value_weight(features)


def _type_weight(features: Features) -> Column:
    weights = {**(features.events or {}), **dict.fromkeys(features.hides, 0.0)}
    if not weights:
        return f.lit(1.0)
    pairs = [literal for name, weight in weights.items() for literal in (f.lit(name), f.lit(float(weight)))]
    known = f.element_at(f.create_map(*pairs), f.col("event"))
    return known if features.events is not None else f.coalesce(known, f.lit(1.0))


def _value_weight(features: Features) -> Column:
    value = f.col("value")
    if features.value_cap is not None:
        value = f.greatest(f.least(value, f.lit(features.value_cap)), f.lit(-features.value_cap))
    if features.value == "multiply":
        return value
    if features.value == "log1p":
        return f.signum(value) * f.log1p(f.abs(value))
    if features.value == "threshold":
        return f.when(f.abs(value) >= f.lit(features.value_threshold), f.signum(value)).otherwise(0.0)
    return f.when(value < 0, -1.0).otherwise(1.0)


def with_event_types(pairs: DataFrame, features: Features) -> DataFrame:
    """Return pairs with event_types, the names of their types, sorted, in the place of type_bits.

    It is null where features.events names no types.
    """
    if features.events is None:
        names = f.lit(None).cast("array<string>")
    else:
        seen, none = f.col("type_bits"), f.array().cast("array<string>")
        # Spark interprets array_compact a row at a time, where it compiles this.
        each = (
            f.when(seen.bitwiseAND(bit) > 0, f.array(f.lit(n))).otherwise(none) for n, bit in _bits(features).items()
        )
        names = f.concat(*each)
    return pairs.withColumn("event_types", names).drop("type_bits")


def _type_bits(features: Features) -> Column:
    """Return the distinct types of a group's events as bits of one number, null where features.events names none."""
    if features.events is None:
        return f.lit(None).cast("bigint")
    pairs = [f.lit(part) for named in _bits(features).items() for part in named]
    return f.bit_or(f.element_at(f.create_map(*pairs), f.col("event")))


def _bits(features: Features) -> dict[str, int]:
    """Return the bit of each type that the configuration names, in the order of their names."""
    return {name: 1 << place for place, name in enumerate(sorted({*(features.events or ()), *features.hides}))}


def wanted(future: DataFrame, past: DataFrame, features: Features, evaluation: Evaluation) -> DataFrame:
    """Return the distinct (user_id, item_id) of future events that lists are to find.

    Those of evaluation.events, none against the item or of a value that weighs nothing, and, where
    evaluation.new_items_only, none of a pair in past.
    """
    if evaluation.events is not None:
        future = future.where(f.col("event").isin(*evaluation.events))
    weighs = f.col("value").isNull() | (_value_weight(features) > 0) | f.lit(features.negative == "keep")
    pairs = future.where(~is_negative(features) & weighs).select("user_id", "item_id").distinct()
    if evaluation.new_items_only:
        pairs = pairs.join(past.select("user_id", "item_id"), ["user_id", "item_id"], "left_anti")
    return pairs


def popularities(
    events: DataFrame,
    features: Features,
    as_of: dt.datetime | None,
    half_lives: Sequence[dt.timedelta],
    learnt: Column | None = None,
) -> DataFrame:
    """Return what `item_features` has with one half-life, with several: popularity_decayed_0, adoptions_decayed_0, …"""
    lives = {f"_{place}": life for place, life in enumerate(half_lives)}
    hidden = _hidden(features, _total(features, as_of))
    pairs = events.groupBy("user_id", "item_id").agg(
        *(_recent(features, as_of, life).alias(f"recent{ending}") for ending, life in lives.items()),
        _adopted(features, hidden, learnt).alias("adopted"),
        f.count(f.lit(1)).alias("events"),
        f.min("time").alias("first_time"),
        f.max("time").alias("last_time"),
    )
    return _by_item(pairs, as_of, lives)


def item_features(pairs: DataFrame, as_of: dt.datetime | None, half_life: dt.timedelta) -> DataFrame:
    """Return what is known of each item, from `interactions`: its events, users and popularity.

    popularity counts the users who have adopted it. popularity_decayed sums their `recent`: all events that speak for
    it by their age. adoptions_decayed counts them by the age of their first event: who has an item already and uses it
    again says little about who will take it up. user_days sums the days since the first event of each of its users,
    null where the log has no time.
    """
    return _by_item(pairs, as_of, {"": half_life})


def _by_item(pairs: DataFrame, as_of: dt.datetime | None, half_lives: Mapping[str, dt.timedelta]) -> DataFrame:
    """Count pairs by item; half_lives by how the names of their columns end: recent of pairs, two sums of items."""
    sums = []
    for ending, life in half_lives.items():
        for name, weight in (
            ("popularity_decayed", f.col(f"recent{ending}")),
            ("adoptions_decayed", _decayed(as_of, life, "first_time")),
        ):
            sums.append(exact_sum(f.when(f.col("adopted"), weight).otherwise(0.0)).alias(f"{name}{ending}"))
    return pairs.groupBy("item_id").agg(
        f.sum("events").alias("events"),
        f.count(f.lit(1)).alias("users"),
        _user_days(as_of).alias("user_days"),
        f.count_if("adopted").cast("double").alias("popularity"),
        *sums,
        f.min("first_time").alias("first_time"),
        f.max("last_time").alias("last_time"),
    )


def _user_days(as_of: dt.datetime | None) -> Column:
    """Return the days from first_time to as_of, summed in whole seconds; null where the log has no time."""
    if as_of is None:
        return f.lit(None).cast("double")
    seconds = f.lit(int(as_of.timestamp())) - f.unix_seconds(f.col("first_time"))
    return f.sum(seconds).cast("double") / f.lit(86400.0)


def _recent(features: Features, as_of: dt.datetime | None, half_life: dt.timedelta) -> Column:
    """Return the sum over a pair's events that speak for the item of their weights by age."""
    return exact_sum(f.when(_speaks_for(features), _decayed(as_of, half_life, "time")).otherwise(0.0), small=True)


def _decayed(as_of: dt.datetime | None, half_life: dt.timedelta, time: str) -> Column:
    """Return the weight of a row by the age of its time, 1 where the log has none."""
    return f.lit(1.0) if as_of is None else decay(as_of, half_life, time)
