"""What an evaluation of many users costs the driver, and what reads the log again."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.classic.dataframe import DataFrame

from recsys_spark.stages import events
from tests.jobs.shop import AS_OF, Job, configuration, purchases, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())


def evaluated(folder: Path, copies: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], int]:
    """Evaluate the shop with each customer so many times; return the rows that came to the driver, and log reads."""
    folder.mkdir()
    rows = [(f"{user}-{copy}", *rest) for user, *rest in purchases() for copy in range(copies)]
    people = [(f"user-{user}-{copy}", "NS"[user % 2]) for user in range(24) for copy in range(copies)]
    columns = {"user": "customer", "segment": "country"}
    config = configuration(
        folder, write_csv(folder / "log.csv", rows),
        users={"path": str(write_csv(folder / "people.csv", people, "customer,country")), "format": "csv",
               "columns": columns},
        evaluation={"k": [3], "report": True},
        gate={"guards": {}, "min_segment_users": 2, "segments": 5, "replicates": 400},
    )  # fmt: skip
    job, taken, read = Job(), [], 0
    before = ("ingest", "build_features", "train_als", "score_topk")
    assert job(config, "--run-id", "a", *WHEN, stages=before)["exit_code"] == 0
    collect, to_arrow, typed = DataFrame.collect, DataFrame.toArrow, events.typed_events

    def collected(frame):
        found = collect(frame)
        taken.append(len(found))
        return found

    def arrow(frame):
        found = to_arrow(frame)
        taken.append(found.num_rows)
        return found

    def reads(*arguments):
        nonlocal read
        read += 1
        return typed(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DataFrame, "collect", collected)
        patch.setattr(DataFrame, "toArrow", arrow)
        patch.setattr(events, "typed_events", reads)
        summary = job(config, "--run-id", "a", *WHEN, "--promote", stages=("evaluate",))
    assert summary["exit_code"] == 0 and summary["counts"]["evaluated_users"] == 24 * copies, summary
    return taken, read


def test_what_comes_to_the_driver_does_not_grow_with_users_and_the_log_is_parsed_once(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (few, reads), (many, _) = (evaluated(tmp_path / str(copies), copies, monkeypatch) for copies in (1, 9))
    assert reads == 1
    assert sum(many) < sum(few) + 24, "of 192 users more"
    assert len(few) > 10
