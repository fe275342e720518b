// Building and changing the document. Text goes in as text only; there is no way here to set markup or inline style.

/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Attribute */

/**
 * An element: attributes by name, listeners as `onclick` and the like; `false`, `null` and `undefined` leave an attribute out.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, Attribute>} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else set(element, name, value);
  }
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/** Sets or removes an attribute, only if that changes anything.
 * @param {Element} element @param {string} name @param {string | number | boolean | null | undefined} value */
export function set(element, name, value) {
  if (value === false || value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Sets the text, only if that changes anything. @param {Node} node @param {string} text */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Makes `children` the children of `parent`, in order, moving and removing only what has to be.
 * @param {Element} parent @param {Element[]} children @param {Element | null} [end] stays the last one */
export function arrange(parent, children, end = null) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (child !== end && !wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const child of children) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
}
