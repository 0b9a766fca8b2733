// An element with attributes, of which those called on... listen, and children.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, of] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), of);
    else if (of === true) made.setAttribute(name, "");
    else if (of !== false && of !== null && of !== undefined) made.setAttribute(name, of);
  }
  made.append(...children);
  return made;
}
