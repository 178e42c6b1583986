"""The same as `detzoo models`."""

import sys

from detzoo.cli.main import console

console(["models", *sys.argv[1:]])
