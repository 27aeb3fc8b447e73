"""Ratings without their mean and biases: what is left for factors to explain."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.transforms.interactions import exact_sum


def mean_rating(ratings: DataFrame) -> float:
    """Return the mean `weight` of (user_id, item_id, weight), the same whatever the order of rows."""
    row = ratings.agg((exact_sum(f.col("weight")) / f.count(f.lit(1))).alias("mean")).first()
    assert row is not None
    return float(row["mean"])


def item_biases(ratings: DataFrame, mean: float, damping: float) -> DataFrame:
    """Return (item_id, bias): Σ (r − mean) / (n_i + κ)."""
    return ratings.groupBy("item_id").agg(_bias(f.col("weight") - f.lit(mean), damping))


def without_baseline(ratings: DataFrame, mean: float, biases: DataFrame | None, damping: float) -> DataFrame:
    """Return (user_id, item_id, weight) with the mean, and the biases where there are such, taken off the weight.

    A user's bias is Σ (r − mean − b_i) / (n_u + κ).
    """
    left = ratings.withColumn("weight", f.col("weight") - f.lit(mean))
    if biases is not None:
        left = left.join(biases, "item_id").withColumn("weight", f.col("weight") - f.col("bias")).drop("bias")
        users = left.groupBy("user_id").agg(_bias(f.col("weight"), damping))
        left = left.join(users, "user_id").withColumn("weight", f.col("weight") - f.col("bias"))
    return left.select("user_id", "item_id", "weight")


def _bias(left: Column, damping: float) -> Column:
    return (exact_sum(left) / (f.count(f.lit(1)) + f.lit(damping))).alias("bias")
