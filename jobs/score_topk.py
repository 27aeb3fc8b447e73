"""Rank every item for every user with a history.

    python jobs/score_topk.py --config conf/completejourney.yaml --run-id night

Reads silver.interactions and a model; writes gold.recommendations, or with --similar-items gold.item_neighbours.
"""

from recsys_spark.stages.score import main

if __name__ == "__main__":
    raise SystemExit(main())
