"""spark-submit entry of the stage `features`; takes the options of `recbatch features`."""

import sys

from recbatch.cli import main

if __name__ == "__main__":
    main(["features", *sys.argv[1:]])
