"""What is known as of a moment: silver.interactions, silver.items, silver.users, gold.*_features, gold.profile."""

import datetime as dt
import hashlib
from collections.abc import Mapping

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark import files
from recsys_spark.config import Files
from recsys_spark.errors import DataError
from recsys_spark.runs import Run
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages.events import past_and_future, read_files
from recsys_spark.tables import Commit
from recsys_spark.transforms import attributes, features, profile, splits
from recsys_spark.transforms import interactions as transforms
from recsys_spark.transforms.features import Moment

# What of `features` weighs pairs and says what is popular: a model ranks by the weights that it learned from.
WEIGHTS = ("events", "hides", "value", "value_cap", "value_threshold", "negative", "half_life", "transform",
           "popularity_half_life")  # fmt: skip
# Which columns pairs have: a commit's note says it, so that a slice that an earlier version built is known by it.
PAIRS = SCHEMAS["silver.interactions"].names


def as_timestamp(moment: dt.datetime | None) -> Column:
    """Return a moment as a literal column."""
    return f.lit(moment).cast("timestamp")


def interactions_commit(run: Run) -> Commit:
    """Return the commit that wrote silver.interactions of the run's as_of; raise DataError where none did."""
    commit = run.tables.find("silver.interactions", {"as_of": run.as_of})
    if commit is None:
        raise DataError(
            f"silver.interactions has no slice as of {run.as_of}; run build_features with this --as-of first"
        )
    if commit.note["from"].get("columns") != PAIRS:
        raise DataError(
            f"silver.interactions as of {run.as_of}: an earlier version of this program built it, with other columns; "
            "run build_features again"
        )
    return commit


def weights_of(run: Run) -> dict[str, object]:
    """Return WEIGHTS of the run's configuration, as a commit's note has them."""
    return run.config.features.model_dump(mode="json", include=set(WEIGHTS))


def weighed(run: Run, built: Commit) -> tuple[DataFrame, DataFrame | None]:
    """Return the pairs of silver.interactions by the weights of the run's configuration, and what is popular by them.

    built: the commit that wrote them. If it was with other weights, as it may be where a champion is older than the
    configuration, pairs come anew from the same events, and with them (item_id and three popularities); else None.
    Pairs that come anew are persisted: unpersist them.
    """
    known = built.note["from"]["config"]["features"]
    if all(known.get(name) == value for name, value in weights_of(run).items()):
        return run.tables.read_slice("silver.interactions", {"as_of": run.as_of}, built.version), None
    settings = run.config.features
    past, _ = past_and_future(run, built.note["from"]["bronze.events"])
    pairs = transforms.interactions(past, settings, run.as_of, splits.learnt_from(run.config.holdout))
    pairs = transforms.with_event_types(pairs, settings).persist(StorageLevel.MEMORY_AND_DISK)
    counted = transforms.item_features(pairs, run.as_of, settings.popularity_half_life)
    popular = counted.select("item_id", "popularity", "popularity_decayed", "adoptions_decayed")
    return pairs, popular


def names_of(run: Run, items: set[str]) -> dict[str, str]:
    """Return how people call items: by name where silver.items has one, else by id."""
    found = {item: item for item in items}
    if run.tables.exists("silver.items"):
        known = run.tables.read("silver.items").where(f.col("item_id").isin(sorted(items)))
        rows = attributes.items_at(known, None).where(f.col("name").isNotNull()).select("item_id", "name").collect()
        found |= {row["item_id"]: row["name"] for row in rows}
    return found


def delivered(run: Run, given: Mapping[str, Files | None]) -> dict[str, str]:
    """Return a digest of the names and times of given files, as they are now, by what they are given for."""
    found = {}
    for what, source in given.items():
        if source is not None:
            listed = files.list_files(run.spark, source, source.path)
            found[what] = hashlib.sha256(repr(sorted(listed.items())).encode()).hexdigest()
    return found


def write_attributes(run: Run) -> None:
    """Write silver.items and silver.users as their files are now."""
    config = run.config
    if config.items is not None:
        known = attributes.items(read_files(run, config.items), config.items)
        run.outputs["silver.items"] = run.tables.write_slice("silver.items", known, {}).version
    if config.users is not None:
        known = attributes.users(read_files(run, config.users), config.users)
        run.outputs["silver.users"] = run.tables.write_slice("silver.users", known, {}).version


def moment_of(run: Run, past: DataFrame) -> Moment:
    """Return when and how the run looks at features of its past events."""
    settings, measures = run.config.features, tuple(run.config.source.measures)
    with_levels = bool(measures) and "levels" in (*settings.of_users, *settings.of_items)
    return Moment(
        run.as_of,
        settings.windows if run.as_of is not None else (),
        settings.trend_window,
        run.config.source.timezone,
        measures,
        features.mean_measures(past, measures) if with_levels else {},
    )


def interactions(run: Run, marked: DataFrame) -> DataFrame:
    """Return silver.interactions of the run's as_of, of its pairs marked by `with_core`."""
    named = transforms.with_event_types(marked.drop("recent"), run.config.features)
    return named.withColumn("as_of", as_timestamp(run.as_of))


def user_features(run: Run, past: DataFrame, pairs: DataFrame, moment: Moment) -> DataFrame:
    """Return gold.user_features of the run's as_of, of its past events and their pairs."""
    settings = run.config.features
    known = features.user_features(pairs, past, settings.of_users, moment)
    if "categories" in settings.of_users:
        shares = features.categories(pairs, _category_of(run), settings.most_categories)
        known = known.join(shares, "user_id", "left")
    if "friends" in settings.of_users and run.config.friends is not None:
        graph = attributes.friends(read_files(run, run.config.friends), run.config.friends)
        known = known.join(features.friends(graph, pairs, settings.most_friends_items), "user_id", "left")
        known = known.withColumn("friends", f.coalesce("friends", f.lit(0).cast("long")))
    return features.conformed(known.withColumn("as_of", as_timestamp(run.as_of)), "gold.user_features")


def item_features(run: Run, past: DataFrame, counted: DataFrame, moment: Moment) -> DataFrame:
    """Return gold.item_features of the run's as_of, of its past events and what `interactions.item_features` counts."""
    settings = run.config.features
    known = features.item_features(counted, past, settings.of_items, moment)
    if "category" in settings.of_items:
        known = known.join(features.category_shares(counted, _category_of(run)), "item_id", "left")
    return features.conformed(known.withColumn("as_of", as_timestamp(run.as_of)), "gold.item_features")


def data_profile(run: Run, past: DataFrame, marked: DataFrame, counted: DataFrame) -> DataFrame:
    """Return gold.profile of the run's as_of, of its past events, their pairs and items, and the users written."""
    users = run.tables.read_slice("gold.user_features", {"as_of": run.as_of}, run.outputs["gold.user_features"])
    counts = run.counts
    lines = profile.profile(marked, users, counted, past.select("time"), counts["rows"], counts["refused"])
    return profile.as_frame(run.spark, lines).withColumn("as_of", as_timestamp(run.as_of))


def _category_of(run: Run) -> DataFrame:
    return attributes.items_at(run.tables.read("silver.items"), run.as_of).select("item_id", "category")
