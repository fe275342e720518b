// Which language the page speaks, and dates and numbers in it.

import { language, locale } from "./preferred.js";
import { en } from "./texts/en.js";
import { zh } from "./texts/zh.js";

export { chooseLanguage, language } from "./preferred.js";

/** Every language, by the tag that `?lang=` and the document take. */
export const languages = { en, zh };

/** The texts. */
export const texts = languages[language];

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
