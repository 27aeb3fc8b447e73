"""The search for settings: which trials are stopped, and that the same trials ask for the same next one."""

import datetime as dt

from recsys_spark.config import Config, Tune
from recsys_spark.tuning.search import Done, Search, own_settings

LIVES = ["none", "100s", "200s"]
FIRST = {"half_life": "100s", "transform": "log1p", "rank": 32, "regularization": 0.01, "alpha0": 0.3, "nu": 0.75}


def searched(values: list[dict[int, float]]) -> Search:
    """A search after trials of these values, each with the settings that were asked for."""
    search = Search(Tune(), LIVES, FIRST)
    for each in values:
        search.tell(Done(search.ask().settings, each, False))
    return search


def test_a_trial_that_falls_behind_half_of_the_others_is_stopped_and_a_better_one_goes_on() -> None:
    search = searched([{4: 0.3 + place / 100, 8: 0.5, 16: 0.6} for place in range(10)])
    assert search.ask().falls_behind(0.2)
    good = search.ask()
    assert not good.falls_behind(0.38) and good.falls_behind(0.1), "on the next rung it is compared anew"


def test_the_first_trial_has_nobody_to_fall_behind() -> None:
    assert not Search(Tune(), LIVES, FIRST).ask().falls_behind(0.0)


def test_a_search_that_goes_on_asks_what_an_uninterrupted_one_does() -> None:
    values = [{4: 0.1 * place % 0.7, 8: 0.2 * place % 0.7} for place in range(12)]
    whole = searched(values)
    done = [Done(searched(values[:place]).ask().settings, each, False) for place, each in enumerate(values)]
    again = Search(Tune(), LIVES, FIRST, done)
    assert again.ask().settings == whole.ask().settings


def test_the_first_trial_is_the_first_that_is_given_and_the_second_is_not() -> None:
    search = Search(Tune(), LIVES, FIRST)
    assert search.ask().settings == FIRST
    search.tell(Done(FIRST, {4: 0.5}, False))
    assert search.ask().settings != FIRST


def configured(**sections) -> Config:
    source = {"path": "log.csv", "format": "csv", "columns": {"user": "u", "item": "i", "time": "t"}}
    return Config.model_validate({"name": "a", "source": source} | sections)


def test_what_a_configuration_says_is_taken_as_it_is_within_the_bounds_and_else_the_nearest() -> None:
    lives = {"none": None, "100s": dt.timedelta(seconds=100), "400s": dt.timedelta(seconds=400)}
    says = {"rank": 64, "regularization": 0.02, "alpha0": 0.5, "nu": 0.6}
    inside = configured(als=says, features={"half_life": "400s", "transform": "log1p"})
    assert own_settings(inside, lives) == says | {"half_life": "400s", "transform": "log1p"}
    outside = {"rank": 70, "regularization": 9, "alpha0": 0, "nu": 0.1}
    found = own_settings(configured(als=outside, features={"half_life": "150s", "transform": "mean"}), lives)
    assert found == {
        "rank": 64, "regularization": 0.1, "alpha0": 0.02, "nu": 0.5, "half_life": "100s", "transform": "sum",
    }  # fmt: skip
    assert own_settings(configured(), lives)["half_life"] == "none"
    assert own_settings(configured(features={"half_life": "1s"}), {"none": None})["half_life"] == "none"
