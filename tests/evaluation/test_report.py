"""The report's page: what it says, that it needs nothing else, and, in a real browser, that it works."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.report import charts, intervals
from recsys_spark.evaluation.report.content import Listed, Query, Reason, Verdict, popularity_shares, profile_of
from recsys_spark.evaluation.report.page import page
from recsys_spark.evaluation.resampling import ALL
from tests.evaluation.report_example import HOSTILE, example

VOID = {"meta", "link"}
PICTURES = 13  # of the example: the decision, segments, six by k, popularity, training, two over time, days


class Tree(HTMLParser):
    """Checks that elements close in order, and keeps texts and attributes by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        self.ids += [known["id"] or ""] if "id" in known else []
        self.links += [known[name] or "" for name in ("href", "src") if name in known]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in {"line", "circle", "rect", "path", "polyline"}, "HTML's own elements are closed in words"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.setdefault(self.open[-1], []).append(" ".join(data.split()))


def effect(**values: float) -> Effect:
    usual = {"users": 9, "champion": 0.5, "challenger": 0.6, "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.01,
             "p_adjusted": 0.02, "detectable": 0.07}  # fmt: skip
    return Effect("ndcg@10", ALL, **(usual | values))


def test_the_page_is_whole_small_and_asks_for_nothing_outside() -> None:
    text = page(example())
    tree = Tree(text)
    assert len(text.encode()) < 2_000_000
    assert len(tree.ids) == len(set(tree.ids))
    assert all(link == "data:," or link.removeprefix("#") in tree.ids for link in tree.links)
    assert not re.search(r"(https?:)?//\w", text.partition("<script>")[0]) and "@import" not in text
    assert all(f"{n:,}" in text for n in (48_211,))
    assert text == page(example()), "the same report is the same bytes"


def test_the_decision_and_its_reasons_come_first() -> None:
    for report, words in (
        (example(), "is the champion"),
        (example(promoted=False), "stays a challenger"),
        (replace(example(), verdict=None), "was measured"),
    ):
        text = page(report)
        (heading,) = [each for each in Tree(text).texts["h1"] if words in each]
        assert heading.startswith(report.challenger)
        first_screen = text.partition("<main>")[0]
        reasons = report.verdict.reasons if report.verdict else ()
        assert all(reason.words in first_screen for reason in reasons)
        assert 'aria-label="what the gate looks at"' in first_screen
    assert "There is no champion yet" in page(
        replace(example(False), verdict=replace(example(False).verdict, champion=None))
    )


def test_a_reason_is_marked_as_passed_or_failed_where_that_is_known() -> None:
    marks = re.compile('<li class="(passed|failed|unknown)">')
    assert marks.findall(page(example())) == ["passed", "passed", "unknown"]
    assert marks.findall(page(example(promoted=False))) == ["failed", "passed", "unknown"]


def test_what_lists_are_like_has_a_table_of_its_own_and_no_winner() -> None:
    text = page(example())
    means, exposure = (text.partition(f'id="{name}"')[2].partition("</table>")[0] for name in ("means", "exposure"))
    for name in ("coverage", "gini", "popularity_lift", "popularity", "novelty", "diversity"):
        assert f">{name}@10 <small>" in exposure and f"{name}@10" not in means
    assert ">ndcg@10 <small>" in means and "ndcg@10" not in exposure
    assert "<b>" in means and "<b>" not in exposure


def test_names_of_items_are_text_and_never_markup() -> None:
    text = page(example())
    assert HOSTILE not in text and "<script>alert" not in text
    assert HOSTILE in Tree(text).texts["li"]
    assert text.count("and 3 more") == 12, "of five wanted items two are shown"
    assert text.count("and 4 more") == 12, "of fourteen listed items ten are"


