"""Commands as pages, docstrings and the Makefile give them: each is taken by the program that it names.

Jobs run up to where Spark would start, with their real arguments, configurations and `--set`; benchmarks and cluster.py
until their arguments are parsed. The commands of docs/tutorial.md are run to their end by test_tutorial.py.
"""

import argparse
import ast
import importlib
import re
import runpy
import shlex
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pyspark.sql import SparkSession

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
OWN = re.compile(
    r"(?:[A-Z_]+=\S+ +)*"
    r"(?:python (?:jobs/|deploy/|-m benchmarks)|make |spark-submit |docker run |"
    r"(?:/opt/recsys-spark/)?deploy/\w+/\w+\.sh )"
)
OTHERS = {
    "source",
    "export",
    "head",
    "mkdir",
    "cp",
    "kubectl",
    "docker",
    "databricks",
    "spark-submit",
    "spark-class",
}  # not this project's
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))

# What stands for a reader's own: files and numbers.
EXAMPLE = "conf/movielens.yaml"
STANDS_FOR = {
    "CONF": EXAMPLE,
    "conf/NAME.yaml": EXAMPLE,
    "conf/x.yaml": EXAMPLE,
    "/etc/recsys/shop.yaml": "conf/shop.yaml",
    "my.conf": "conf/spark/local.conf",
}
NUMBERS = {"U", "I", "N", "D", "E", "K"}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of a page's fenced blocks."""
    for _, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield language, textwrap.dedent(text)


def texts(file: Path) -> Iterator[str]:
    """Yield what has commands in a file: a page's shell blocks and code in lines, a docstring, comments, recipes."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield from (block for language, block in blocks(file) if language in ("shell", "bash"))
        code = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
        yield from (one for one in (" ".join(words.split()) for words in code) if OWN.match(one))
    elif file.suffix == ".py":
        yield only_own(ast.get_docstring(ast.parse(text)) or "")
    elif file.name == "Makefile":
        yield only_own(re.sub(r"^\t@?(env( -u \w+)* )?\$\(PYTHON_BIN\)", "python", text, flags=re.MULTILINE))
    else:
        yield only_own("\n".join(re.findall(r"^# *(.*)$", text, flags=re.MULTILINE)))


def only_own(text: str) -> str:
    """Return the lines that are commands of this project's programs, not prose that happens to begin so."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return "\n".join(line for line in map(str.strip, lines) if OWN.match(line) and not line.startswith("make "))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the simple commands of shell lines, as words: without variables, redirections and comments."""
    text = re.sub(r"\$\(date [^)]*\)", "2024-03-01T00:00:00Z", text.replace("\\\n", " "))
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for before, word in pairwise(["", *lexer, ";"]):
            if word in ("&&", "||", "|", ";"):
                if command:
                    yield command
                command = []
            elif not (word.startswith(">") or before.startswith(">") or (not command and re.match("[A-Z_]+=", word))):
                command.append(word)


def all_commands() -> dict[str, tuple[str, list[str]]]:
    """Return every command once, with the file that has it first, by its text."""
    files = [
        *PAGES, PROJECT / "Makefile", *(PROJECT / "jobs").glob("*.py"), *(PROJECT / "benchmarks").glob("*.py"),
        *(PROJECT / "deploy").rglob("*.py"), *(PROJECT / "deploy").rglob("*.sh"), PROJECT / "deploy/docker/Dockerfile",
        *(PROJECT / "conf/spark").glob("*.conf"),
    ]  # fmt: skip
    found: dict[str, tuple[str, list[str]]] = {}
    for file in files:
        for words in (words for text in texts(file) for words in commands(text)):
            found.setdefault(shlex.join(words), (str(file.relative_to(PROJECT)), words))
    return found


