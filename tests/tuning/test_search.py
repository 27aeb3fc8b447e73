"""The search for settings: which trials are stopped, and that the same trials ask for the same next one."""

from recsys_spark.config import Tune
from recsys_spark.tuning.search import Done, Search

LIVES = ["none", "100s", "200s"]


def searched(values: list[dict[int, float]]) -> Search:
    """A search after trials of these values, each with the settings that were asked for."""
    search = Search(Tune(), LIVES)
    for each in values:
        search.tell(Done(search.ask().settings, each, False))
    return search


def test_a_trial_that_falls_behind_half_of_the_others_is_stopped_and_a_better_one_goes_on() -> None:
    search = searched([{4: 0.3 + place / 100, 8: 0.5, 16: 0.6} for place in range(10)])
    assert search.ask().falls_behind(0.2)
    good = search.ask()
    assert not good.falls_behind(0.38) and good.falls_behind(0.1), "on the next rung it is compared anew"


def test_the_first_trial_has_nobody_to_fall_behind() -> None:
    assert not Search(Tune(), LIVES).ask().falls_behind(0.0)


def test_a_search_that_goes_on_asks_what_an_uninterrupted_one_does() -> None:
    values = [{4: 0.1 * place % 0.7, 8: 0.2 * place % 0.7} for place in range(12)]
    whole = searched(values)
    done = [Done(searched(values[:place]).ask().settings, each, False) for place, each in enumerate(values)]
    again = Search(Tune(), LIVES, done)
    assert again.ask().settings == whole.ask().settings
