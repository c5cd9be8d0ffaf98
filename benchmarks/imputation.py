"""How well each strategy for missing values guesses hidden values of the demo's catalogue: a table, and JSON.

.venv/bin/python benchmarks/imputation.py --json imputation.json

A tenth of the known values of a column is hidden, at random; each strategy is fitted to the rest. A number's error is
the root mean square error (here of logarithms), a category's the share of wrong guesses. "group mean" of a category is
the most frequent value; the group is that of the column with the least error, chosen on the hidden values themselves,
which favours it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from recbatch.transforms.estimators import NEIGHBOURS, Field, average, error, fit, group_errors

_EXPORT = Path(__file__).parents[1] / "examples" / "completejourney.py"
_FIELDS = [
    *(Field(name, "category") for name in ("department", "product_category", "product_type", "brand", "manufacturer")),
    Field("log_size", "number"),
    Field("log_price", "number"),
]
_OUNCES = {"OZ": 1.0, "FL OZ": 1.0, "LB": 16.0, "ML": 0.033814, "L": 33.814, "GAL": 128.0, "QT": 32.0, "PT": 16.0}


def catalogue(raw: Path) -> pd.DataFrame:
    """The products of the demo with logarithms of the package size, in ounces, and of the mean price in the log."""
    items = pd.read_parquet(raw / "products")
    size = items["package_size"].str.extract(r"^\s*(?P<n>\d+\.?\d*) (?P<unit>FL OZ|OZ|LB|ML|L|GAL|QT|PT)\b")
    ounces = pd.to_numeric(size["n"]) * size["unit"].map(_OUNCES)
    columns = ["product_id", "quantity", "sales_value"]
    lines = pd.concat(pd.read_csv(file, usecols=columns) for file in sorted((raw / "transactions").glob("*.csv")))
    lines = lines[(lines["quantity"] > 0) & (lines["sales_value"] > 0)]
    price = (lines["sales_value"] / lines["quantity"]).groupby(lines["product_id"]).mean()
    return items.assign(
        manufacturer=items["manufacturer_id"].astype(str),
        log_size=np.log(ounces.where(ounces > 0)),
        log_price=np.log(items["product_id"].map(price)),
    )


def errors(items: pd.DataFrame, target: Field, most: int, seed: int) -> list[dict[str, object]]:
    """One row a strategy: its error on hidden values, and the seconds that it took."""
    random = np.random.default_rng(seed)
    known = items[items[target.name].notna()]
    known = known.iloc[random.permutation(len(known))]
    n_hidden = min(most, len(known) // 10)
    hidden, rest = known[:n_hidden], known[n_hidden:]
    others = [field for field in _FIELDS if field != target]
    truth = hidden[target.name]
    asked = hidden.assign(**{target.name: None if target.kind == "category" else np.nan})
    start = {"column": target.name, "hidden": n_hidden}
    overall = pd.Series(average(rest[target.name], target.kind), index=truth.index)
    rows = [start | {"strategy": "mean or mode", "error": error(truth, overall, target.kind)}]
    groups = {one.name: group_errors(rest, hidden, target, one.name) for one in others if one.kind == "category"}
    best = min(groups, key=lambda name: groups[name])
    rows.append(start | {"strategy": f"group mean by {best}", "error": groups[best]})
    for neighbours in (1, NEIGHBOURS, 20):
        began = time.monotonic()
        guessed = fit("knn", rest, target, others, neighbours).fill(asked)
        seconds = time.monotonic() - began
        found = error(truth, guessed, target.kind)
        rows.append(start | {"strategy": f"knn of {neighbours}", "error": found, "seconds": seconds})
    began = time.monotonic()
    guessed = fit("regression", rest, target, others, NEIGHBOURS).fill(asked)
    seconds = time.monotonic() - began
    rows.append(start | {"strategy": "regression", "error": error(truth, guessed, target.kind), "seconds": seconds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=10_000, help="hidden values of a column, at most")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        subprocess.run([sys.executable, _EXPORT, raw], check=True)
        items = catalogue(raw)
    print(f"{'column':<18}{'strategy':<32}{'error':>8}{'of group':>10}{'seconds':>9}   ({len(items):,} items)")
    figures = []
    for target in _FIELDS:
        rows = errors(items, target, options.hidden, options.seed)
        group = float(str(rows[1]["error"]))
        for row in rows:
            row["ratio"] = float(str(row["error"])) / group if group else None
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
            print(f"{row['column']:<18}{row['strategy']:<32}{row['error']:>8.4f}{ratio:>10}{seconds:>9}", flush=True)
        figures += rows
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
