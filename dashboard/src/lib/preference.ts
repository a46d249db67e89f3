/** What a reader chose, kept over a reload where that is possible. Where storage is forbidden it holds for the page. */

/** Give what was chosen, or null. */
export function recall(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Keep a choice; null forgets it. */
export function remember(name: string, chosen: string | null): void {
  try {
    if (chosen === null) localStorage.removeItem(name);
    else localStorage.setItem(name, chosen);
  } catch {
    return;
  }
}
