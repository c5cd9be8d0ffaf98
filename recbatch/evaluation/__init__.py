"""Offline evaluation: metrics, their intervals, the baselines, and the protocol that ranks all items for them."""
