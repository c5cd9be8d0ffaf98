"""What a run needs of its machine, checked before it starts and without starting a JVM."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from recbatch.config.sections import Config
from recbatch.cores import usable_cores
from recbatch.errors import UsageError
from recbatch.operations.java import find_java

_GIB = 2**30
_PYTHON = ((3, 11), (3, 14))
# Supported versions as [from, below): pyproject.toml says the same, but is not there under --py-files.
PACKAGES: dict[str, tuple[str, str | None]] = {
    "pyspark": ("4.2", "4.3"),
    "delta-spark": ("4.4.0", "4.4.1"),
    "torch": ("2.6", None),
    "pandas": ("2.2", "3"),
    "pyarrow": ("18", None),
    "numpy": ("1.26", None),
    "numba": ("0.60", None),
    "scikit-learn": ("1.5", None),
    "threadpoolctl": ("3", None),
    "safetensors": ("0.4.3", None),
    "pydantic": ("2.7", None),
    "omegaconf": ("2.3", None),
    "pyyaml": ("6", None),
    "typer": ("0.12", None),
    "rich": ("13.7", None),
    "deltalake": ("1.0", None),
}
# The JVM, the Python workers with torch and the page cache share the machine; above this share they swap or are killed.
_DRIVER_SHARE = 0.7
# Below this a warehouse of any real size does not survive its first run: every table keeps its previous versions.
_MINIMUM_FREE = 5 * _GIB
_BYTES = {"": 2**20, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `detail` is what was found, `remedy` what to do about it where it is not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def check(config: Config | None) -> list[Finding]:
    """Look at Python, Java, the packages and the machine and, with a configuration, at what it names.

    Paths on remote storage are not looked at. The Java finding runs `java -version`, and the warehouse finding
    writes and removes one temporary file; nothing else is changed or started.
    """
    findings = [_python(), _java(), *_packages(), _cores(config), _memory(config), _delta_jars(config)]
    if config is not None:
        findings += [*_warehouse(config.warehouse), *_inputs(config)]
    return findings


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    supported = _PYTHON[0] <= sys.version_info[:2] < _PYTHON[1]
    return Finding("python", supported, f"{version} ({sys.executable})", "" if supported else "use Python 3.11 to 3.13")


def _java() -> Finding:
    try:
        java = find_java()
    except UsageError as error:
        return Finding("java", False, error.what, error.remedy)
    return Finding("java", True, f"{java.version} ({java.executable})")


def _packages() -> Iterator[Finding]:
    for package, (lowest, below) in PACKAGES.items():
        wanted = f">={lowest}" + (f",<{below}" if below else "")
        remedy = f"pip install '{package}{wanted}'"
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, False, "is not installed", remedy)
            continue
        release = _release(version)
        supported = _release(lowest) <= release and (below is None or release < _release(below))
        if supported:
            yield Finding(package, True, version)
        else:
            yield Finding(package, False, f"{version} is not {wanted}", remedy)


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version without trailing zeros: "4.2.0" and "4.2" are one release."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in numbers.group().split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _local_threads(config: Config | None) -> int | None:
    """The tasks that a local master runs at once, None on a cluster; "local[*]" is one a core."""
    master = (config.spark.master if config is not None else None) or "local[*]"
    match = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\s*\d+)?\])?", master)
    if match is None:
        return None
    threads = match.group(1) or "1"
    return usable_cores() if threads == "*" else int(threads)


def _cores(config: Config | None) -> Finding:
    cores, threads = usable_cores(), _local_threads(config)
    if threads is None or threads <= cores:
        return Finding("cores", True, str(cores))
    return Finding("cores", False, f"{cores}, but Spark would run {threads} tasks at once", "spark.master=local[*]")


def _memory(config: Config | None) -> Finding:
    total = _memory_bytes()
    detail = f"{total / _GIB:.1f} GiB"
    if config is None or _local_threads(config) is None:
        return Finding("memory", True, detail)
    driver = _parse_bytes(config.spark.driver_memory)
    if driver is None:
        detail = f"spark.driver_memory '{config.spark.driver_memory}' is no amount of memory"
        return Finding("memory", False, detail, "write it as 4g or 512m")
    detail += f", of which the JVM may take {driver / _GIB:.1f} GiB"
    if driver <= _DRIVER_SHARE * total:
        return Finding("memory", True, detail)
    affordable = max(1, int(_DRIVER_SHARE * total / _GIB))
    return Finding("memory", False, f"{detail}: too little is left for Python", f"spark.driver_memory={affordable}g")


def _memory_bytes() -> int:
    """Physical memory in bytes, or the limit of the container where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total


def _parse_bytes(text: str) -> int | None:
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", text.strip().lower())
    return int(match.group(1)) * _BYTES[match.group(2)] if match else None


def _delta_jars(config: Config | None) -> Finding:
    if config is not None and config.spark.packages == "provided":
        return Finding("delta jars", True, "provided by the cluster (spark.packages=provided)")
    try:
        # Needs pyspark, which may be what is missing.
        from recbatch.session import delta_jar_folder

        version = importlib.metadata.version("delta-spark")
    except ImportError as error:
        return Finding("delta jars", False, f"cannot tell which are needed: {error}", "install the packages above")
    folder = delta_jar_folder()
    if all(any(folder.glob(f"io.delta_{jar}-{version}.jar")) for jar in ("delta-spark_*", "delta-storage")):
        return Finding("delta jars", True, f"{version} in {folder}")
    detail = f"{version} is not in {folder}: the first start downloads it, which needs a network"
    return Finding("delta jars", True, detail)


def _warehouse(location: str) -> Iterator[Finding]:
    folder = _local_path(location)
    if folder is None:
        yield Finding("warehouse", True, f"'{location}' is not on this machine and was not looked at")
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            yield Finding("warehouse", True, f"'{folder}' is writable")
    except OSError as error:
        reason = f"nothing can be written to '{existing}': {error.strerror}"
        yield Finding("warehouse", False, f"'{folder}': {reason}", "set 'warehouse' to a folder of yours")
    free = shutil.disk_usage(existing).free
    enough = free >= _MINIMUM_FREE
    remedy = "" if enough else f"free {_MINIMUM_FREE / _GIB:.0f} GiB there, or set 'warehouse' to another disk"
    yield Finding("disk", enough, f"{free / _GIB:.1f} GiB free at '{existing}'", remedy)


def _inputs(config: Config) -> Iterator[Finding]:
    paths = {"events": config.input.events.path}
    if config.input.items is not None:
        paths["items"] = config.input.items.path
    for name, location in paths.items():
        path = _local_path(location)
        if path is None:
            yield Finding(f"{name} input", True, f"'{location}' is not on this machine and was not looked at")
            continue
        files = sum(_data_files(Path(match)) for match in glob.glob(str(path)))
        remedy = "" if files else f"put the files there, or set input.{name}.path"
        yield Finding(f"{name} input", files > 0, f"{files} files at '{location}'", remedy)


def _data_files(path: Path) -> int:
    """How many files Spark would read at `path`: itself, or those below it whose names are not hidden."""
    if path.is_file():
        return 1
    names = (file.relative_to(path).parts for file in path.rglob("*") if file.is_file())
    return sum(not any(part.startswith((".", "_")) for part in parts) for parts in names)


def _local_path(location: str) -> Path | None:
    """`location` as an absolute path of this machine, None where it names another storage (s3://, hdfs://)."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).absolute()
    return None if "://" in location else Path(location).absolute()
