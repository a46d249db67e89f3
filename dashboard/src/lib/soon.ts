/** Work that may wait for the next frame: many asks, one run. */

import { Pace } from "./pace.js";

/** Frames stop in a background tab; the title there still has to follow. In milliseconds. */
const WITHOUT_FRAMES = 500;

/**
 * Give a function that runs `work` once, with the next frame or shortly after where there are none, and
 * leaves others their time in between: see `Pace`.
 *
 * `work` may return for how many milliseconds the next run shall wait at least.
 */
export function soon(work: () => unknown): () => void {
  let due = false;
  let frame = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let after = 0;
  const pace = new Pace();
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    due = false;
    if (pace.begins(performance.now())) afterDrawing(() => pace.drawn(performance.now()));
    const wait = work();
    after = performance.now() + Math.max(typeof wait === "number" ? wait : 0, pace.rest);
  };
  const ask = () => {
    frame = requestAnimationFrame(run);
    timer = setTimeout(run, WITHOUT_FRAMES);
  };
  return () => {
    if (due) return;
    due = true;
    const wait = after - performance.now();
    if (wait > 0) timer = setTimeout(ask, wait);
    else ask();
  };
}

const drawing: (() => void)[] = [];
const channel = new MessageChannel();
channel.port1.onmessage = () => drawing.shift()?.();

/** Call back once what is being done now was drawn: a message waits behind the frame, as others' do. */
function afterDrawing(then: () => void): void {
  drawing.push(then);
  channel.port2.postMessage(null);
}
