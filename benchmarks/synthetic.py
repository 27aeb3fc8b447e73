"""Synthetic interactions: log-normal activity of users, Zipf popularity of items, from a fixed seed."""

import numpy as np
import pyarrow as pa


def interactions(n_users: int, n_items: int, n: int, seed: int = 0) -> pa.Table:
    """Return about n distinct pairs (row int, column int, value float 1), a little fewer where draws coincide."""
    rng = np.random.default_rng(seed)
    users = rng.lognormal(0, 1, n_users)
    items = 1 / np.arange(1, n_items + 1) ** 0.8
    drawn = rng.choice(n_users, n, p=users / users.sum()) * np.int64(n_items)
    pairs = np.unique(drawn + rng.choice(n_items, n, p=items / items.sum()))
    return pa.table(
        {
            "row": (pairs // n_items).astype(np.int32),
            "column": (pairs % n_items).astype(np.int32),
            "value": np.ones(len(pairs), np.float32),
        }
    )
