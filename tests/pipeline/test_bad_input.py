"""What a user can get wrong ends the program with the documented code and one message, and writes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.slice import ROOT, Slice
from tests.pipeline.support import SHORT_RUN_JVM

# What a JVM that starts says by itself, before anything of ours.
_START_UP = re.compile(
    r"^(WARNING: |\d\d/\d\d/\d\d [\d:]+ WARN |Using Spark's default log4j|Setting default log|To adjust)"
)
_TIMEOUT = 240


@dataclass(frozen=True)
class Answer:
    exit_code: int
    stderr: str


def _arguments(raw: Slice, warehouse: Path, *overrides: str) -> list[str]:
    short_run = warehouse.parent / "short-run.yaml"
    short_run.write_text(f"spark: {{settings: {{spark.driver.extraJavaOptions: {SHORT_RUN_JVM}}}}}\n")
    files = [a for file in (ROOT / "conf" / "demo.yaml", short_run) for a in ("--config", str(file))]
    options = [a for option in (*raw.options(warehouse), *overrides) for a in ("--set", option)]
    return ["clean", *files, *options]


def _run_alone(arguments: list[str], **environment: str) -> Answer:
    """The command line in a process of its own, with nothing of our environment but what is given."""
    done = subprocess.run(
        [sys.executable, "-m", "recbatch.cli", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )
    return Answer(done.returncode, done.stderr)


def _cases(raw: Slice, folder: Path) -> dict[str, list[str]]:
    """Every mistake that takes a JVM to be found, and two that do not, each with a warehouse of its own."""
    (folder / "garbage").mkdir()
    (folder / "garbage" / "items.parquet").write_bytes(b"PAR1" + os.urandom(4000) + b"PAR1")
    (folder / "in-the-way").write_text("a file")
    changes = {
        "missing path": ["input.events.path=" + str(folder / "nowhere")],
        "missing column": ["input.events.columns.basket_id=receipt"],
        "garbage": ["input.items.path=" + str(folder / "garbage")],
        "damaged": ["input.items.path=" + str(_damaged_pages(raw, folder / "damaged"))],
        "warehouse": ["warehouse=" + str(folder / "in-the-way" / "warehouse")],
        "unknown key": ["scoring.kk=3"],
    }
    cases = {name: _arguments(raw, folder / f"warehouse of {name}", *one) for name, one in changes.items()}
    return cases | {"no configuration": ["run", "--config", str(folder / "none.yaml")]}


def _damaged_pages(raw: Slice, folder: Path) -> Path:
    """The catalogue with a sound footer, so that only who reads its rows finds that they are broken."""
    folder.mkdir()
    table = pq.read_table(raw.folder / "products")
    pq.write_table(table, folder / "items.parquet")
    content = bytearray((folder / "items.parquet").read_bytes())
    first = pq.read_metadata(folder / "items.parquet").row_group(0).column(0)
    begin = first.dictionary_page_offset or first.data_page_offset
    content[begin : begin + first.total_compressed_size] = b"\xff" * first.total_compressed_size
    (folder / "items.parquet").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-input")


@pytest.fixture(scope="module")
def answers(raw: Slice, folder: Path) -> dict[str, Answer]:
    cases = _cases(raw, folder)
    log = folder / "stderr"
    with log.open("ab") as stderr:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "pipeline" / "commands.py"), json.dumps(list(cases.values()))],
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=_TIMEOUT,
        )
    assert done.returncode == 0, log.read_text()
    text = log.read_bytes()
    parts = json.loads(done.stdout)
    return {name: Answer(code, text[start:end].decode()) for name, (code, start, end) in zip(cases, parts, strict=True)}


def _assert_one_message(answer: Answer, exit_code: int, *parts: str) -> None:
    assert answer.exit_code == exit_code, answer.stderr
    lines = [line for line in answer.stderr.splitlines() if line.strip() and not _START_UP.match(line)]
    # The message and, indented, its remedy.
    assert [line[:7] for line in lines[:1]] == ["error: "], answer.stderr
    assert [line[:5] for line in lines[1:]] == ["  -> "], answer.stderr
    for part in parts:
        assert part in answer.stderr


@pytest.mark.parametrize(
    ("case", "exit_code", "parts"),
    [
        ("missing path", 4, ["nowhere", "has no files", "'path'"]),
        ("missing column", 4, ["has no column 'receipt'", "basket_id", ".csv"]),
        ("garbage", 4, ["items.parquet", "cannot be read", "nothing was written"]),
        ("damaged", 4, ["items.parquet", "cannot be read", "nothing was written"]),
        ("warehouse", 2, ["in-the-way", "cannot be written"]),
        ("unknown key", 2, ["unknown option 'scoring.kk'", "scoring.k"]),
        ("no configuration", 2, ["none.yaml", "does not exist"]),
    ],
)
def test_a_mistake_is_one_message(
    answers: dict[str, Answer], folder: Path, case: str, exit_code: int, parts: list[str]
) -> None:
    _assert_one_message(answers[case], exit_code, *parts)
    warehouse = folder / f"warehouse of {case}"
    written = {path.name for path in warehouse.iterdir()} if warehouse.exists() else set()
    # Where a stage found the mistake, the attempt is on record.
    # Nothing that another stage would read.
    assert written <= {"runs", "leases", "_streams"}


def test_what_is_in_the_way_is_left_alone(answers: dict[str, Answer], folder: Path) -> None:
    assert answers["warehouse"].exit_code == 2
    assert (folder / "in-the-way").read_text() == "a file"


def test_without_java_it_says_so(raw: Slice, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    answer = _run_alone(_arguments(raw, warehouse), PATH="", HOME=str(tmp_path))
    _assert_one_message(answer, 2, "Java is missing", "install Java 17")
    assert not warehouse.exists()


def test_a_java_that_spark_does_not_run_on_is_named(raw: Slice, tmp_path: Path) -> None:
    program = tmp_path / "jdk-11" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho 'openjdk version \"11.0.27\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    warehouse = tmp_path / "warehouse"
    answer = _run_alone(
        _arguments(raw, warehouse), JAVA_HOME=str(tmp_path / "jdk-11"), PATH=os.defpath, HOME=str(tmp_path)
    )
    _assert_one_message(answer, 2, "Java 11.0.27", "jdk-11", "17 or 21")
    assert not warehouse.exists()
