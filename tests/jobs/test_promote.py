"""The gate on the planted shop: a first champion, a better one, a worse one, back again, and who is served."""

import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import StructType

from recsys_spark.config import OWN_SEGMENTS
from recsys_spark.errors import DataError
from recsys_spark.evaluation import comparison, exposure
from recsys_spark.evaluation.lists import Catalogue
from recsys_spark.evaluation.report.numbers import number
from recsys_spark.evaluation.resampling import Resampling
from recsys_spark.schemas import SCHEMAS
from recsys_spark.stages import champions as champions_of
from recsys_spark.stages import promote as promoting
from recsys_spark.stages import segments
from recsys_spark.tables import Tables
from tests.jobs.shop import AS_OF, Job, N, configuration, purchases, write_csv

pytestmark = [pytest.mark.usefixtures("spark"), pytest.mark.slow]

WHEN = ("--as-of", AS_OF.isoformat())
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def job() -> Job:
    return Job()


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop with two models: `clear` knows all tastes, `half` nothing of odd items, which they buy in the north."""
    folder, job = tmp_path_factory.mktemp("shop"), Job()
    people = [(f"user-{user}", "north" if user % 2 else "south") for user in range(N)]
    config = configuration(
        folder,
        write_csv(folder / "log.csv", purchases()),
        users={
            "path": str(write_csv(folder / "people.csv", people, "customer,country")),
            "format": "csv",
            "columns": {"user": "customer", "segment": "country"},
        },
        als={"rank": 2, "epochs": 2, "alpha0": 0.05, "regularization": 0.001},
        evaluation={"k": [3]},
        # Of 24 users little can be shown: guards allow much.
        gate={"guards": {"recall": 0.3, "auc": 0.3}, "min_segment_users": 5, "segments": 5, "replicates": 400},
    )
    before = ("ingest", "build_features", "train_als", "score_topk")
    assert job(config, "--run-id", "clear", *WHEN, stages=before)["exit_code"] == 0
    tables = tables_of(spark, config)
    odd = f.regexp_extract("item_id", r"\d+", 0).cast("int") % 2 == 1
    factors = tables.read("gold.item_factors").join(tables.read("gold.item_ids"), "item_index")
    (even,) = factors.where(~odd).orderBy("item_id").select("factors").first()
    like_even = f.array(*(f.lit(0.01 * value).cast("float") for value in even))  # who buys odd ones is shown even ones
    halved = factors.withColumn("factors", f.when(odd, like_even).otherwise(f.col("factors"))).drop("item_id")
    half, model = f.lit("half"), {"model_id": "half"}
    tables.append_step("gold.item_factors", halved.withColumn("model_id", half), model, 2, {}, ("model_id", "epoch"))
    tables.write_slice("gold.models", tables.read("gold.models").withColumn("model_id", half), model)
    return config


def tables_of(spark: SparkSession, config: Path) -> Tables:
    return Tables(spark, str(config.parent / "tables"))


def decided(job: Job, config: Path, run_id: str, *arguments: str) -> dict[str, Any]:
    return job(config, "--run-id", run_id, *arguments, stages=("evaluate",))


def champions(spark: SparkSession, config: Path) -> list[Row]:
    return tables_of(spark, config).read("gold.champion").orderBy("number").collect()


def test_models_come_and_go_by_the_gate(spark: SparkSession, shop: Path, job: Job) -> None:
    """One story, in order: each part starts from the champion that the one before it left."""
    assert job(shop, "--run-id", "half", *WHEN, "--model", "champion", stages=("score_topk",))["exit_code"] == 65
    unscored = decided(job, shop, "half", *WHEN, "--promote")
    assert unscored["exit_code"] == 65 and "no lists of model half" in unscored["error"]
    job(shop, "--run-id", "half", *WHEN, stages=("score_topk",))

    first = decided(job, shop, "half", *WHEN, "--promote")
    gate, baselines = first["counts"]["gate"], {k: v for k, v in first["metrics"].items() if k != "als"}
    assert (gate["promoted"], gate["champion"]) == (True, "half")
    assert baselines[gate["compared_with"]]["ndcg@3"] == max(values["ndcg@3"] for values in baselines.values())
    page = Path(first["counts"]["report"]).read_text(encoding="utf-8")
    assert page.count('aria-label="passed:"') == len(gate["reasons"]) > 3, (
        "each list was beaten, and each reason is marked"
    )

    second = decided(job, shop, "clear", *WHEN, "--promote")
    assert second["counts"]["gate"]["compared_with"] == "half" and second["counts"]["gate"]["champion"] == "clear"
    assert second["metrics"]["champion"]["ndcg@3"] < second["metrics"]["als"]["ndcg@3"] == 1
    assert "clear is promoted" in job.stderr
    text = Path(second["counts"]["report"]).read_text(encoding="utf-8")
    assert "clear is the champion" in text and "segment north" in text and text.count("✓ marks") == 1
    queries_of_the_page_give_every_row_of_the_comparison(spark, shop, text)
    others_give_means_and_what_is_shown(spark, second["metrics"], text)
    and_others_the_training_and_the_data(spark, shop, text)
    assert "what is shown" in job.stderr and "popularity_lift@3" in job.stderr
    assert text.count('<article class="card">') == 12 and text.count('aria-label="then bought"') == 12

    for more in ((), ("--promote",)):  # what the decision rests on stays what it was
        same = decided(job, shop, "clear", *WHEN, *more)
        assert same["counts"]["gate"] == second["counts"]["gate"] and same["metrics"] == second["metrics"]
    by_others = decided(job, shop, "clear", *WHEN, "--set", "gate.seed=2")
    assert by_others["exit_code"] == 78 and "it decided by gate" in by_others["error"]
    of_another = decided(job, shop, "clear", *WHEN, "--model", "half")
    assert of_another["exit_code"] == 78 and "it decided about clear" in of_another["error"]

    again = decided(job, shop, "third", *WHEN, "--promote", "--model", "clear")
    assert again["exit_code"] == 65 and "clear is the champion already" in again["error"]

    for _ in range(2):  # the same run id goes back one step only
        assert decided(job, shop, "back", "--rollback")["exit_code"] == 0
    further = decided(job, shop, "further", "--rollback")
    assert further["exit_code"] == 65 and "no champion before half" in further["error"]

    served = job(shop, "--run-id", "night", *WHEN, "--model", "champion", stages=("score_topk",))
    assert served["exit_code"] == 0 and "the lists of model half" in job.stderr

    names = ("run_id", "action", "promoted", "champion_before", "champion")
    assert [tuple(row[name] for name in names) for row in champions(spark, shop)] == [
        ("half", "promote", True, None, "half"),
        ("clear", "promote", True, "half", "clear"),
        ("back", "rollback", False, "clear", "half"),
    ]  # fmt: skip
    means_are_those_of_gold_metrics(spark, shop)


def test_a_model_that_serves_one_segment_worse_is_refused_and_the_segment_is_named(
    spark: SparkSession, shop: Path, job: Job
) -> None:
    job(shop, "--run-id", "half", *WHEN, stages=("score_topk",))
    assert (
        decided(job, shop, "clear-2", *WHEN, "--promote", "--model", "clear")["counts"]["gate"]["champion"] == "clear"
    )
    summary = decided(job, shop, "half-2", *WHEN, "--promote", "--model", "half")
    refused = summary["counts"]["gate"]
    assert not refused["promoted"] and refused["champion"] == "clear"
    assert any("ndcg@3 is worse on segment north, and lost more than" in reason for reason in refused["reasons"])
    assert not any("south" in reason for reason in refused["reasons"])
    assert "stays a challenger" in Path(summary["counts"]["report"]).read_text(encoding="utf-8")
    no = champions(spark, shop)[-1]
    names = ("run_id", "action", "promoted", "challenger", "champion_before", "champion", "comparison_id")
    assert tuple(no[name] for name in names) == ("half-2", "promote", False, "half", "clear", "clear", "half-2")
    assert no["reasons"] == refused["reasons"] and "ndcg@3 is not shown to be better" in no["reasons"][0]
    rests_on = tables_of(spark, shop).read("gold.comparisons").where(f.col("comparison_id") == no["comparison_id"])
    assert {(row["challenger"], row["champion"]) for row in rests_on.collect()} == {("half", "clear")}
    served = job(shop, "--run-id", "night-2", *WHEN, "--model", "champion", stages=("score_topk",))
    assert served["exit_code"] == 0 and "the lists of model clear" in job.stderr


def means_are_those_of_gold_metrics(spark: SparkSession, shop: Path) -> None:
    """Each effect of the second decision, computed anew from the rows of single users."""
    tables = tables_of(spark, shop)
    found = {
        (row["metric"], row["segment"]): row
        for row in tables.read("gold.comparisons").where("comparison_id = 'clear'").collect()
    }
    assert {row["challenger"] for row in found.values()} == {"clear"} != {row["champion"] for row in found.values()}
    assert {segment for _, segment in found} == {
        "all users", "history of 5 to 19 items", "segment north", "segment south", "wants popular items",
        "wants rarer items",
    }  # fmt: skip
    assert ("novelty@3", "all users") in found and ("novelty@3", "segment north") not in found
    values = {
        (row["model"], row["user_id"]): row["metrics"]["ndcg@3"]
        for row in tables.read("gold.metrics").where("run_id = 'clear'").collect()
    }
    for segment, users in (
        ("all users", range(N)),
        ("segment north", range(1, N, 2)),
        ("segment south", range(0, N, 2)),
    ):
        row = found[("ndcg@3", segment)]
        means = [sum(values[(model, f"user-{u}")] for u in users) / len(users) for model in ("champion", "als")]
        assert row["users"] == len(users)
        assert [row["champion_mean"], row["challenger_mean"]] == pytest.approx(means, abs=1e-12)
        assert row["difference"] == pytest.approx(means[1] - means[0], abs=1e-12)
        assert row["low"] <= row["difference"] <= row["high"]


def query_of(text: str, name: str) -> str:
    return html.unescape(text.partition(f'id="query-{name}"')[2].partition("<code>")[2].partition("</code>")[0])


def table_of(text: str, name: str) -> list[list[str]]:
    """The cells of a table of the page, as they are read, row by row."""
    body = text.partition(f'id="{name}"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("</tr>")[:-1]]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell.partition(" <small>")[0])) for cell in row] for row in rows]


def others_give_means_and_what_is_shown(spark: SparkSession, means: dict[str, dict[str, float]], text: str) -> None:
    """The page's queries, run as they stand there, against the run's means and the page's tables."""
    every = spark.sql(query_of(text, "means")).collect()
    of_lists = {f"{name}@3" for name in exposure.METRICS}
    again = {(row["model"], row["metric"]): row["mean"] for row in every}
    assert again == pytest.approx({(of, name): value for of, values in means.items() for name, value in values.items()
                                   if name not in of_lists}, abs=1e-12)  # fmt: skip
    heads = [html.unescape(name) for name in re.findall(r'<button type="button">(.*?)</button>', text.partition(
        'id="means"')[2].partition("</thead>")[0])][1:]  # fmt: skip
    for name, *values in table_of(text, "means"):
        assert values == [number(again[model, name]) for model in heads]
    every = spark.sql(query_of(text, "what-is-shown")).collect()
    assert {row["model"] for row in every} == set(means) and {row["k"] for row in every} == {3}
    for row in every:
        own = means[row["model"]]
        assert [own[f"{name}@3"] for name in exposure.METRICS] == [row[name] for name in exposure.METRICS]
    lifts = {model: values["popularity_lift@3"] / values["popularity@3"] for model, values in means.items()}
    assert list(lifts.values()) == pytest.approx([lifts["als"]] * len(lifts)), "all lists are full"
    shares = {(row["model"], row["items"]): row for row in spark.sql(query_of(text, "popularity")).collect()}
    head = text.partition('id="shares"')[2].partition("</thead>")[0]
    groups = re.findall(r'<th scope="col" class="n">(.*?)</th>', head)
    columns = {"all items": "of_items", "histories": "of_histories"}
    table = table_of(text, "shares")
    assert [name for name, *_ in table] == ["all items", "histories", "als", "champion"]
    for name, *values in table:
        rows = [shares.get((name if name in means else "als", group)) for group in groups]
        column = columns.get(name, "of_places")
        assert values == [f"{100 * row[column] if row else 0:.1f}%" for row in rows], name


