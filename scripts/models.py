"""The same as `detzoo models`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["models", *sys.argv[1:]]))
