/**
 * Owns the shapes that the other files of this folder speak in; there is no code here.
 *
 * @typedef {object} StreamView a stream as every face shows it (PROTOCOL.md 1.3)
 * @property {string} stream
 * @property {number} epoch
 * @property {string} state
 * @property {number} first
 * @property {number} head
 * @property {string} cursor
 * @property {string} kind
 * @property {string} content_type
 * @property {number} created
 * @property {number} updated
 * @property {number} bytes
 * @property {string | null} [session]
 * @property {Record<string, unknown>} [metadata]
 * @property {Record<string, unknown>} [reason]
 * @property {string} [hash]
 * @property {number | null} [ended]
 * @property {number | null} [expires]
 * @property {number | null} [ttl_seconds]
 * @property {string | null} [producer]
 * @property {boolean} [cancel_requested]
 * @property {string} [cancel_requested_by]
 * @property {Run} [run] what the server executes for this stream
 *
 * @typedef {object} Run
 * @property {"task" | "tool" | "program"} type
 * @property {string} name
 * @property {string} [server] the MCP server of a tool
 * @property {Record<string, unknown>} [arguments]
 * @property {string} [retry_of] the stream of the run that this one repeats
 *
 * @typedef {object} Runnable something that can be run, with JSON Schema of its arguments
 * @property {"task" | "tool" | "program"} type
 * @property {string} name
 * @property {string} [server]
 * @property {string} [title]
 * @property {string} [description]
 * @property {Record<string, any>} [input_schema]
 * @property {Record<string, unknown>} [annotations]
 *
 * @typedef {object} RunSummary the newest message of each kind that tells of a run and its open questions, up to `cursor`
 * @property {StreamView} stream
 * @property {SummaryMessage[]} messages by seq
 * @property {string} cursor
 * @property {boolean} complete whether everything was looked at
 *
 * @typedef {{seq: number, kind: string, time?: number, text?: string, json?: unknown, cut?: boolean}} SummaryMessage
 *
 * @typedef {{type: string, server?: string, error?: string, runnables?: Runnable[]}} Source
 *
 * @typedef {{name: string, verbs: string[], prefix?: boolean, epoch?: number}} Grant some rights on a stream, or on all whose names begin so
 *
 * @typedef {object} TokenView a token as its owner sees it, without its secret
 * @property {string} id
 * @property {string} kind `key` or `link`
 * @property {string} label
 * @property {Grant[] | null} grants null: everything
 * @property {number} created
 * @property {number | null} expires
 *
 * @typedef {TokenView & {token: string}} MadeToken with its secret
 *
 * @typedef {object} Payload a message as a producer hands it over: a kind and exactly one of text, json and data (base64)
 * @property {string} [kind]
 * @property {string} [text]
 * @property {unknown} [json]
 * @property {string} [data]
 * @property {boolean} [continues]
 *
 * @typedef {Payload & {time?: number, producer?: string, leaf?: string}} Message a stored message; its seq follows from its batch; one with
 *   a `leaf` was erased
 * @typedef {Message & {seq: number, epoch: number}} PlacedMessage
 *
 * @typedef {{id: string, epoch: number, seq: number}} Producer
 * @typedef {{first: number, last: number, duplicate: boolean}} Appended
 *
 * @typedef {{type: string} & Record<string, any>} Frame
 *
 * @typedef {{action: "connect"} | {action: "close"} | {action: "renew"} | {action: "send", frame: Frame} | {action: "wait", seconds: number}} Action
 *
 * @typedef {{event: "connected"}
 *   | {event: "hello", frame: Frame}
 *   | {event: "subscribed", stream: string, cursor: string, hash: string, salts: string, view: StreamView}
 *   | {event: "messages", stream: string, epoch: number, first: number, count: number, messages: Message[], hash: string}
 *   | {event: "dropped", stream: string, count: number, why: "overlap" | "gap" | "epoch" | "unknown"}
 *   | {event: "gap", stream: string, expected: number, first: number}
 *   | {event: "epoch_changed", stream: string, epoch: number}
 *   | {event: "trimmed", stream: string, missing: number, first: number}
 *   | {event: "state", stream: string, state: string, view: StreamView}
 *   | {event: "ended", stream: string, state: string, view: StreamView}
 *   | {event: "acked", id: number, first: number, last: number, duplicate: boolean}
 *   | {event: "result", id: number, view: StreamView, created: boolean}
 *   | {event: "failed", code: string, id?: number, stream?: string, message: string, detail: Record<string, any>}
 *   | {event: "notice", code: string, message: string}
 *   | {event: "disconnected", failures: number}
 *   | {event: "refused", code?: string, close_code?: number}} Event
 *
 * @typedef {Action | Event} Output
 */

export {};
