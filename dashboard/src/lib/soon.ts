/** Work that may wait for the next frame: many asks, one run. */

/** Frames stop in a background tab; the title there still has to follow. In milliseconds. */
const WITHOUT_FRAMES = 500;

/** Give a function that runs `work` once, with the next frame or shortly after where there are none. */
export function soon(work: () => void): () => void {
  let due = false;
  let frame = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const run = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    due = false;
    work();
  };
  return () => {
    if (due) return;
    due = true;
    frame = requestAnimationFrame(run);
    timer = setTimeout(run, WITHOUT_FRAMES);
  };
}
