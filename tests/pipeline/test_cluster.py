"""The package as it is shipped, on a cluster of real processes, gives what local mode gives."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recbatch.scoring.recommend import create_meters, prepared, recommend
from recbatch.scoring.shipping import shipped_to_workers
from recbatch.session import delta_jar_folder
from recbatch.stages.score import load_scorer
from recbatch.tables import schemas
from tests.pipeline.cluster import SPARK_HOME, standalone_cluster
from tests.pipeline.slice import ROOT
from tests.pipeline.support import PUBLISHED, SHORT_RUN_JVM, Release, read, rows, versions

pytestmark = pytest.mark.slow  # a whole run on a cluster of four processes

WORKERS = 2
_BUILD_SECONDS = 120
_SUBMIT_SECONDS = 540


@dataclass(frozen=True)
class Submission:
    """What one `spark-submit` of the whole pipeline left behind; `logs` are the cluster's."""

    warehouse: Path
    exit_code: int
    output: str
    logs: str


def _build_zip(folder: Path) -> Path:
    """The wheel under the name that --py-files takes, as `make package` makes it, from a copy of the sources."""
    sources = folder / "sources"
    shutil.copytree(ROOT / "recbatch", sources / "recbatch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", sources)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", sources],
        check=True,
        capture_output=True,
        timeout=_BUILD_SECONDS,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel.rename(folder / "dist" / "recbatch.zip")


def _python(folder: Path) -> Path:
    """A Python with all dependencies and without this package: -S leaves out the links of editable installs."""
    program = folder / "python"
    packages = sysconfig.get_path("purelib")
    program.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{packages}"\nexec "{sys.executable}" -S "$@"\n'
    )
    program.chmod(0o755)
    return program


def _environment(folder: Path) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not re.match("SPARK|PYSPARK|PYTHON", key)}
    return {**inherited, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1", "TMPDIR": str(folder)}


def _submit(master: str, folder: Path, python: Path, package: Path, arguments: list[str]) -> tuple[int, str]:
    shutil.copy(ROOT / "jobs" / "refresh.py", folder)
    jars = sorted(delta_jar_folder().glob("io.delta_delta-s*-4.4.0.jar"))
    settings = {
        "spark.pyspark.driver.python": str(python),
        "spark.pyspark.python": str(python),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.executor.memory": "900m",
        "spark.driver.extraJavaOptions": SHORT_RUN_JVM,
        "spark.executor.extraJavaOptions": SHORT_RUN_JVM,
    }
    command = [
        str(SPARK_HOME / "bin" / "spark-submit"),
        *["--master", master, "--driver-memory", "1g"],
        *["--jars", ",".join(str(jar) for jar in jars), "--py-files", str(package)],
        *[part for key, value in settings.items() for part in ("--conf", f"{key}={value}")],
        "refresh.py",
        *arguments,
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SUBMIT_SECONDS,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def submission(release: Release, folder: Path) -> Submission:
    package, python = _build_zip(folder), _python(folder)
    warehouse = folder / "warehouse"
    options = [*release.slice.options(warehouse), "spark.packages=provided"]
    arguments = ["--config", str(ROOT / "conf" / "demo.yaml"), *[a for one in options for a in ("--set", one)]]
    with standalone_cluster(folder, WORKERS) as master:
        exit_code, output = _submit(master, folder, python, package, arguments)
    logs = [*folder.glob("*.log"), *folder.glob("worker-*/*/*/std*")]
    return Submission(
        warehouse, exit_code, output, "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in logs)
    )


def _scores(table: Any) -> dict[tuple[str, int], tuple[str, float, str, str]]:
    names = ("item_id", "score", "because_item_id", "reason")
    return {(row["user_id"], row["rank"]): tuple(row[name] for name in names) for row in table.to_pylist()}


def test_the_python_of_the_cluster_has_the_package_from_the_zip_alone(folder: Path, submission: Submission) -> None:
    python = folder / "python"
    code = "import importlib.util, torch; print(importlib.util.find_spec('recbatch'))"
    bare = subprocess.run([python, "-c", code], cwd=folder, env=_environment(folder), capture_output=True, text=True)
    assert bare.stdout.strip() == "None", bare.stderr
    code = "import json, recbatch; print(json.dumps(recbatch.__file__))"
    environment = _environment(folder) | {"PYTHONPATH": str(folder / "dist" / "recbatch.zip")}
    shipped = subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert "recbatch.zip" in json.loads(shipped.stdout)


def test_the_job_ends_well_with_both_workers_at_work(submission: Submission) -> None:
    assert submission.exit_code == 0, submission.output[-6000:] + submission.logs
    done = {row["stage"] for row in rows(submission.warehouse, "runs") if row["status"] == "done"}
    assert done == {"clean", "features", "train", "evaluate", "score", "publish"}
    for number in range(WORKERS):
        assert f"worker-{number}.log" in submission.logs
        log = (submission.warehouse.parent / f"worker-{number}.log").read_text()
        assert "Asked to launch executor" in log


def test_the_lists_are_those_that_local_mode_makes_of_the_same_tables(release: Release, submission: Submission) -> None:
    assert submission.exit_code == 0, submission.output[-6000:] + submission.logs
    context = release.context(release.slice.config(submission.warehouse))
    (model,) = rows(submission.warehouse, "models")
    scorer, section, spark = load_scorer(context, model["path"]), context.config.scoring, release.spark.sparkContext
    users = prepared(context.tables.read(schemas.USER_SEQUENCES), scorer, section)
    with shipped_to_workers(spark, scorer, section) as shipped:
        local = recommend(users, shipped, section, 3, create_meters(spark)).toArrow()
    assert _scores(read(submission.warehouse, "recommendations")) == _scores(local)


def test_the_lists_are_those_of_the_whole_run_in_local_mode(release: Release, submission: Submission) -> None:
    assert submission.exit_code == 0, submission.output[-6000:] + submission.logs
    cluster, local = (_scores(read(where, "recommendations")) for where in (submission.warehouse, release.warehouse))
    assert {key: entry[0] for key, entry in cluster.items()} == {key: entry[0] for key, entry in local.items()}
    worst = max(abs(entry[1] - local[key][1]) / max(abs(local[key][1]), 1.0) for key, entry in cluster.items())
    assert worst <= 1e-5
    assert versions(submission.warehouse, PUBLISHED) == dict.fromkeys(PUBLISHED, 0)
