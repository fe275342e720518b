// The texts, and numbers and spans of time in their language.

import { language, locale } from "../chat/preferred.js";
import { en } from "./texts/en.js";
import { zh } from "./texts/zh.js";

/** Every language, by its tag. */
export const languages = { en, zh };

/** The texts. */
export const texts = languages[language];

const MINUTE = 60_000;

/** Milliseconds. @param {number} count */
export const milliseconds = (count) => texts.milliseconds(new Intl.NumberFormat(locale).format(Math.round(count)));

/** A time as people say it, such as "3 hours". @param {number} ms */
export function span(ms) {
  const minutes = Math.round(ms / MINUTE);
  const hours = Math.round(minutes / 60);
  const [count, unit] = minutes < 120 ? [minutes, "minute"] : hours < 48 ? [hours, "hour"] : [Math.round(hours / 24), "day"];
  return new Intl.NumberFormat(locale, { style: "unit", unit: String(unit), unitDisplay: "long" }).format(Number(count));
}
