// A WebSocket client that is connected and has nothing to do; it comes back when its connection breaks.
import WebSocket from "ws";

const [url] = process.argv.slice(2);
let told = false;
function connect() {
  const socket = new WebSocket(url);
  socket.on("open", () => {
    if (!told) console.log("ready");
    told = true;
  });
  socket.on("error", () => {});
  socket.on("close", () => setTimeout(connect, 1_000));
}
connect();
