/** What happened in this page, or stands in it, and should not. @param {string} turning the characters that turn the direction */
(turning) => {
  const wrong = [];
  const turns = new RegExp(`${turning}|pay\u200bpal`); // the latter is part of a name
  const own = "link[rel=stylesheet], link[rel=icon], link[rel=modulepreload]";
  const forbidden = [
    "iframe, frame, object, embed, base, style, img, video, audio, template, math, marquee, area, portal",
    "meta[http-equiv], [srcdoc], animate, foreignObject",
    `link:not(${own})`,
  ].join();
  for (const found of document.body.querySelectorAll(forbidden)) wrong.push(`element ${found.outerHTML.slice(0, 200)}`);
  for (const found of document.querySelectorAll(`script, ${own}`)) {
    if (new URL(found.src ?? found.href, location.href).origin !== location.origin) wrong.push(`element ${found.outerHTML.slice(0, 200)}`);
  }
  const addresses = ["href", "src", "action", "formaction", "xlink:href", "data", "poster", "ping"];
  const spoken = ["title", "aria-label", "placeholder", "alt"];
  for (const element of document.querySelectorAll("*")) {
    for (const { name, value } of element.attributes) {
      if (/^on/i.test(name)) wrong.push(`handler ${name}=${value}`);
      if (addresses.includes(name) && !["http:", "https:", "mailto:"].includes(new URL(value, location.href).protocol)) wrong.push(`address ${name}=${value}`);
      if (spoken.includes(name) && turns.test(value)) wrong.push(`turning ${name}=${JSON.stringify(value)}`);
    }
  }
  const texts = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node !== null; node = texts.nextNode()) {
    if (turns.test(node.data)) wrong.push(`turning text ${JSON.stringify(node.data.slice(0, 80))}`);
  }
  if (turns.test(document.title)) wrong.push(`turning title ${JSON.stringify(document.title)}`);
  const executed = window.__executed.map((given) => `executed alert(${given})`);
  return [...wrong, ...executed, ...window.__violations.map((one) => `violation ${one}`)];
}
