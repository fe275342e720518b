"""A client of python-socketio, as it comes from the package index. It is told what to do on standard input, a JSON array a line, and says on
standard output what it is told: ["event", name, ...data], ["back", number, data], ["connect"], ["disconnect"]. Bytes are {"$bytes": base64}."""

import base64
import json
import sys
import threading

import socketio

url, transports, login = json.loads(sys.argv[1])
said = threading.Lock()
client = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.2, randomization_factor=0)


def from_bytes(value):
    return {"$bytes": base64.b64encode(value).decode()}


def to_bytes(value):
    return base64.b64decode(value["$bytes"]) if "$bytes" in value else value


def say(*line):
    with said:
        print(json.dumps(line, default=from_bytes), flush=True)


@client.event
def connect():
    say("connect")
    if login:
        client.emit("user:login", login)


@client.event
def disconnect(_why):
    say("disconnect")


@client.on("*")
def on_event(name, *data):
    say("event", name, *data)


def ask(number, event, data):
    say("back", number, client.call(event, data, timeout=15))


client.connect(url, transports=transports, retry=True)
for line in sys.stdin:
    what, *rest = json.loads(line, object_hook=to_bytes)
    if what == "emit":
        try:
            client.emit(*rest)
        except socketio.exceptions.BadNamespaceError:
            # It is not connected, and this library keeps nothing: who looks at receipts says it again.
            pass
    else:
        # Not here: other things may be wanted meanwhile.
        threading.Thread(target=ask, args=rest, daemon=True).start()
client.disconnect()
