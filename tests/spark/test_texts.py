"""Texts as hashed word n-grams, beside the same in plain Python."""

from __future__ import annotations

import unicodedata

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recbatch.config.inputs import ItemAttribute
from recbatch.transforms.texts import has_words, hashed_ngrams, ngrams

TEXTS = [
    "Fresh Milk 3.8% 1l",
    "word",
    "two  words",
    "a b c d",
    "to be or not to be to be",
    "  -- leading, trailing !! ",
    "tab\tand\nline",
    "it's l'été — Äpfel; GRÖSSE STRASSE straße",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ",
    "İstanbul DIŞ",
    "日本語 テスト１２３ ①½",
    "cafe\u0301 नमस्ते",
    "snow_case under_score",
    "\u0301 \u2764\ufe0f",
    "😀 smile👍🏽 𝔘𝔫𝔦",
    "[^\\p{L}] $1 \\E . *",
    "...",
    "",
    " ",
]


def _expected(text: str, longest: int) -> list[str]:
    lower = "".join(letter if unicodedata.category(letter)[0] in "LNM" else " " for letter in text.lower())
    words = lower.split(" ")
    words = [word for word in words if any(unicodedata.category(letter)[0] in "LN" for letter in word)]
    return [" ".join(words[at : at + n]) for n in range(1, longest + 1) for at in range(len(words) - n + 1)]


@pytest.mark.parametrize("longest", [1, 2, 3, 5])
def test_ngrams_are_all_runs_of_words(spark: SparkSession, longest: int) -> None:
    frame = spark.createDataFrame([(text,) for text in [*TEXTS, None]], "text string")
    found = frame.select("text", ngrams(F.col("text"), longest).alias("runs"), has_words(F.col("text")).alias("words"))
    for text, runs, words in found.collect():
        assert runs == (None if text is None else _expected(text, longest)), text
        assert text is None or words == bool(runs), text


def test_ngrams_are_hashed_into_buckets_each_once(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(text, _expected(text, 2)) for text in TEXTS], "text string, runs array<string>")
    plain = ItemAttribute.model_validate({"source": "t", "kind": "text"})
    small = ItemAttribute.model_validate({"source": "t", "kind": "text", "ngrams": 1, "buckets": 3})
    rows = frame.select(
        "text",
        F.transform("runs", lambda run: F.xxhash64(run)).alias("hashes"),
        hashed_ngrams(F.col("text"), plain).alias("plain"),
        hashed_ngrams(F.col("text"), small).alias("small"),
    ).collect()
    for text, hashes, buckets, few in rows:
        assert buckets == list(dict.fromkeys(str(one % 16384) for one in hashes)), text
        assert set(few) <= {"0", "1", "2"}
        assert len(few) == len(set(few))
        assert bool(few) == bool(hashes)
    # Of fifteen texts with words few words share a bucket of so many, and all those of a tiny table do.
    assert len({one for row in rows for one in row["plain"]}) > 0.95 * len(
        {one for row in rows for one in row["hashes"]}
    )
    missing = spark.range(1).select(hashed_ngrams(F.lit(None).cast("string"), plain).alias("none")).collect()
    assert missing[0]["none"] is None
