"""Train a model, or go on where a run of the same id stopped.

    python jobs/train_als.py --config conf/completejourney.yaml --run-id night

Reads silver.interactions; writes gold.models and, by its kind, gold.item_factors (gold.user_factors where users move),
gold.item_vectors or gold.item_neighbours.
"""

from recsys_spark.stages.train import main

if __name__ == "__main__":
    raise SystemExit(main())
