"""The route that never ends: `GET /v1/events`. Makes a peer while it listens, and checks what it hears.

usage: events.py SOCKET OPENAPI.JSON
"""

import http.client
import json
import re
import socket
import sys

import jsonschema_rs

ID = re.compile(r"^[!-~]+$")


class Gateway(http.client.HTTPConnection):
    """HTTP by a unix socket."""

    def __init__(self, path):
        super().__init__("gateway", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def change(path, method, url, body=None, headers=None):
    """One request; its body."""
    gateway = Gateway(path)
    headers = {"Content-Type": "application/json", **(headers or {})}
    gateway.request(method, url, None if body is None else json.dumps(body), headers)
    answer = gateway.getresponse()
    text = answer.read()
    assert answer.status < 300, (method, url, answer.status, text)
    return json.loads(text) if text else None


def listen(path, last=None):
    """The stream."""
    gateway = Gateway(path)
    gateway.request("GET", "/v1/events", headers={"Last-Event-ID": last} if last else {})
    answer = gateway.getresponse()
    assert answer.status == 200, answer.status
    assert answer.headers["content-type"] == "text/event-stream", answer.headers["content-type"]
    return answer


def next_event(stream):
    """Fields of the next event that is not only a comment."""
    fields = {}
    while True:
        line = stream.readline().decode().rstrip("\n")
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            return fields


def main():
    path, specification = sys.argv[1:]
    with open(specification, encoding="utf-8") as file:
        specification = json.load(file)
    schema = {"$ref": "#/components/schemas/Event", "components": specification["components"]}
    schema = jsonschema_rs.validator_for(schema)

    def expect(stream, kind, peer):
        event = next_event(stream)
        data = json.loads(event["data"])
        schema.validate(data)
        assert ID.match(event["id"]), event
        assert (event["event"], data["kind"], data["peer"]) == (kind, kind, peer), event
        return event["id"]

    stream = listen(path)
    peer = change(path, "POST", "/v1/peers", {"name": "heard-of", "generate_key": True})["peer"]["id"]
    made = expect(stream, "peer.created", peer)
    change(path, "PATCH", f"/v1/peers/{peer}", {"enabled": False}, {"If-Match": "*"})
    expect(stream, "peer.updated", peer)
    change(path, "DELETE", f"/v1/peers/{peer}", headers={"If-Match": "*"})
    expect(stream, "peer.deleted", peer)

    # Who comes back hears what it has missed; who was elsewhere is told to begin anew.
    again = listen(path, made)
    expect(again, "peer.updated", peer)
    expect(again, "peer.deleted", peer)
    assert next_event(listen(path, "of another gateway"))["event"] == "reset"
    print("events are as specified")


if __name__ == "__main__":
    main()
