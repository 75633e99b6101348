"""The page's own files: the version that they have, and the scripts that each page loads."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

# What `main.js` loads for each page, besides what it needs itself.
_PAGES: Final = {
    "list": "runs-page.js",
    "run": "run-page.js",
    "notifications": "notifications-page.js",
}
_IMPORT: Final = re.compile(r"""^(?:import|export)\b[^"';]*["']\./([\w.-]+)["']""", re.MULTILINE)
_VERSION: Final = re.compile(r"v-([0-9a-f]{16})/")


class Scripts:
    """The scripts in the folder when the gateway starts; they do not change while it runs.

    A browser finds the imports of a script when it has that script: with a chain of eight, a page
    waits for eight answers in a row. A page that names all of its scripts waits for one. A browser
    keeps a script whose address has a version, and asks for it once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        digest = hashlib.sha256()
        self._imports: dict[str, list[str]] = {}
        for path in sorted(each for each in folder.iterdir() if each.is_file()):
            content = path.read_bytes()
            digest.update(b"%s %d\n%s" % (path.name.encode(), len(content), content))
            if path.suffix == ".js":
                self._imports[path.name] = _IMPORT.findall(content.decode())
        self.version: Final = digest.hexdigest()[:16]
        self.needed: Final = {page: self._needed("main.js", name) for page, name in _PAGES.items()}

    def _needed(self, *names: str) -> tuple[str, ...]:
        """Return these and all that they import, those first that are found first."""
        found = dict.fromkeys(names)
        waiting = list(names)
        while waiting:
            for name in self._imports[waiting.pop(0)]:
                if name not in found:
                    found[name] = None
                    waiting.append(name)
        return tuple(found)

    def split(self, name: str) -> tuple[str, bool]:
        """Return the file that is asked for, and whether a browser may keep it for good.

        A page of an earlier start still gets its scripts, as they are now.
        """
        match = _VERSION.match(name)
        return (name[match.end() :], match[1] == self.version) if match else (name, False)
