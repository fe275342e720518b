// A Socket.IO server with its defaults: it asks each client every 25 s.
import { Server } from "socket.io";

const [port] = process.argv.slice(2);
new Server(Number(port));
console.log("ready");
