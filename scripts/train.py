"""The same as `detzoo train`."""

import sys

from detzoo.cli.main import console

console(["train", *sys.argv[1:]])
