"""The same as `detzoo export`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["export", *sys.argv[1:]]))
