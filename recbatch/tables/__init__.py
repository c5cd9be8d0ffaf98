"""Names, schemas and storage of every table: the contract between the stages and with the readers of published tables."""
