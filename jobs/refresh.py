"""spark-submit entry of all stages in order; takes the options of `recbatch run`."""

import sys

from recbatch.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
