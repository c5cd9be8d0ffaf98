"""spark-submit entry of the stage `score`; takes the options of `recbatch score`."""

import sys

from recbatch.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])
