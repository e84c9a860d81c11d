/** Do what the page never does, make HTML of a string, and tell what came of it. */
() => {
  const place = document.body.appendChild(document.createElement("div"));
  try {
    place.innerHTML = "<img src=x onerror=alert(1)>";
  } catch (error) {
    return error.name;
  } finally {
    place.remove();
  }
  return "taken";
}
