"""A standalone Spark cluster of real processes on this machine: one master, and workers of one core each."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyspark

SPARK_HOME = Path(pyspark.__file__).parent
_LOOPBACK = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def standalone_cluster(folder: Path, workers: int) -> Iterator[str]:
    """The master's URL; what the processes print is in `folder`. They are gone when the block is left."""
    port = free_port()
    url = f"spark://{_LOOPBACK}:{port}"
    with ExitStack() as processes:
        address = ["--host", _LOOPBACK, "--port"]
        processes.enter_context(
            _daemon("master.Master", [*address, str(port)], folder / "master.log", "New state: ALIVE")
        )
        for number in range(workers):
            size = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder / f"worker-{number}"), url]
            arguments = [*address, str(free_port()), *size]
            log = folder / f"worker-{number}.log"
            processes.enter_context(_daemon("worker.Worker", arguments, log, "Successfully registered with master"))
        yield url


@contextmanager
def _daemon(name: str, arguments: list[str], log: Path, ready: str) -> Iterator[None]:
    """`spark-class` with a class of the standalone mode, from the line that says that it is ready on."""
    environment = {
        **{key: value for key, value in os.environ.items() if not re.match("SPARK|PYSPARK|PYTHONPATH", key)},
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": _LOOPBACK,
        "SPARK_DAEMON_MEMORY": "256m",
    }
    process = subprocess.Popen(
        # Any free port for the user interface, which nobody opens.
        [SPARK_HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{name}", "--webui-port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=log.parent,
    )
    is_ready = threading.Event()
    reader = threading.Thread(target=_follow, args=(process, log, ready, is_ready), daemon=True)
    reader.start()
    try:
        # The end of its output also ends the wait.
        if not is_ready.wait(_START_SECONDS) or process.poll() is not None:
            raise RuntimeError(f"{name} did not start:\n{log.read_text()}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)
        reader.join(_STOP_SECONDS)


def _follow(process: subprocess.Popen[str], log: Path, ready: str, is_ready: threading.Event) -> None:
    assert process.stdout is not None
    with process.stdout, log.open("w", buffering=1) as file:
        for line in process.stdout:
            file.write(line)
            if ready in line:
                is_ready.set()
    is_ready.set()
