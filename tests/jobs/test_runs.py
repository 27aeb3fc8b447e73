"""What is left of every run: its rows in gold.runs, its log, and no secret anywhere."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from recsys_spark import memory
from recsys_spark.redaction import MASK
from recsys_spark.stages import past_runs
from recsys_spark.stages.pipeline import STAGES
from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, configuration, everything_written, purchases, source, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())
# Of a reader's options, one by its key and two in URLs.
SECRETS = ("Hoot-0wl/9+", "Barn-0wl-7", "Snowy-0wl-8")
OPTIONS = {
    "password": SECRETS[0],
    "url": f"jdbc:postgresql://night:{SECRETS[1]}@host/db?sslpassword={SECRETS[2]}",
    "comment": "#",
}


@dataclass
class Night:
    """The shop after a pipeline with secrets in its configuration."""

    config: Path
    tables: Tables
    summary: dict[str, Any]
    stderr: str

    def rows(self, run_id: str) -> list[Row]:
        found = self.tables.read("gold.runs").where(f"run_id = '{run_id}'")
        return found.orderBy("attempt", "started_at").collect()


@pytest.fixture(scope="module")
def night(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder, job = tmp_path_factory.mktemp("night"), Job()
    log = write_csv(folder / "log.csv", purchases())
    config = configuration(
        folder,
        log,
        source=source(log) | {"options": OPTIONS},
        evaluation={"k": [1, 3], "report": True},
        storage={"root": str(folder / "tables")},
    )
    summary = job(config, "--run-id", "night", *WHEN)
    assert summary["exit_code"] == 0, summary
    return Night(config, Tables(spark, str(folder / "tables")), summary, job.stderr)


def test_every_stage_of_a_run_has_a_row_with_what_it_read_left_and_took(spark, night) -> None:
    rows = {row["stage"]: row for row in night.rows("night")}
    assert list(rows) == list(STAGES)
    assert {(row["job"], row["attempt"], row["status"], row["exit_code"], row["error"]) for row in rows.values()} == {
        ("pipeline", 1, "ok", 0, None)
    }
    assert {name: row["seconds"] for name, row in rows.items()} == {
        name: night.summary["seconds"][name] for name in rows
    }
    made = {name: version for row in rows.values() for name, version in row["outputs"].items()}
    assert made == night.summary["outputs"]
    assert rows["build_features"]["inputs"]["bronze.events"] == made["bronze.events"]
    assert {"silver.interactions", "gold.user_ids", "gold.item_ids"} <= rows["train_als"]["inputs"].keys()
    assert {"gold.models", "gold.item_factors"} <= rows["score_topk"]["inputs"].keys()
    assert rows["build_features"]["counts"] == {"rows": len(purchases()), "kept": len(purchases())}
    assert rows["score_topk"]["counts"] == {"lists.als": 24}
    for row in rows.values():
        assert 50 * 2**20 < row["python_peak_bytes"] <= memory.peak()
        assert row["jvm_peak_bytes"] > 100 * 2**20
        assert row["application_id"] == spark.sparkContext.applicationId
    assert night.tables.version("gold.runs") == 0, "all rows of a run are one commit"


def test_a_rerun_is_another_attempt_and_a_failed_run_says_where_and_why(night) -> None:
    job = Job()
    assert job(night.config, "--run-id", "again", *WHEN, stages=("ingest",))["exit_code"] == 0
    lost = job(night.config, "--run-id", "again", *WHEN, "--set", "source.path=/nowhere/log.csv",
               stages=("ingest", "train_als"))  # fmt: skip
    first, second = night.rows("again")
    assert (first["attempt"], first["stage"], first["status"]) == (1, "ingest", "ok")
    assert (second["attempt"], second["stage"], second["status"], second["exit_code"]) == (2, "ingest", "bad_data", 65)
    assert second["error"] == lost["error"] and "/nowhere/log.csv" in lost["error"]


def test_a_run_that_cannot_be_recorded_ends_as_it_would_have(tmp_path) -> None:
    job, root = Job(), str(tmp_path / "tables")
    config = configuration(tmp_path, write_csv(tmp_path / "log.csv", purchases()), storage={"root": root})
    (tmp_path / "tables/gold").mkdir(parents=True)
    (tmp_path / "tables/gold/runs").write_text("in the way")
    assert job(config, *WHEN, stages=("ingest",))["exit_code"] == 0
    assert "warning: gold.runs lacks this run: " in job.stderr
    lost = job(config, *WHEN, stages=("train_als",))
    assert (lost["exit_code"], "run build_features" in lost["error"]) == (65, True)


def test_the_last_runs_are_printed_newest_first_for_people_and_for_programs(night, capsys, monkeypatch) -> None:
    Job()(night.config, "--run-id", "lost", *WHEN, "--set", "als.warm_start=nobody", stages=("train_als",))
    monkeypatch.setenv("COLUMNS", "200")
    assert past_runs.main(["--config", str(night.config), "--last", "1"]) == 0
    shown = capsys.readouterr().out
    assert "lost" in shown and "bad_data" in shown and "als.warm_start: nobody" in shown and "│ night" not in shown
    assert past_runs.main(["--config", str(night.config), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert runs[0]["run_id"] == "lost" and runs[-1]["run_id"] == "night"
    assert (runs[0]["status"], runs[0]["exit_code"]) == ("bad_data", 65)
    assert [stage["stage"] for stage in runs[-1]["stages"]] == list(STAGES)
    assert past_runs.main(["--config", str(night.config), "--set", "storage.root=/nowhere"]) == 65
    assert "/nowhere/gold/runs: no such table" in capsys.readouterr().err


def test_the_sql_of_the_page_of_operations_answers_what_its_comments_ask(spark, night) -> None:
    lost = Job()(night.config, "--run-id", "asked", *WHEN, "--set", "als.warm_start=nobody", stages=("train_als",))
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    here = page.replace("`data/shop/", f"`{night.tables.root}/").replace("'2024-03-01'", "'night'")
    queries, alert, vacuum = re.findall(r"^```sql\n(.*?);\n^```$", here, flags=re.MULTILINE | re.DOTALL)
    failed, slower, behind = (spark.sql(query).collect() for query in queries.split(";\n"))
    assert ("asked", "pipeline", "train_als", lost["error"]) in [tuple(row)[1:] for row in failed]
    assert [(row["stage"], row["counts[rows]"]) for row in slower] == [("build_features", len(purchases()))]
    assert behind == [(night.summary["outputs"]["bronze.events"],)]
    ended = {row["stage"]: row["max(as_of)"] for row in spark.sql(alert).collect()}
    assert ended["score_topk"] == AS_OF.replace(tzinfo=None)
    spark.sql(vacuum)
    assert night.tables.read("gold.recommendations").count() == 24


def test_the_command_that_prints_runs_ends_as_jobs_do_and_says_no_secret(tmp_path, spark, capsys, monkeypatch) -> None:
    config = configuration(tmp_path, tmp_path / "log.csv", source=source(tmp_path / "log.csv") | {"options": OPTIONS})
    for arguments in (["--config", str(config), "--password", SECRETS[0]], ["--config", str(config), "--last", "few"]):
        assert past_runs.main(arguments) == 64
    monkeypatch.setattr(Tables, "read", lambda *_: spark.sql(f"SELECT raise_error('no such user: {SECRETS[0]}')"))
    assert past_runs.main(["--config", str(config), "--set", f"storage.root={tmp_path}"]) == 70
    shown = capsys.readouterr()
    assert shown.err.count("error: ") == 3 and shown.err.count(MASK) == 2 and shown.out == ""
    assert SECRETS[0] not in shown.err


def test_a_json_log_is_an_object_a_line_with_run_stage_and_level(night) -> None:
    job = Job()
    job(night.config, "--run-id", "told", *WHEN, "--log", "json", stages=("ingest", "train_als"))
    lines = [json.loads(line) for line in job.stderr.splitlines()]
    assert {(line["run_id"], line["job"]) for line in lines} == {("told", "pipeline")}
    assert (lines[0]["stage"], lines[0]["level"], lines[0]["message"]) == ("ingest", "info", "ingest: no new files")
    epochs = [line for line in lines if line["message"].startswith("epoch ")]
    assert len(epochs) == 6 and {(line["stage"], line["level"]) for line in epochs} == {("train_als", "debug")}
    assert all(line["time"].endswith("+00:00") for line in lines)
    failed = job(night.config, "--run-id", "told", "--log=json", "--set", "als.rank=0")
    line = json.loads(job.stderr)
    assert (line["level"], line["message"]) == ("error", f"error: {failed['error']}")


def test_no_secret_is_in_any_table_report_log_or_summary_of_runs_that_end_well_or_badly(night) -> None:
    job = Job()
    told = [json.dumps(night.summary), night.stderr]
    ends = []
    more = f"source.path={write_csv(night.config.parent / 'more.csv', purchases()[:9])}"
    for number, (stage, *arguments) in enumerate((
        ("ingest", "--set", "source.path=/nowhere/log.csv"),
        ("ingest", "--set", more, "--set", "source.columns.user=buyer", "--debug"),
        ("ingest", "--set", more, "--set", f"source.options.encoding={SECRETS[0]}", "--debug"),
        ("ingest", "--set", f"source.options.password=[{SECRETS[0]}]", "--debug"),
        ("ingest", "--set", f"source.options.password={{{SECRETS[0]}: ]", "--debug"),
        ("ingest", "--set", f"source.path=ftp://night:{SECRETS[1]}@host/log.csv?sig={SECRETS[2]}", "--debug"),
        ("build_features", "--set", f"source.filters.odd=price >< '{SECRETS[0]}'", "--debug"),
        ("ingest", "--password", SECRETS[0]),
    )):  # fmt: skip
        summary = job(night.config, "--run-id", f"bad-{number}", *WHEN, *arguments, stages=(stage,))
        ends.append(summary["exit_code"])
        told += [json.dumps(summary), job.stderr]
    assert ends == [65, 65, 78, 78, 64, 78, 78, 64], told[2::2]
    written = everything_written(Path(night.tables.root))
    assert "user-1" in written and "<html" in written and "bad-0" in written, "the search finds what is there"
    for secret in SECRETS:
        assert secret not in written
        assert not [text for text in told if secret in text]


def test_a_model_is_rebuilt_though_its_secrets_were_not_kept(night) -> None:
    job = Job()
    again = job(night.config, "--run-id", "rebuilt", *WHEN, "--rebuild", "night", stages=("train_als",))
    assert again["exit_code"] == 0, again
    assert "model rebuilt is model night to the byte" in job.stderr
    for row in night.tables.read("gold.models").where("model_id IN ('night', 'rebuilt')").collect():
        options = json.loads(row["config"])["source"]["options"]
        assert (options["password"], options["comment"]) == (MASK, "#")


@pytest.mark.parametrize("odd", ["../../night", "night' OR '1'='1", "night\\", "ni/ght", ""])
def test_a_models_id_that_is_a_path_or_sql_is_refused_before_anything_is_read(night, odd: str) -> None:
    before = night.tables.version("gold.models")
    for option, stage in (("--model", "score_topk"), ("--rebuild", "train_als"), ("--model", "evaluate")):
        if odd or option == "--model":
            ended = Job()(night.config, "--run-id", "odd", *WHEN, f"{option}={odd}", stages=(stage,))
            assert ended["exit_code"] == 64 and "no model's id" in ended["error"], ended
    warm = Job()(night.config, "--run-id", "odd", *WHEN, "--set", f"als.warm_start={odd!r}", stages=("train_als",))
    assert warm["exit_code"] in (64, 78)
    assert night.tables.version("gold.models") == before


def test_a_slice_is_deleted_by_its_values_whatever_letters_they_have(spark, tmp_path) -> None:
    tables = Tables(spark, str(tmp_path))
    odd = ["a", "a' OR '1'='1", "a\\", "a\\' --"]
    rows = spark.createDataFrame(
        [(model, "items", 0, 0.0) for model in odd], "model_id string, a string, b int, c double"
    )
    frame = rows.selectExpr("model_id", "1 AS item_index", "array(1f) AS vector", "c AS degree")
    tables.append("gold.item_vectors", frame)
    for model in odd[1:]:
        tables.delete("gold.item_vectors", {"model_id": model})
    assert [row["model_id"] for row in tables.read("gold.item_vectors").collect()] == ["a"]
    tables.append("gold.item_vectors", frame.where("model_id != 'a'"))
    tables.delete("gold.item_vectors", {"model_id": odd[:3]})
    assert [row["model_id"] for row in tables.read("gold.item_vectors").collect()] == [odd[3]]
