"""`python -m gateway`, or `python <folder>/gateway` from anywhere.

Isolated, as `claude-runner demo` starts it, it keeps compiled files where the runner does, and uses
the packages that were installed for it; it installs none.
"""

import sys
from pathlib import Path

# Started by its path, Python looks for modules inside this folder, and not beside it.
_FOLDER = Path(__file__).resolve().parent
sys.path[:] = [str(_FOLDER.parent), *(each for each in sys.path if Path(each or ".") != _FOLDER)]

if sys.flags.isolated:
    sys.dont_write_bytecode = True
    import places

    places.keep_compiled_files()

from tools import packages  # noqa: E402 - it is found because of the lines above

packages.use_what_is_there()
packages.use_what_is_there(packages.GATEWAY)

from gateway.command_line import main  # noqa: E402 - its packages are found because of these

if __name__ == "__main__":
    sys.exit(main())