def test_nothing_that_comes_from_outside_is_markup() -> None:
    """Names of segments and models stand in tables, pictures and their texts, others in prose."""
    report = example(promoted=False)
    names = {model: f"{model} {HOSTILE}" for model in report.means}
    told = replace(
        report, dataset=HOSTILE, run_id=HOSTILE, challenger=HOSTILE, rival=HOSTILE, as_of=HOSTILE,
        compared=(names["als"], names["champion"]), means={names[of]: each for of, each in report.means.items()},
        effects=[replace(each, segment=each.segment if each.segment == ALL else f"{HOSTILE} {each.segment}")
                 for each in report.effects],
        verdict=Verdict(False, HOSTILE, [Reason(HOSTILE, False)]),
        queries=[Query("means", HOSTILE, HOSTILE)], made={HOSTILE: HOSTILE},
        customers=[replace(each, user_id=HOSTILE, source=HOSTILE, history=[HOSTILE]) for each in report.customers],
        moments=[replace(each, as_of=HOSTILE) for each in report.moments],
        popularity=popularity_shares(np.array([3, 2, 1]), {names["als"]: np.array([1, 0, 1])}),
    )  # fmt: skip
    text = page(told)
    tree = Tree(text)
    assert text.count("<script") == 1 and "<script>alert" not in text and HOSTILE not in text
    assert any(words.startswith(HOSTILE[:16]) for words in tree.texts["text"]), "in a picture, as far as there is room"
    for tag in ("title", "h1", "h3", "th", "button", "code", "dt", "dd", "li", "span", "small"):
        assert any(HOSTILE in words for words in tree.texts[tag]), tag


def test_many_and_long_names_make_no_large_page() -> None:
    long = "Tea towel, " + 200 * "unbleached linen "
    listed = [Listed(long, False, [long, long])] * 20
    report = example()
    customers = [replace(each, history=[long] * 8, listed=listed, wanted=listed) for each in report.customers]
    segments = [
        replace(each, segment=f"{each.segment} {at} {long}")
        for each in report.effects if each.segment != ALL for at in range(40)
    ]  # fmt: skip
    whole = [each for each in report.effects if each.segment == ALL]
    text = page(replace(report, customers=customers, effects=[*whole, *segments]))
    assert len(text.encode()) < 2_000_000 and long not in "".join(Tree(text).texts["li"])
    assert f"{long[:159]}…" in "".join(Tree(text).texts["li"])


def test_one_user_two_models_that_are_alike_and_nothing_found_are_pages_too() -> None:
    """One user whose list changes nothing, and one for whom neither finds anything: no change in per cent."""
    for before in (0.5, 0.0):
        tie = effect(users=1, champion=before, challenger=before, difference=0, low=0, high=0, p=1, p_adjusted=1,
                     detectable=1)  # fmt: skip
        rest = [replace(tie, metric="recall@10"), replace(tie, segment="new users")]
        means = {name: {"ndcg@10": before} for name in example().means}
        text = page(replace(example(False), effects=[tie, *rest], means=means, customers=example().customers[:1]))
        assert "between 0 and 0 with 95% confidence; p = 1" in text and ">1 customer</h2>" in text
        assert text.count("the mean before is 0") == (0 if before else 3)
        assert ('class="badge no"' in text) and "NaN" not in text.partition("<script>")[0]


def test_what_a_run_does_not_have_is_left_out() -> None:
    bare = replace(
        example(), ks=(10,), objective=(), popularity=None, customers=(), verdict=None, profile=None, moments=(),
        effects=[each for each in example().effects if each.segment == ALL],
    )  # fmt: skip
    tree = Tree(page(bare))
    assert {"comparison", "models", "figures"} <= set(tree.ids)
    assert "No backtest has been run yet" in page(bare) and "measured at one length" in page(bare)
    assert not {"segments", "popularity", "training", "data", "customers", "reasons"} & set(tree.ids)


def marks(svg: str, colour: str) -> list[tuple[float, float]]:
    """Return where an SVG has symbols filled with a colour."""
    found = re.findall(r'<path transform="translate\(([-\d.]+),([-\d.]+)\)" d="[^"]+" fill="' + re.escape(colour), svg)
    return [(float(x), float(y)) for x, y in found]


def test_an_interval_is_drawn_where_it_is_and_cut_at_the_edge() -> None:
    width = 188  # of the cell, without its sides

    def drawn(edge: float, **values: float) -> str:
        picture = intervals.interval(effect(**values), edge)
        assert picture is not None
        return str(picture.wide)

    better = drawn(0.4)  # +10 %, +20 %, +30 % of 0.5
    assert [x for x, _ in marks(better, "var(--good)")] == pytest.approx([width * (0.5 + 0.2 / 0.8)])
    line = r'<line transform="translate\(([\d.]+),[\d.]+\)" x2="([\d.-]+)" y2="0" stroke="var\(--good'
    (rule,) = re.findall(line, better)
    start, length = float(rule[0]), float(rule[1])
    ends = sorted([start, start + length])
    assert ends == pytest.approx([width * (0.5 + 0.1 / 0.8), width * (0.5 + 0.3 / 0.8)])
    cut = drawn(0.4, low=-0.3, difference=-0.1, high=-0.05)
    assert sorted(x for x, _ in marks(cut, "var(--bad)")) == pytest.approx([0, width * (0.5 - 0.2 / 0.8)])
    beyond = drawn(0.4, low=-0.4, difference=-0.3, high=-0.05)
    assert [x for x, _ in marks(beyond, "var(--bad)")] == [0], "an arrow alone"
    assert len(marks(drawn(0.4, low=-0.1), "var(--quiet)")) == 1
    assert intervals.interval(effect(champion=0.0), 0.4) is None


