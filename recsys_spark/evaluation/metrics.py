"""Accuracy of ranked lists: for every user first, then the means.

All of it is Spark's own expressions, so that the number of users is bounded by the cluster alone. No result
depends on how rows are partitioned: a user's numbers are summed in rank order, means in exact integers.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from recsys_spark.evaluation import exact
from recsys_spark.schemas import ITEM_ID, USER_ID

MODEL = "model"
RECALL_DENOMINATORS = ("min_k_relevant", "relevant")


def per_user(
    lists: DataFrame,
    relevant: DataFrame,
    ks: Sequence[int],
    recall_divides_by: str = "min_k_relevant",
    n_items: int | None = None,
) -> DataFrame:
    """Return the ranking metrics of every user who wanted something.

    lists:    user_id string, items array<struct<item_id string, score float>> in rank order; at most one row
              a user, or, where there is a column model, a user and model.
    relevant: user_id string, item_id string: the wanted pairs, each once, of each model if lists have any; and, where
              some are not in the catalogue, known boolean: whether it is.
    n_items:  size of the catalogue that the lists were drawn from; without it there is no auc.
    Returns   model if lists have it, user_id, relevant int (the user's number of wanted items), metrics map<string,
              double> with `name@k` for each of the names below and each of ks.

    A hit is a position, counted from 1, whose item is wanted; an item that stands twice in a list is a hit at
    its first position only. With h the number of hits at positions up to k, r the number of wanted items, and
    m = min(k, r):

    - recall@k = h / r where recall_divides_by is "relevant": Manning, Raghavan and Schütze, "Introduction to
      Information Retrieval", 2008, sections 8.3 and 8.4; else h / m, which a perfect list brings to 1: Liang, Krishnan,
      Hoffman and Jebara, "Variational Autoencoders for Collaborative Filtering", WWW 2018
    - precision@k = h / k, also where the list is shorter than k: Manning, Raghavan and Schütze, section 8.4
    - ndcg@k = Σ_hits 1/log2(1 + position) / Σ_{position = 1..m} 1/log2(1 + position): binary gains,
      Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, with the discount of
      Burges et al., "Learning to Rank using Gradient Descent", ICML 2005
    - map@k = Σ_hits (hits up to this position / position) / m: average precision, Manning, Raghavan and
      Schütze, section 8.4, cut at k; theirs divides by r
    - mrr@k = 1 / position of the first hit, or 0 without one: Voorhees, "The TREC-8 Question Answering Track
      Report", 1999, cut at k
    - hit_rate@k = 1 with a hit, else 0: Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004
    - auc@k = the share of pairs of a wanted item and another of the catalogue that are in the right order, where all
      that stands beyond the list's first k is taken to be in random order: limited area under the curve, Schröder,
      Thiele and Lehner, "Setting Goals and Choosing Metrics for Recommender System Evaluations", UCERSTI 2011. With
      o = max(items of the catalogue that are not wanted, misses up to k) others, it is
      (Σ_hits (o − misses above) + (r − h)·(o − misses up to k)/2) / (r·o), and ½ where o = 0. Were the lists as long
      as the catalogue, it would be the area under the ROC curve itself (Hanley and McNeil, Radiology 1982). Items that
      the user cannot be shown count among the others; wanted items that are not in the catalogue are tied behind it.

    Every user of `relevant` is in the result: one without a list, or with an empty one, has 0 everywhere, and an auc
    of ½. Users who only have a list are not. Raises ValueError where ks is empty or has one below 1, or where
    recall_divides_by is unknown.
    """
    ks = checked(ks)
    if recall_divides_by not in RECALL_DENOMINATORS:
        known = ", ".join(RECALL_DENOMINATORS)
        raise ValueError(f"recall_divides_by: {recall_divides_by!r} is not one of {known}")
    discounts = _discounts(ks[-1])
    tables = f.lit(np.array(discounts)), f.lit(np.array(list(accumulate(discounts))))
    metrics = [
        part
        for k in ks
        for name, value in _metrics(k, *tables, recall_divides_by, n_items).items()
        for part in (f.lit(f"{name}@{k}"), value)
    ]
    hits = (f.filter("positions", _at_most(k)).alias(f"hits_{k}") for k in ks)
    keys = keys_of(lists)
    return (
        _positions(lists, relevant, depth=ks[-1])
        .select(*keys, "relevant", "known", "listed", *hits)
        .select(*keys, "relevant", f.create_map(*metrics).alias("metrics"))
    )


def means(per_user: DataFrame) -> dict[str, dict[str, float]]:
    """Return each model's mean of each metric over the users who have it: {model: {metric: mean}}.

    per_user: model string, metrics map<string, double>, one row a model and user. The sums are exact, so the same
    rows give the same bytes in whatever order and partitions they come.
    """
    # Explode is the outer one: for the inner, Spark infers a filter that computes the whole map once more.
    sums = (
        per_user.select("model", f.explode_outer("metrics").alias("metric", "value"))
        .where(f.col("metric").isNotNull())
        .groupBy("model", "metric")
        .agg(f.count("*").alias("users"), *exact.summed(f.col("value")))
    )
    found: dict[str, dict[str, float]] = {}
    for row in sorted(sums.collect(), key=lambda row: (row.model, row.metric)):
        found.setdefault(row.model, {})[row.metric] = float(exact.total(row.asDict()) / row.users)
    return found


def checked(ks: Sequence[int]) -> list[int]:
    """Return the list lengths ascending, each once.

    >>> checked((20, 10, 20))
    [10, 20]
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"ks: {list(ks)} is not one or more list lengths ≥ 1")
    return sorted(set(ks))


