"""From clean tables to what a model reads: dense indices, user sequences, item features, co-occurrence."""