def test_the_edge_of_the_intervals_fits_the_widest_but_not_an_outlier() -> None:
    wide = effect(low=-5.0, high=5.0)
    assert intervals.extent([effect(), effect(low=0.02, high=0.2)], effect()) == pytest.approx(1.1 * 0.2 / 0.5)
    assert intervals.extent([effect(), wide], effect()) == pytest.approx(3 * 1.1 * 0.15 / 0.5)
    assert intervals.extent([wide], None) == pytest.approx(1.1 * 10) and intervals.extent([], None) == 0.01


def test_the_decision_shows_the_loss_that_a_guard_allows_on_the_side_where_it_is_a_loss() -> None:
    def guard_at(metric: str) -> float:
        judged = [effect(), replace(effect(low=-0.15), metric=metric)]
        picture = intervals.decision(judged, {metric: 0.25}, 0.95, {})
        assert picture is not None and "at most 25.0% may be lost" in picture.says
        (zero,) = re.findall(r'<line transform="translate\(([\d.]+),0\)"[^>]*stroke="var\(--quiet\)"/>', picture.wide)
        (margin,) = re.findall(r'<path d="M([\d.]+),[\d.]+h2v18h-2Z" fill="var\(--bad\)"', picture.wide)
        return float(margin) - float(zero)

    assert guard_at("recall@10") < 0 < guard_at("popularity@10")


def test_the_decision_shows_the_gain_that_is_asked_for() -> None:
    """Of 0.5, +20 % [+10 %, +30 %]: a gate that asks for 25 % has its mark between the middle and the end."""
    report = replace(example(), effects=[effect(), replace(effect(), metric="recall@10")], least_gain=0.25)
    picture = intervals.decision(report.effects[:1], {}, 0.95, {"ndcg@10": 0.25})
    assert picture is not None and "more than 25.0% must be gained" in picture.says
    ((middle, _),) = marks(picture.wide, "var(--good)")
    (asked,) = re.findall(r'<path d="M([\d.]+),[\d.]+h2v18h-2Z" fill="var\(--good\)"', picture.wide)
    (rule,) = re.findall(
        r'<line transform="translate\(([\d.]+),[\d.]+\)" x2="([\d.-]+)" y2="0" stroke="var\(--good', picture.wide
    )
    ends = sorted([float(rule[0]), float(rule[0]) + float(rule[1])])
    assert (float(asked) + 1 - ends[0]) / (ends[1] - ends[0]) == pytest.approx((0.25 - 0.1) / 0.2, abs=0.01)
    assert middle < float(asked) < ends[1]
    words = "must lie right of the green mark, the gain that is asked for"
    assert words in page(report) and words not in page(example())


def test_of_many_segments_those_that_changed_and_the_largest_are_shown_and_the_others_counted() -> None:
    """Two hundred segments of 100 and more users, of whom the smallest lost: as many as a page holds, and that one."""
    open_to_doubt = {"low": -0.1, "p_adjusted": 1.0}
    segments = [
        replace(effect(users=100 + at, **open_to_doubt), metric=metric, segment=f"segment {at:03}")
        for metric in ("ndcg@10", "recall@10")
        for at in range(1, 200)
    ]
    lost = [
        replace(effect(users=100, difference=-0.2, low=-0.3, high=-0.1), metric=metric, segment="segment 000")
        for metric in ("ndcg@10", "recall@10")
    ]
    whole = [each for each in example().effects if each.segment == ALL]
    text = page(replace(example(), effects=[*whole, *lost, *segments]))
    assert len(text.encode()) < 1_000_000
    for table in ("by-segment", "by-segment-2"):
        rows = re.findall(
            r'<th scope="row">(segment \d+)</th>', text.partition(f'id="{table}"')[2].partition("</table>")[0]
        )
        assert rows == ["segment 000", *(f"segment {at:03}" for at in range(171, 200))]
    assert text.count("and 170 more segments, which") == 2
    assert "more segments" not in page(example())


