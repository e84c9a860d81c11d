/**
 * Owns names that nobody else makes up.
 *
 * Called by unbroken.js for its producers and by applications for the keys of runs. It works in insecure contexts too.
 */

export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
