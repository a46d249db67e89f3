/** `@steadcast/client`: receives every event of a stream in order, applied once, and sends until acknowledged. */

export type { Counts, Progress, Told } from "./effects.js";
export type { EmitOptions } from "./emissions.js";
export { EmissionFailed, IllegalInput, InvalidRequest, SteadcastError } from "./errors.js";
export type {
  ClientSnapshot,
  ClientState,
  ConnectionMetrics,
  SocketClientOptions,
  TokenSource,
} from "./options.js";
export type { CursorStore, KeepingPlace } from "./persist.js";
export type { Platform, SocketLike, SocketOptions } from "./platform.js";
export { SocketClient } from "./socket_client.js";
export {
  type Notice,
  type Place,
  type SubscribeOptions,
  Subscription,
  type SubscriptionSnapshot,
  type SubscriptionState,
} from "./subscription.js";
export type {
  Cursor,
  Cursors,
  From,
  Lane,
  NewEvent,
  Position,
  Receipt,
  Refusal,
  StreamEvent,
} from "./wire.js";
