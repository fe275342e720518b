// Small drawings, as vector paths on a grid of 24 (marks of states: 18 by 12).

const SVG = "http://www.w3.org/2000/svg";

const paths = {
  back: "M15 5l-7 7 7 7",
  send: "M12 19V5M5.5 11.5L12 5l6.5 6.5",
  add: "M12 5v14M5 12h14",
  down: "M6 9.5l6 6 6-6",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.5l4.5 4.5L19 7.5",
  skip: "M7 12h10",
  search: "M11 17.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM16 16l4 4",
};

/** @param {string} name @param {string} box @param {string} className */
function drawing(name, box, className) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", box);
  svg.setAttribute("class", `${className} ${className}-${name}`);
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

/** @param {SVGElement} svg @param {string} tag @param {Record<string, string>} attributes */
function shape(svg, tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  svg.append(element);
}

/** @param {keyof typeof paths} name */
export function icon(name) {
  const svg = drawing(name, "0 0 24 24", "icon");
  shape(svg, "path", { d: paths[name] });
  return svg;
}

/** The mark of a message of one's own: a clock, one check, two, two filled. @param {string} state */
export function stateMark(state) {
  const svg = drawing(state, "0 0 18 12", "mark");
  const disc = (/** @type {number} */ x, /** @type {string} */ name) => shape(svg, "circle", { cx: String(x), cy: "6", r: "4.9", class: name });
  const check = (/** @type {number} */ x) => shape(svg, "path", { d: `M${x - 2.2} 6.1l1.6 1.6 2.9-3.3` });
  if (state === "sending") {
    disc(12, "ring");
    shape(svg, "path", { d: "M12 3.4V6l1.8 1.2" });
  } else if (state === "sent") {
    disc(12, "ring");
    check(12);
  } else if (state === "delivered" || state === "read") {
    const name = state === "read" ? "disc" : "ring";
    disc(6, name);
    disc(12, `${name} front`);
    check(12);
  } else {
    disc(12, "ring");
    shape(svg, "path", { d: "M12 3.4v3.2M12 8.3v.4" });
  }
  return svg;
}

/** The whimbrel: head, long curved bill, eye. */
export function bird() {
  const svg = drawing("bird", "0 0 64 64", "bird");
  shape(svg, "path", { d: "M6 46C12 35 20 32 26.5 29C30 27 29 22 30 19C31.5 14 36 11.5 40 13C43 14 44 16 45 17.5C53 19 59 26 60 38C56 30 51 25 44.5 23.5C43.5 27 43.5 31 41 37C37 46 28 51 18 50C14 49.6 9 48 6 46z" });
  shape(svg, "circle", { cx: "38.5", cy: "18", r: "1.9", class: "eye" });
  return svg;
}
