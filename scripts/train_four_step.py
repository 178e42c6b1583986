"""The same as `detzoo train_four_step`."""

import sys

from detzoo.cli.main import console

console(["train_four_step", *sys.argv[1:]])
