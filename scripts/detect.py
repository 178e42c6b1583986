"""The same as `detzoo detect`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["detect", *sys.argv[1:]]))
