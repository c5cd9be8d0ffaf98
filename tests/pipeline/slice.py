"""A small slice of the demo's real data as raw files, with planted faults whose number is known."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from examples.completejourney import export
from recbatch.config import Config, load_config

ROOT = Path(__file__).parents[2]
HOUSEHOLDS = 50
FIRST_MONTH = "2017-10"
UNSOLD_PRODUCTS = 300
DISCONTINUED_ON = "2017-11-01"
PICTURE_SIZE = 4
UNKNOWN_PRODUCT = "999999999"
_DISCONTINUED_SHARE = 0.1
_SEED = 11

Row = dict[str, str]


@dataclass(frozen=True)
class Slice:
    """The raw files in `folder`, the rows of the log before faults were planted, and what was planted.

    outcomes: planted rows by outcome. reasons: planted rows by reason code; a row may have several.
    """

    folder: Path
    rows: list[Row]
    outcomes: Counter[str]
    reasons: Counter[str]

    def config(self, warehouse: Path, *overrides: str) -> Config:
        """The demo's configuration over this slice."""
        return load_config([ROOT / "conf" / "demo.yaml"], [*self.options(warehouse), *overrides])

    def options(self, warehouse: Path) -> list[str]:
        """Overrides of the demo's configuration that make it small enough to run in seconds."""
        return [
            f"warehouse={warehouse}",
            f"input.events.path={self.folder / 'transactions'}",
            f"input.items.path={self.folder / 'products'}",
            "input.items.valid_to=discontinued_on",
            "input.items.time.format=yyyy-MM-dd",
            # A text and a vector, of which the demo's catalogue has none.
            "input.items.attributes.words={source: product_type, kind: text, buckets: 512}",
            f"input.items.attributes.picture={{source: picture, kind: vector, size: {PICTURE_SIZE}}}",
            "features.buckets=8",
            "features.sequence_length=100",
            # Of three months no week can be spared.
            "features.cut_alignment_days=0",
            "model.dim=16",
            "training.max_epochs=3",
            # So few rows make no more steps otherwise, and leave the network as random as it began.
            "training.examples=windows",
            "training.batch_rows=8",
            "training.threads=1",
            "evaluation.bootstrap_samples=100",
            # A network of a few epochs on some dozen users is here to be scored, not to be good.
            "evaluation.min_ndcg_against_popularity=0",
            "scoring.k=20",
            "scoring.default_k=20",
            "spark.shuffle_partitions=2",
            "spark.driver_memory=1g",
        ]


def make_slice(folder: Path) -> Slice:
    """Three months of some dozen households, the products that they bought, and a few hundred others."""
    export(folder, HOUSEHOLDS)
    months = sorted((folder / "transactions").iterdir())
    for file in months:
        if file.stem < FIRST_MONTH:
            file.unlink()
    kept = [file for file in months if file.exists()]
    rows = [row for file in kept for row in _read(file)]
    products = _shrink_catalogue(folder / "products" / "products.parquet", {row["product_id"] for row in rows})
    outcomes, reasons = _plant_faults(kept[-1], rows, products)
    return Slice(folder, rows, outcomes, reasons)


def _read(file: Path) -> list[Row]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _shrink_catalogue(file: Path, bought: set[str]) -> set[str]:
    """Keep what was bought and some of the rest, discontinue a share of it, and return the ids that are left.

    Every product but the first has a made-up picture, as the embedding of one.
    """
    products = pq.read_table(file)
    generator = np.random.default_rng(_SEED)
    is_bought = pc.is_in(products["product_id"], value_set=pa.array([int(one) for one in sorted(bought)]))
    unsold = generator.choice(np.flatnonzero(~is_bought.to_numpy()), UNSOLD_PRODUCTS, replace=False)
    products = products.take(pa.array(np.sort(np.concatenate([np.flatnonzero(is_bought.to_numpy()), unsold]))))
    gone = generator.random(len(products)) < _DISCONTINUED_SHARE
    column = pa.array([DISCONTINUED_ON if one else None for one in gone], pa.string())
    pictures = [None, *generator.normal(size=(len(products), PICTURE_SIZE))[1:]]
    products = products.append_column("discontinued_on", column)
    pq.write_table(products.append_column("picture", pa.array(pictures, pa.list_(pa.float32()))), file)
    return {str(one) for one in products["product_id"].to_pylist()}


def _plant_faults(file: Path, rows: list[Row], products: set[str]) -> tuple[Counter[str], Counter[str]]:
    """Add rows to the file: copies of good rows of all months, each changed in one way, and lines that are no rows."""
    good = [row for row in rows if float(row["quantity"]) > 0 and row["product_id"] in products]
    good = [row for row in good if float(row["sales_value"]) > 0]
    chosen = iter(np.random.default_rng(_SEED).permutation(len(good)))
    lines: list[str] = []
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    def plant(count: int, outcome: str, codes: tuple[str, ...] = (), **changes: str) -> None:
        for _ in range(count):
            row = good[int(next(chosen))] | changes
            lines.append(",".join(row.values()))
        outcomes[outcome] += count
        reasons.update(dict.fromkeys(codes, count))

    plant(7, "exact_duplicate")
    # Far above any number of pieces of the same product in one receipt, so never equal to the row that it copies.
    plant(3, "key_duplicate", quantity="4321")
    plant(3, "rejected", ("invalid_quantity",), quantity="two")
    plant(4, "rejected", ("invalid_event_time",), transaction_timestamp="2017-13-45 99:00:00")
    plant(1, "rejected", ("missing_event_time",), transaction_timestamp="")
    plant(4, "rejected", ("missing_user_id",), household_id="")
    plant(5, "rejected", ("negative_quantity", "negative_price"), quantity="-2")
    plant(6, "rejected", ("unknown_item",), product_id=UNKNOWN_PRODUCT)
    plant(2, "rejected", ("missing_user_id", "invalid_event_time"), household_id="  ", transaction_timestamp="soon")
    lines += ["900,330,31198570044", "torn off in the mid", ",".join([*rows[0].values(), "7"]), "1,2,3,4,5,6,7,8,9"]
    outcomes["rejected"] += 4
    reasons["malformed_record"] += 4
    with file.open("a") as stream:
        stream.writelines(line + "\n" for line in lines)
    return outcomes, reasons
