"""Every relative link in README.md and docs/ leads somewhere: to a file that is there, and to a heading in it."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """The targets of a page's links, those in code and those to other hosts left out."""
    found = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> list[str]:
    """The names by which GitHub links to a page's headings: lower case, hyphens for spaces, no other punctuation."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.*?)\s*$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return found


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    lost = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_links_to_no_file_and_to_no_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One & two, `three`\n[a](page.md) [b](#one--two-three) [c](none.md) [d](page.md#no) [e](https://x.org/y)\n"
        "`[f](code.md)`\n```\n# no heading\n[g](code.md)\n```\n[h](#no-heading)\n"
    )
    assert broken(page) == ["none.md", "page.md#no", "#no-heading"]


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [PROJECT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        ahead += [
            file
            for target in links(page)
            if (file := (page.parent / target.partition("#")[0]).resolve()).suffix == ".md" and file not in reached
        ]
    assert set((PROJECT / "docs").glob("*.md")) <= reached


EXAMPLES = {"conf/shop.yaml", "conf/x.yaml", "conf/NAME.yaml"}  # files that a reader makes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])(?:jobs|deploy|conf|benchmarks|recsys_spark|tests)/[\w./-]*[\w/]", text)
    missing = [name for name in sorted(set(named) - EXAMPLES) if not (PROJECT / name).exists()]
    assert missing == []


def named_tests(cell: str) -> list[tuple[str, str]]:
    """The files of tests that a cell names, each with the words for what it tests."""
    parts = re.findall(r"((?:`test_\w+\.py`(?:, )?)+): (.*?)(?=; `test_|\s*\|?$)", cell)
    return [(name, words) for files, words in parts for name in re.findall(r"test_\w+\.py", files)]


def unknown_words(words: str, text: str) -> list[str]:
    """The words of four letters or more of which a text has none that begins alike."""
    return [word for word in re.findall(r"\w{4,}", words.lower()) if word[:5] not in text.lower()]


def test_every_fault_of_the_table_is_tested_in_the_words_of_files_that_there_are() -> None:
    page = (PROJECT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.search(r"^## Faults\n+\|.*\n\|[-|]*\n((?:\|.*\n)+)", page, flags=re.MULTILINE)
    assert rows is not None
    texts = {path.name: path.read_text(encoding="utf-8") for path in (PROJECT / "tests").rglob("test_*.py")}
    for row in rows[1].splitlines():
        cell = row.rpartition(" | ")[2]
        named = named_tests(cell)
        assert named and [name for name, _ in named] == re.findall(r"test_\w+\.py", cell), row
        assert [(name, lost) for name, words in named if (lost := unknown_words(words, texts[name]))] == []


def test_words_for_a_test_that_is_not_there_are_found() -> None:
    assert named_tests("`test_a.py`: a full disk; a heap; `test_b.py`, `test_c.py`: a cut file |") == [
        ("test_a.py", "a full disk; a heap"), ("test_b.py", "a cut file"), ("test_c.py", "a cut file"),
    ]  # fmt: skip
    assert unknown_words("a full disk, then a flood", "def test_a_full_disk(): then") == ["flood"]
