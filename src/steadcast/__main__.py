"""`python -m steadcast`: the command, of the Python that is named."""

from steadcast.cli import main

if __name__ == "__main__":
    main()