def and_others_the_training_and_the_data(spark: SparkSession, shop: Path, text: str) -> None:
    epochs = [[str(row["epoch"]), number(row["value"])] for row in spark.sql(query_of(text, "training")).collect()]
    assert epochs == table_of(text, "epochs") and len(epochs) == 2
    lines = {(row["measure"], row["key"]): row["value"] for row in spark.sql(query_of(text, "data")).collect()}
    assert [[name, f"{lines['top_item', name]:,.0f}"] for name, _ in table_of(text, "top")] == table_of(text, "top")
    counts = re.findall("<dt>events before as_of</dt><dd>(.*?)</dd>", text)
    assert counts == [f"{lines['events', None]:,.0f}"]


def queries_of_the_page_give_every_row_of_the_comparison(spark: SparkSession, shop: Path, text: str) -> None:
    """Run as they stand on the page: one gives gold.comparisons, one means and differences, as those of the docs do."""
    rows = tables_of(spark, shop).read("gold.comparisons").where("comparison_id = 'clear'").collect()
    again = {(row["segment"], row["metric"]): row for row in spark.sql(query_of(text, "comparison")).collect()}
    assert again.keys() == {(row["segment"], row["metric"]) for row in rows}
    for row in rows:
        other = again[row["segment"], row["metric"]].asDict()
        assert (other.pop("rival"), other.pop("users"), other.pop("p")) == ("champion", row["users"], row["p"])
        known = row.asDict() | {"before": row["champion_mean"], "after": row["challenger_mean"]}
        assert other == pytest.approx({name: known[name] for name in other}, abs=1e-9), (row["segment"], row["metric"])
    every = spark.sql(query_of(text, "differences")).collect()
    found = {(row["segment"], row["metric"]): row for row in every if row["rival"] == "champion"}
    assert {"popularity", "popularity_decayed"} < {row["rival"] for row in every} and again.keys() <= found.keys()
    for row in rows:
        other = found[row["segment"], row["metric"]]
        assert other["users"] == row["users"]
        assert (other["before"], other["after"], other["difference"]) == pytest.approx(
            (row["champion_mean"], row["challenger_mean"], row["difference"]), abs=1e-12
        )
        half = (row["high"] - row["low"]) / 2
        assert 1.96 * other["standard_error"] == pytest.approx(half, rel=0.3, abs=1e-9), (row["segment"], row["metric"])
    root = query_of(text, "differences").split("`")[1].removesuffix("/gold/metrics")
    written = (DOCS / "evaluation.md").read_text(encoding="utf-8").split("```sql\n")[1:]
    for block, name in zip(written, ("differences", "what-is-shown"), strict=True):
        assert "data/completejourney" in block and "'night'" in block
        own = block.partition("\n```")[0].replace("data/completejourney", root).replace("'night'", "'clear'")
        assert own == query_of(text, name)


