/**
 * Owns the part of the address behind `#`: what is open, and in which view.
 *
 * Called by app.js and by whatever links. It never touches the history but through `location`.
 */

export const VIEWS = Object.freeze(["text", "markdown", "list", "raw"]);

/**
 * @typedef {{stream: string | null, view: string | null}} Route of a stream
 * @typedef {{type: string, name: string, server: string, session: string}} NewRoute what is chosen to be run, and in which session
 */

/** @param {string} hash @returns {Route} */
export function parseRoute(hash) {
  const match = /^#\/stream\/([^?]+)(?:\?(.*))?$/.exec(hash);
  if (match === null) return { stream: null, view: null };
  const view = new URLSearchParams(match[2] ?? "").get("view");
  const stream = decode(match[1] ?? "");
  return stream === null ? { stream: null, view: null } : { stream, view: view !== null && VIEWS.includes(view) ? view : null };
}

/** @param {string} stream @param {string | null} [view] */
export function formatRoute(stream, view = null) {
  return `#/stream/${encode(stream)}${view === null ? "" : `?view=${view}`}`;
}

/** The session that is open. @param {string} hash @returns {string | null} */
export function parseSession(hash) {
  const match = /^#\/session\/([^?]+)$/.exec(hash);
  return match === null ? null : decode(match[1] ?? "");
}

/** @param {string} session */
export function formatSession(session) {
  return `#/session/${encode(session)}`;
}

/** What is to be run, when the address is that of the picker. @param {string} hash @returns {NewRoute | null} */
export function parseNew(hash) {
  const match = /^#\/new(?:\?(.*))?$/.exec(hash);
  if (match === null) return null;
  const query = new URLSearchParams(match[1] ?? "");
  const [type, name, server, session] = ["type", "name", "server", "session"].map((key) => query.get(key) ?? "");
  return { type: type ?? "", name: name ?? "", server: server ?? "", session: session ?? "" };
}

/** @param {Partial<NewRoute>} [chosen] */
export function formatNew(chosen = {}) {
  const query = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value)).toString();
  return `#/new${query === "" ? "" : `?${query}`}`;
}

/** The secret of a share link, which can do nothing but read. */
const LINK = /^ubl_[A-Za-z0-9_-]{43}$/;

/** Whether that is the token of a share link. @param {string | null} token */
export function isLink(token) {
  return token !== null && LINK.test(token);
}

/** The address that opens a stream for whoever has it: its token is behind the `#`, which browsers do not send. @param {string} page where the page is @param {string} stream @param {string} token */
export function formatLink(page, stream, token) {
  const url = new URL(page);
  url.search = "";
  url.hash = `${formatRoute(stream)}?token=${encodeURIComponent(token)}`;
  return url.href;
}

/**
 * The token of a share link, and the address without it. Only a link's: it can do nothing but read, so that nobody can be
 * made to work under another's name.
 * @param {string} hash
 * @returns {{token: string | null, hash: string} | null}
 */
export function takeToken(hash) {
  const [path, query] = hash.split("?", 2);
  const given = new URLSearchParams(query ?? "");
  const token = given.get("token");
  if (token === null) return null;
  given.delete("token");
  const rest = given.toString();
  return { token: isLink(token) ? token : null, hash: `${path}${rest === "" ? "" : `?${rest}`}` };
}

/** @param {string} name */
function encode(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}

/** @param {string} path */
function decode(path) {
  try {
    return path.split("/").map(decodeURIComponent).join("/");
  } catch {
    return null;
  }
}