COMMANDS = all_commands()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: the shipped configurations, those that pages write, and what a search has found."""
    made = tmp_path_factory.mktemp("reader")
    shutil.copytree(PROJECT / "conf", made / "conf")
    for page in PAGES:
        for language, text in blocks(page):
            named = re.match(r"# (conf/\S+\.yaml)\n", text)
            if language == "yaml" and named:
                (made / named[1]).write_text(text, encoding="utf-8")
    (made / "tuned").mkdir()
    for name in ("tuning", "NAME"):
        (made / f"tuned/{name}.yaml").write_text("als: {rank: 32}\n", encoding="utf-8")
    return made


class ReachedError(Exception):
    """A program has taken its arguments and would begin its work."""


def programs(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield this project's programs that a command runs, those that others launch among them, with their arguments."""
    if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        yield words[2], words[3:]
    for place, word in enumerate(words):
        named = re.fullmatch(r"(?:/opt/recsys-spark/)?((?:jobs|deploy)/[\w/]+\.(?:py|sh))", word)
        if named:
            yield named[1], words[place + 1 :]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken_by_the_programs_that_it_names(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [STANDS_FOR.get(word, "1" if word in NUMBERS else word) for word in COMMANDS[command][1]]
    monkeypatch.chdir(folder)
    found = dict(programs(words))
    for program, arguments in found.items():
        assert taken(program, arguments, monkeypatch), capsys.readouterr()
    if words[0] == "make":
        assert set(words[1:]) <= TARGETS
    else:
        assert found or words[0] in OTHERS or words[:3] == ["python", "-m", "pip"], "no program that is known"
    assert all((PROJECT / value).is_file() for option, value in pairwise(words) if option == "--properties-file")


def taken(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a program takes its arguments, among which `…` stands for more."""
    more = ["--config", EXAMPLE] if program.startswith("jobs/") else [EXAMPLE]
    given = [part for word in arguments for part in (more if word == "…" else [word])]
    monkeypatch.setattr("sys.argv", [program, *given])
    if program.startswith("jobs/"):
        return starts(runpy.run_path(str(PROJECT / program))["main"], monkeypatch)
    if program == "deploy/standalone/cluster.py":
        return parses(runpy.run_path(str(PROJECT / program))["main"], monkeypatch)
    if program.startswith("benchmarks."):
        main = main_of(program)
        there = all(Path(word).is_file() for word in given if word.startswith("conf/"))
        return there and (parses(main, monkeypatch) if main else not given)
    return (PROJECT / program).is_file()


def starts(main: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a job goes as far as to start Spark: its command line and its configuration are sound."""
    reached: list[bool] = []

    def start(*_: object) -> NoReturn:
        reached.append(True)
        raise ReachedError

    monkeypatch.setattr(SparkSession.Builder, "getOrCreate", start)
    main()
    return bool(reached)


def parses(main: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a program's parser takes its command line; it does not go further."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> NoReturn:
        parse(parser, arguments)
        raise ReachedError

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", parsed)
        try:
            main()
        except ReachedError:
            return True
        except SystemExit:
            return False
    raise AssertionError("it parses nothing")


def main_of(module: str) -> Any:
    """Return the main function of a benchmark, None of one without options; skip where its peers are not installed."""
    try:
        return getattr(importlib.import_module(module), "main", None)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("benchmarks", "recsys_spark"):
            raise
        pytest.skip(f"{module} needs {error.name}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_of_commands_is_marked_as_shell(page: Path) -> None:
    unmarked = [text for language, text in blocks(page) if language not in ("shell", "bash")]
    assert not [text for text in unmarked if any(OWN.match(line) for line in text.splitlines())]


def test_commands_are_found_where_they_are() -> None:
    found = [
        "python deploy/standalone/cluster.py --workers 2 -- jobs/pipeline.py --config conf/completejourney.yaml"
        " --run-id night",
        "make zip",
        "python -m benchmarks.cost",
        "python jobs/runs.py --config conf/shop.yaml --last 10",
    ]
    assert set(found) <= set(COMMANDS) and len(COMMANDS) > 60


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("jobs/train_als.py", "--confg conf/movielens.yaml"),
        ("jobs/train_als.py", "--config conf/none.yaml"),
        ("jobs/train_als.py", "--config conf/movielens.yaml --set als.rnk=3"),
        ("jobs/train_als.py", "--config conf/movielens.yaml --set als.rank=0"),
        ("jobs/train_als.py", "--config conf/movielens.yaml --run-id a/b"),
        ("jobs/ingest.py", "--config conf/movielens.yaml --promote"),
        ("deploy/standalone/cluster.py", "--cpus 2 -- jobs/pipeline.py"),
        ("deploy/standalone/cluster.sh", ""),
        ("benchmarks.quality", "conf/movielens.yaml --fold 5x"),
        ("benchmarks.quality", "conf/none.yaml"),
        ("benchmarks.cost", "--json x.json"),
    ],
)
def test_a_wrong_command_is_not_taken(
    program: str, arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert not taken(program, arguments.split(), monkeypatch)
