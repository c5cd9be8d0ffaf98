"""Turns a file of ratings into the sequences that the other scripts read.

python benchmarks/sequences/movielens.py ml-100k.inter ml-100k.txt

The input has tab-separated columns user, item, rating, timestamp, with or without a header. Every rating counts as a
behaviour. Of a user, ratings are in order of time; those of the same second stay in the order of the file.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("sequences", type=Path)
    options = parser.parse_args()
    lines = sequence_lines(options.ratings.read_text())
    options.sequences.write_text("".join(f"{line}\n" for line in lines))
    print(f"{len(lines):,} users")


def sequence_lines(text: str) -> list[str]:
    """Lines `user item item ...`, users in the order of their first rating in the file."""
    ratings: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for row, line in enumerate(text.splitlines()):
        user, item, _, time = line.split("\t")
        if row == 0 and not _is_number(time):
            continue  # the header
        ratings[user].append((float(time), item))
    return [
        " ".join([user, *(item for _, item in sorted(rated, key=lambda rating: rating[0]))])
        for user, rated in ratings.items()
    ]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
