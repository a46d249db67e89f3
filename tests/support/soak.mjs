// A stock socket.io client that follows a stream by the receiver's rule, and says in the end what it saw.
import { io } from "socket.io-client";

const [url, transports, events] = process.argv.slice(2);
const socket = io(url, {
  transports: transports.split("+"),
  reconnectionDelay: 50,
  reconnectionDelayMax: 100,
});
const told = { applied: 0, disordered: 0, gaps: 0, doubled: 0, disconnects: 0, last: 0 };
const cursors = {};

function subscribe() {
  socket.emit("subscribe", { stream: "s", cursors, from: "start" }, (answer) => {
    for (const [lane, { status, cursor }] of Object.entries(answer.lanes))
      if (status !== "resumed") cursors[lane] = cursor;
  });
}

socket.on("welcome", subscribe);
socket.on("batch", (batch) => {
  const [epoch, offset] = cursors[batch.lane];
  if (batch.epoch !== epoch || batch.after > offset) {
    told.gaps += 1;
    subscribe();
    return;
  }
  if (batch.upto <= offset) told.doubled += 1;
  for (const event of batch.events) {
    if (event.offset <= offset) continue;
    if (event.offset !== told.last + 1) told.disordered += 1;
    told.last = event.offset;
    told.applied += 1;
  }
  const upto = Math.max(offset, batch.upto);
  cursors[batch.lane] = [epoch, upto];
  socket.emit("ack", { stream: "s", lane: batch.lane, epoch, offset: upto });
  if (told.applied >= Number(events)) {
    console.log(JSON.stringify(told));
    process.exit(0);
  }
});
socket.on("ping", ({ time }) => socket.emit("pong", { time }));
socket.on("disconnect", () => {
  told.disconnects += 1;
});
