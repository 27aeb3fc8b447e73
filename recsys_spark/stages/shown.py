"""Lists as people look at them: a user's history beside what is recommended and why, by the names of items."""

from collections.abc import Iterable
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as f
from rich.table import Table
from rich.text import Text

from recsys_spark.runs import Run
from recsys_spark.stages.known import names_of

_HISTORY = 10


def show_lists(run: Run, lists: Iterable[dict[str, Any]], pairs: DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Print each user's list beside the weightiest items of her history; return the lists by user.

    lists: user_id, items, source, of a few users; pairs: user_id, item_id, weight, of any.
    """
    rows = sorted(lists, key=lambda row: str(row["user_id"]))
    users = [row["user_id"] for row in rows]
    entry = f.struct((-f.col("weight")).alias("weight"), "item_id")
    weighty = (
        pairs.where(f.col("user_id").isin(users))
        .groupBy("user_id")
        .agg(f.slice(f.array_sort(f.collect_list(entry)), 1, _HISTORY).getField("item_id").alias("items"))
    )
    had = {row["user_id"]: row["items"] for row in weighty.collect()}
    listed = {item["item_id"] for row in rows for item in row["items"]}
    because = {reason["item_id"] for row in rows for item in row["items"] for reason in item["because"] or ()}
    names = names_of(run, listed | because | {item for items in had.values() for item in items})
    for row in rows:
        history = had.get(row["user_id"], [])
        table = Table(title=Text(f"user {row['user_id']} ({row['source']})", "table.title"), title_justify="left")
        table.add_column("history, by weight")
        table.add_column("recommended")
        table.add_column("score", justify="right")
        table.add_column("because of")
        for place in range(max(len(history), len(row["items"]))):
            mine = Text(names[history[place]] if place < len(history) else "")
            if place >= len(row["items"]):
                table.add_row(mine)
                continue
            item = row["items"][place]
            score = "" if item["score"] is None else f"{item['score']:.3f}"
            reasons = ", ".join(names[reason["item_id"]] for reason in item["because"] or ())
            table.add_row(mine, Text(names[item["item_id"]]), score, Text(reasons))
        run.console.print(table)
    return {row["user_id"]: row["items"] for row in rows}


def show_someone(run: Run, model_id: str) -> None:
    """Print the list of one user whom the model serves and who has a history to show, the same at each run."""
    lists = run.tables.read_slice("gold.recommendations", {"model_id": model_id, "as_of": run.as_of})
    pairs = run.tables.read_slice("silver.interactions", {"as_of": run.as_of})
    known = pairs.groupBy("user_id").count().where(f.col("count") >= _HISTORY).select("user_id")
    served = lists.where("source NOT IN ('segment', 'popular')").join(known, "user_id", "left_semi")
    someone = served.orderBy(f.xxhash64("user_id")).limit(1).collect()
    if someone:
        show_lists(run, [row.asDict(recursive=True) for row in someone], pairs)
