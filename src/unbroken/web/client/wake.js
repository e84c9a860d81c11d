/**
 * Owns the platform's hints that a connection may work again, and a clock that knows when the machine has slept.
 *
 * Called by unbroken.js. It never decides anything: it only says "look now".
 */

/** A tick that comes this much late by the wall clock, and not by the monotonic one, means that the machine has slept. */
const SLEPT_MILLISECONDS = 5000;

/**
 * Seconds that go on while the machine sleeps, where the platform's monotonic clock does not.
 *
 * @returns {() => number}
 */
export function sleepProofClock() {
  let slept = 0;
  let wall = Date.now();
  let monotonic = performance.now();
  return () => {
    const lead = Date.now() - wall - (performance.now() - monotonic);
    if (lead > SLEPT_MILLISECONDS) slept += lead;
    wall = Date.now();
    monotonic = performance.now();
    return (monotonic + slept) / 1000;
  };
}

/**
 * Call `look` when the page is shown, visible or online again, `lost` when the platform says that it is offline, and `thawed`
 * when it lets a page go on that it had frozen.
 *
 * @param {{look: () => void, lost: () => void, thawed: () => void}} told
 * @returns {() => void} stops listening
 */
export function listenToPlatform({ look, lost, thawed }) {
  if (typeof globalThis.addEventListener !== "function") return () => {};
  const shown = () => {
    if (globalThis.document?.visibilityState !== "hidden") look();
  };
  globalThis.addEventListener("online", look);
  globalThis.addEventListener("offline", lost);
  globalThis.addEventListener("pageshow", shown);
  globalThis.document?.addEventListener("visibilitychange", shown);
  globalThis.document?.addEventListener("resume", thawed);
  return () => {
    globalThis.removeEventListener("online", look);
    globalThis.removeEventListener("offline", lost);
    globalThis.removeEventListener("pageshow", shown);
    globalThis.document?.removeEventListener("visibilitychange", shown);
    globalThis.document?.removeEventListener("resume", thawed);
  };
}
