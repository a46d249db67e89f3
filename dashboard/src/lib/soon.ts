/** Work that may wait for the next frame: many asks, one run. */

/** Frames stop in a background tab; the title there still has to follow. In milliseconds. */
const WITHOUT_FRAMES = 500;

/**
 * Give a function that runs `work` once, with the next frame or shortly after where there are none.
 *
 * `work` may return for how many milliseconds the next run shall wait at least.
 */
export function soon(work: () => unknown): () => void {
  let due = false;
  let frame = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let after = 0;
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    due = false;
    const wait = work();
    after = performance.now() + (typeof wait === "number" ? wait : 0);
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
