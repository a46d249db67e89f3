/** The TypeScript client in Node: prints the milliseconds that each probe was under way. Arguments: URL, stream. */

import { writeSync } from "node:fs";
import { SocketClient } from "../../clients/js/dist/index.js";

const [url, stream] = process.argv.slice(2);
new SocketClient(url).subscribe(stream, {
  from: "end",
  onEvent: ({ data }) => {
    if (data?.sent) writeSync(1, `${performance.timeOrigin + performance.now() - data.sent}\n`);
  },
});
