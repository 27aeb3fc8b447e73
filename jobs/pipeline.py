"""Run all jobs one after another in one Spark session.

    python jobs/pipeline.py --config conf/completejourney.yaml --run-id night

Reads the source's files; writes every table. See docs/ for each of them.
"""

from recsys_spark.stages.pipeline import main

if __name__ == "__main__":
    raise SystemExit(main())
