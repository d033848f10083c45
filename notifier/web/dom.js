// @ts-check
// Short names for what every module does with the document. Text is always set as text.

/** @template {HTMLElement} T @param {string} id @returns {T} */
export function element(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/** @param {string} tag @param {Record<string, unknown>} properties @param {(Node | string)[]} children */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** @param {string} href @param {string} text */
export function make_link(href, text) {
  return make('a', {href, target: '_blank', rel: 'noopener'}, text);
}

/** @param {HTMLFormElement} form @param {string} name @returns {HTMLInputElement} */
export function field(form, name) {
  return /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
}
