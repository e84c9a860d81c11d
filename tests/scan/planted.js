// Never loaded by anything: what the rules must find.
document.body.innerHTML = text;
document.body.insertAdjacentHTML("beforeend", text);
eval(text);
new Function(text)();
