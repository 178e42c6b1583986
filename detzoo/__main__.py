"""``python -m detzoo`` is the command ``detzoo``."""

from detzoo.cli.main import console

if __name__ == "__main__":
    console()
