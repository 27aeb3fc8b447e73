"""The cost model: its rates are those that were measured, the page has them and its table, and it gives them back."""

import re
from pathlib import Path

import pytest

from benchmarks import cost as model
from benchmarks.cost import CASES, Cluster, Log, cost, table

DOCS = Path(__file__).parents[2] / "docs"
PAGE, MEASURED = ((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("scaling", "benchmarks"))
HERE = Cluster(executors=1, cores_each=2, loss=1)  # the machine of docs/benchmarks.md


def cell(row: str, column: int, table_of: str) -> float:
    """A number of docs/benchmarks.md: by the heading above its table, what its row begins with, and its column."""
    _, section = MEASURED.split(f"\n## {table_of}\n")
    line = next(line for line in section.splitlines() if line.startswith(f"| {row} |"))
    return float(line.split("|")[1:][column])


def words(pattern: str) -> list[float]:
    """The numbers of a sentence of docs/benchmarks.md."""
    return [float(number.replace(",", "")) for number in re.findall(pattern, " ".join(MEASURED.split()))[0]]


TRAINED = {
    (200e3, 20e3, 20e6, 128): cell("200 k × 20 k, 20 M, 128", 1, "Training"),
    (60e3, 10e3, 5e6, 256): cell("60 k × 10 k, 5 M, 256", 1, "Training"),
    (200e3, 10e3, 41.9e6, 64): cell("200 k | 41.9 M", 2, "Scaling"),
    (500e3, 10e3, 44.8e6, 64): cell("500 k | 44.8 M", 2, "Scaling"),
}
SCORED = {
    (60e3, 10e3, 5e6, 64): cell("60 k × 10 k, 64, 10 (5 M interactions)", 7, "Top-K"),
    (200e3, 100e3, 20e6, 128): cell("200 k × 100 k, 128, 50 (20 M interactions)", 7, "Top-K"),
}


def test_the_page_has_the_table_that_the_model_prints() -> None:
    assert table() in PAGE, "python -m benchmarks.cost prints it"


def test_every_rate_is_the_one_that_was_measured() -> None:
    """In core-seconds: on two cores."""
    _, preparing = words(r"varies with the run \(([\d.]+) to ([\d.]+) s at 5 M")
    skewed, moved = words(r"an epoch takes (\d+) ns an interaction .* moves as many bytes \(([\d.]+) GB;")
    _, folded = words(r"Fold-in solves ([\d,]+) and ([\d,]+) users a second")
    kernel = cell("60 k × 10 k, 64, 10 (5 M interactions)", 2, "Top-K")
    rates = {
        "INGEST": 2 * cell("ingest", 1, "Features") / 20e6,
        "FEATURES": 2 * cell("build_features", 1, "Features") / 20e6,
        "BLOCK": 2 * preparing / 5e6,
        "EPOCH_128": 2 * TRAINED[200e3, 20e3, 20e6, 128] / 20e6,
        "MOVE": (2 * 20e6 * skewed * 1e-9 - 20e6 * model.EPOCH_128 * 16 / 128) / (moved * 1e9),
        "LISTS": 2 * SCORED[60e3, 10e3, 5e6, 64] / 5e6,
        "FOLD_128": 2 / folded / 100,
        "RANK_64": 2 * kernel / (60e3 * 10e3),
    }
    assert {name: getattr(model, name) for name in rates} == pytest.approx(rates)


@pytest.mark.parametrize(
    "said",
    [
        f"| ingest | {model.INGEST * 1e6:.1f} core-µs an event |",
        f"| features | {model.FEATURES * 1e6:.1f} core-µs an event |",
        f"| blocks | {model.BLOCK * 1e6:.2f} core-µs an interaction |",
        f"| {model.EPOCH_128 * 1e9:.0f} core-ns an interaction at rank 128 |",
        f"loss·({model.EPOCH_128 * 1e9:.0f} ns·(d/128)·N/C + max({model.MOVE * 1e9:.1f} s/GB·moved/C, ",
        f"| what an epoch moves | {model.MOVE * 1e9:.1f} core-s a GB ",
        f"| {model.LISTS * 1e6:.1f} core-µs an interaction |",
        f"| folding in | {model.FOLD_128 * 1e9:.0f} core-ns an interaction at rank 128, ",
        f"| ranking | {model.RANK_64 * 1e9:.1f} core-ns a user and item at rank 64, ",
        f"loss·({model.LISTS * 1e6:.1f} µs·N + {model.FOLD_128 * 1e9:.0f} ns·(d/128)·N + "
        f"{model.RANK_64 * 1e9:.1f} ns·(d/64)·U·I)/C",
    ],
)
def test_the_page_has_the_rates_of_the_model(said: str) -> None:
    assert said in PAGE


@pytest.mark.parametrize(("log", "measured"), TRAINED.items())
def test_an_epoch_that_was_measured_is_not_promised_faster_than_it_was_nor_at_thrice_the_time(
    log: tuple[float, float, float, int], measured: float
) -> None:
    *sizes, rank = log
    assert measured * 0.99 <= cost(Log(*sizes), HERE, rank).epoch <= 3 * measured


@pytest.mark.parametrize(("log", "measured"), SCORED.items())
def test_lists_that_were_measured_are_not_promised_sooner_than_they_were_nor_at_twice_the_time(
    log: tuple[float, float, float, int], measured: float
) -> None:
    *sizes, rank = log
    promised = cost(Log(*sizes), HERE, rank).hours["lists, three times"] * 3600 / 3
    assert measured * 0.99 <= promised <= 2 * measured


def test_features_are_the_largest_part_of_a_night_until_ranking_is() -> None:
    largest = {name: max(hours, key=hours.get) for name in CASES if (hours := cost(*CASES[name]).hours)}
    assert largest == {"10 M": "features, twice", "100 M": "features, twice", "1 B": "lists, three times"}


def test_twice_the_users_on_twice_the_executors_take_as_long_and_move_twice_as_much() -> None:
    log, cluster = CASES["10 M"]
    once = cost(log, cluster)
    twice = cost(Log(2 * log.users, log.items, 2 * log.interactions), Cluster(2 * cluster.executors))
    assert twice.moved == 2 * once.moved
    assert twice.epoch == pytest.approx(once.epoch)
    assert twice.worker == once.worker


def test_more_interactions_move_nothing_more() -> None:
    log, cluster = CASES["100 M"]
    assert cost(Log(log.users, log.items, 10 * log.interactions), cluster).moved == cost(log, cluster).moved
