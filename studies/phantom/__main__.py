"""`python -m studies.phantom`, from the repository's root."""

import sys

from studies.phantom.study import main

if __name__ == "__main__":
    sys.exit(main())
