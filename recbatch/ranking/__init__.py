"""Exact ranking of all items for a batch of users, independent of how the work is laid out."""
