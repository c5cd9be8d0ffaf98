"""Fitted column transforms that more than one stage applies: their parameters are data, kept in tables."""
