"""`python -m gateway`, or `python <folder>/gateway`, with a Python that has its packages.

`claude-runner gateway` starts it too, and provides the packages.
"""

import sys
from pathlib import Path

# Started by its path, Python looks for modules inside this folder, and not beside it.
_FOLDER = Path(__file__).resolve().parent
sys.path[:] = [str(_FOLDER.parent), *(each for each in sys.path if Path(each or ".") != _FOLDER)]

from gateway.command_line import main  # noqa: E402 - it is found because of the line above

if __name__ == "__main__":
    sys.exit(main())
