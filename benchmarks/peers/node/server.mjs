/** Socket.IO on Node as its documentation shows it: node server.mjs PORT [recovery] */

import { createServer } from "node:http";
import { Server } from "socket.io";

const [port, recovery] = process.argv.slice(2);
const http = createServer();
const io = new Server(http, recovery ? { connectionStateRecovery: {} } : {});

io.on("connection", (socket) => {
  socket.on("subscribe", ({ stream }, answer) => {
    socket.join(stream);
    answer({ ok: true });
  });
  socket.on("publish", ({ stream, events }, answer) => {
    for (const event of events) io.to(stream).emit("event", event);
    answer({ ok: true });
  });
});

http.listen(Number(port), "127.0.0.1");
