"""Run the command line as ``python -m dynstat``."""

from dynstat.cli import main

if __name__ == "__main__":
    main()
