"""Free texts as hashed word n-grams: the hashing trick, so that no vocabulary grows with the catalogue.

Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"; with n-grams of words as in fastText
(Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification").
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from recbatch.config.inputs import ItemAttribute

# Words of a run at most, and values that they are hashed into, where the attribute does not say.
NGRAMS, BUCKETS = 2, 16384
_WORD = r"[\p{L}\p{N}]"
_BETWEEN_WORDS = r"[^\p{L}\p{N}\p{M}]+"  # accents and vowel signs may follow their letter as marks of their own


def has_words(text: Column) -> Column:
    """Whether there is a letter or a digit in a text."""
    return text.rlike(_WORD)


def ngrams(text: Column, longest: int) -> Column:
    """All runs of 1 to `longest` words, in lower case with a blank between two; words are made of letters and digits.

    Null for null.
    """
    words = F.filter(F.split(F.lower(text), _BETWEEN_WORDS), has_words)

    def runs(of: Column) -> Column:
        return F.flatten(F.array(*[_runs(of, length) for length in range(1, longest + 1)]))

    # A transform of one element names the words: an expression would be worked out again for every run.
    return F.transform(F.array(words), runs)[0]


def _runs(words: Column, length: int) -> Column:
    if length == 1:
        return words
    first = F.slice(words, 1, F.greatest(F.size(words) - (length - 1), F.lit(0)))
    return F.transform(first, lambda word, at: F.concat_ws(" ", word, *[words[at + n] for n in range(1, length)]))


def hashed_ngrams(text: Column, attribute: ItemAttribute) -> Column:
    """The values of a text as one of a few categories: the buckets of its n-grams, as text. Null for null."""
    buckets = F.lit(attribute.buckets or BUCKETS).cast("long")

    def bucket(run: Column) -> Column:
        return F.pmod(F.xxhash64(run), buckets).cast("string")

    return F.array_distinct(F.transform(ngrams(text, attribute.ngrams or NGRAMS), bucket))
