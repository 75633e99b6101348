"""A table of cases in one test: as a test of its own each row costs pytest more than most take."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Union

import pytest

Names = Union[str, Sequence[str]]
Test = Callable[..., None]


def each_row(names: Names, rows: Iterable[Any]) -> Callable[[Test], Test]:
    """Call the test with each row, and fail with all rows that fail.

    It is `pytest.mark.parametrize`, but all rows share the test's fixtures, and no row has marks.
    """
    is_alone = isinstance(names, str)
    parameters = [names] if isinstance(names, str) else list(names)
    cases = [_case(row, is_alone=is_alone) for row in rows]

    def decorate(test: Test) -> Test:
        def try_all(**fixtures: Any) -> None:
            __tracebackhide__ = True
            assert cases, "the table is empty"
            failures = []
            for name, values in cases:
                try:
                    test(**dict(zip(parameters, values)), **fixtures)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - any test
                    told = traceback.format_exception(type(error), error, error.__traceback__)
                    failures.append(f"[{name}] {''.join(told)}")
                    if not isinstance(error, Exception):
                        break  # it may be the time limit, which no longer holds for the next row
            count = f"{len(failures)} of {len(cases)} rows failed"
            assert not failures, "\n".join([count, *failures])

        signature = inspect.signature(test)
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(try_all, attribute, getattr(test, attribute))
        # pytest takes the parameters for fixtures.
        own = [each for each in signature.parameters.values() if each.name not in parameters]
        assert len(own) == len(signature.parameters) - len(parameters), "other names"
        try_all.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        return try_all

    return decorate


def _case(row: Any, *, is_alone: bool) -> tuple[str, Sequence[Any]]:
    """Return a row's name and its values."""
    if hasattr(row, "marks"):  # of pytest.param
        assert not row.marks, "a row with marks is a test of its own"
        return row.id or repr(row.values), row.values
    return repr(row), [row] if is_alone else list(row)
