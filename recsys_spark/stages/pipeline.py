"""All jobs one after another in one Spark session: from raw files to ranked lists and their comparison."""

from recsys_spark.runs import Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.evaluate import GATE, evaluate
from recsys_spark.stages.features import build_features
from recsys_spark.stages.ingest import ingest
from recsys_spark.stages.score import score_topk
from recsys_spark.stages.shown import show_someone
from recsys_spark.stages.train import train_als


def report(run: Run) -> None:
    """Show one user's list beside her history, and say where the tables are and where the time went."""
    show_someone(run, run.run_id)
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in run.seconds.items())
    run.say(f"tables: {run.tables.root}/{{bronze,silver,gold}}/…   time: {took}")


STAGES = {
    "ingest": ingest,
    "build_features": build_features,
    "train_als": train_als,
    "score_topk": score_topk,
    "evaluate": evaluate,
}


def main() -> int:
    """Run the job from the command line."""
    return run_job("pipeline", STAGES, __doc__ or "", finish=report, options=GATE)
