"""A glance at the gateway: a plain answer at once, and nothing in every other case."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway_client import Credentials, GatewayClient, Outcome
from gateway_transport import PinStore
from testing.gateways.faults import Action, DropBefore, Fault, HalfAnswer, Html, Huge, Status
from testing.gateways.strict_gateway import Run, StrictGateway
from testing.tables import each_row


def client_of(gateway: StrictGateway, run: Run, pins: PinStore | None = None) -> GatewayClient:
    """Return a client for the run."""
    lines: list[str] = []
    return GatewayClient(
        gateway.url, Credentials(gateway.secret, run.id, run.token), pins=pins, watch=lines.append
    )


def test_a_plain_answer() -> None:
    """The run is known, and the gateway well; its answers are those of any client."""
    with StrictGateway() as gateway:
        run = gateway.create_run()
        client = client_of(gateway, run)
        command = gateway.queue_command(run.id, "ls")

        reply, health = client.glance(client.commands()), client.glance(client.health())

        assert reply is not None
        assert reply.outcome is Outcome.ACCEPTED
        assert [each["id"] for each in reply.body] == [command]
        assert health is not None
        assert health.body["status"] == "ok"
        client.close()


@each_row("action", [Html(), Status(503), Status(302), HalfAnswer(), DropBefore(), Huge()])
def test_anything_else_is_nothing(action: Action) -> None:
    """A caller that gets nothing asks again with `requests`, which tells the reason."""
    with StrictGateway() as gateway:
        client = client_of(gateway, gateway.create_run())
        gateway.faults.add(Fault("commands", action, every=1))

        assert client.glance(client.commands()) is None


def test_nothing_without_a_gateway_or_on_another_machine() -> None:
    """Nothing is sent to a gateway that is not on this machine: a proxy may lead there."""
    credentials = Credentials("secret")
    with StrictGateway() as gateway:
        url = gateway.url
    gone = GatewayClient(url, credentials)
    far = GatewayClient("https://gateway.test", credentials)

    assert gone.glance(gone.health()) is None
    assert far.glance(far.health()) is None


@pytest.mark.parametrize("known", ["pinned", "another", "none", "verified", "unreadable"])
def test_over_tls_only_to_the_pinned_certificate(known: str, tmp_path: Path) -> None:
    """Nothing is sent to any other: its trust is decided where certificates are verified."""
    with StrictGateway(tls=True) as gateway:
        run = gateway.create_run()
        pins = PinStore(tmp_path / "pins.json", lambda _: None, tmp_path / "verified.json")
        host = gateway.url.partition("//")[2]
        first = client_of(gateway, run, pins)
        if known == "another":
            pins.add(host, "0" * 64)
        elif known != "none":
            assert first.send(first.commands()).outcome is Outcome.ACCEPTED
        if known == "verified":
            pins.note_verified(host)
        elif known == "unreadable":
            (tmp_path / "pins.json").write_text("[")
        first.close()
        asked = len(gateway.requests)

        client = client_of(gateway, run, pins)
        reply = client.glance(client.commands())

        assert (reply is not None) is (known == "pinned")
        assert len(gateway.requests) - asked == (known == "pinned")
