"""The phantom study, from beside the benchmarks: every option is passed on to `python -m studies.phantom`.

python benchmarks/phantom.py --out phantom.json            # up to an hour on two cores
python benchmarks/phantom.py --out phantom.json --quick    # one seed, default settings, up to ten minutes
"""

from __future__ import annotations

import subprocess
import sys

from paths import environment


def main() -> int:
    return subprocess.call([sys.executable, "-m", "studies.phantom", *sys.argv[1:]], env=environment("."))


if __name__ == "__main__":
    sys.exit(main())
