"""`python -m clinalign`, which launchers of several processes call."""

from clinalign.cli import main

if __name__ == "__main__":
    main()
