"""The table of the page and its API: which role each route needs.

The gate asks it before anything is answered, the OpenAPI description shows it, and a route that is
not in it keeps the gateway from starting. What runners and folders that wait send is signed, and
not for people: it is in `wire`.
"""

from __future__ import annotations

from typing import Final

from gateway.roles import Role

_ANYONE: Final = (
    "GET /api/health",
    "GET /login",
    "POST /login",
    "POST /logout",
    "GET /static/icon-{count}.svg",
    "GET /static/{name}",
)
# Who sees. A page is a frame: what it shows, its script asks the API for.
_VIEWER: Final = (
    "GET /",
    "GET /runs/{run_id}",
    "GET /notifications",
    "GET /api/artifacts/{artifact_id}",
    "POST /api/artifacts/{artifact_id}/link",
    "GET /api/list",
    "POST /api/markdown",
    "GET /api/me",
    "POST /api/me/sign-out",
    "GET /api/notifications",
    "GET /api/offers",
    "GET /api/openapi.json",
    "GET /api/runs",
    "GET /api/runs/{run_id}",
    "GET /api/runs/{run_id}/artifacts",
    "GET /api/runs/{run_id}/changes",
    "GET /api/runs/{run_id}/changes/lines",
    "GET /api/runs/{run_id}/commands",
    "GET /api/runs/{run_id}/conversation",
    "GET /api/runs/{run_id}/events",
    "GET /api/runs/{run_id}/history",
    "POST /api/runs/{run_id}/looks",
    "GET /api/runs/{run_id}/order",
    "GET /api/runs/{run_id}/screen",
    "GET /api/runs/{run_id}/search",
    "POST /api/runs/{run_id}/seen",
    "GET /api/runs/{run_id}/stream",
    "GET /api/runs/{run_id}/text",
    "POST /api/runs/{run_id}/text/link",
    "GET /api/stream",
)
# Who acts.
_OPERATOR: Final = (
    "POST /api/offers/pair",
    "POST /api/offers/{waiter_id}/forget",
    "POST /api/offers/{waiter_id}/runs",
    "POST /api/runs",
    "POST /api/runs/{run_id}/answer",
    "POST /api/runs/{run_id}/command",
    "POST /api/runs/{run_id}/escape",
    "POST /api/runs/{run_id}/halt",
    "POST /api/runs/{run_id}/input",
    "POST /api/runs/{run_id}/keep",
    "POST /api/runs/{run_id}/mode",
    "POST /api/runs/{run_id}/send-again",
    "POST /api/runs/{run_id}/start-line",
    "POST /api/runs/{run_id}/stop",
    "POST /api/runs/{run_id}/take-back",
    "POST /api/runs/{run_id}/title",
    "POST /api/runs/{run_id}/withdraw",
)
# Who decides about people, settings and deletion.
_ADMIN: Final = (
    "GET /api/audit",
    # Who follows a link with a code is the one who has made it: a trap, in the hands of others.
    "POST /api/login-codes",
    "POST /api/notifications/test",
    "GET /api/people",
    "POST /api/people",
    "POST /api/people/{name}/remove",
    "POST /api/people/{name}/sign-out",
    "POST /api/runs/delete",
)

NEEDED: Final[dict[str, Role]] = {
    **dict.fromkeys(_ANYONE, Role.ANYONE),
    **dict.fromkeys(_VIEWER, Role.VIEWER),
    **dict.fromkeys(_OPERATOR, Role.OPERATOR),
    **dict.fromkeys(_ADMIN, Role.ADMIN),
}


def needed(method: str, path: str) -> Role | None:
    """Return the role for a route, None if it is not in the table. HEAD is a GET.

    `path` has names in braces for its parts that differ.
    """
    return NEEDED.get(f"{'GET' if method == 'HEAD' else method} {path}")
