// A WebSocket server as tutorials have it: each client is pinged every 25 s, and left when it has not answered by the next time.
import { WebSocketServer } from "ws";

const [port] = process.argv.slice(2);
const server = new WebSocketServer({ port: Number(port) });
server.on("connection", (socket) => {
  let alive = true;
  socket.on("pong", () => (alive = true));
  const timer = setInterval(() => {
    if (!alive) return socket.terminate();
    alive = false;
    socket.ping();
  }, 25_000);
  socket.on("close", () => clearInterval(timer));
});
server.on("listening", () => console.log("ready"));
