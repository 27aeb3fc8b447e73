"""What the paired comparison costs a user: 2,000 bootstrap samples and sign patterns of ten metrics, eight segments.

python -m benchmarks.comparison --json data/bench-comparison.json
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from recsys_spark.als.linalg import one_thread
from recsys_spark.evaluation.resampling import Pairs, Resampling, partial_sums

SHARES = (0.5, 0.5, 0.3, 0.3, 0.2, 0.2, 0.5, 0.5)  # of the users, in each segment
USERS, METRICS, JUDGED, REPEATS = 1024, 10, 3, 20


def microseconds(replicates: int) -> float:
    """Return the median CPU time of a user, on one core."""
    rng = np.random.default_rng(1)
    values = rng.random((2, USERS, METRICS))
    pairs = Pairs(rng.integers(0, 2**64, USERS, np.uint64), values[0], values[1])
    segments = [(np.arange(USERS), np.arange(METRICS))]
    segments += [(np.flatnonzero(rng.random(USERS) < share), np.arange(JUDGED)) for share in SHARES]
    took = []
    with one_thread():
        for _ in range(REPEATS):
            start = time.process_time()
            for _sums in partial_sums(pairs, segments, Resampling(replicates)):
                pass
            took.append((time.process_time() - start) / USERS * 1e6)
    return float(np.median(took))


def main() -> None:
    """Print a table and write it as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    rows = [{"replicates": n, "microseconds_a_user": round(microseconds(n), 1)} for n in (500, 2000, 10_000)]
    print("| replicates | µs of one core a user |\n|---|---|")
    for row in rows:
        print(f"| {row['replicates']:,} | {row['microseconds_a_user']} |")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
