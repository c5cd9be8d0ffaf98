"""recbatch: from a raw behaviour log to published recommendation tables, as Spark jobs over Delta tables."""

__version__ = "0.1.0"
