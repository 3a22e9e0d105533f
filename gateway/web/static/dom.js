// Elements out of words. Text goes in as text: there is no way here to make HTML of it.

/** `make("p.note", {id: "x", onclick}, "text", child…)`; attributes that are null or false stay away. */
export function make(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element[key] = value;
    else if (value !== null && value !== false)
      element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((it) => it !== null));
  return element;
}

export const find = (id) => document.getElementById(id);

/** Say `text` where the page says what is wrong; nothing hides it. */
export function notice(text, ...more) {
  const place = find("notice");
  place.replaceChildren(text, ...more);
  place.hidden = !text;
}
