"""The card that CONTRIBUTING.md adds to a run's page, in that page."""

from __future__ import annotations

import re
from pathlib import PurePath

from playwright.sync_api import Route, expect

from testing.examples import follow
from testing.gateways.embedded_gateway import EmbeddedGateway
from tests.browser.runs import begin
from tests.browser.visitor import Visitor


def test_the_example_of_a_card(gateway: EmbeddedGateway, desk: Visitor) -> None:
    """With the files of the example the page has the card, under the policy that it always has."""
    files = {PurePath(name).name: text for name, text in follow("A card in a run's page").items()}

    def serve(route: Route) -> None:
        name = PurePath(route.request.url.partition("?")[0]).name
        route.fulfill(body=files[name], content_type="text/javascript")

    names = "|".join(map(re.escape, files))
    desk.page.route(re.compile(rf"/static/(?:.*/)?(?:{names})(?:\?.*)?$"), serve)

    desk.open_run(begin(gateway, workingDir="/srv/shop").id)

    card = desk.page.get_by_role("region", name="Folder")
    expect(card.locator("code")).to_have_text("/srv/shop")
