"""The share of scores that ranking computes on real logs, with the models that their configurations train.

    python -m benchmarks.pruning conf/online_retail.yaml conf/movielens.yaml --json data/bench-pruning.json

A tile of 512 items is passed over for a user once ‖x‖·‖y‖ rules it out; what is computed are the sizes of the
matrix products that ranking asks for, up to 4,096 users at once, as the job does.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.counting import computed_scores
from benchmarks.running import run_stages, setting
from recsys_spark.als.linalg import one_thread
from recsys_spark.runs import Run
from recsys_spark.stages.features import build_features
from recsys_spark.stages.ingest import ingest
from recsys_spark.stages.models import model_of
from recsys_spark.stages.rankers import known, model_ranker
from recsys_spark.stages.train import train_als
from recsys_spark.topk.kernels import top_k


def share(run: Run) -> None:
    """Leave in the run's counts what share of the scores of its model are computed, of up to 20,000 users."""
    run.resolve_as_of()
    model = model_ranker(run, model_of(run), known(run), segments=False).model
    assert model is not None
    pairs = run.tables.read_slice("silver.interactions", {"as_of": run.as_of}).where("core AND NOT hidden")
    coded = pairs.join(run.tables.read("gold.item_ids"), "item_id").select("user_id", "item_index", "weight")
    rows = coded.toArrow().sort_by([("user_id", "ascending"), ("item_index", "ascending")])
    users = rows.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy()
    n = min(int(users[-1]) + 1, 20_000)
    offsets = np.searchsorted(users, np.arange(n + 1))
    own = slice(0, offsets[-1])
    columns = model.places[rows.column("item_index").to_numpy()[own]]
    factors = model.user_factors(offsets, columns, rows.column("weight").to_numpy()[own].astype(np.float32))
    n_tiles, tile_items, _ = model.catalog.factors.shape
    with one_thread(), computed_scores() as sizes:
        top_k(factors, model.catalog, run.config.topk.k, offsets, columns)
    run.counts["users"], run.counts["items"] = n, len(model.items)
    run.counts["tiles"] = n_tiles
    run.counts["share"] = sum(sizes) / (n * n_tiles * tile_items)


def main() -> None:
    """Train each configuration in a folder of its own; print a table, write JSON."""
    cli = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cli.add_argument("configs", nargs="+", type=Path)
    cli.add_argument("--set", action="append", default=[], dest="overrides")
    cli.add_argument("--json", type=Path)
    given = cli.parse_args()
    rows = {}
    for config in given.configs:
        stages = {"ingest": ingest, "build_features": build_features, "train_als": train_als, "share": share}
        with tempfile.TemporaryDirectory() as folder:
            overrides = [f"storage.root={folder}", *given.overrides]
            argv = ["--config", str(config), "--run-id", "bench", *setting(overrides)]
            found = run_stages("pruning", stages, argv)["counts"]
        rows[config.stem] = {name: found[name] for name in ("users", "items", "tiles", "share")}
    for name, row in rows.items():
        print(f"{name:20}", "  ".join(f"{what} {value}" for what, value in row.items()))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