def _discounts(depth: int) -> list[float]:
    """Return 1/log2(1 + position) of the positions 1 to depth.

    >>> _discounts(3)[::2]
    [1.0, 0.5]
    """
    return [1 / math.log2(1 + position) for position in range(1, depth + 1)]


def keys_of(lists: DataFrame) -> list[str]:
    """Return the columns that say whose a list is: the user, and the model where it is that of several."""
    return [name for name in (MODEL, USER_ID) if name in lists.columns]


def first_items(depth: int) -> Column:
    """Return the ids of a list's first items: array<string> of at most depth."""
    return f.slice(f.col("items").getField(ITEM_ID), 1, depth)


def _positions(lists: DataFrame, relevant: DataFrame, depth: int) -> DataFrame:
    """Return keys, relevant int, listed int, positions array<int>: where wanted items stand within depth, ascending.

    listed: how many items of the list are within depth; known: how many wanted items are in the catalogue.

    Each wanted item is looked up in its user's list while the two are joined: the list is never exploded, and
    only positions are grouped. Both sides are shuffled once, by user.
    """
    keys = keys_of(lists)
    listed = lists.select(*keys, first_items(depth).alias("listed"))
    position = f.array_position("listed", f.col(ITEM_ID)).cast("int")
    found = f.when(f.col("position") > 0, f.col("position"))
    known = f.col("known") if "known" in relevant.columns else f.lit(True)
    return (
        relevant.select(*keys, ITEM_ID, known.alias("known"))
        .join(listed, on=keys, how="left")
        .select(*keys, "known", position.alias("position"), f.size("listed").alias("size"))
        .groupBy(*keys)
        .agg(
            f.count("*").cast("int").alias("relevant"),
            f.count_if("known").alias("known"),
            f.greatest(f.max("size"), f.lit(0)).alias("listed"),
            f.sort_array(f.collect_list(found)).alias("positions"),
        )
    )


def _metrics(
    k: int, discounts: Column, ideal: Column, recall_divides_by: str, n_items: int | None
) -> dict[str, Column]:
    """Return the metrics at k by name, of columns relevant, known, listed and hits_k: positions of hits, ascending.

    discounts, ideal: array<double> by position, of 1/log2(1 + position) and of its sums up to the position.
    """
    hits = f.col(f"hits_{k}")
    n_hits = f.size(hits)
    attainable = f.least(f.lit(k), f.col("relevant"))
    gains = f.transform(hits, lambda position: f.element_at(discounts, position))
    precisions = f.transform(hits, lambda position, before: (before + 1) / position)
    found = {
        "recall": n_hits / (attainable if recall_divides_by == "min_k_relevant" else f.col("relevant")),
        "precision": n_hits / f.lit(k),
        "ndcg": _sum(gains) / f.element_at(ideal, attainable),
        "map": _sum(precisions) / attainable,
        "mrr": f.coalesce(f.lit(1) / f.get(hits, f.lit(0)), f.lit(0.0)),
        "hit_rate": (n_hits > 0).cast("double"),
    }
    return found if n_items is None else found | {"auc": _auc(k, hits, n_items)}


def _auc(k: int, hits: Column, n_items: int) -> Column:
    """The share of pairs in the right order, the rest of the catalogue behind the list in random order."""
    relevant = f.col("relevant").cast("bigint")
    n_hits = f.size(hits)
    misses = f.least(f.lit(k), f.col("listed")) - n_hits
    others = f.greatest(f.lit(n_items) - f.col("known"), misses.cast("bigint"))
    below = f.transform(hits, lambda position, before: others - (position - 1 - before))
    twice = 2 * f.aggregate(below, f.lit(0).cast("bigint"), lambda total, n: total + n)
    twice = twice + (relevant - n_hits) * (others - misses)
    return f.when(others > 0, twice / (2 * relevant * others)).otherwise(0.5)


def _sum(values: Column) -> Column:
    """Sum of an array<double>, in its order."""
    return f.aggregate(values, f.lit(0.0), lambda total, value: total + value)


def _at_most(k: int) -> Callable[[Column], Column]:
    return lambda position: position <= k