def test_the_configuration_counts_the_segments_that_there_may_be_of_any_log(spark: SparkSession) -> None:
    lengths = spark.range(2 * segments.BANDS[-1]).select(segments.band(f.col("id")).alias("band"))
    wants = 2
    assert lengths.distinct().count() + wants == OWN_SEGMENTS


def test_every_length_of_a_history_is_in_one_band(spark: SparkSession) -> None:
    lengths = [0, 1, 4, 5, 19, 20, 99, 100, 5000]
    rows = spark.createDataFrame([(n,) for n in lengths], "n int").select("n", segments.band(f.col("n"))).collect()
    assert dict(map(tuple, rows)) == dict(zip(lengths, [
        "new users", *2 * ["history of 1 to 4 items"], *2 * ["history of 5 to 19 items"],
        *2 * ["history of 20 to 99 items"], *2 * ["history of 100 items or more"],
    ], strict=True))  # fmt: skip


def test_the_popular_half_is_the_fewest_items_that_have_half_of_all_pairs() -> None:
    items = pa.array(list("abcde"))
    assert segments.popular_half(Catalogue(items, np.array([3, 8, 4, 1, 0]), 8)) == ["b"]
    assert segments.popular_half(Catalogue(items, np.array([3, 7, 4, 1, 0]), 8)) == ["b", "c"]
    assert segments.popular_half(Catalogue(items, np.array([1, 1, 1, 1, 1]), 8)) == ["a", "b", "c"]


