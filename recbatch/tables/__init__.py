"""Names, schemas and storage of every table: the contract between stages and with readers of published tables."""
