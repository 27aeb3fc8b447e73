"""Configuration files, overrides, and what is said about a wrong one."""

import datetime as dt
import re
from pathlib import Path

import pytest
import yaml

from recsys_spark.config import Config, load
from recsys_spark.config_page import reference
from recsys_spark.errors import (
    ConfigError,
    DataError,
    DependencyError,
    JobError,
    TryAgainError,
    UsageError,
)
from recsys_spark.evaluation.comparison import holm
from recsys_spark.evaluation.gate import Rules
from recsys_spark.session import LOCAL

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.glob("*.yaml"))
MINIMAL = {"name": "shop", "source": {"path": "log.parquet"}}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(folder: Path, **sections: object) -> Path:
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **sections}), encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(str(path), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_there_is_a_configuration_for_every_dataset_that_the_readme_measures() -> None:
    assert [path.stem for path in FILES] == [
        "completejourney", "given_split", "globo_news", "lastfm_social", "movielens", "online_retail", "retailrocket",
    ]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_configuration_loads_and_is_named_as_its_file(path: Path) -> None:
    assert load(str(path)).name == path.stem


def test_no_two_shipped_configurations_share_a_place_for_their_tables() -> None:
    roots = [load(str(path)).storage.root for path in FILES]
    assert len(set(roots)) == len(roots)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_configuration_has_a_way_to_tell_past_from_future(path: Path) -> None:
    config = load(str(path))
    assert (config.as_of is None) == (config.holdout is not None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_filters_of_a_shipped_configuration_compute_with_typed_columns_only(path: Path) -> None:
    source = load(str(path)).source
    for name, expression in source.filters.items():
        for column in re.findall(r"(\w+)\s*(?:[<>]=?)", expression):
            assert column in source.types, f"{name}: {expression}"


def test_given_split_has_no_time_no_k_core_and_the_lengths_of_published_comparisons() -> None:
    config = load(str(CONF / "given_split.yaml"), ["source.path=TRAIN.parquet", "holdout.path=TEST.parquet"])
    assert config.source.path == ("TRAIN.parquet",)
    assert config.holdout is not None
    assert config.holdout.path == ("TEST.parquet",)
    assert config.source.columns.model_dump(exclude_none=True) == {"user": "user", "item": "item"}
    assert config.features.k_core == 1
    assert config.evaluation.k == (10, 20, 50)
    assert config.topk.k >= max(config.evaluation.k)
    assert config.evaluation.recall_divides_by == "relevant"


def test_the_mean_and_the_biases_of_ratings_are_not_scaled_by_popularity() -> None:
    ratings = ["als.objective=explicit", "features.value=multiply", "source.columns.value=rating"]
    path = str(CONF / "movielens.yaml")
    assert load(path, ratings).als.objective == "explicit"
    with pytest.raises(ConfigError, match=r"topk\.popularity_exponent would scale the mean and the biases"):
        load(path, [*ratings, "topk.popularity_exponent=0.1"])


@pytest.mark.parametrize(
    ("segments", "confidence", "least"),
    [(5, 0.95, 13 * 20 - 1), (20, 0.95, 28 * 20 - 1), (5, 0.99, 1299), (20, 0.9, 279)],
)
def test_a_gate_that_could_find_no_segment_harmed_is_refused(segments: int, confidence: float, least: int) -> None:
    """With fewer replicates Holm's smallest p of so many segments would be above the level, whatever happened."""
    given = ["users.path=u.csv", "users.format=csv", f"gate.segments={segments}", f"gate.confidence={confidence}"]
    it_takes(given, confidence, least, 8 + segments, "segments harmed")


@pytest.mark.parametrize(("lengths", "new_items_only", "most"), [(1, True, 10), (12, True, 120), (12, False, 288)])
def test_a_comparison_that_could_show_no_metric_changed_is_refused(
    lengths: int, new_items_only: bool, most: int
) -> None:
    """All metrics at all lengths are one family of Holm's."""
    given = [f"evaluation.k={list(range(1, lengths + 1))}", f"evaluation.new_items_only={str(new_items_only).lower()}"]
    it_takes(given, 0.95, 20 * most - 1, most, "metrics changed")


def it_takes(given: list[str], confidence: float, least: int, questions: int, answer: str) -> None:
    """Check that so many replicates, and no fewer, can answer one of so many questions, and that fewer are refused."""
    assert holm([1 / (least + 1)] + [1.0] * (questions - 1))[0] <= Rules("ndcg", confidence).level < questions / least
    path = str(CONF / "globo_news.yaml")
    assert load(path, [*given, f"gate.replicates={least}"]).gate.replicates == least
    with pytest.raises(ConfigError, match=f"too few to find any of {questions} {answer} .* it takes {least}$"):
        load(path, [*given, f"gate.replicates={least - 1}"])


@pytest.mark.parametrize("path", sorted((CONF / "spark").glob("*.conf")), ids=lambda path: path.stem)
def test_every_spark_property_follows_its_reason(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    names = [line.split()[0] for line in lines if not line.startswith("#")]
    assert len(set(names)) == len(names) > 0
    # One word each, but for a JVM's options, which are several.
    form = re.compile(r"spark\.\S+\s+\S+|spark\.driver\.extraJavaOptions\s+-XX:\S+( -XX:\S+)*")
    assert all(form.fullmatch(line) for line in lines if not line.startswith("#"))
    # One reason may stand above several properties; the file's first line is about the file.
    assert lines[0].startswith("#") and lines[1].startswith("#")


def test_a_submitted_job_on_one_machine_has_the_session_of_plain_python() -> None:
    lines = (CONF / "spark/local.conf").read_text(encoding="utf-8").splitlines()
    given = dict(line.split(maxsplit=1) for line in lines if not line.startswith("#"))
    assert given.pop("spark.master") == "local[*]"
    log, _, options = LOCAL["spark.driver.extraJavaOptions"].partition(" ")
    assert log.startswith("-Dlog4j2.")  # of the package, wherever it lies
    assert given == LOCAL | {"spark.driver.extraJavaOptions": options}


@pytest.mark.parametrize("name", ["standalone", "kubernetes", "yarn"])
def test_a_cluster_authenticates_and_encrypts_by_current_algorithms_and_shows_no_page(name: str) -> None:
    lines = (CONF / "spark" / f"{name}.conf").read_text(encoding="utf-8").splitlines()
    given = dict(line.split() for line in lines if not line.startswith("#"))
    assert not [key for key in given if "secret" in key]  # those are the deployment's
    wanted = {
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.network.crypto.authEngineVersion": "2",
        "spark.network.crypto.cipher": "AES/GCM/NoPadding",
        "spark.network.crypto.saslFallback": "false",
        "spark.io.encryption.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.task.maxDirectResultSize": LOCAL["spark.task.maxDirectResultSize"],
    }
    assert wanted.items() <= given.items()


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("als.rnak", "als.rnak=64"),
        ("colour", "colour=red"),
        ("source.columns.usr", "source.columns.usr=u"),
        ("__class__", "__class__.x=1"),
        ("als.__class__", "als.__class__=x"),
        ("als.__init__", "als.__init__.__globals__.x=1"),
        ("model_config", "model_config.extra=allow"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_file_and_key(shop: Path, key: str, override: str) -> None:
    assert refused(shop, override).startswith(f"{shop}: {key}: unknown key")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("als.rank=0", "als.rank: 0: input should be greater than or equal to 1"),
        ("als.rank=many", "als.rank: 'many': input should be a valid integer"),
        ("als.regularization=0", "als.regularization: 0: input should be greater than 0"),
        ("features.k_core=0", "features.k_core: 0: input should be greater than or equal to 1"),
        ("als.moving_side=both", "als.moving_side: 'both': input should be 'auto', 'users' or 'items'"),
        ("name=My Shop", "name: 'My Shop': string should match pattern"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_key_and_its_bound(shop: Path, override: str, words: str) -> None:
    assert refused(shop, override).startswith(f"{shop}: {words}")


def test_every_mistake_is_told_at_once(shop: Path) -> None:
    message = refused(shop, "als.rank=0", "topk.k=0", "colour=red")
    assert [part.split(": ")[1] for part in message.split("; ") if part.startswith(str(shop))] == [
        "als.rank", "topk.k", "colour",
    ]  # fmt: skip


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("name: shop\n", encoding="utf-8")
    assert refused(path) == f"{path}: source: missing, and has no default"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "a configuration is a mapping"), ("- a\n", "a configuration is a mapping"), ("a: [1\n", "not valid YAML")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    assert refused(path).startswith(f"{path}: {words}")


def test_yaml_makes_no_objects_but_plain_ones(shop: Path, tmp_path: Path) -> None:
    marker = tmp_path / "made"
    for tag in (f"!!python/object/apply:pathlib.Path.touch [{marker}]", "!!python/name:os.system"):
        odd = tmp_path / "odd.yaml"
        odd.write_text(f"name: {tag}\n", encoding="utf-8")
        assert "could not determine a constructor for the tag" in refused(odd)
        with pytest.raises(UsageError, match="is not YAML"):
            load(str(shop), [f"name={tag}"])
    assert not marker.exists()


@pytest.mark.parametrize(
    "override",
    [
        "source.path=ftp://night:Hoot-owl@host/log.csv",
        "source.path=[a.csv, 'https://host/log.csv?X-Amz-Signature=Hoot-owl']",
        "items={path: 's3a://key:Hoot-owl@bucket/items.csv'}",
        "storage.root=wasbs://logs@acme/x?sig=Hoot-owl",
    ],
)
def test_a_path_with_a_secret_in_it_is_refused_and_the_secret_is_not_told(shop: Path, override: str) -> None:
    message = refused(shop, override)
    assert "it must hold no password, token or signature" in message and "Hoot" not in message


@pytest.mark.parametrize(
    "override",
    ["source.options.password=[Hoot-owl]", "source.options.password={a: Hoot-owl}", "als.password=Hoot-owl"],
)
def test_a_wrong_value_that_may_be_a_secret_is_not_told(shop: Path, override: str) -> None:
    assert "Hoot" not in refused(shop, override)
    with pytest.raises(UsageError) as caught:
        load(str(shop), ["source.options.password={Hoot-owl: ]"])
    assert "Hoot" not in str(caught.value) and "source.options.password=***" in str(caught.value)


def test_a_line_of_broken_yaml_is_named_by_its_number_and_not_shown(tmp_path: Path) -> None:
    odd = tmp_path / "odd.yaml"
    odd.write_text('name: shop\nsource:\n  options: {password: "Hoot-owl}\n', encoding="utf-8")
    assert refused(odd).startswith(f"{odd}: not valid YAML: line ") and "Hoot" not in refused(odd)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "no such configuration file" in refused(tmp_path / "none.yaml")
    assert "cannot be read" in refused(tmp_path)


def test_overrides_replace_values_and_make_sections_that_are_not_there(shop: Path) -> None:
    config = load(
        str(shop),
        [
            "als.rank=32",
            "als.alpha0=0.5",
            "source.path=[a.csv, b.csv]",
            "evaluation.k=[10, 5, 10]",
            "tune.epochs=[8, 4, 8]",
            "features.windows=[1d, 7d, 24h]",
            "features.of_items=[age, sums, age]",
            "source.options.sep=;",
            "source.columns={user: u, item: i}",
            "topk.hide_seen=false",
        ],
    )
    assert (config.als.rank, config.als.alpha0) == (32, 0.5)
    assert config.source.path == ("a.csv", "b.csv")
    assert config.evaluation.k == (10, 5), "in the order given: the first is the gate's"
    assert config.tune.epochs == (4, 8)
    assert config.features.windows == (dt.timedelta(days=1), dt.timedelta(days=7)), "of one length is one"
    assert config.features.of_items == ("age", "sums")
    assert config.source.options == {"sep": ";"}
    assert (config.source.columns.user, config.source.columns.item) == ("u", "i")
    assert config.topk.hide_seen is False
    assert config.als.epochs == Config.model_validate(MINIMAL).als.epochs  # its neighbours stay as they were


def test_one_value_stands_for_a_list_of_one_and_the_last_override_wins(shop: Path) -> None:
    config = load(str(shop), ["evaluation.k=5", "evaluation.k=20", "source.path=a=b.parquet"])
    assert config.evaluation.k == (20,)
    assert config.source.path == ("a=b.parquet",)  # only the first = parts key from value


def test_an_empty_override_takes_a_value_away(tmp_path: Path) -> None:
    path = written(tmp_path, holdout={"random": 0.2})
    assert load(str(path), ["holdout="]).holdout is None


def test_a_value_where_a_section_is_expected_is_an_error(shop: Path) -> None:
    assert refused(shop, "als=64").startswith(f"{shop}: als: 64: ")
    assert refused(shop, "name.first=x") == "--set name.first=x: name is a value, not a section"


@pytest.mark.parametrize("override", ["als.rank", "=64", "  =64"])
def test_an_override_that_is_not_key_equals_value_is_a_usage_error(shop: Path, override: str) -> None:
    with pytest.raises(UsageError, match="write it as key=value"):
        load(str(shop), [override])


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("36h", dt.timedelta(hours=36)),
        ("31d", dt.timedelta(days=31)),
        ("90m", dt.timedelta(minutes=90)),
        ("10s", dt.timedelta(seconds=10)),
        ("1.5 d", dt.timedelta(hours=36)),
        ("2", dt.timedelta(days=2)),  # a bare number means days
    ],
)
def test_durations_have_a_unit_and_days_without(shop: Path, text: str, duration: dt.timedelta) -> None:
    assert load(str(shop), [f"features.popularity_half_life={text}"]).features.popularity_half_life == duration


@pytest.mark.parametrize("text", ["3 weeks", "h", "0d", "0", "-1", "-1d", "1.2.3d"])
def test_what_is_no_positive_duration_is_refused(shop: Path, text: str) -> None:
    assert refused(shop, f"evaluation.horizon={text}").startswith(f"{shop}: evaluation.horizon: ")


def test_a_window_of_tuning_that_would_end_after_as_of_is_refused(shop: Path) -> None:
    assert load(str(shop), ["tune.step=28d"]).tune.step == dt.timedelta(days=28)
    assert "tune.step is shorter than the horizon" in refused(shop, "tune.step=27d")
    assert load(str(shop), ["tune.step=1d", "tune.horizon=6h"]).tuning_horizon() == dt.timedelta(hours=6)


@pytest.mark.parametrize(
    ("text", "hour"),
    [("2011-11-01", 0), ("2011-11-01T06:00", 6), ("2011-11-01T06:00:00+01:00", 5), ("2011-11-01T06:00:00Z", 6)],
)
def test_times_are_utc_unless_they_name_a_zone(tmp_path: Path, text: str, hour: int) -> None:
    path = written(tmp_path, source={"path": "x", "columns": {"time": "at"}})
    for override in (f"as_of={text}", f"as_of='{text}'"):  # as YAML's own time, and as text
        assert load(str(path), [override]).as_of == dt.datetime(2011, 11, 1, hour, tzinfo=dt.UTC)


def test_what_is_no_time_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, source={"path": "x", "columns": {"time": "at"}})
    assert "as_of: 'yesterday': a time is ISO 8601" in refused(path, "as_of=yesterday")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("as_of=2011-11-01", "as_of needs source.columns.time"),
        ("features.half_life=30d", "features.half_life needs source.columns.time"),
        ("topk.fallback=popularity_decayed", "needs source.columns.time"),
        ("features.events={buy: 1}", "features.events needs source.columns.event"),
        ("holdout={random: 0.2, path: x}", "either `path` or `random` or `last` or `users`"),
        ("holdout.seed=2", "either `path` or `random` or `last` or `users`"),
        ("source={path: x, format: csv, header: false}", "`names`"),
        ("source.heavy_users={}", "either `events_a_day` or `quantile`"),
        ("source.heavy_users={events_a_day: 9}", "source.heavy_users.events_a_day needs source.columns.time"),
        ("features.hides=[dislike]", "needs source.columns.event"),
        ("features.value=log1p", "features.value: log1p needs source.columns.value"),
        ("features.of_users=[categories]", "features.of_users: categories needs items.columns.category"),
        ("features.of_items=[category]", "features.of_items: category needs items.columns.category"),
        ("features.of_users=[friends]", "features.of_users: friends needs the section `friends`"),
        ("holdout.last=1", "holdout.last needs source.columns.time"),
        ("source.measures={n: a, n_7d: b}", "source.measures: n_7d is what a sum of n is called; rename it"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(shop: Path, override: str, words: str) -> None:
    assert words in refused(shop, override)


def test_a_loaded_configuration_survives_being_written_and_read(shop: Path) -> None:
    for path in [*FILES, shop]:
        config = load(str(path))
        assert Config.model_validate_json(config.model_dump_json()) == config


def test_every_kind_of_error_has_the_exit_code_that_an_orchestrator_expects() -> None:
    kinds = (UsageError, DataError, DependencyError, JobError, TryAgainError, ConfigError)
    assert {kind.status: kind.exit_code for kind in kinds} == {
        "usage": 64, "bad_data": 65, "unavailable": 69, "internal": 70, "try_again": 75, "bad_config": 78,
    }  # fmt: skip


def test_the_page_of_configuration_keys_is_that_of_the_models() -> None:
    page = Path(__file__).parents[1] / "docs" / "configuration.md"
    assert page.read_text(encoding="utf-8") == reference(), "make docs writes it anew"
