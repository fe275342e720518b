// Avatars without pictures: initials on a colour derived from the id.

import { el } from "./dom.js";

/** The contrast that small white letters need. */
const CONTRAST = 4.6;

/** FNV-1a: spreads similar names over the colours. @param {string} text */
function hash(text) {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193) >>> 0;
  return value;
}

/** @param {number} hue degrees @param {number} saturation 0 to 1 @param {number} lightness 0 to 1 @returns {number[]} each 0 to 1 */
function rgb(hue, saturation, lightness) {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return lightness - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  });
}

/** Relative luminance as WCAG has it. @param {number[]} colour */
function luminance(colour) {
  const [red = 0, green = 0, blue = 0] = colour.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** A muted colour, as light as white letters on it allow. @param {string} id */
export function colourOf(id) {
  const hue = hash(id) % 360;
  for (let lightness = 0.52; lightness > 0.2; lightness -= 0.01) {
    const colour = rgb(hue, 0.38, lightness);
    if (1.05 / (luminance(colour) + 0.05) >= CONTRAST) return `rgb(${colour.map((part) => Math.round(part * 255)).join(" ")})`;
  }
  return "rgb(51 51 51)";
}

/** @type {Intl.Segmenter | undefined} */
let segmenter;

/** One letter as people see it, of each of the first two words. @param {string} id */
export function initialsOf(id) {
  // Most names, without what it takes to find letters of every script.
  if (/^[\w\s.@-]*$/.test(id)) return (id.match(/[A-Za-z0-9]+/g) ?? ["?"]).slice(0, 2).map((word) => word[0]).join("").toUpperCase();
  const words = id.split(/[\s._\-@]+/u).filter((word) => /[\p{L}\p{N}\p{S}]/u.test(word)).slice(0, 2);
  segmenter ??= new Intl.Segmenter();
  const segments = segmenter;
  const first = (/** @type {string} */ word) => [...segments.segment(word)].find(({ segment }) => /[\p{L}\p{N}\p{S}]/u.test(segment))?.segment ?? "";
  return words.map(first).join("").toUpperCase() || "?";
}

/** @param {string} id @param {string} [size] a class */
export function avatar(id, size = "") {
  const element = el("span", { class: `avatar ${size}`, "aria-hidden": "true" }, initialsOf(id));
  element.style.backgroundColor = colourOf(id);
  return element;
}
