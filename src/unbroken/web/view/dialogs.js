/**
 * Owns what stands in front of the page or in its place: the keys, the question before a cancel, the token.
 *
 * Drawn by app.js. It never keeps a token: it hands it on.
 */

import { html } from "./html.js";
import { Modal } from "./modal.js";
import { distinct } from "./unseen.js";

/** The key that only those have who may start something. */
const NEW = "n";
const KEYS = [
  ["j k", "next, previous message, or card of a session"],
  ["[ ]", "previous, next resume rule"],
  ["G  End", "follow the tail"],
  ["t", "next view"],
  ["p", "pause the view; nothing is lost"],
  ["c", "copy the chosen message, or all that is loaded"],
  [NEW, "new run"],
  ["/", "filter the streams"],
  ["Esc", "close, or leave the field"],
  ["?", "this help"],
];

/** @param {{guest: boolean, onClose: () => void}} props `guest`: whether the reader can do nothing but read */
export function Help({ guest, onClose }) {
  const keys = KEYS.filter(([key]) => !(guest && key === NEW));
  return html`<${Modal} label="Keys" testid="help" onClose=${onClose}>
    <h2>Keys</h2>
    <dl class="keys">${keys.map(([names, words]) => html`<div key=${names}><dt>${String(names).split(" ").filter(Boolean).map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${words}</dd></div>`)}</dl>
    <div class="buttons"><button onClick=${onClose} autofocus>Close</button></div>
  <//>`;
}

/** @param {{stream: string, onCancel: () => void, onClose: () => void}} props */
export function ConfirmCancel({ stream, onCancel, onClose }) {
  return html`<${Modal} label="Cancel" testid="confirm-cancel" onClose=${onClose}>
    <h2>Cancel this stream?</h2>
    <p><b>${distinct(stream)}</b> stops for everyone who watches: its producer is asked to end, and where there is none the stream ends as cancelled. What was written stays. To stop watching only, just leave: that cancels nothing.</p>
    <div class="buttons"><button onClick=${onClose} autofocus>Let it run</button><button class="danger solid" onClick=${onCancel} data-testid="confirm">Cancel it</button></div>
  <//>`;
}

/** @param {{wrong: boolean, link: boolean, onToken: (token: string) => void}} props `link`: whether what was refused is a share link */
export function TokenForm({ wrong, link, onToken }) {
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    const token = event.target.elements.token.value.trim();
    if (token !== "") onToken(token);
  };
  const over = wrong && link;
  return html`<section class="notice" data-testid="token-form">
    <form onSubmit=${submit} action="." method="post">
      ${over ? html`<div role="alert" data-testid="link-over"><h1>This link is over</h1><p>Whoever shared it has revoked it, or its time has passed. Ask them for another one.</p></div>` : html`<h1>This server wants a token</h1>`}
      <p class=${over ? "hint" : ""}>${over ? "With a token of your own you can go on. It" : "It"} is kept in this tab at most until the tab is closed, and is sent in a header only.</p>
      <label>Token <input name="token" type="password" autocomplete="off" autofocus=${!over} required aria-invalid=${wrong && !link} /></label>
      ${wrong && !link ? html`<p class="wrong" role="alert">The server does not accept this token.</p>` : null}
      <button class="solid">Continue</button>
    </form>
  </section>`;
}
