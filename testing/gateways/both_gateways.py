"""A pytest plugin: which gateway and which kind of runner a test runs with.

A module of such tests says so, and its tests take `gw`:

    pytestmark = pytest.mark.both_gateways

One that cannot run against the embedded gateway is left out there, with the reason:

    @pytest.mark.strict_only("it needs the fault script")

That the two answer alike is shown by tests/gateway/test_conformance.py. So the many tests of whole
runs do not repeat each run four times: in a module with

    pytestmark = pytest.mark.gateway_pairs

a test that takes `gw` and `kind` runs twice, with the strict gateway and Claude Code, and with the
embedded one and rev; one that takes only `gw` runs against the strict one.

One that makes the gateway go away and come back gets one of its own, with `own_gateway`; all others
share one for each worker. The end of the test run says how many ran against which gateway, and how
many were left out and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from testing.gateways.embedded_gateway import EmbeddedGateway
from testing.gateways.embedded_record import EmbeddedRecord, free_port
from testing.gateways.gateway_records import AnyGateway
from testing.gateways.strict_gateway import StrictGateway
from testing.programs.runner import CLAUDE, REV, Kind

_STRICT, _EMBEDDED = "strict", "embedded"
# What a test's report carries from the process that ran it to the one that counts.
_RAN, _LEFT_OUT = "gateway", "left out of the embedded gateway"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known."""
    for line in (
        "both_gateways: each test of this module runs against both gateways",
        "gateway_pairs: of this module, tests that take `kind` run against one gateway with each",
        "strict_only(reason): not against the embedded gateway, for this reason",
        "own_gateway: the embedded gateway is this test's alone, and can go away and come back",
        "gateway_options(**options): for the strict gateway",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes `gw` or `kind` once for each that it is for."""
    names = {"gw", "kind"} & set(metafunc.fixturenames)
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    is_pair = names == {"gw", "kind"} and "gateway_pairs" in marks and "strict_only" not in marks
    if is_pair:
        pairs = [(_STRICT, CLAUDE), (_EMBEDDED, REV)]
        ids = [f"{gateway}-{kind.name}" for gateway, kind in pairs]
        metafunc.parametrize(("gw", "kind"), pairs, indirect=True, ids=ids)
        return
    if "gw" in names and {"both_gateways", "gateway_pairs"} & marks:
        is_both = "both_gateways" in marks and "strict_only" not in marks
        metafunc.parametrize("gw", [_STRICT, _EMBEDDED] if is_both else [_STRICT], indirect=True)
    if "kind" in names and not any(
        "kind" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    ):
        metafunc.parametrize("kind", [CLAUDE, REV], indirect=True, ids=lambda kind: kind.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that is left out without a word. Raises: UsageError."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if item.get_closest_marker("both_gateways") is None:
            if "gw" in params:
                item.user_properties.append((_RAN, params["gw"]))
            continue
        mark = item.get_closest_marker("strict_only")
        if mark is None and "gw" not in params:
            raise pytest.UsageError(
                f"{item.nodeid} takes no `gw`, so it cannot run against both gateways"
            )
        if mark is not None:
            reason = " ".join(str(each) for each in mark.args).strip()
            if not reason:
                raise pytest.UsageError(
                    f"{item.nodeid} is not run against the embedded gateway; say why"
                )
            item.user_properties.append((_LEFT_OUT, reason))
        item.user_properties.append((_RAN, params.get("gw", _STRICT)))


@pytest.fixture(scope="session")
def embedded_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRecord]:
    """One embedded gateway for all tests of this process: each has runs of its own."""
    folder = tmp_path_factory.mktemp("embedded-gateway")
    with EmbeddedGateway(folder) as gateway:
        yield EmbeddedRecord(gateway)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> Kind:
    """A kind of runner, for what both have to keep."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def gw(
    request: pytest.FixtureRequest,
    embedded_gateway: EmbeddedRecord,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AnyGateway]:
    """A gateway without a rate limit; what the strict one objects to fails the test."""
    if request.param == _STRICT:
        options: dict[str, Any] = {"rate_limit": None, "long_poll": True}
        for mark in request.node.iter_markers("gateway_options"):
            options.update(mark.kwargs)
        with StrictGateway(**options) as strict:
            yield strict
    elif request.node.get_closest_marker("own_gateway") is None:
        yield embedded_gateway
    else:
        folder = tmp_path_factory.mktemp("own-gateway")
        with EmbeddedGateway(folder, "--port", str(free_port())) as own:
            yield EmbeddedRecord(own)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests ran against which gateway, and how many were left out and why."""
    ran: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            if getattr(report, "when", None) != "call":
                continue
            for name, value in report.user_properties:
                if name == _RAN:
                    ran[value] += 1
                elif name == _LEFT_OUT:
                    left_out[value] += 1
    if not ran:
        return
    terminalreporter.write_sep("-", "the runner against both gateways")
    terminalreporter.write_line(
        f"{ran[_STRICT]} tests against the strict gateway, {ran[_EMBEDDED]} against the embedded "
        f"one, {sum(left_out.values())} left out there"
    )
    for reason, count in sorted(left_out.items()):
        terminalreporter.write_line(f"  {count} because {reason}")
