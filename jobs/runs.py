"""Print the last runs: when, which job and run id, how it ended, how long each stage took.

    python jobs/runs.py --config conf/completejourney.yaml --last 10

Reads gold.runs. With --json it prints an array of runs, each with all that its stages left there.
"""

from recsys_spark.stages.past_runs import main

if __name__ == "__main__":
    raise SystemExit(main())
