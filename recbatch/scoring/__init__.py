"""Scoring on the executors: the model is shipped once, users come in batches, lists of the exact top K go out."""