def test_lines_have_their_points_where_the_numbers_are_and_say_them() -> None:
    report = replace(example(), means={"als": {"ndcg@5": 0.02, "ndcg@10": 0.04, "ndcg@20": 0.08}})
    picture = charts.by_k(report, "ndcg")
    points = marks(picture.wide, "var(--new)")
    (x5, y5), (x10, y10), (x20, y20) = points
    assert (x20 - x10) / (x10 - x5) == pytest.approx(2) and (y10 - y20) / (y5 - y10) == pytest.approx(2)
    assert "als 0.0200 at 5, 0.0400 at 10, 0.0800 at 20" in picture.says
    assert "from 6,000,000 to 1,312,500" in charts.objective(example().objective).says


def test_the_challenger_and_its_rival_have_colours_of_their_own_and_all_others_are_told_apart() -> None:
    models = charts.looks(["als", "a", "b", "c", "champion"], "als", "champion")
    assert [look.colour for look in models.values()] == ["var(--new)", *3 * ["var(--rest)"], "var(--old)"]
    assert len({(tuple(look.dash), look.shape) for look in models.values()}) == 5


def test_every_picture_says_in_words_what_it_shows() -> None:
    text = page(example())
    said = [html.unescape(words) for words in re.findall('class="picture" role="img" aria-label="([^"]*)"', text)]
    for words in ("Intervals with 95% confidence: ndcg@10", "ndcg@10 by segment, before and after: new users",
                  "ndcg by the length of the list: als", "Shares of list places by popularity of the item: all items",
                  "The objective by epoch, over 16 epochs", "ndcg@10 at each moment: 2024-01-01 model 0.0510",
                  "Difference of ndcg@10 at each moment: 2024-01-01 +0.0110, from +0.0050 to +0.0200",
                  "Events by day, from 2024-01-01 to 2024-04-06: at least 100.00"):  # fmt: skip
        assert len([each for each in said if each.startswith(words)]) == 1, words
    assert len(said) == PICTURES


def test_shares_of_places_are_counted_from_the_most_popular_item_down() -> None:
    users = np.array([1, 50, 3, 20, *[1] * 96])
    shown = np.array([0, 30, 10, 0, *[0] * 95, 10])
    shares = popularity_shares(users, {"m": shown})
    assert shares.series["m"] == [30 / 50, 10 / 50, 0, 0, 10 / 50]
    assert shares.series["all items"] == [0.01, 0.04, 0.15, 0.3, 0.5]
    assert shares.series["histories"][0] == 50 / users.sum()
    assert all(sum(values) == pytest.approx(1) for values in shares.series.values())


def test_a_profile_is_what_its_lines_say() -> None:
    found = example().profile
    assert found is not None
    assert found.counts == {
        "rows of the log": "1,469,307", "rows refused": "8,869", "share of all pairs": "1.23%",
        "pairs of more than one event": "25.00%",
    }  # fmt: skip
    assert found.refused == [(HOSTILE, 8_000), ("no quantity", 869)]
    assert found.top == [(f"Blue mug {HOSTILE}", 12), ("0", 9)]
    assert found.quantiles == {"items of a user": {"p0": 0, "p50": 100, "p99": 198, "p100": 200}}
    assert list(found.quantiles["items of a user"]) == ["p0", "p50", "p99", "p100"]
    assert (len(found.days), found.days[0]) == (90, ("2024-01-01", 100.0))
    assert profile_of([]) is None


def test_a_gain_that_p_does_not_bear_out_is_not_drawn_as_one() -> None:
    """Five of 400 users gain and none lose: the interval is above nothing, p is 2/2^5, and the gate says no."""
    few = Effect("ndcg@10", ALL, 400, 0.5, 0.5125, 0.0125, 0.0025, 0.025, 0.0625, 0.0625, 0.01)
    sure = replace(few, p=0.03)
    kinds = [found.kind for one in (few, sure) if (found := intervals.relative(one, 0.05, alone=True)) is not None]
    assert kinds == ["open", "better"]
    counted = intervals.relative(sure, 0.05)
    assert counted is not None and counted.kind == "open", "of all rows it may be chance"
