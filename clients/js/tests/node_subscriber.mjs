/**
 * Follows a stream and prints what happens, one JSON line each:
 *   {"id", "offset", "lane"} for an applied event, {"told": …} and {"state": …} for the rest.
 *
 *   node node_subscriber.mjs URL STREAM FROM_JSON
 *
 * FROM_JSON is "start", "end" or {"last": N}, as JSON. STEADCAST_TOKEN is sent where it is set, or what the
 * file STEADCAST_TOKEN_FILE holds at each connect.
 * Ends with status 0 on SIGTERM or SIGINT. Needs the built package (npm run build).
 */

import { writeSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { SocketClient } from "../dist/index.js";

const [url, stream, from = '"end"'] = process.argv.slice(2);
if (!url || !stream) {
  process.stderr.write("usage: node_subscriber.mjs URL STREAM FROM_JSON\n");
  process.exit(2);
}

// Written at once, so that nothing that was applied is missing when the process is killed.
const print = (value) => writeSync(1, `${JSON.stringify(value)}\n`);

const { STEADCAST_TOKEN: fixed, STEADCAST_TOKEN_FILE: file } = process.env;
const token = file ? () => readFile(file, "utf8") : fixed;
const client = new SocketClient(url, { ...(token && { token }), reconnectDelayMax: 2_000 });
const subscription = client.subscribe(stream, {
  from: JSON.parse(from),
  onEvent: ({ id, offset }, { lane }) => print({ id, offset, lane }),
  onTold: (notice) => print({ told: notice }),
});

let shown;
const show = () => {
  const { state } = subscription.snapshot();
  if (state !== shown) print({ state });
  shown = state;
};
subscription.onChange(show);
show();

const stop = () => {
  client.close();
  process.exit(0);
};
process.on("SIGTERM", stop);
process.on("SIGINT", stop);
