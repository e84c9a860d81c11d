/**
 * Owns the start of the page.
 *
 * Loaded by index.html. It never does anything else.
 */

import { App } from "./view/app.js";
import { html, render } from "./view/html.js";

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
