"""spark-submit entry of the stage `publish`; takes the options of `recbatch publish`."""

import sys

from recbatch.cli import main

if __name__ == "__main__":
    main(["publish", *sys.argv[1:]])
