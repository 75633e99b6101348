"""The scripts of .ci/, which no package holds, as modules for their tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent.parent / ".ci"


def load(name: str) -> ModuleType:
    """Return the script of this file name, run as a module that is not the main one."""
    spec = importlib.util.spec_from_file_location(f"ci_{Path(name).stem}", FOLDER / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
