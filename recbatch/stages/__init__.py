"""One module a stage: what it reads, the order of its steps, what it writes. The work itself is in the packages."""
