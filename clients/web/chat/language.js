// Which language the page speaks, and dates and numbers in it.

import { en } from "./texts/en.js";
import { zh } from "./texts/zh.js";

/** Every language, by the tag that `?lang=` and the document take. */
export const languages = { en, zh };

/** @typedef {keyof typeof languages} Language */

const CHOICE = "whimbrel-language";

/** @param {string | null | undefined} tag @returns {Language | null} */
function known(tag) {
  const primary = tag?.toLowerCase().split("-")[0];
  return primary === "en" || primary === "zh" ? primary : null;
}

/** Storage may be forbidden; the page works without. @returns {string | null} */
function stored() {
  try {
    return localStorage.getItem(CHOICE);
  } catch {
    return null;
  }
}

/** The language asked for in the address, else the stored choice, else the first that the browser wants and we have. */
export const language = known(new URLSearchParams(location.search).get("lang"))
  ?? known(stored())
  ?? navigator.languages.map(known).find((tag) => tag !== null)
  ?? "en";

/** The texts. */
export const texts = languages[language];

/** What `Intl` formats by: the browser's own variant of the language (`en-GB`), where it has one. */
const locale = navigator.languages.find((tag) => known(tag) === language) ?? (language === "zh" ? "zh-CN" : "en");

/** Takes another language from now on. The page starts anew with it: what is shown comes from the store, drafts included.
 * @param {Language} tag */
export function chooseLanguage(tag) {
  try {
    localStorage.setItem(CHOICE, tag);
  } catch {
    // Then the address carries it.
  }
  const address = new URL(location.href);
  address.searchParams.set("lang", tag);
  location.replace(address);
}

/** Made when it is first needed: each takes a browser some milliseconds, and a page starts with one or two of them.
 * @param {Intl.DateTimeFormatOptions} options @returns {(time: number) => string} */
function format(options) {
  /** @type {Intl.DateTimeFormat | undefined} */
  let made;
  return (time) => (made ??= new Intl.DateTimeFormat(locale, options)).format(time);
}

const weekday = format({ weekday: "short" });
const longWeekday = format({ weekday: "long" });
const monthDay = format({ month: "short", day: "numeric" });
const longMonthDay = format({ weekday: "long", month: "long", day: "numeric" });
const full = format({ dateStyle: "short" });
const longFull = format({ dateStyle: "long" });

/** Where it is kept how this browser writes each hour of the day. */
const CLOCK = "whimbrel-clock";
/** A minute that looks like no hour. */
const MINUTE = "57";

/** @type {string[] | null} */
let hours = null;

/** @returns {string[] | null} */
function storedHours() {
  try {
    const { locale: of, texts: found } = JSON.parse(localStorage.getItem(CLOCK) ?? "{}");
    return of === locale && found.length === 24 && found.every((/** @type {unknown} */ text) => String(text).includes(MINUTE)) ? found : null;
  } catch {
    return null;
  }
}

/** Asks `Intl`, and keeps the answer for the next start. */
export function learnHours() {
  const clock = format({ hour: "numeric", minute: "2-digit" });
  const learnt = Array.from({ length: 24 }, (_, hour) => clock(new Date(2001, 0, 1, hour, Number(MINUTE)).getTime()));
  if (learnt.every((text) => text.includes(MINUTE))) {
    try {
      localStorage.setItem(CLOCK, JSON.stringify({ locale, texts: learnt }));
    } catch {
      // It is asked again at the next start.
    }
  }
  hours = learnt;
  return learnt;
}

/** `14:03`, as `Intl` writes it. From a table of hours: its first use takes a browser 30 milliseconds, in the midst of the first messages.
 * @param {number} time */
export function clockTime(time) {
  const date = new Date(time);
  hours ??= storedHours() ?? learnHours();
  return (hours[date.getHours()] ?? "").replace(MINUTE, String(date.getMinutes()).padStart(2, "0"));
}

/** Everything there is to say about a time. */
export const exactTime = format({ dateStyle: "full", timeStyle: "medium" });

const DAY = 24 * 60 * 60 * 1000;

/** Days since 1970 in local time. @param {number} time */
export function dayOf(time) {
  const date = new Date(time);
  return Math.floor(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / DAY);
}

/** As short as a list wants it: the time today, the weekday this week, else the date. @param {number} time */
export function shortDate(time) {
  const days = dayOf(Date.now()) - dayOf(time);
  if (days <= 0) return clockTime(time);
  if (days < 7) return weekday(time);
  return days < 180 ? monthDay(time) : full(time);
}

/** The name of a day, for the line between days. @param {number} time */
export function dayName(time) {
  const days = dayOf(Date.now()) - dayOf(time);
  if (days <= 0) return texts.today;
  if (days === 1) return texts.yesterday;
  if (days < 7) return longWeekday(time);
  return days < 180 ? longMonthDay(time) : longFull(time);
}

/** A count, with `99+` where it would not fit. @param {number} count */
export const shortCount = (count) => (count > 99 ? "99+" : String(count));
