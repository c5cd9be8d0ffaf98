"""spark-submit entry of the stage `train`; takes the options of `recbatch train`."""

import sys

from recbatch.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
