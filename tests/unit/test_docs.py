"""The documentation says what the code does: tables, commands, options, exit codes and links."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from recbatch import cli, errors
from recbatch.config import load_config
from recbatch.errors import RecbatchError
from recbatch.flow import STAGES
from recbatch.tables import schemas

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TABLES = ROOT / "docs" / "tables.md"
READERS_OWN = "conf/shop.yaml"  # the file that the tutorial tells the reader to write


@dataclass(frozen=True)
class DocumentedTable:
    """One section of docs/tables.md: its prose, and its columns as (name, type, meaning)."""

    prose: str
    columns: tuple[tuple[str, str, str], ...]


def _documented_tables() -> dict[str, DocumentedTable]:
    """A section may describe several tables of the same columns; its heading names them all."""
    found = {}
    for section in re.split(r"^(?=##)", TABLES.read_text(), flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        if not heading.startswith("### `"):
            continue
        columns = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", body, re.MULTILINE)
        prose = " ".join(line for line in body.splitlines() if not line.startswith("|"))
        for name in re.findall(r"`(\w+)`", heading):
            found[name] = DocumentedTable(prose, tuple(columns))
    return found


def _fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _name(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def test_every_table_is_documented_and_no_other() -> None:
    assert _documented_tables().keys() == schemas.ALL.keys()


@pytest.mark.parametrize("name", sorted(schemas.ALL))
def test_every_column_is_documented_in_order_with_its_type(name: str) -> None:
    documented = _documented_tables()[name].columns
    expected = [(field.name, field.dataType.simpleString()) for field in schemas.ALL[name].schema]
    assert [(column, kind) for column, kind, _ in documented] == expected
    assert [column for column, _, meaning in documented if len(meaning) < 5 or not meaning.endswith(".")] == []


@pytest.mark.parametrize("name", sorted(schemas.ALL))
def test_partitions_and_writers_are_documented(name: str) -> None:
    prose = _documented_tables()[name].prose
    partitioned = re.search(r"Partitioned by\s+`(\w+)`(?:\s+and\s+`(\w+)`)?", prose)
    names = tuple(column for column in partitioned.groups() if column) if partitioned else ()
    assert names == schemas.ALL[name].partition_by
    written_by = {stage.name for stage in STAGES if schemas.ALL[name] in stage.writes}
    assert set(re.findall(r"Written by\s+`(\w+)`", prose)) == written_by
    assert written_by or "Written by every stage" in prose


def test_published_tables_stand_in_the_contract() -> None:
    contract = TABLES.read_text().partition("## Published tables")[2].partition("\n## ")[0]
    published = {name for name, spec in schemas.ALL.items() if spec.published}
    assert set(re.findall(r"^### `(\w+)`", contract, re.MULTILINE)) == published


def _invocations() -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours in the documentation: (document, words from the command on)."""
    for document in DOCUMENTS:
        text = document.read_text()
        lines = "\n".join(fence for fence in _fences(text, "bash")).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`((?:recbatch|make) [^`]+)`", text)
        for line in lines:
            words = shlex.split(line, comments=True)
            at = [
                place for place, word in enumerate(words) if re.fullmatch(r"(.*/)?(recbatch|make|jobs/\w+\.py)", word)
            ]
            if at:
                yield _name(document), [re.sub(r".*/(?=recbatch$|jobs/)", "", words[at[-1]]), *words[at[-1] + 1 :]]


INVOCATIONS = list(_invocations())


def test_the_two_commands_are_in_the_readme() -> None:
    assert {("README.md", "demo"), ("README.md", "test")} <= {
        (document, words[1]) for document, words in INVOCATIONS if words[0] == "make"
    }


@pytest.mark.parametrize(("document", "words"), INVOCATIONS)
def test_every_command_exists(document: str, words: list[str]) -> None:
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets
        return
    if program.endswith(".py"):
        assert (ROOT / program).is_file(), f"{document} runs {program}"
        arguments = [Path(program).stem.replace("refresh", "run"), *arguments]
    cli._add_stage_commands()
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    assert arguments[0] in commands, f"{document}: recbatch {arguments[0]}"
    options = {option for parameter in commands[arguments[0]].params for option in parameter.opts} | {"--help"}
    unknown = [word for word in arguments[1:] if word.startswith("-") and word not in options]
    assert unknown == [], f"{document}: recbatch {' '.join(arguments)}"


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (document.parent / file).resolve() if file else document
        assert linked.exists(), f"{_name(document)} links to {target}"
        assert not anchor or anchor in _anchors(linked), f"{_name(document)} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"`((?:recbatch|conf|docs|jobs|tests|examples)/[\w./-]*\w/?)`", document.read_text())
    assert [path for path in named if not ((ROOT / path).exists() or path == READERS_OWN)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_options_that_are_named_exist(document: Path) -> None:
    """A dotted name that begins with a section of the configuration is an option of it."""
    text = re.sub(r"^(\s*)#(?=\S)", r"\1", (ROOT / "conf" / "base.yaml").read_text(), flags=re.MULTILINE)
    options = yaml.safe_load(text)
    sections = "|".join(options.keys() - {"spark"})  # which is the prefix of Spark's own settings as well
    named = re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)(?:: [^`]+)?`", document.read_text())
    for dotted in named:
        value = options
        for part in [] if Path(dotted).suffix in (".json", ".safetensors") else dotted.split("."):
            assert part in value, f"{_name(document)} names the option {dotted}"
            value = value[part]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_examples_are_valid(document: Path, tmp_path: Path) -> None:
    text = document.read_text()
    for number, example in enumerate(_fences(text, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        assert load_config([file]).input.events.types()
    for example in _fences(text, "python"):
        ast.parse(example)


def test_exit_codes_are_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RecbatchError)]
    codes = {kind.exit_code for kind in classes}
    assert set(map(int, rows)) == codes | {errors.EXIT_DONE, errors.EXIT_UNEXPECTED, errors.EXIT_NOTHING_TO_DO}


def test_messages_in_the_table_of_errors_are_those_of_the_code() -> None:
    source = "".join(file.read_text() for file in sorted((ROOT / "recbatch").rglob("*.py")))
    source = re.sub(r'"\s*f?"', "", source)  # literals that are written in several parts
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.partition("## What to do on each error")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    parts = [part.strip() for cell in cells for message in re.findall("`(.+?)`", cell) for part in message.split("…")]
    assert len(cells) > 10
    assert [part for part in parts if part not in source] == []


def test_what_every_stage_depends_on_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for stage in STAGES:
        (row,) = re.findall(rf"^\| `{stage.name}` \| (.+) \|$", text, re.MULTILINE)
        assert set(re.findall(r"`([a-z][a-z_.]*)`", row)) == set(stage.options)
        assert ("--as-of" in row, "raw files" in row) == (stage.uses_as_of, stage.reads_raw)


def test_every_package_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = sorted(path.parent.name for path in (ROOT / "recbatch").glob("*/__init__.py"))
    assert [name for name in packages if f"`{name}/`" not in text] == []
