"""The same as `detzoo train`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["train", *sys.argv[1:]]))
