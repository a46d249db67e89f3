/** The views beside the feed, each loaded when it is first opened. */

import type { Component } from "svelte";
import type { Page, ViewName } from "../lib/contract.js";

export type View = Component<{ page: Page }>;

const LOADERS: { readonly [name in Exclude<ViewName, "feed">]: () => Promise<{ default: View }> } =
  {
    sessions: () => import("./sessions/index.js"),
    pulse: () => import("./pulse/index.js"),
    delivery: () => import("./delivery/index.js"),
    publish: () => import("./publish/index.js"),
  };

/** Fetch all views, so that they open while the server is away; what fails is tried again when it is opened. */
export async function fetchViews(): Promise<void> {
  await Promise.allSettled(Object.values(LOADERS).map((load) => load()));
}

/** Load a view; rejects where its file can't be fetched, for instance after an update of the server. */
export async function loadView(name: Exclude<ViewName, "feed">): Promise<View> {
  return (await LOADERS[name]()).default;
}
