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


def test_every_fault_of_the_table_is_tested_by_files_that_there_are() -> None:
    page = (PROJECT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.search(r"^## Faults\n+\|.*\n\|[-|]*\n((?:\|.*\n)+)", page, flags=re.MULTILINE)
    assert rows is not None
    files = {path.name for path in (PROJECT / "tests").rglob("test_*.py")}
    for row in rows[1].splitlines():
        named = re.findall(r"`(test_\w+\.py)`", row.rpartition(" | ")[2])
        assert named and set(named) <= files, row
