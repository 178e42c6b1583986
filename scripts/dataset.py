"""The same as `detzoo dataset`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["dataset", *sys.argv[1:]]))
