/** Which rows stand in the document: a pane of the list that slides over it. Pure. */

/** Rows that stand in the document at most. */
export const PANE = 250;
/** Rows by which the pane slides. */
export const STEP = 80;

export interface Pane {
  readonly start: number;
  readonly end: number;
}

/** The pane at the end of a list. */
export function lastPane(length: number): Pane {
  return { start: Math.max(0, length - PANE), end: length };
}

/** The pane that begins at `start`, or where it can. */
export function paneAt(start: number, length: number): Pane {
  const first = Math.max(0, Math.min(start, length - PANE));
  return { start: first, end: Math.min(length, first + PANE) };
}
