"""Fits the recommender on the driver from local Arrow files of `user_sequences`."""
