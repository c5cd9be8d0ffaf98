"""The gates that a staged release must pass, and the commit of its tables."""
