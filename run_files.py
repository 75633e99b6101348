"""The files of a run that go to the gateway at its end: its logs, and copies of the user's own.

The logs were written redacted. A file of the user's is copied into the run's folder, redacted, and
the copy is what is uploaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Final

from artifact_upload import file_parts
from redact import Redactor

if TYPE_CHECKING:
    from pathlib import Path

    from redact import Rules
    from run_plan import Job
    from spool import FilePart

_BLOCK_BYTES: Final = 1_048_576


def collect_files(
    job: Job, folder: Path, rules: Rules, tell: Callable[[str], None], breathe: Callable[[], None]
) -> list[FilePart]:
    """Return the parts to upload, in their order; `tell` gets a sentence on what cannot be.

    `breathe` is called once for each block of a copy, and may break that off with an OSError.
    """
    parts: list[FilePart] = []
    for name in (job.log_name, *([] if job.messages is None else [job.messages_name])):
        try:
            parts += file_parts(folder, name, name)
        except OSError as error:  # somebody has deleted the run's folder
            tell(f"{name} is not uploaded: {error.strerror}")
    for number, source in enumerate(job.artifacts, start=1):
        try:
            copy = f"artifacts/{number}{source.suffix}"
            _copy_redacted(source, folder / copy, rules, breathe)
            parts += file_parts(folder, copy, rules.redact(source.stem) + source.suffix)
        except OSError as error:
            tell(f"{source} is not uploaded: {error.strerror}")
    return parts


def _copy_redacted(source: Path, copy: Path, rules: Rules, breathe: Callable[[], None]) -> None:
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    redactor = Redactor(rules=rules)
    with source.open("rb") as raw, copy.open("wb") as redacted:
        while block := raw.read(_BLOCK_BYTES):
            redacted.write(redactor.feed(block))
            breathe()
        redacted.write(redactor.flush())
