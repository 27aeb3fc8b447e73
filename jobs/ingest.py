"""Append the source's new files to bronze.events.

    python jobs/ingest.py --config conf/completejourney.yaml --run-id night

Reads the files of source.path and holdout.path; writes bronze.events.
"""

from recsys_spark.stages.ingest import main

if __name__ == "__main__":
    raise SystemExit(main())
