"""The same as `detzoo export`."""

import sys

from detzoo.cli.main import console

console(["export", *sys.argv[1:]])
