/** Where the page's server is. Pure. */

export interface Address {
  /** Scheme, host and port. */
  readonly origin: string;
  /** The path that everything of the server stands under; begins and ends with a slash. */
  readonly base: string;
  /** What a publisher is given: origin and base, without a slash at its end. */
  readonly url: string;
}

/** Take the server's address from the page's. */
export function addressOf(href: string): Address {
  const { origin, pathname } = new URL(".", href);
  return { origin, base: pathname, url: `${origin}${pathname}`.replace(/\/$/, "") };
}