def test_a_model_that_knows_what_it_should_predict_is_not_compared(shop: Path, job: Job) -> None:
    early = decided(job, shop, "early", "--as-of", "2024-02-01", "--promote", "--model", "clear")
    assert early["exit_code"] == 65 and "it knows what it should predict" in early["error"]


def test_a_metric_that_is_not_measured_cannot_be_judged(shop: Path, job: Job) -> None:
    odd = decided(job, shop, "odd", *WHEN, "--set", "gate.primary=ndcg@7")
    assert odd["exit_code"] == 78 and "gate: ndcg@7: 7 is not among evaluation.k" in odd["error"]
    odd = decided(job, shop, "odd", *WHEN, "--set", "gate.primary=fun")
    assert odd["exit_code"] == 78 and "gate.primary" in odd["error"]


def test_a_metric_that_no_user_has_under_both_models_is_named(spark: SparkSession) -> None:
    """Lists of one item have no diversity: those of a and b are known of different users."""
    rows = [
        ("1", {"ndcg@1": 0.0, "diversity@1": 0.5}, {"ndcg@1": 1.0}, []),
        ("2", {"ndcg@1": 1.0}, {"ndcg@1": 1.0}, []),
    ]
    schema = "user_id string, champion map<string, double>, challenger map<string, double>, segments array<string>"
    asked = ["diversity@1", "ndcg@1"]
    effects = comparison.compare(spark.createDataFrame(rows, schema), asked, asked, Resampling(400, 0))
    promoting.check_shared(["ndcg@1"], effects, "a")
    with pytest.raises(DataError, match="no user has diversity@1 under both this model and a"):
        promoting.check_shared(asked, effects, "a")


