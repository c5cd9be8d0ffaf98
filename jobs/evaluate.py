"""spark-submit entry of the stage `evaluate`; takes the options of `recbatch evaluate`."""

import sys

from recbatch.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
