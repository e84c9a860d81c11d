/** Draw each case in each view, and tell how many there were and what is wrong with them. */
async ([cases, views, turning]) => {
  const { writerFor } = await import("/static/view/blocks.js");
  const elements = new Set(
    "A BLOCKQUOTE BR BUTTON CODE DEL DIV EM H1 H2 H3 H4 H5 H6 HR INPUT LI OL P PRE SPAN STRONG TABLE TBODY TD TH THEAD TIME TR UL".split(" "),
  );
  const attributes = new Set("checked class data-seq data-testid disabled href rel start target title type".split(" "));
  const controls = new RegExp(`[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f]|${turning}`);
  const wrong = [];
  let drawn = 0;

  function judge(place, view, pieces) {
    const said = `${view} of ${JSON.stringify(pieces).slice(0, 300)}: `;
    const whole = pieces.join("");
    for (const element of place.querySelectorAll("*")) {
      if (!elements.has(element.tagName)) wrong.push(`${said}<${element.tagName}>`);
      for (const { name, value } of element.attributes) {
        if (!attributes.has(name)) wrong.push(`${said}${name}`);
        if (name === "href" && !/^(?:https?|mailto):/.test(value)) wrong.push(`${said}${value}`);
      }
    }
    if (controls.test(place.textContent)) wrong.push(`${said}a control character`);
    if (view === "text" && !controls.test(whole) && place.textContent !== whole) wrong.push(`${said}not what was sent`);
  }

  for (const pieces of cases) {
    for (const view of views) {
      const place = document.body.appendChild(document.createElement("div"));
      const writer = writerFor(view, place);
      for (const [index, text] of pieces.entries()) {
        writer.write({ seq: index + 1, epoch: 1, message: { text }, size: text.length, note: null });
        writer.draw?.();
      }
      writer.finish();
      judge(place, view, pieces);
      place.remove();
      drawn += 1;
    }
  }
  return [drawn, wrong.slice(0, 20)];
}
