"""A report with everything in it, for the tests of the page."""

import numpy as np

from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.report.content import (
    Customer,
    Listed,
    Moment,
    Query,
    Reason,
    Report,
    Verdict,
    popularity_shares,
    profile_of,
)
from recsys_spark.evaluation.resampling import ALL

HOSTILE = "<script>alert('x')</script> & \"Söhne\""
KS = (5, 10, 20)
SEGMENTS = ("new users", "history of 1 to 4 items", "history of 5 to 19 items", "segment Portugal", "other segments")


def example(promoted: bool = True) -> Report:
    rng = np.random.default_rng(1)
    names = [f"{name}@{k}" for name in ("ndcg", "recall", "precision", "map", "mrr", "hit_rate", "auc", "popularity",
                                        "novelty", "diversity") for k in KS]  # fmt: skip
    effects = [_effect(rng, name, ALL, 48_211) for name in names]
    for name in ("ndcg@10", "recall@10"):
        effects += [_effect(rng, name, segment, 900 * (at + 1)) for at, segment in enumerate(SEGMENTS)]
    of_lists = [f"{name}@{k}" for name in ("coverage", "gini", "popularity_lift") for k in KS]
    models = ("als", "champion", "popularity", "popularity_decayed")
    means = {model: {name: float(rng.uniform(0.02, 0.4)) for name in [*names, *of_lists]} for model in models}
    del means["popularity"]["diversity@5"]
    items = np.sort(rng.zipf(1.6, 400).clip(max=5000))[::-1].astype(np.int64)
    listed = [
        Listed(HOSTILE if n == 0 else f"Tea towel {n}", n == 2, ["Blue mug no. 1"] if n else []) for n in range(10)
    ]
    wanted = [Listed("Tea towel 2", True), Listed("Birdcage, large", False)]
    customers = [
        Customer(f"customer-{at}", "als", [f"Blue mug no. {n}" for n in range(at)], at + 3, listed, wanted, 5, 14)
        for at in range(12)
    ]
    reasons = [
        Reason("ndcg@10 is better: 0.0571 → 0.0603, +0.0032 [+0.0010, +0.0055], p = 0.004", promoted),
        Reason("recall@10 is not worse by more than 0.0041 (5.0%): 0.0812 → 0.0840, +0.0028 [-0.0003, +0.0059]", True),
        Reason("ndcg@10 is worse on none of 5 segments", None),
    ]
    lines = [("rows", None, 1_469_307.0), ("refused", None, 8_869.0), ("refused", "no quantity", 869.0),
             ("refused", HOSTILE, 8_000.0), ("top_item", "0", 9.0), ("repeated_pairs", None, 0.25),
             ("density", None, 0.0123), ("top_item", "mug-1", 12.0)]  # fmt: skip
    lines += [("items_of_user", f"p{share}", share * 2.0) for share in (100, 0, 50, 99)]
    lines += [("events_of_day", f"2024-{1 + day // 28:02}-{1 + day % 28:02}", 100.0 + day % 7) for day in range(90)]
    return Report(
        dataset="shop", run_id="night-2024-03-01", as_of="2024-03-01 00:00", users=48_211, items=400,
        challenger="night-2024-03-01", rival="night-2024-02-23", compared=("als", "champion"),
        primary="ndcg@10", judged=("ndcg@10", "recall@10"), margins={"recall@10": 0.05},
        confidence=0.95, power=0.8, effects=effects, means=means, ks=KS,
        queries=[Query("means", f"Means of {HOSTILE}.", "SELECT avg(x)\nFROM gold.metrics\nWHERE 1 < 2"),
                 Query("what is shown", "Coverage.", "SELECT 1")],
        verdict=Verdict(promoted, "night-2024-03-01" if promoted else "night-2024-02-23", reasons),
        objective=[float(5e6 / epoch + 1e6) for epoch in range(1, 17)],
        popularity=popularity_shares(items, {"als": items // 2, "champion": items * 3, "popularity_decayed": items**2}),
        customers=customers, profile=profile_of(lines, {"mug-1": f"Blue mug {HOSTILE}", "0": "0"}),
        moments=[
            Moment(f"2024-0{month}-01", 40_000 + month, 0.05 + month / 1000, 0.04, 0.005, 0.02) for month in range(1, 4)
        ],
        made={"model": "night-2024-03-01", "gold.metrics, version": "12"},
    )  # fmt: skip


def _effect(rng: np.random.Generator, metric: str, segment: str, users: int) -> Effect:
    before, change, width = rng.uniform(0.02, 0.4), rng.normal(0.03, 0.05), rng.uniform(0.02, 0.08)
    difference, half = change * before, width * before
    ps = (float(min(1.0, rng.exponential(mean))) for mean in (0.1, 0.3))
    means = (before, before + difference, difference, difference - half, difference + half)
    return Effect(metric, segment, users, *map(float, means), *ps, float(1.4 * half))
