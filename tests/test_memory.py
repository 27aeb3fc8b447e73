import dataclasses

import pytest
from pyspark.sql import SparkSession

from recsys_spark import memory
from recsys_spark.config import Config
from recsys_spark.errors import ConfigError
from recsys_spark.memory import INTERPRETER, Need, Ranking, available, check, check_ranking
from recsys_spark.stages.windows import needs
from recsys_spark.workers import PIECE_BYTES


def test_what_training_needs_is_what_the_page_counts() -> None:
    need = Need(n_columns=1000, rank=10, n_blocks=3, block_interactions=500, block_rows=20)
    assert need.moving == 4 * 1000 * 10
    assert need.worker == INTERPRETER + 4 * 40_000 + 2 * 4 * 20 * 10 + 24 * 500
    assert need.driver == INTERPRETER + 8 * 40_000 + 2 * 3 * 40_000
    assert need.results == 3 * 40_000
    assert dataclasses.replace(need, interaction_bytes=32).worker == need.worker + 8 * 500
    assert Need(10**6, 64, 8, 1000, 1000).results == 4 * 10**6 * 64, "executors add up what is too much"


def test_what_fits_is_let_through(spark: SparkSession) -> None:
    check(spark, Need(10_000, 64, 2, 100_000, 5_000), "items")


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (
            Need(500_000_000, 64, 4, 1000, 1000),
            r"als\.rank: 64: 500,000,000 moving items .* above spark\.driver\.maxRes",
        ),
        (
            Need(1000, 64, 4, 10**12, 1000),
            r"moving items at this rank need .* GB beside the JVM on this machine, which",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers_and_the_remedy(
    spark: SparkSession, need: Need, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        check(spark, need, "items")
    assert "lower als.rank, let the other side move" in str(error.value)


def test_what_does_not_fit_beside_an_executor_is_refused(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's session says that executors have 1,536 MiB beside their JVM: it has none, but the check asks."""
    monkeypatch.setattr(memory, "available", lambda: 2**40)  # so that this machine's is enough, whatever else runs
    with pytest.raises(
        ConfigError, match=r"1 Python workers, above spark\.executor\.memoryOverhead of 1536: lower als"
    ):
        check(spark, Need(10_000, 64, 4, 80_000_000, 1000), "items")


def test_a_search_needs_what_its_largest_ranks_do_and_what_it_keeps_of_other_windows() -> None:
    """In two blocks, of 7,501 pairs and 500 users; of the vectors there are 3 windows · 2² pairs of exponents."""
    tune = {"windows": 3, "ranks": [16, 64, 4], "spectral_ranks": [8, 32], "exponents": [0.4, 0.5]}
    source = {"path": "log.csv", "format": "csv"}
    config = Config.model_validate({"name": "a", "source": source, "tune": tune, "spectral": {"most_blocks": 5}})
    assert needs(config, n_items=1000, n_users=500, n_pairs=7501, n_blocks=2) == {
        "tune.ranks": Need(1000, 64, 2, 3751, 250, 8 + 2 * 2),
        "tune.spectral_ranks": Need(1000, 32, 2, 3751, 250, 2 * 5 + 6 + 3 * 2**2),
    }
    assert needs(config, 20, 500, 7501, 2)["tune.spectral_ranks"].rank == 19, "there are no more vectors"
    alone = config.model_copy(update={"tune": config.tune.model_copy(update={"kinds": ("als",)})})
    assert list(needs(alone, 1000, 500, 7501, 2)) == ["tune.ranks"]


def test_a_search_that_does_not_fit_is_told_to_lower_its_ranks_alone(spark: SparkSession) -> None:
    with pytest.raises(ConfigError, match=r"^tune\.ranks: 64: .*: lower tune\.ranks, or raise that") as error:
        check(spark, Need(500_000_000, 64, 4, 1000, 1000), "items", "tune.ranks", fixed=True)
    assert "moving_side" not in str(error.value), "of a window items move, whatever the configuration says"


def test_what_ranking_needs_is_what_the_page_counts() -> None:
    need = Ranking(1000, (10, 7))
    assert need.read == 4 * 1000 * 10
    assert need.catalog == 4 * 1000 * (17 + 3)
    assert need.driver == INTERPRETER + 3 * 80_000 + 200 * 1000
    assert need.worker == INTERPRETER + 80_000 + 120 * 1000
    assert Ranking(10**8, (10,)).worker == INTERPRETER + PIECE_BYTES + 120 * 10**8
    assert Ranking(1000, (10, 7), encrypted=True).worker == INTERPRETER + 2 * 80_000 + 120 * 1000


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (
            Ranking(500_000_000, (64,)),
            r"500,000,000 items at rank 64 are 119\.2 GB .* above spark\.driver\.maxResultSize",
        ),
        (Ranking(500_000_000, (1, 1)), r"rank 1 \+ 1 need .* GB beside the JVM on this machine, which has .* GB left"),
    ],
)
def test_a_model_that_ranking_has_no_room_for_is_refused_with_the_numbers_and_the_remedy(
    spark: SparkSession, need: Ranking, words: str
) -> None:
    check_ranking(spark, Ranking(100_000, (64, 64)), "night")
    with pytest.raises(ConfigError, match=f"model night: .*{words}") as error:
        check_ranking(spark, need, "night")
    assert "train at a lower rank or on fewer items" in str(error.value)


def test_there_is_memory_left() -> None:
    assert 2**26 < available() < 2**50


def test_what_a_container_keeps_of_files_it_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n",
        "/sys/fs/cgroup/memory.max": "4096000\n",
        "/sys/fs/cgroup/memory.current": "4000000\n",
        "/sys/fs/cgroup/memory.stat": "anon 100\nactive_file 1000000\ninactive_file 2000000\ninactive_anon 7\n",
    }
    monkeypatch.setattr(memory, "_read", lambda path: told[path])
    assert available() == 4_096_000 - 4_000_000 + 3_000_000
    told["/sys/fs/cgroup/memory.max"] = "max\n"
    assert available() == 8000 * 1024
