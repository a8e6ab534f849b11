// The unchanged client of PartyKit: connects, speaks and hears, is thrown out, and comes back with the same id.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [port, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(modules + "/"));
const WebSocket = require("ws");
const { PartySocket } = require("partysocket");

const heard = [];
const socket = new PartySocket({
  host: `127.0.0.1:${port}`, party: "chat", room: "café", id: "ann", WebSocket,
  query: { token: "t" }, minReconnectionDelay: 10, maxReconnectionDelay: 20,
});
socket.addEventListener("message", async (event) => {
  heard.push(event.data);
  if (heard.length === 1) socket.send("hello");
  if (heard.length === 2) socket.send("go");
  if (heard.length === 3) socket.send("again");
  if (heard.length === 4) {
    socket.close();
    const answer = await PartySocket.fetch({ host: `127.0.0.1:${port}`, party: "chat", room: "café", path: "x" }, { method: "POST", body: "hi" });
    heard.push(await answer.text());
    console.log(JSON.stringify(heard));
    process.exit(0);
  }
});
setTimeout(() => { console.log(JSON.stringify(heard)); process.exit(1); }, 20000);
