/**
 * Owns the one error type of this client and its reading from an HTTP answer (PROTOCOL.md 1.4).
 *
 * Called by everything that can fail. It never decides what to do about a failure.
 */

export class UnbrokenError extends Error {
  /**
   * @param {string} code stable; see docs/reference/errors.md
   * @param {string} [message]
   * @param {{status?: number, retryable?: boolean, retryAfter?: number, detail?: Record<string, any>}} [facts]
   */
  constructor(code, message = code, facts = {}) {
    super(message);
    this.name = "UnbrokenError";
    this.code = code;
    this.status = facts.status ?? 0;
    this.retryable = facts.retryable ?? false;
    this.retryAfter = facts.retryAfter ?? 0;
    this.detail = facts.detail ?? {};
  }
}

/** Codes for answers that do not come from the server itself but from something in front of it. */
const BY_STATUS = /** @type {Record<number, string>} */ ({ 401: "unauthorized", 403: "forbidden_origin", 404: "not_found", 426: "version", 429: "overloaded" });

/**
 * @param {Response} response one that is not ok
 * @returns {Promise<UnbrokenError>}
 */
export async function errorOf(response) {
  const problem = await response.json().catch(() => ({}));
  const { status } = response;
  const code = typeof problem.code === "string" ? problem.code : (BY_STATUS[status] ?? "http");
  const message = typeof problem.detail === "string" ? problem.detail : `HTTP ${status}`;
  return new UnbrokenError(code, message, {
    status,
    retryable: problem.retryable ?? (status === 429 || status >= 500),
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
    detail: problem.facts ?? {},
  });
}
