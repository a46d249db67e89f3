/** Links within the page, which would otherwise load it anew: with its connection and what it has counted. */

/** Give the search of the address that a click leads to; null where the browser shall do what it always does. */
export function searchOf(event: MouseEvent): string | null {
  const { target } = event;
  const link = target instanceof Element ? target.closest<HTMLAnchorElement>("a[href]") : null;
  const held = event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (!link || held || event.button !== 0 || event.defaultPrevented) return null;
  const { origin, pathname, search } = new URL(link.href);
  return origin === location.origin && pathname === location.pathname ? search : null;
}
