"""What is known of items and users beside events: one row an item or user, whatever the order of the rows."""

import datetime as dt

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as f

from recsys_spark.config import Friends, Items, Users
from recsys_spark.transforms.events import column, text


def items(raw: DataFrame, config: Items) -> DataFrame:
    """Return (item_id, name, category, valid_from, valid_to, attributes, rows) of raw rows, each once.

    raw is as `sources.read_raw` gives it; rows counts how often a row stood there. Rows without an item are left out.
    """
    columns = config.columns
    named = {"name": columns.name, "category": columns.category}
    known = [literal for name in config.attributes for literal in (f.lit(name), column(name))]
    return (
        raw.select(
            text(columns.item).alias("item_id"),
            *(_text_or_null(source).alias(name) for name, source in named.items()),
            *(_time(getattr(columns, name)).alias(name) for name in ("valid_from", "valid_to")),
            (f.create_map(*known) if known else f.lit(None)).cast("map<string,string>").alias("attributes"),
            f.struct(*map(column, config.attributes)).alias("_key") if known else f.lit(None).alias("_key"),
        )
        .where(f.col("item_id") != "")
        .groupBy("item_id", "name", "category", "valid_from", "valid_to", "_key")
        .agg(f.any_value("attributes").alias("attributes"), f.count(f.lit(1)).alias("rows"))
        .drop("_key")
    )


def items_at(items: DataFrame, as_of: dt.datetime | None) -> DataFrame:
    """Return one row an item of `items`: of those valid at as_of the last valid, then the most frequent.

    An item of which no row is valid then is left out; without as_of all rows are valid.
    """
    return states_at(items, as_of).where("valid").drop("valid")


def states_at(items: DataFrame, as_of: dt.datetime | None) -> DataFrame:
    """Return one row an item of `items`, and whether it is valid at as_of: that of `items_at`, else the last one."""
    now = f.lit(as_of)
    begun = f.coalesce(f.col("valid_from") <= now, f.lit(True))
    valid = begun & f.coalesce(f.col("valid_to") > now, f.lit(True)) if as_of is not None else f.lit(True)
    described = f.to_json(f.struct("name", "category", f.map_entries("attributes").alias("attributes")))
    order = f.desc("valid"), f.desc_nulls_last("valid_from"), f.desc("rows"), described
    place = f.row_number().over(Window.partitionBy("item_id").orderBy(*order))
    return items.withColumn("valid", valid).withColumn("_place", place).where(f.col("_place") == 1).drop("_place")


def users(raw: DataFrame, config: Users) -> DataFrame:
    """Return (user_id, segment) of raw rows, as `items` of them: each user's most frequent segment, ties by name."""
    counted = (
        raw.select(text(config.columns.user).alias("user_id"), _text_or_null(config.columns.segment).alias("segment"))
        .where((f.col("user_id") != "") & f.col("segment").isNotNull())
        .groupBy("user_id", "segment")
        .agg(f.count(f.lit(1)).alias("rows"))
    )
    best = f.min(f.struct(-f.col("rows"), "segment")).getField("segment")
    return counted.groupBy("user_id").agg(best.alias("segment"))


def friends(raw: DataFrame, config: Friends) -> DataFrame:
    """Return the distinct (user_id, friend_id) of raw rows, without people who are their own friends."""
    graph = raw.select(text(config.columns.user).alias("user_id"), text(config.columns.friend).alias("friend_id"))
    if config.both_ways:
        graph = graph.unionByName(
            graph.select(f.col("friend_id").alias("user_id"), f.col("user_id").alias("friend_id"))
        )
    named = (f.col("user_id") != "") & (f.col("friend_id") != "")
    return graph.where(named & (f.col("user_id") != f.col("friend_id"))).distinct()


def _text_or_null(name: str | None) -> Column:
    return f.lit(None).cast("string") if name is None else f.nullif(text(name), f.lit(""))


def _time(name: str | None) -> Column:
    return (f.lit(None) if name is None else text(name)).try_cast("timestamp")
