"""What the people who run the pipeline need beside it: checks of the machine, upkeep of the warehouse."""
