"""``python -m replicator`` is the command ``replicator``."""

from replicator.cli.main import main

if __name__ == "__main__":
    main()
