"""What lists make of the catalogue: how much of it they show, and how unequally."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from recsys_spark.evaluation.metrics import checked, first_items
from recsys_spark.schemas import ITEM_ID


def exposure(counts: pa.Table, n_items: int, ks: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return each model's `coverage@k` and `gini@k`.

    counts:  of `item_counts`.
    n_items: size of the catalogue that the lists were drawn from.

    - coverage@k: the share of the catalogue that stands in some list's first k: Ge, Delgado-Battenfeld and Jannach,
      "Beyond accuracy: evaluating recommender systems by coverage and serendipity", RecSys 2010
    - gini@k: the Gini coefficient of how often each item of the catalogue stands there, never included; 0 where all
      are shown alike, towards 1 where one is shown to all: Fleder and Hosanagar, "Blockbuster Culture's Next Rise or
      Fall", Management Science 2009. A model that lists nothing has none.

    Raises ValueError where n_items is below 1, or ks is empty or has one below 1.
    """
    ks = checked(ks)
    if n_items < 1:
        raise ValueError(f"n_items: {n_items} is not ≥ 1; coverage is a share of the catalogue")
    names = counts.column("model")
    found: dict[str, dict[str, float]] = {}
    for model in sorted(names.unique().to_pylist()):
        own = counts.filter(pc.equal(names, model))
        values: dict[str, float] = {}
        for k in ks:
            shown = own.column(f"shown@{k}").to_numpy()
            values[f"coverage@{k}"] = np.count_nonzero(shown) / n_items
            if shown.any():
                values[f"gini@{k}"] = gini(shown, n_items)
        found[model] = values
    return found


def item_counts(lists: DataFrame, ks: Sequence[int]) -> pa.Table:
    """Return model, item_id and, for each of ks, `shown@k`: in how many lists an item stands among the first k.

    lists: model string, items array<struct<item_id string, …>> in rank order. Only these counts come to the driver. A
    model whose lists are all empty has one row, of no item. Raises ValueError where ks is empty or has one below 1.
    """
    ks = checked(ks)
    counted = (f.count_if(f.col("offset") < k).alias(f"shown@{k}") for k in ks)
    return (
        lists.select("model", f.posexplode_outer(first_items(max(ks))).alias("offset", ITEM_ID))
        .groupBy("model", ITEM_ID)
        .agg(*counted)
        .toArrow()
    )


def gini(counts: NDArray[np.int64], n: int) -> float:
    """Return the Gini coefficient of n counts, of which those not given are 0: Σ (2i − n − 1) c_i / (n Σ c), c sorted.

    Exact in integers, so that the order of the counts does not matter.

    >>> gini(np.array([1, 1, 1]), 3), gini(np.array([6]), 4)
    (0.0, 0.75)
    """
    ordered = np.sort(counts[counts > 0]).astype(np.int64)
    n = max(n, len(ordered))
    places = np.arange(n - len(ordered) + 1, n + 1)
    return int(((2 * places - n - 1) * ordered).sum()) / (n * int(ordered.sum()))
