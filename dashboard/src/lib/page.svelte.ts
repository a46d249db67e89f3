/** The page's parts, put together. */

import type { SocketClient } from "@steadcast/client";
import type { Address } from "./address.js";
import type { Page, Watcher } from "./contract.js";
import { Live } from "./live.svelte.js";
import { PageNavigation } from "./navigation.svelte.js";
import { Server } from "./server.svelte.js";
import { Shortcuts } from "./shortcuts.svelte.js";

/** What the shell and the feed have beyond what every view gets. */
export interface FeedPage extends Page {
  readonly nav: PageNavigation;
  readonly live: Live;
  readonly server: Server;
  readonly shortcuts: Shortcuts;
}

export function createPage(address: Address, client: SocketClient): FeedPage {
  const live = new Live(client);
  return {
    address,
    client,
    nav: new PageNavigation(),
    live,
    server: new Server(address, live),
    shortcuts: new Shortcuts(),
    follow: (stream: string, watcher: Watcher) => live.follow(stream, watcher),
  };
}
