"""The same as `detzoo features`."""

import sys

from detzoo.cli.main import console

console(["features", *sys.argv[1:]])
