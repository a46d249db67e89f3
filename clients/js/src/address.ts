/** Where a server's Socket.IO is. Pure. */

export interface SocketAddress {
  /** As Socket.IO takes it: what is its path there names a namespace. */
  readonly url: string | undefined;
  readonly path: string | undefined;
}

const SCHEMES: ReadonlySet<string> = new Set(["http:", "https:", "ws:", "wss:"]);

/**
 * Take a URL's path for the one that the server stands under, as behind a proxy. Socket.IO takes it for a
 * namespace, which no server of ours has; it does where `path` says where Socket.IO is.
 *
 * @param page the address of the page, which a URL without a host counts from
 */
export function addressOf(
  url: string | undefined,
  path: string | undefined,
  page: string | undefined,
): SocketAddress {
  if (path !== undefined) return { url, path: path.startsWith("/") ? path : `/${path}` };
  const whole = url === undefined ? undefined : parsed(url, page);
  if (!whole || whole.pathname === "/") return { url, path };
  const base = whole.pathname.replace(/\/+$/, "");
  whole.pathname = "/";
  return { url: whole.href, path: `${base}/socket.io` };
}

/** Leave to Socket.IO what is no URL by itself, such as `localhost:8765`. */
function parsed(url: string, page: string | undefined): URL | undefined {
  try {
    const whole = new URL(url, url.startsWith("/") ? page : undefined);
    return SCHEMES.has(whole.protocol) ? whole : undefined;
  } catch {
    return undefined;
  }
}
