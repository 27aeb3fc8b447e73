"""Train and judge a model as of several moments in a row.

    python jobs/backtest.py --config conf/completejourney.yaml --run-id back --as-of 2017-12-01 --moments 4

Needs ingest; writes what the other jobs write as of each moment, and gold.backtests.
"""

from recsys_spark.stages.backtest import main

if __name__ == "__main__":
    raise SystemExit(main())
