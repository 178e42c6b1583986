"""The same as `detzoo proposals`."""

import sys

from detzoo.cli.main import console

console(["proposals", *sys.argv[1:]])
