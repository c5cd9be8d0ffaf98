"""spark-submit entry of the stage `clean`; takes the options of `recbatch clean`."""

import sys

from recbatch.cli import main

if __name__ == "__main__":
    main(["clean", *sys.argv[1:]])
