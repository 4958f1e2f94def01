"""The `optsweep` command."""

from optsweep.cli.main import main

if __name__ == "__main__":
    main()
