// What teams run today: a server of Socket.IO's own library that keeps everything in memory, by the contract in docs/socketio.md, without a line
// more than that takes. `whimbrel bench socketio --beside "node clients/web/bench/socketio-server.js"` measures it.

import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { cors: { origin: "*" } });
/** Who is here, and their sockets. @type {Map<string, { user: object, sockets: Set<import("socket.io").Socket> }>} */
const here = new Map();
const tellAll = () => io.emit("online_users", [...here.values()].map(({ user }) => user));

io.on("connection", (socket) => {
  /** @type {string | undefined} */
  let me;
  const to = (/** @type {string} */ id, /** @type {string} */ event, /** @type {unknown} */ data) => {
    for (const other of here.get(id)?.sockets ?? []) if (other !== socket) other.emit(event, data);
  };
  socket.on("user:login", (user) => {
    me = user.id;
    const entry = here.get(user.id) ?? { user: { ...user, status: "online" }, sockets: new Set() };
    entry.sockets.add(socket);
    here.set(user.id, entry);
    socket.emit("user:login:success", entry.user);
    tellAll();
  });
  socket.on("message", (message) => {
    const told = { ...message, serverTimestamp: Date.now() };
    to(message.toId, "message", told);
    to(message.fromId, "message", told);
    socket.emit("message:sent", { messageId: message.id, status: "sent", timestamp: Date.now() });
    socket.emit("message:sent", { messageId: message.id, status: here.has(message.toId) ? "delivered" : "offline", timestamp: Date.now() });
  });
  socket.on("typing", ({ toId, fromId, fromName, isTyping }) => to(toId, "typing", { fromId, fromName, isTyping }));
  socket.on("disconnect", () => {
    const entry = me === undefined ? undefined : here.get(me);
    entry?.sockets.delete(socket);
    if (me !== undefined && entry?.sockets.size === 0) here.delete(me);
    tellAll();
  });
});
http.listen(Number(process.env.PORT ?? 8080), "127.0.0.1");
