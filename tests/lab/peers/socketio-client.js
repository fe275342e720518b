// A Socket.IO client that is connected and has nothing to do.
import { io } from "socket.io-client";

const [url] = process.argv.slice(2);
const socket = io(url, { transports: ["websocket"] });
let told = false;
socket.on("connect", () => {
  if (!told) console.log("ready");
  told = true;
});
