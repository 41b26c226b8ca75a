"""What schemathesis has to know of this API, and the checks that it has no words for."""

import os

import schemathesis

# `all`: every request may do everything; `none`: requests have no token; `read`: a token that allows nothing but to read.
MAY = os.environ["WG_EDGE_MAY"]

# They tell nothing and need no token.
OPEN = {"/healthz", "/readyz"}
# Reading that is more than the scope `read`.
ADMIN = {"/v1/tokens", "/v1/tokens/{id}", "/v1/audit"}
# POST, because of the secrets in its body; it changes nothing.
READING_POSTS = {"/v1/peers/{id}/config", "/v1/peers/{id}/qr"}


@schemathesis.hook
def map_headers(context, headers):
    """Half of the tags match whatever is there: a random one never gets past 412."""
    if headers and isinstance(headers.get("If-Match"), str) and len(headers["If-Match"]) % 2 == 0:
        return {**headers, "If-Match": "*"}
    return headers


@schemathesis.check
def problems_are_problems(ctx, response, case):
    """Every answer that is no success is a problem document (RFC 9457) that repeats its status."""
    status = response.status_code
    # What the HTTP parser refuses has no body; what is answered to HEAD neither.
    if status < 400 or status == 431 or case.method.upper() == "HEAD" or not response.content:
        assert status < 400 or status in (400, 431) or case.method.upper() == "HEAD", f"{status} without a body"
        return
    kinds = response.headers.get("content-type", [])
    assert kinds == ["application/problem+json"], f"{status} is a {kinds}"
    problem = response.json()
    assert problem["status"] == status, f"{problem['status']} in an answer of status {status}"
    assert problem["code"] and problem["detail"], problem


@schemathesis.check
def answers_are_not_kept(ctx, response, case):
    """No answer may rest in a cache, and each has a name in the log."""
    status = response.status_code
    if not response.content and status in (400, 431):
        return
    assert response.headers.get("cache-control") == ["no-store"], response.headers
    assert response.headers.get("x-request-id"), response.headers


@schemathesis.check
def only_who_may(ctx, response, case):
    """Who may not is told so before anything else is looked at."""
    path, method, status = case.operation.path, case.method.upper(), response.status_code
    # A value in the path can lead to another route, or to none; another method to none.
    if MAY == "all" or path in OPEN or case.operation.method.upper() != method:
        return
    if MAY == "none":
        if status == 400 and not response.content:
            return  # the HTTP parser's word
        assert status == 401, f"{status} without a token"
        assert response.headers.get("www-authenticate"), "401 without WWW-Authenticate"
        return
    reading = path not in ADMIN and (method == "GET" or path in READING_POSTS)
    # What can't be read is not known to be forbidden.
    if not reading and not 400 <= status < 500:
        raise AssertionError(f"{status} with a token that may only read")
