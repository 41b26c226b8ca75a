"""What schemathesis has to know of this API, and the checks that it has no words for."""

import os

import schemathesis

# `all`: every request may do everything; `none`: requests have no token; `read`: a token that allows nothing but to read.
MAY = os.environ["WG_EDGE_MAY"]

# They tell nothing and need no token.
OPEN = {"/healthz", "/readyz"}
# Reading that is more than the scope `read`.
ADMIN = {"/v1/tokens", "/v1/tokens/{id}", "/v1/audit"}
# POST, because of what their bodies carry (secrets, a configuration); they change nothing.
READING_POSTS = {"/v1/peers/{id}/config", "/v1/peers/{id}/qr", "/v1/plan", "/v1/probes", "/v1/trace"}


# Identifiers that were told, by what they name, newest last.
known = {"peers": [], "tokens": []}
# Good requests so far.
count = 0


@schemathesis.hook
def before_call(context, case, kwargs):
    """Random identifiers, tags and roles name nothing: three of four good requests are about what there is."""
    global count
    generation = case.meta and case.meta.generation
    if MAY != "all" or not (generation and generation.mode.is_positive):
        return
    for name, value in (case.headers or {}).items():
        # Schemathesis takes `0` for a value of this pattern.
        if name.lower() == "if-match" and not value.startswith(("*", '"', "W/")):
            case.headers[name] = '"0"'
    count += 1
    if count % 4 == 0:
        return
    kind = "tokens" if case.operation.path.startswith("/v1/tokens") else "peers"
    # A scenario follows what it has made itself.
    follows = "stateful" in case.meta.phase.name.value.lower()
    if not follows and "id" in (case.path_parameters or {}) and known[kind]:
        ids = known[kind]
        case.path_parameters["id"] = ids.pop() if case.method.upper() == "DELETE" else ids[count % len(ids)]
    for name in case.headers or {}:
        if name.lower() == "if-match":
            case.headers[name] = "*"
    if isinstance(case.body, dict):
        case.body = sensible(case.operation.definition.raw["operationId"], case.body)


def sensible(operation, body):
    """The same body without what only chance would get right."""
    body = dict(body)
    if body.get("role") is not None:
        body["role"] = "kube-admin"
    body.pop("addresses", None)
    body.pop("networks", None)
    if body.get("expires_at") is not None:
        body["expires_at"] = "2099-12-31T23:59:59Z"
        body.pop("expires_in_seconds", None)
    if operation in ("create_peer", "rotate_peer"):
        body.pop("public_key", None)
        body["generate_key"] = True
    if operation in ("create_peer", "change_peer") and "labels" in body:
        body["labels"] = {"place": "vienna"}
    if operation in ("create_peer", "create_token"):
        body["name"] = f"{operation}-{count}"
    if operation in ("fill_peer_config", "peer_qr"):
        body.pop("private_key", None)
    return body


@schemathesis.hook
def after_call(context, case, response):
    """Remember what was made, but the tokens of this very test."""
    if response.status_code == 201:
        made = response.json()
        for kind, name in (("peers", "peer"), ("tokens", "token")):
            if name in made:
                known[kind].append(made[name]["id"])


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
