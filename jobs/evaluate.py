"""Compare the lists with what happened from as_of on, beside popularity.

    python jobs/evaluate.py --config conf/completejourney.yaml --run-id night

Reads gold.recommendations and bronze.events; writes gold.metrics, gold.exposure, gold.comparisons and a report. With
--promote the gate compares the model with the champion and decides: gold.champion.
"""

from recsys_spark.stages.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
