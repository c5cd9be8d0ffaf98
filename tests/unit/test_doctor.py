"""The doctor's findings: what is fine is said so, what is not comes with a remedy."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from recbatch.config.sections import Config
from recbatch.operations import doctor
from recbatch.operations.doctor import PACKAGES, Finding, check

ROOT = Path(__file__).parents[2]
COLUMNS = {"user_id": "user", "item_id": "item", "event_time": "time"}


@pytest.fixture(autouse=True)
def quick_java(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Java that answers at once: what `find_java` makes of a real one is in its own tests."""
    home = tmp_path_factory.mktemp("jdk")
    (home / "bin").mkdir()
    (home / "bin" / "java").write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
    (home / "bin" / "java").chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(home))


def _config(tmp_path: Path, **sections: Any) -> Config:
    (tmp_path / "events").mkdir(exist_ok=True)
    (tmp_path / "events" / "january.csv").write_text("user,item,time\n")
    values: dict[str, Any] = {
        "warehouse": str(tmp_path / "warehouse"),
        "input": {"events": {"path": str(tmp_path / "events"), "columns": COLUMNS}},
    }
    return Config.model_validate(values | sections)


def _finding(config: Config | None, name: str) -> Finding:
    (finding,) = [finding for finding in check(config) if finding.name == name]
    return finding


def _input(path: str) -> dict[str, Any]:
    return {"events": {"path": path, "columns": COLUMNS}}


def test_without_a_configuration_only_the_machine_is_looked_at() -> None:
    names = [finding.name for finding in check(None)]
    assert names == ["python", "java", *PACKAGES, "cores", "memory", "delta jars"]


def test_what_is_not_ok_has_a_remedy_and_what_is_ok_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    config = _config(tmp_path, input=_input(str(tmp_path / "absent")), spark={"driver_memory": "9999t"})
    findings = check(config)
    assert {finding.name for finding in findings if not finding.ok} >= {"java", "memory", "events input"}
    assert all(bool(finding.remedy) != finding.ok for finding in findings)
    assert all(finding.detail for finding in findings)


def test_the_environment_of_the_tests_is_sound(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in check(_config(tmp_path, spark={"driver_memory": "64m"}))}
    for name in ("python", *PACKAGES, "warehouse", "events input"):
        assert findings[name].ok, findings[name]


def test_packages_and_their_bounds_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}
    assert requirements.keys() == PACKAGES.keys()
    probes = ["0.1", "0.4.2", "0.4.3", "1", "1.26", "2.2", "2.6", "3", "4", "4.1.9", "4.2", "4.2.0", "4.2.7", "4.3"]
    probes += ["4.4", "4.4.0", "4.4.1", "5.9", "6", "13.6.9", "13.7", "17.9", "18", "99"]
    for name, requirement in requirements.items():
        lowest, below = PACKAGES[name]
        bounds = SpecifierSet(f">={lowest}" + (f",<{below}" if below else ""))
        assert [probe in bounds for probe in probes] == [probe in requirement.specifier for probe in probes], name


@pytest.mark.parametrize(("version", "ok"), [("4.1.2", False), ("4.2", True), ("4.2.0", True), ("4.2.3", True),
                                             ("4.10.0", False), ("4.3.0", False)])  # fmt: skip
def test_a_package_of_another_version(monkeypatch: pytest.MonkeyPatch, version: str, ok: bool) -> None:
    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == "pyspark" else installed(name))
    finding = _finding(None, "pyspark")
    assert finding.ok is ok
    assert version in finding.detail


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "a-package-nobody-made", ("1", None))
    finding = _finding(None, "a-package-nobody-made")
    assert not finding.ok
    assert finding.remedy == "pip install 'a-package-nobody-made>=1'"


def test_more_tasks_than_cores(tmp_path: Path) -> None:
    finding = _finding(_config(tmp_path, spark={"master": "local[4096]"}), "cores")
    assert not finding.ok
    assert "4096" in finding.detail
    for master in ("local", "local[1]", "local[*]", "local[1, 3]", "yarn", "spark://host:7077"):
        assert _finding(_config(tmp_path, spark={"master": master}), "cores").ok


