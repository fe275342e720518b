// What apps in the field do with the old server, by the contract, over the library that they have.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closeAll, openTab, until } from "../harness/client.js";
import { Server } from "../harness/server.js";
import { inOrder, KINDS, Legacy, over } from "./client.js";

/** @type {Server} */
let server;
before(async () => {
  // Who has gone is gone soon: tests wait for it.
  server = await Server.start(["--presence-grace", "1"]);
});
after(async () => {
  await Promise.all([over(), closeAll()]);
  await server.stop();
});

for (const [at, kind] of KINDS.entries()) {
  const { name } = kind;
  const tag = `${at}`;

  test(`${name}: log in, list, message, receipts, typing, history`, async () => {
    const [a, b] = [`ann-${tag}`, `bob-${tag}`];
    const ann = await Legacy.user(kind, server, a, "Ann");
    const bob = await Legacy.user(kind, server, b, "Bob");
    assert.deepEqual(ann.all("user:login:success"), [{ id: a, name: "Ann", avatar: `https://example.org/${a}.png`, status: "online" }]);
    await ann.told("online_users", (users) => users.some((/** @type {any} */ user) => user.id === b && user.name === "Bob" && user.status === "online"));
    await ann.told("status_change", (change) => change.userId === b && change.status === "online" && typeof change.timestamp === "number");
    const sent = { id: "m1", fromId: a, fromName: "Ann", toId: b, topic: "trip", content: "hello", type: "text", timestamp: 1_700_000_000_123 };
    ann.emit("message", sent);
    const { serverTimestamp, ...got } = await bob.told("message");
    assert.deepEqual(got, sent);
    assert.ok(serverTimestamp > 1_700_000_000_123);
    await ann.told("message:sent", ({ messageId, status, timestamp }) => messageId === "m1" && status === "sent" && timestamp > 0);
    await ann.told("message:sent", ({ messageId, status }) => messageId === "m1" && status === "delivered");
    bob.emit("typing", { toId: a, fromId: b, fromName: "Bob", isTyping: true });
    assert.deepEqual(await ann.told("typing"), { fromId: b, fromName: "Bob", isTyping: true });
    const file = { ...sent, id: "m2", topic: "other", type: "file", content: "picture.png", fileUrl: "https://example.org/p.png", fileName: "picture.png" };
    ann.emit("message", file);
    const came = await bob.told("message", ({ id }) => id === "m2");
    assert.deepEqual([came.type, came.fileUrl, came.fileName], ["file", "https://example.org/p.png", "picture.png"]);
    const ids = (/** @type {any[]} */ messages) => messages.map(({ id }) => id);
    assert.deepEqual(ids(await bob.ask("get_history", { friendId: a, topic: "trip" })), ["m1"]);
    assert.deepEqual(ids(await ann.ask("get_history", { friendId: b, topic: "" })), ["m1", "m2"]);
    assert.deepEqual(await ann.ask("get_history", { friendId: `nobody-${tag}` }), []);
    ann.emit("get_history", { friendId: b, topic: "other" });
    const { friendId, topic, messages } = await ann.told("history");
    assert.deepEqual([friendId, topic, ids(messages)], [b, "other", ["m2"]]);
    for (const client of [ann, bob]) client.close();
  });

  test(`${name}: two devices of one user, and what was sent while somebody was away`, async () => {
    const [a, b] = [`carol-${tag}`, `dave-${tag}`];
    const ann = await Legacy.user(kind, server, a);
    ann.emit("message", { id: "m1", fromId: a, toId: b, content: "are you there?" });
    await ann.told("message:sent", ({ messageId, status }) => messageId === "m1" && status === "sent");
    await ann.told("message:sent", ({ messageId, status }) => messageId === "m1" && status === "offline");
    const bob = await Legacy.user(kind, server, b);
    await bob.told("message", ({ id }) => id === "m1");
    await ann.told("message:sent", ({ messageId, status }) => messageId === "m1" && status === "delivered");
    const other = await Legacy.user(kind, server, a);
    ann.emit("message", { id: "m2", fromId: a, toId: b, content: "from one device" });
    const copy = await other.told("message");
    assert.deepEqual([copy.id, copy.fromId, copy.toId], ["m2", a, b]);
    bob.emit("message", { id: "m3", fromId: b, toId: a, content: "for both" });
    for (const device of [ann, other]) await device.told("message", ({ id }) => id === "m3");
    assert.deepEqual([ann.all("message").map(({ id }) => id), other.all("message").map(({ id }) => id)], [["m3"], ["m2", "m3"]]);
    bob.close();
    await ann.told("status_change", ({ userId, status }) => userId === b && status === "offline");
    ann.emit("message", { id: "m4", fromId: a, toId: b, content: "meanwhile" });
    await ann.told("message:sent", ({ messageId }) => messageId === "m4");
    const again = await Legacy.user(kind, server, b);
    await again.told("message", ({ id }) => id === "m4");
    assert.deepEqual(again.all("message").map(({ id }) => id), ["m4"], "and nothing that it had taken before");
    for (const client of [ann, other, again]) client.close();
  });

  test(`${name}: hundreds of messages that were sent meanwhile come once and in order, whatever it moves to while they come`, async () => {
    const [a, b] = [`olga-${tag}`, `pete-${tag}`];
    const ids = Array.from({ length: 400 }, (_, at) => `m${at}`);
    // More together than an answer to a poll holds.
    const olga = await Legacy.user(kind, server, a);
    for (const id of ids) olga.emit("message", { id, fromId: a, toId: b, content: id.repeat(2_000) });
    await olga.told("message:sent", ({ status }) => status === "sent", ids.length);
    const pete = await Legacy.user(kind, server, b);
    await pete.told("message", () => true, ids.length);
    // Behind all that might come twice.
    olga.emit("message", { id: "last", fromId: a, toId: b, content: "last" });
    await pete.told("message", ({ id }) => id === "last");
    const told = pete.all("message").map(({ id }) => id);
    assert.deepEqual(inOrder(kind, told), inOrder(kind, [...ids, "last"]));
    for (const client of [olga, pete]) client.close();
  });

  test(`${name}: what is said before logging in is taken once one has; who wants to be called back is`, async () => {
    const [a, b] = [`kate-${tag}`, `liam-${tag}`];
    const kate = await Legacy.open(kind, server, null);
    kate.emit("message", { id: "m1", fromId: a, toId: b, content: "while there was no connection" });
    kate.emit("user:login", { id: a });
    await kate.told("message:sent", ({ messageId, status }) => messageId === "m1" && status === "sent");
    const { messageId, status } = await kate.ask("message", { id: "m2", toId: b, content: "and now" });
    assert.deepEqual([messageId, status], ["m2", "sent"]);
    assert.deepEqual(await kate.ask("typing", { toId: b, isTyping: true }), { status: "ok" });
    assert.match((await kate.ask("message", { id: "m3", toId: b })).error, /^m3: content is missing/);
    assert.match((await kate.ask("message", { id: "m4", toId: b, content: "" })).error, /m4: a message needs a text/);
    assert.match((await kate.ask("get_history", {})).error, /^friendId is missing/);
    const liam = await Legacy.user(kind, server, b);
    await liam.told("message", () => true, 2);
    const told = liam.all("message").map(({ id }) => id);
    assert.deepEqual(inOrder(kind, told), ["m1", "m2"]);
    for (const client of [kate, liam]) client.close();
  });

  test(`${name}: files, as base64 and as attachments`, async () => {
    const [a, b] = [`erin-${tag}`, `finn-${tag}`];
    const ann = await Legacy.user(kind, server, a);
    const bob = await Legacy.user(kind, server, b);
    ann.emit("file_transfer", { fromId: a, toId: b, name: "x.txt", data: "aGVsbG8=" });
    assert.deepEqual(await bob.told("file_transfer"), { fromId: a, toId: b, name: "x.txt", data: "aGVsbG8=" });
    const large = Buffer.alloc(300_000, 7);
    ann.emit("file_transfer", { fromId: a, toId: b, name: "x.bin", data: large, parts: [{ thumbnail: Buffer.from("hi") }] });
    const file = await bob.told("file_transfer", ({ name }) => name === "x.bin");
    assert.ok(large.equals(file.data) && Buffer.from("hi").equals(file.parts[0].thumbnail));
    ann.emit("file_transfer", { fromId: a, toId: `nobody-${tag}`, data: "x" });
    assert.match((await ann.told("error")).message, /not connected/);
    for (const client of [ann, bob]) client.close();
  });

  test(`${name}: what is wrong is said, and nothing else happens`, async () => {
    const [a, b] = [`gina-${tag}`, `hugo-${tag}`];
    const stranger = await Legacy.open(kind, server, null);
    const words = async (/** @type {Legacy} */ client, /** @type {string} */ event, /** @type {unknown} */ data) => {
      const before = client.all("error").length;
      client.emit(event, data);
      return (await client.told("error", () => true, before + 1)).message;
    };
    for (const event of ["typing", "status_change", "file_transfer", "get_history"]) assert.match(await words(stranger, event, {}), /^\S+: log in first/);
    assert.match(await words(stranger, "user:login", { name: "no id" }), /^user:login: id is missing/);
    assert.match(await words(stranger, "user:login", { id: 7 }), /^user:login: id: invalid type/);
    assert.match(await words(stranger, "user:login", { id: "x".repeat(65) }), /^user:login: id is no user/);
    assert.match(await words(stranger, "user:login", "ann"), /it needs an object with id/);
    assert.match(await words(stranger, "user:login", { id: "gina", name: "x".repeat(257) }), /name has 257 bytes/);
    stranger.close();
    const bob = await Legacy.user(kind, server, b);
    const ann = await Legacy.user(kind, server, a);
    const message = { id: "m1", fromId: a, toId: b, content: "hello" };
    assert.match(await words(ann, "user:login", { id: "mallory" }), /you are logged in as/);
    assert.match(await words(ann, "message", { ...message, fromId: b }), /^message: m1: fromId is not who you logged in as/);
    for (const field of ["toId", "content"]) assert.match(await words(ann, "message", { ...message, [field]: undefined }), new RegExp(`^message: m1: ${field} is missing`));
    assert.match(await words(ann, "message", { ...message, id: undefined }), /^message: id is missing/);
    assert.match(await words(ann, "message", { ...message, content: { deep: 1 } }), /^message: m1: content: invalid type/);
    assert.match(await words(ann, "message", { ...message, type: "image" }), /^message: m1: type: unknown variant/);
    assert.match(await words(ann, "message", { ...message, content: "" }), /^message: m1: a message needs a text/);
    assert.match(await words(ann, "message", { ...message, content: "x".repeat(61_441) }), /^message: m1: .*send it as a file/);
    assert.match(await words(ann, "message", { ...message, topic: "x".repeat(3_000) }), /^message: m1: id, topic, .* have 3\d\d\d bytes together, at most 2048/);
    assert.match(await words(ann, "status_change", { status: "busy" }), /^status_change: status is online or offline, not "busy"/);
    assert.match(await words(ann, "teleport", {}), /^teleport: there is no such event/);
    ann.emit("message", message);
    await bob.told("message");
    assert.deepEqual(bob.all("message").map(({ id }) => id), ["m1"]);
    for (const client of [ann, bob]) client.close();
  });

  test(`${name}: a page that never says who it is shares a room with all such`, async () => {
    const [one, two] = [await Legacy.open(kind, server, null), await Legacy.open(kind, server, null)];
    // Both are there once they hear themselves.
    for (const [at, client] of [one, two].entries()) {
      client.emit("message", { content: `here ${tag} ${at}` });
      await client.told("message", ({ content }) => content === `here ${tag} ${at}`);
    }
    one.emit("message", { content: `hello ${tag}` });
    for (const client of [one, two]) await client.told("message", ({ content }) => content === `hello ${tag}`);
    for (const client of [one, two]) client.close();
  });

  test(`${name}: somebody with a client of ours is a user like any other`, async () => {
    const [a, b] = [`ivan-${tag}`, `jane-${tag}`];
    const jane = await openTab({ user: b, url: server.url });
    await jane.connected();
    const ivan = await Legacy.user(kind, server, a, "Ivan");
    await ivan.told("online_users", (users) => users.some((/** @type {any} */ user) => user.id === b && user.name === b));
    jane.client.watch({ users: [a] });
    await until(() => jane.of("presence").some(({ user, state }) => user === a && state === "online"), "Ivan looks online");
    ivan.emit("message", { id: "m1", fromId: a, fromName: "Ivan", toId: b, topic: "trip", content: "hello" });
    await until(() => jane.of("message").length === 1, "the message is there");
    assert.equal(jane.of("message")[0].text, "hello");
    const receipt = (/** @type {string} */ wanted) => ivan.told("message:sent", ({ messageId, status }) => messageId === "m1" && status === wanted);
    for (const status of ["sent", "delivered"]) await receipt(status);
    await jane.client.markRead({ user: a }, 1);
    await receipt("read");
    const receipts = ivan.all("message:sent").map(({ status }) => status);
    assert.deepEqual(inOrder(kind, receipts), inOrder(kind, ["sent", "delivered", "read"]));
    jane.client.typing({ user: a }, true);
    assert.deepEqual(await ivan.told("typing"), { fromId: b, fromName: b, isTyping: true });
    ivan.emit("typing", { toId: b, fromId: a, fromName: "Ivan", isTyping: true });
    await until(() => jane.of("typing").some(({ user, active }) => user === a && active), "Ivan types");
    await jane.client.send({ user: a }, "hello yourself");
    const { id, fromId, toId, content, topic, type } = await ivan.told("message");
    assert.deepEqual([fromId, toId, content, topic, type], [b, a, "hello yourself", "", "text"]);
    assert.match(id, /^\d+-2$/);
    await until(async () => (await jane.states(a))[1] === "delivered", "Ivan has it");
    ivan.emit("status_change", { status: "offline" });
    await until(() => jane.of("presence").some(({ user, state }) => user === a && state === "offline"), "Ivan looks offline");
    await jane.client.send({ user: a }, "I see you");
    await ivan.told("message", (message) => message.content === "I see you");
    await jane.client.close();
    await ivan.told("status_change", ({ userId, status }) => userId === b && status === "offline");
    ivan.close();
  });
}

for (const kind of KINDS.slice(0, 3)) {
  test(`${kind.name}: on the port with TLS`, async () => {
    const [a, b] = [`quin-${kind.name}`, `rosa-${kind.name}`].map((name) => name.replaceAll(" ", "-"));
    const quin = await Legacy.user(kind, { url: `https://${server.secure}` }, a);
    const rosa = await Legacy.user(kind, server, b);
    quin.emit("message", { id: "m1", fromId: a, toId: b, content: "from one port to the other" });
    await rosa.told("message", ({ id }) => id === "m1");
    rosa.emit("message", { id: "m2", fromId: b, toId: a, content: "and back" });
    await quin.told("message", ({ id }) => id === "m2");
    for (const client of [quin, rosa]) client.close();
  });
}
