"""The cost model: the table of docs/scaling.md is its own, and it gives back what was measured."""

from pathlib import Path

import pytest

from benchmarks.cost import CASES, Cluster, Log, cost, table

PAGE = (Path(__file__).parents[2] / "docs/scaling.md").read_text(encoding="utf-8")
HERE = Cluster(executors=1, cores_each=2, loss=1)  # the machine of docs/benchmarks.md


def test_the_page_has_the_table_that_the_model_prints() -> None:
    assert table() in PAGE, "python -m benchmarks.cost prints it"


@pytest.mark.parametrize(
    ("users", "items", "interactions", "rank", "measured"),
    [(200e3, 20e3, 20e6, 128, 2.13), (200e3, 10e3, 41.9e6, 64, 1.55), (500e3, 10e3, 44.8e6, 64, 2.08),
     (60e3, 10e3, 5e6, 256, 1.16)],
)  # fmt: skip
def test_an_epoch_that_was_measured_is_not_promised_faster_than_it_was_nor_at_thrice_the_time(
    users: float, items: float, interactions: float, rank: int, measured: float
) -> None:
    promised = cost(Log(users, items, interactions), HERE, rank).epoch
    assert measured * 0.99 <= promised <= 3 * measured


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