@pytest.mark.parametrize(
    ("text", "size"),
    [("512m", 512 * 2**20), ("4g", 4 * 2**30), ("4GB", 4 * 2**30), ("900", 900 * 2**20), ("1t", 2**40), ("4 g", None),
     ("much", None)],
)  # fmt: skip
def test_memory_is_read_as_spark_reads_it(text: str, size: int | None) -> None:
    assert doctor._parse_bytes(text) == size


def test_driver_memory(tmp_path: Path) -> None:
    assert _finding(_config(tmp_path, spark={"driver_memory": "64m"}), "memory").ok
    too_much = _finding(_config(tmp_path, spark={"driver_memory": "999t"}), "memory")
    assert not too_much.ok
    suggested = too_much.remedy.removeprefix("spark.driver_memory=")
    assert _finding(_config(tmp_path, spark={"driver_memory": suggested}), "memory").ok
    assert not _finding(_config(tmp_path, spark={"driver_memory": "plenty"}), "memory").ok
    # On a cluster the memory of this machine is not the driver's limit.
    assert _finding(_config(tmp_path, spark={"driver_memory": "999t", "master": "yarn"}), "memory").ok


def test_delta_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "downloads" in _finding(None, "delta jars").detail
    from recbatch.session import delta_jar_folder

    version = importlib.metadata.version("delta-spark")
    delta_jar_folder().mkdir(parents=True)
    (delta_jar_folder() / f"io.delta_delta-spark_4.2_2.13-{version}.jar").touch()
    assert "downloads" in _finding(None, "delta jars").detail
    (delta_jar_folder() / f"io.delta_delta-storage-{version}.jar").touch()
    assert _finding(None, "delta jars").detail == f"{version} in {delta_jar_folder()}"
    provided = _finding(_config(tmp_path, spark={"packages": "provided"}), "delta jars")
    assert "provided by the cluster" in provided.detail


def test_a_warehouse_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    config = _config(tmp_path, warehouse=(tmp_path / "new" / "deep").as_uri())
    assert _finding(config, "warehouse").ok
    assert "GiB free" in _finding(config, "disk").detail
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events"]


def test_a_warehouse_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = _finding(_config(tmp_path, warehouse=str(tmp_path / "file" / "warehouse")), "warehouse")
    assert not finding.ok
    assert str(tmp_path / "file") in finding.detail


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _finding(_config(tmp_path), "disk").detail.endswith(f"free at '{tmp_path}'")
    monkeypatch.setattr(doctor, "_MINIMUM_FREE", 2**70)
    assert not _finding(_config(tmp_path), "disk").ok


def test_remote_paths_are_left_alone(tmp_path: Path) -> None:
    config = _config(tmp_path, warehouse="s3a://bucket/warehouse", input=_input("hdfs://host/events"))
    for name in ("warehouse", "events input"):
        assert _finding(config, name) == Finding(name, True, _finding(config, name).detail)
        assert "not on this machine" in _finding(config, name).detail
    assert "disk" not in [finding.name for finding in check(config)]


def test_inputs(tmp_path: Path) -> None:
    config = _config(tmp_path)
    (tmp_path / "events" / "_SUCCESS").touch()
    (tmp_path / "events" / ".january.csv.crc").touch()
    assert _finding(config, "events input").detail.startswith("1 files")
    (tmp_path / "events" / "year=2017").mkdir()
    (tmp_path / "events" / "year=2017" / "february.csv").touch()
    assert _finding(config, "events input").detail.startswith("2 files")
    assert _finding(_config(tmp_path, input=_input(f"{tmp_path}/events/*.csv")), "events input").ok
    assert not _finding(_config(tmp_path, input=_input(f"{tmp_path}/events/*.parquet")), "events input").ok
    items = {"path": str(tmp_path / "items"), "item_id": "id"}
    missing = _finding(_config(tmp_path, input=_input(str(tmp_path / "events")) | {"items": items}), "items input")
    assert not missing.ok
    assert "input.items.path" in missing.remedy
