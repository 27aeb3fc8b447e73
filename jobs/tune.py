"""Find settings on windows of the past before as_of; a run of the same id goes on where it stopped.

    python jobs/tune.py --config conf/online_retail.yaml --run-id tuning --as-of 2011-11-01

Needs ingest and build_features; writes gold.trials, and tuned/RUN_ID.yaml to use as a second --config.
"""

from recsys_spark.stages.tune import main

if __name__ == "__main__":
    raise SystemExit(main())
