"""The report's page: what it says, that it needs nothing else, and, in a real browser, that it works."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_spark.evaluation.comparison import Effect
from recsys_spark.evaluation.report import charts
from recsys_spark.evaluation.report.content import popularity_shares, profile_of
from recsys_spark.evaluation.report.page import page
from recsys_spark.evaluation.resampling import ALL
from tests.evaluation.report_example import HOSTILE, SEGMENTS, example

VOID = {"meta", "link"}


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
        assert all(reason.replace("'", "&#39;") in first_screen for reason in reasons)
    assert "There is no champion yet" in page(
        replace(example(False), verdict=replace(example(False).verdict, champion=None))
    )


def test_names_of_items_are_text_and_never_markup() -> None:
    text = page(example())
    assert HOSTILE not in text and "<script>alert" not in text
    assert HOSTILE in Tree(text).texts["li"]
    assert text.count("and 3 more") == 12, "of five wanted items two are shown"


def test_what_a_run_does_not_have_is_left_out() -> None:
    bare = replace(
        example(), ks=(10,), objective=(), popularity=None, customers=(), verdict=None, profile=None, moments=(),
        effects=[each for each in example().effects if each.segment == ALL],
    )  # fmt: skip
    tree = Tree(page(bare))
    assert {"comparison", "models", "figures"} <= set(tree.ids)
    assert not {"segments", "popularity", "training", "data", "customers", "reasons"} & set(tree.ids)


def test_an_interval_is_drawn_where_it_is_and_cut_at_the_edge() -> None:
    mark = charts.whisker(effect(), 0.4)
    assert mark is not None
    assert (mark.low, mark.middle, mark.high) == (50 + 10 / 0.8, 50 + 20 / 0.8, 50 + 30 / 0.8)
    assert (mark.kind, mark.cut_low, mark.cut_high) == ("better", False, False)
    cut = charts.whisker(effect(low=-0.3, difference=-0.2, high=-0.1), 0.4)
    assert cut is not None and (cut.kind, cut.low, cut.cut_low, cut.cut_high) == ("worse", 0, True, False)
    across = charts.whisker(effect(low=-0.1), 0.4)
    assert across is not None and across.kind == "open"
    assert charts.whisker(effect(champion=0.0), 0.4) is None
    wide = effect(low=-5.0, high=5.0)
    assert charts.extent([effect(), effect(low=0.02, high=0.2)], effect()) == pytest.approx(1.1 * 0.2 / 0.5)
    assert charts.extent([effect(), wide], effect()) == pytest.approx(3 * 1.1 * 0.15 / 0.5)
    assert charts.extent([wide], None) == pytest.approx(1.1 * 10) and charts.extent([], None) == 0.01


def test_a_line_chart_has_its_points_between_its_axes() -> None:
    chart = charts.lines({"a": [(5, 0.02), (10, 0.05)], "b": [(5, 0.01), (10, 0.08)]}, zero=True)
    assert [tick.label for tick in chart.x] == ["5", "10"]
    assert [tick.label for tick in chart.y] == ["0", "0.02", "0.04", "0.06", "0.08"]
    heights = {line.name: [y for _, y, _ in line.dots] for line in chart.lines}
    assert heights["b"][1] == charts.TOP and heights["a"][0] > heights["a"][1]
    assert charts.lines({"large": [(1, 6.2e6), (2, 8.9e5)]}).y[-1].label == "7 M"
    assert charts.lines({"flat": [(1, 3.0), (2, 3.0)]}).lines[0].dots[0][1] > 0


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
    chart = charts.lines(
        {"events": [(at, n) for at, (_, n) in enumerate(found.days)]}, labels=[d for d, _ in found.days]
    )
    assert [tick.label for tick in chart.x][::4] == ["2024-01-01", "2024-04-06"]
    assert chart.lines[0].dots == () and len(chart.lines[0].points.split()) == 90
    assert profile_of([]) is None


PROBE = """
<pre id="probe"></pre><script>
const all = (what) => [...document.querySelectorAll(what)];
const rows = (id, column) => all(`#${id} tbody tr`).map((row) => row.cells[column].textContent.trim());
const press = (id, column) => all(`#${id} thead th`)[column].querySelector("button").click();
const seen = { before: rows("by-segment", 0) };
press("by-segment", 1); seen.down = rows("by-segment", 1);
press("by-segment", 1); seen.up = rows("by-segment", 1);
seen.sorted = all("#by-segment thead th")[1].getAttribute("aria-sort");
press("by-segment", 0); seen.names = rows("by-segment", 0);
press("means", 3); seen.empty = rows("means", 3).at(-1);
const boxes = all("svg").map((picture) => picture.getBoundingClientRect());
seen.unseen = boxes.filter((box) => box.width * box.height === 0).length;
seen.charts = all("svg.chart").length;
seen.overflow = document.documentElement.scrollWidth - window.innerWidth;
seen.paper = getComputedStyle(document.body).backgroundColor;
seen.drawn = all("svg.chart").map((picture) => {
  const box = picture.getBoundingClientRect();
  const shapes = [...picture.querySelectorAll("polyline, rect, path, circle")].map((shape) => getComputedStyle(shape));
  const colours = shapes.flatMap((style) => [style.stroke, style.fill]).filter((colour) => /^rgb\\(/.test(colour));
  return { box: [box.x, box.y, box.width, box.height], colours: [...new Set(colours)] };
});
document.getElementById("probe").textContent = JSON.stringify(seen);
</script>
"""


def browsed(file: Path, folder: Path, *arguments: str) -> tuple[str, str]:
    """Open a file in a headless Chromium; return its DOM after scripts, and what the console said."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--enable-logging=stderr", "--virtual-time-budget=2000", *arguments, file.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def probed(folder: Path, *arguments: str) -> dict[str, Any]:
    file = folder / "probed.html"
    file.write_text(page(example()).replace("</body>", PROBE + "</body>"), encoding="utf-8")
    dom, console = browsed(file, folder, "--dump-dom", *arguments)
    assert console == ""
    found: dict[str, Any] = json.loads(dom.partition('<pre id="probe">')[2].partition("</pre>")[0])
    return found


@pytest.mark.browser
def test_tables_sort_and_all_pictures_are_there_and_the_console_is_silent(tmp_path: Path) -> None:
    seen = probed(tmp_path, "--window-size=1280,1000")
    assert seen["before"] == list(SEGMENTS) and seen["names"] == sorted(SEGMENTS)
    values = [float(each.replace("−", "-")) for each in seen["down"]]
    assert values == sorted(values, reverse=True) and seen["up"] == seen["down"][::-1]
    assert seen["sorted"] == "ascending" and seen["empty"] == "none", "what has no value stands last"
    assert (seen["unseen"], seen["charts"]) == (0, 5)
    assert seen["overflow"] <= 0


@pytest.mark.browser
def test_a_phone_shows_the_page_without_scrolling_sideways_and_dark_is_dark(tmp_path: Path) -> None:
    light = probed(tmp_path, "--window-size=390,800")
    assert light["overflow"] <= 0 and light["paper"] == "rgb(252, 252, 250)"
    dark = probed(tmp_path, "--window-size=390,800", "--blink-settings=preferredColorScheme=0")
    assert dark["paper"] == "rgb(21, 24, 27)"


@pytest.mark.browser
def test_the_page_prints(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(example()), encoding="utf-8")
    pdf = tmp_path / "report.pdf"
    browsed(file, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 20_000


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_a_screenshot_shows_every_picture_in_the_colours_that_it_is_drawn_with(tmp_path: Path, dark: bool) -> None:
    from matplotlib.image import imread

    options = ["--window-size=1280,9000", *["--blink-settings=preferredColorScheme=0"] * dark]
    seen = probed(tmp_path, *options)
    browsed(tmp_path / "probed.html", tmp_path, f"--screenshot={tmp_path / 'page.png'}", *options)
    image = (imread(tmp_path / "page.png")[:, :, :3] * 255).round()

    def shown(area: np.ndarray, colour: str) -> int:
        rgb = [float(part) for part in re.findall("[0-9.]+", colour)[:3]]
        return int((np.abs(area - rgb).max(axis=2) <= 10).sum())

    assert shown(image[:3, :3], seen["paper"]) == 9
    assert len(seen["drawn"]) == 5
    for picture in seen["drawn"]:
        x, y, width, height = (round(edge) for edge in picture["box"])
        area = image[y : y + height, x : x + width]
        assert area.shape[:2] == (height, width), "the screenshot holds the whole page"
        assert len(picture["colours"]) >= 1
        assert all(shown(area, colour) >= 15 for colour in picture["colours"]), picture
        assert shown(area, seen["paper"]) > 0.5 * width * height, "most of a picture is paper"
