"""What cleaning costs beside a bare Spark copy of the same files: seconds, ratios, memory, bytes written.

.venv/bin/python benchmarks/cleaning.py --events 20000000 --json cleaning.json

Every figure comes from a process of its own, with its own session; starting it is not counted. The copy reads the same
CSV files into one Delta table with the columns, types and partitions of `events`, and has no rule. Then:

rules        row rules alone: no search for duplicates and bots, nothing imputed
clean        everything that is on by default, with imputation of prices and quantities
features     `clean` and the stage `features` after it, together
more         one per cent of new events, spread over all users, into the warehouse of `features`

With --plot it draws the curve over several sizes: --events 1000000 5000000 20000000 100000000.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
_MODES = ("copy", "rules", "clean", "features", "more")
_OPTIONS = {
    "rules": [
        "cleaning.duplicate_key=[]",
        "cleaning.bots={max_events_a_day: null, max_events_a_minute: null}",
        "cleaning.quantity=keep",
    ],
    "clean": ["cleaning.price=median"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[20_000_000])
    parser.add_argument("--driver-memory", default="4g")
    parser.add_argument("--repeats", type=int, default=1, help="runs of copy, rules, clean; the shortest counts")
    parser.add_argument("--only", nargs="+", choices=_MODES, default=list(_MODES))
    parser.add_argument("--data", type=Path, help="keep the generated files here, and use them again")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw seconds over events into this picture")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(_measure(**json.loads(options.worker))))
        return
    with tempfile.TemporaryDirectory(prefix="recbatch-benchmark-") as folder:
        figures = [_size(events, options.data or Path(folder), Path(folder), options) for events in options.events]
    if options.json:
        options.json.write_text(json.dumps(figures[0] if len(figures) == 1 else figures, indent=2) + "\n")
    if options.plot:
        _draw(figures, options.plot)


def _size(events: int, data: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    shop = data / f"shop-{events}"
    generate = [
        sys.executable,
        "-m",
        "recbatch.cli",
        "generate",
        str(shop),
        "--events",
        str(events),
        "--extra-share",
        "0.01",
    ]
    subprocess.run(generate, check=True, stdout=subprocess.DEVNULL)
    figures: dict[str, float] = {"events": events}
    for mode in options.only:
        for _ in range(options.repeats if mode in ("copy", "rules", "clean") else 1):
            warehouse = folder / ("features" if mode == "more" else mode)
            if mode != "more":
                shutil.rmtree(warehouse, ignore_errors=True)
            found = _in_a_process(mode, shop, warehouse, options.driver_memory)
            for name, value in found.items():
                figures[name] = min(figures.get(name, value), value) if name.endswith("_s") else value
            _print(mode, figures)
        if mode in ("copy", "rules", "clean"):
            shutil.rmtree(warehouse, ignore_errors=True)
    return figures


def _in_a_process(mode: str, shop: Path, warehouse: Path, memory: str) -> dict[str, float]:
    call = json.dumps({"mode": mode, "shop": str(shop), "warehouse": str(warehouse), "memory": memory})
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"{mode} failed:\n{err[-3000:]}")
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures | {f"{mode}_peak_mb": peak[0]} | ({"peak_mb": peak[0]} if mode == "features" else {})


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    """Keep the largest sum of the resident memory (MiB) of a process and all below it; shared pages count in each."""
    while process.poll() is None:
        peak[0] = max(peak[0], _resident(process.pid) / 2**20)
        time.sleep(0.5)


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for task in Path(f"/proc/{pid}/task").iterdir():
            if task.name != str(pid):
                children += (task / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident(int(child)) for child in children)


def _measure(mode: str, shop: str, warehouse: str, memory: str) -> dict[str, float]:
    """Run one mode in this process; seconds without the start of the session."""
    from recbatch.config import load_config
    from recbatch.config.sections import SparkSection
    from recbatch.session import build_session

    spark = build_session(SparkSection(driver_memory=memory), f"benchmark {mode}")
    spark.range(10).count()
    if mode == "copy":
        began = time.monotonic()
        _copy(spark, shop, warehouse)
        return {"copy_s": time.monotonic() - began, "copy_bytes": _bytes(warehouse)}
    changes = [f"warehouse={warehouse}", *_OPTIONS["rules" if mode == "rules" else "clean"]]
    if mode in ("features", "more"):
        # One path for both runs, because another one is another input: the second delivery is not there at first.
        changes.append(f"input.events.path={warehouse}-raw/*/*")
        _deliver(Path(shop), Path(f"{warehouse}-raw"), mode)
    config = load_config([Path(shop) / "recbatch.yaml"], changes)
    return _stages(spark, config, mode) | {f"{mode}_bytes": _bytes(warehouse)}


def _deliver(shop: Path, raw: Path, mode: str) -> None:
    if mode == "features":
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True)
    name = "events" if mode == "features" else "events_more"
    (raw / name).symlink_to(shop / name)


def _stages(spark, config, mode: str) -> dict[str, float]:
    from recbatch.context import Progress
    from recbatch.flow import stage_named
    from recbatch.runner import Runner

    silent = Progress(lambda text: print(text, file=sys.stderr), lambda *_: None)
    names = ["clean", "features"] if mode in ("features", "more") else ["clean"]
    runner = Runner(spark, config, run_id=f"benchmark-{mode}", as_of=None, progress=silent)
    outcomes = {one.stage.name: one for one in runner.run([stage_named(name) for name in names])}
    counts = outcomes["clean"].result.row_counts
    if mode == "more":
        return {"more_rows": counts["events:read"]} | {
            f"more_{name}_s": outcome.seconds for name, outcome in outcomes.items()
        }
    seconds = {f"{mode}_s": sum(one.seconds for one in outcomes.values()), "rows": counts["events:read"]}
    if mode == "features":
        seconds |= {f"{kind}_s": outcomes[name].seconds for kind, name in _PARTS}
    return seconds


def _copy(spark, shop: str, warehouse: str) -> None:
    from pyspark.sql import functions as F

    from recbatch.config import load_config
    from recbatch.tables import columns as c
    from recbatch.tables.schemas import EVENTS

    source = load_config([Path(shop) / "recbatch.yaml"], [f"warehouse={warehouse}"]).input.events
    header = next(Path(source.path).glob("*.csv")).open().readline().strip().split(",")
    kinds = {
        source.columns.event_time.column: "long",
        **{getattr(source.columns, name).column: "double" for name in (c.QUANTITY, c.PRICE)},
    }
    schema = ", ".join(f"`{name}` {kinds.get(name, 'string')}" for name in header)
    raw = spark.read.schema(schema).csv(source.path, header=True, escape='"')
    moment = F.timestamp_millis(source.columns.event_time.column)
    values = {
        **{
            name: F.col(column.column) if (column := getattr(source.columns, name, None)) else F.lit(None)
            for name in EVENTS.schema.names
        },
        c.EVENT_TIME: moment,
        c.EVENT_DATE: F.to_date(moment),
        c.IMPUTED: F.array().cast("array<string>").alias(c.IMPUTED),
        c.SOURCE_FILE: F.col("_metadata.file_path"),
        c.RUN_ID: F.lit("copy"),
    }
    kinds_of = {field.name: field.dataType for field in EVENTS.schema if field.name != c.IMPUTED}
    rows = raw.select(*[values[name].cast(kind).alias(name) for name, kind in kinds_of.items()], values[c.IMPUTED])
    # Without the shuffle every task would leave a small file of every date, and take several times as long.
    tasks = 4 * spark.sparkContext.defaultParallelism
    rows.repartition(tasks, c.EVENT_DATE).write.format("delta").partitionBy(c.EVENT_DATE).save(f"{warehouse}/events")


def _bytes(folder: str) -> float:
    return float(sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()))


_PARTS = (("first_clean", "clean"), ("features_alone", "features"))
_BARS = {"rules_s": ("copy_s", 1.6), "clean_s": ("copy_s", 2.2), "features_s": ("copy_s", 3.2)}
_SHARES = {"more_clean_s": ("first_clean_s", 0.15), "more_features_s": ("features_alone_s", 0.35)}


def _print(mode: str, figures: dict[str, float]) -> None:
    for name in ("more_clean_s", "more_features_s") if mode == "more" else (f"{mode}_s",):
        base, bar = (_BARS | _SHARES).get(name, ("", 0.0))
        ratio = (
            f"  {figures[name] / figures[base]:.2f} of {base.removesuffix('_s')} (bar {bar})" if base in figures else ""
        )
        speed = f"{figures['events'] / figures[name] / 1000:8.0f} thousand rows/s" if mode != "more" else ""
        print(f"{name:<16} {figures[name]:8.1f} s {speed}{ratio}", flush=True)
    megabytes = figures.get(f"{mode}_bytes", 0.0) / 2**20
    print(f"{'':16} {figures[f'{mode}_peak_mb']:8.0f} MiB at most, {megabytes:.0f} MiB in the warehouse", flush=True)


def _draw(figures: list[dict[str, float]], picture: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    millions = [one["events"] / 1e6 for one in figures]
    for name, label in (
        ("copy_s", "bare copy"),
        ("rules_s", "row rules"),
        ("clean_s", "cleaning"),
        ("first_clean_s", "cleaning, features to follow"),
        ("features_s", "cleaning + features"),
    ):
        points = [(size, one[name]) for size, one in zip(millions, figures, strict=True) if name in one]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="million events", ylabel="seconds", title="Cleaning on 2 cores")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
