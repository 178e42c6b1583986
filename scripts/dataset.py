"""The same as `detzoo dataset`."""

import sys

from detzoo.cli.main import console

console(["dataset", *sys.argv[1:]])
