"""`python -m edged`."""

from edged.cli.main import entry

if __name__ == "__main__":
    entry()
