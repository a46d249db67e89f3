/** Where the page's server is, and what the page's own address says. Pure. */

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

export interface Query {
  /** The stream that was asked for; null leaves the choice to the page. */
  readonly stream: string | null;
  readonly filter: string;
}

/** What a stream can be called; a link with anything else is one without a stream. */
const STREAM = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/;

export function readQuery(search: string): Query {
  const query = new URLSearchParams(search);
  const stream = query.get("stream") ?? "";
  return { stream: STREAM.test(stream) ? stream : null, filter: query.get("filter") ?? "" };
}

/** Write a query over another, other parameters kept; begins with "?" unless it is empty. */
export function writeQuery(search: string, { stream, filter }: Query): string {
  const query = new URLSearchParams(search);
  const values = { stream: stream ?? "", filter };
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const text = query.toString();
  return text && `?${text}`;
}
