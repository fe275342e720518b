"""Says to a server what two people say in the protocol's document, and looks whether it answers as it stands there. It knows JSON and
WebSockets, and nothing of Whimbrel. What comes between two lines that are said may come in any order."""

import json
import sys

from websockets.sync.client import connect

url, document = sys.argv[1:]
with sys.stdin if document == "-" else open(document, encoding="utf-8") as file:
    block = file.read().split("### Two people over JSON\n", 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
sockets = {}
waited = {}


def fits(wanted, came):
    if wanted == "…":
        return True
    if isinstance(wanted, dict):
        return isinstance(came, dict) and wanted.keys() == came.keys() and all(fits(part, came[name]) for name, part in wanted.items())
    if isinstance(wanted, list):
        return isinstance(came, list) and len(wanted) == len(came) and all(map(fits, wanted, came))
    return wanted == came


def settle(who):
    """Takes as many frames as are waited for, each of which has to be one of them."""
    while waited.get(who):
        came = json.loads(sockets[who].recv(timeout=15))
        found = next((wanted for wanted in waited[who] if fits(wanted, came)), None)
        if found is None:
            sys.exit(f"{who} was told {json.dumps(came)}, and waits for {json.dumps(waited[who], ensure_ascii=False)}")
        waited[who].remove(found)


said, told = 0, 0
for line in filter(None, block.splitlines()):
    who, way, frame = line.split(" ", 2)
    if way == "←":
        waited.setdefault(who, []).append(json.loads(frame))
        told += 1
        continue
    for name in sockets:
        settle(name)
    if who not in sockets:
        sockets[who] = connect(url, subprotocols=["whimbrel.v1.json"], legacy=True)
    sockets[who].send(frame)
    said += 1
for who in sockets:
    settle(who)
print(f"{said} said, {told} told")
