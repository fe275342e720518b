// What was found, as plain text for somebody who can help. Nothing that was typed is in it but the name that the server let in.

import { texts } from "./language.js";

/** @param {string} verdict @param {Map<import("./steps.js").StepName, import("./main.js").Row>} rows */
export function reportOf(verdict, rows) {
  const lines = [...rows].flatMap(([name, { state, seen, mend, took }]) => [
    `${texts.steps[name]}: ${texts.states[state]}${took && ` (${took})`}. ${seen}`,
    ...(mend ? [`  ${texts.mendIs(mend)}`] : []),
  ]);
  return [`Whimbrel, ${location.origin}/doctor`, new Date().toISOString(), navigator.userAgent, "", ...lines, "", verdict, ""].join("\n");
}

/** Whether it is on the clipboard now. Pages that browsers do not trust have the old way only. @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
