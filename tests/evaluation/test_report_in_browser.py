"""The report in a real browser: it sorts, prints, fits a phone, can be read in the dark and without a mouse."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_spark.evaluation.report.page import page
from tests.evaluation.report_example import SEGMENTS, example
from tests.evaluation.test_report import PICTURES

pytestmark = pytest.mark.browser

PHONE, DESK = (390, 800), (1280, 1000)
PROBE = Path(__file__).with_name("report_probe.js").read_text(encoding="utf-8")


def browsed(file: Path, folder: Path, *arguments: str) -> tuple[str, str]:
    """Open a file in a headless Chromium; return its DOM after scripts, and what the console said."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
               "--enable-logging=stderr", "--virtual-time-budget=2000", *arguments, file.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def probed(folder: Path, size: tuple[int, int], dark: bool = False) -> dict[str, Any]:
    """Open the example in a frame of a size, and return what the probe sees there.

    In a frame, because a window of Chromium is at least 500 pixels wide.
    """
    text = page(example()).replace("</body>", f"<script>{PROBE}</script></body>")
    (folder / "probed.html").write_text(text, encoding="utf-8")
    width, height = size
    frame = f'<iframe src="probed.html" style="border:0;width:{width}px;height:{height}px"></iframe>'
    collect = 'addEventListener("message", (event) => (document.getElementById("probe").textContent = event.data))'
    around = folder / "frame.html"
    around.write_text(
        '<!doctype html><meta name="color-scheme" content="light dark"><body style="margin:0">'
        '<pre id="probe" hidden></pre>'
        f"<script>{collect}</script>{frame}",
        encoding="utf-8",
    )
    theme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    dom, console = browsed(around, folder, "--dump-dom", f"--window-size={max(500, width)},{height}", *theme)
    assert console == ""
    found: dict[str, Any] = json.loads(dom.partition('hidden="">')[2].partition("</pre>")[0].replace("&lt;", "<"))
    return found


def test_tables_sort_by_any_column_and_what_has_no_value_stands_last(tmp_path: Path) -> None:
    seen = probed(tmp_path, DESK)
    assert seen["before"] == list(SEGMENTS) and seen["names"] == sorted(SEGMENTS)
    values = [float(each.replace("−", "-")) for each in seen["down"]]
    assert values == sorted(values, reverse=True) and seen["up"] == seen["down"][::-1]
    assert seen["sorted"] == "ascending" and seen["empty"] == "none"


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_every_picture_is_drawn_once_within_the_page_with_letters_that_can_be_read(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    seen = probed(tmp_path, size)
    assert (seen["width"], seen["overflow"]) == (size[0], 0)
    assert len(seen["pictures"]) == PICTURES
    for picture in seen["pictures"]:
        assert picture["svgs"] == 1, "either the drawing for a desk or that for a phone"
        assert picture["marks"] >= 1 and picture["left"] >= 0 and picture["right"] <= size[0]
        assert picture["letters"] >= 10.5, "CSS pixels"
    assert seen["intervals"] == [35, 35], "all that the tables have are seen, but for those folded away"


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_has_contrast_and_all_marks_can_be_told_from_the_paper(tmp_path: Path, dark: bool) -> None:
    seen = probed(tmp_path, DESK, dark)
    assert seen["paper"] == ([21, 24, 27] if dark else [252, 252, 250])
    assert len(seen["texts"]) > 8
    for text in seen["texts"]:
        assert contrast(text["ink"], text["paper"]) >= 4.5, text
    for colour in seen["marks"]:
        assert contrast(colour, seen["paper"]) >= 3, colour


def contrast(one: list[int], other: list[int]) -> float:
    """Return the contrast of two colours, 1 to 21: WCAG 2.2, "contrast ratio"."""

    def luminance(rgb: list[int]) -> float:
        parts = np.array(rgb) / 255
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standards_examples() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([119, 119, 119], [255, 255, 255]) == pytest.approx(4.48, abs=0.01)


def test_the_keyboard_reaches_every_button_link_and_scrolled_table_and_focus_is_seen(tmp_path: Path) -> None:
    seen = probed(tmp_path, PHONE)
    assert seen["unreachable"] == [] and seen["unfocused"] == []
    assert {"A", "BUTTON", "SUMMARY", "DIV", "PRE"} == set(seen["reached"])
    assert seen["scrolled_without_focus"] == 0, "what scrolls sideways can be scrolled by keys"


def test_the_page_has_a_language_one_heading_of_the_first_order_and_no_order_left_out(tmp_path: Path) -> None:
    seen = probed(tmp_path, DESK)
    assert seen["language"] == "en" and seen["headings"].count(1) == 1
    assert all(after - before <= 1 for before, after in zip(seen["headings"], seen["headings"][1:], strict=False))
    assert seen["unnamed"] == 0, "every image has a text, every table a caption"


def test_the_page_prints(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(example()), encoding="utf-8")
    pdf = tmp_path / "report.pdf"
    browsed(file, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 20_000


@pytest.mark.parametrize("dark", [False, True])
def test_a_screenshot_shows_every_picture_in_the_colours_that_it_is_drawn_with(tmp_path: Path, dark: bool) -> None:
    from matplotlib.image import imread

    size = (1280, 8000)
    seen = probed(tmp_path, size, dark)
    theme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    shot = tmp_path / "page.png"
    browsed(
        tmp_path / "frame.html",
        tmp_path,
        f"--screenshot={shot}",
        "--hide-scrollbars",
        f"--window-size={size[0]},{size[1]}",
        *theme,
    )
    image = (imread(shot)[:, :, :3] * 255).round()

    def shown(area: np.ndarray, colour: list[int]) -> int:
        return int((np.abs(area - colour).max(axis=2) <= 10).sum())

    for picture in seen["pictures"]:
        x, y, width, height = (round(edge) for edge in picture["box"])
        area = image[y : y + height, x : x + width]
        assert area.shape[:2] == (height, width), "the screenshot holds the whole page"
        assert len(picture["colours"]) >= 1
        assert all(shown(area, colour) >= 15 for colour in picture["colours"]), picture
        assert shown(area, seen["paper"]) > 0.5 * width * height, "most of a picture is paper"
