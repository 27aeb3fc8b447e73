"""Writes rectools.json: random lists, what RecTools 0.19.0 measures on them, for tests/evaluation/test_lists.py.

RecTools needs NumPy 1, so it has an environment of its own: `pip install RecTools==0.19.0`, then run this file.
"""

import json
import random
from pathlib import Path

KS = (1, 5, 10)
N_USERS, N_ITEMS = 40, 90


def random_case(seed: int) -> dict[str, object]:
    """Lists of 0 to 12 items; a history of pairs in which some items are not; a category of every item."""
    rng = random.Random(seed)
    items = [f"i{number}" for number in range(N_ITEMS)]
    lists = {f"u{user}": rng.sample(items, rng.randrange(0, 13)) for user in range(N_USERS)}
    known = items[:-4]
    pairs = {(f"h{rng.randrange(60)}", known[int(len(known) * rng.random() ** 2)]) for _ in range(400)}
    return {
        "lists": lists,
        "history": sorted(pairs),
        "categories": {item: f"c{rng.randrange(5)}" for item in items},
    }


def main() -> None:
    """Measure and write."""
    import pandas as pd
    from rectools import Columns
    from rectools.metrics import (
        AvgRecPopularity,
        CatalogCoverage,
        IntraListDiversity,
        MeanInvUserFreq,
        PairwiseHammingDistanceCalculator,
    )

    case = random_case(11)
    rows = [(user, item, at + 1) for user, items in case["lists"].items() for at, item in enumerate(items)]
    reco = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])
    history = pd.DataFrame(case["history"], columns=[Columns.User, Columns.Item])
    codes = pd.DataFrame({"category": case["categories"]})
    codes["category"] = codes["category"].str[1:].astype(int)
    distance = PairwiseHammingDistanceCalculator(codes)
    expected: dict[str, object] = {}
    for k in KS:
        novelty = MeanInvUserFreq(k=k).calc_per_user(reco, history)
        popularity = AvgRecPopularity(k=k).calc_per_user(reco, history) / history[Columns.User].nunique()
        expected |= {f"novelty@{k}": novelty.to_dict(), f"popularity@{k}": popularity.to_dict()}
        if k > 1:
            expected[f"diversity@{k}"] = (
                IntraListDiversity(k=k, distance_calculator=distance).calc_per_user(reco).to_dict()
            )
        expected[f"coverage@{k}"] = float(CatalogCoverage(k=k, normalize=True).calc(reco, list(case["categories"])))
    whole = {"ks": KS, **case, "expected": expected}
    Path(__file__).with_name("rectools.json").write_text(json.dumps(whole, indent=None, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
