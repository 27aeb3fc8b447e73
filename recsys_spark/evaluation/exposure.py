"""What lists make of the catalogue: how much of it they show, how unequally, and how popular that is."""

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.evaluation.metrics import checked, first_items
from recsys_spark.schemas import ITEM_ID

METRICS = ("coverage", "gini", "popularity_lift")

# Of rows as `item_counts` returns them, those of items that are listed alike together: `upto` is the place of the last
# of them. Integers are summed, so that the same rows give the same bytes in any order.
QUERY = """SELECT model, k,
       sum(IF(lists > 0, n, 0)) / sum(n)                                              AS coverage,
       sum((2 * upto - n - items) * n * lists) / (sum(n) * nullif(sum(n * lists), 0)) AS gini,
       sum(lists * users) / nullif(sum(n * lists), 0) / (sum(users) / sum(n))         AS popularity_lift
FROM  (SELECT model, k, lists, count(*) AS n, sum(users) AS users,
              sum(count(*)) OVER (PARTITION BY model, k ORDER BY lists)               AS upto,
              sum(count(*)) OVER (PARTITION BY model, k)                              AS items
       FROM   {counts}
       LATERAL VIEW explode(shown) AS k, lists
       GROUP BY model, k, lists)
GROUP BY model, k
ORDER BY model, k"""


def exposure(counts: DataFrame) -> dict[str, dict[str, float]]:
    """Return each model's `coverage@k`, `gini@k` and `popularity_lift@k`, of what `item_counts` returns.

    With lists_i the number of lists in whose first k an item i of the n of the catalogue stands, and users_i that of
    the users who had it:

    - coverage@k: the share of the catalogue that stands in some list: Ge, Delgado-Battenfeld and Jannach, "Beyond
      accuracy: evaluating recommender systems by coverage and serendipity", RecSys 2010
    - gini@k = Σ (2i − n − 1)·lists_i / (n·Σ lists_i), items in the order of lists_i: the Gini coefficient, 0 where all
      are shown alike, towards 1 where one is shown to all: Fleder and Hosanagar, "Blockbuster Culture's Next Rise or
      Fall", Management Science 2009
    - popularity_lift@k = Σ lists_i·users_i / Σ lists_i, over the mean of users_i: how many times as popular as a mean
      item what is shown is, 1 for items by chance: Jannach, Lerche, Kamehkhosh and Jugovac, "What Recommenders
      Recommend", User Modeling and User-Adapted Interaction 2015

    A model that lists nothing has no gini and no lift.
    """
    found: dict[str, dict[str, float]] = {}
    for row in counts.sparkSession.sql(QUERY, counts=counts).collect():
        values = found.setdefault(row["model"], {})
        values |= {f"{name}@{row['k']}": row[name] for name in METRICS if row[name] is not None}
    return found


def item_counts(lists: DataFrame, catalogue: DataFrame, ks: Sequence[int]) -> DataFrame:
    """Return model, item_id, users and shown map<int, bigint>: by k, in how many lists' first k an item stands.

    lists: model string, items array<struct<item_id string, …>> in rank order; catalogue: item_id, users bigint, of
    the items that lists are drawn from. Every model has a row of each of these, and of what else it lists, which
    nobody had. Raises ValueError where ks is empty or has one below 1.
    """
    ks = checked(ks)
    shown = [part for k in ks for part in (f.lit(k), f.count_if(f.col("offset") < k))]
    none = [part for k in ks for part in (f.lit(k), f.lit(0).cast("bigint"))]
    counted = (
        lists.select("model", f.posexplode(first_items(max(ks))).alias("offset", ITEM_ID))
        .groupBy("model", ITEM_ID)
        .agg(f.create_map(*shown).alias("shown"))
    )
    every = lists.select("model").distinct().crossJoin(catalogue.select(ITEM_ID, "users"))
    return every.join(counted, ["model", ITEM_ID], "full").select(
        "model",
        ITEM_ID,
        f.coalesce("users", f.lit(0).cast("bigint")).alias("users"),
        f.coalesce("shown", f.create_map(*none)).alias("shown"),
    )