def test_a_champion_is_served_as_it_was_judged_whatever_the_configuration_says_by_then(spark, tmp_path, job) -> None:
    """Its prior is that of the lists it was promoted for, its weights and what is popular those it learned from."""
    lived = {"half_life": "2d", "popularity_half_life": "3d"}
    config = configuration(
        tmp_path,
        write_csv(tmp_path / "log.csv", purchases()),
        features=lived,
        topk={"k": 3, "prior": {"weight": 0.3, "popularity": "popularity_decayed"}},
        gate={"guards": {}, "min_segment_users": 100, "replicates": 400},
        evaluation={"k": [3]},
    )
    prior = ("--set", "topk.prior.weight=0")  # of the lists that are judged, not of the training
    assert job(config, "--run-id", "a", *WHEN, stages=("ingest", "build_features", "train_als"))["exit_code"] == 0
    assert job(config, "--run-id", "a", *WHEN, *prior, stages=("score_topk",))["exit_code"] == 0
    assert decided(job, config, "a", *WHEN, "--promote")["counts"]["gate"]["champion"] == "a"
    tables = tables_of(spark, config)

    def lists(*arguments: str) -> list[Row]:
        assert job(config, "--run-id", "b", *WHEN, *arguments, stages=("score_topk",))["exit_code"] == 0
        return tables.read("gold.recommendations").where("model_id = 'a'").orderBy("user_id").collect()

    judged = tables.read("gold.recommendations").orderBy("user_id").collect()
    changed = ("--set", "features.half_life=null", "--set", "features.popularity_half_life=40d")
    assert job(config, "--run-id", "b", *WHEN, *changed, stages=("build_features",))["exit_code"] == 0
    assert lists(*changed, "--model", "a") != judged
    assert lists(*changed, "--model", "champion") == judged


def test_decisions_of_before_their_rules_were_kept_are_read(spark, tmp_path) -> None:
    old = [column for column in SCHEMAS["gold.champion"] if column.name not in ("ranking", "gate")]
    row = (1, AS_OF, "a", AS_OF, "promote", True, "a", None, "a", None, [])
    place = tables_of(spark, tmp_path / "shop.yaml").path("gold.champion")
    spark.createDataFrame([row], StructType(old)).write.format("delta").save(place)
    run = SimpleNamespace(tables=tables_of(spark, tmp_path / "shop.yaml"), run_id="b")
    assert [(row["champion"], row["ranking"]) for row in champions_of.decisions(run)] == [("a", None)]
