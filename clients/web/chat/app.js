// The page once somebody is logged in: panes, keys, addresses.

import { makeDetails } from "./details.js";
import { el } from "./dom.js";
import { bird } from "./icons.js";
import { makeJump } from "./jump.js";
import { texts } from "./language.js";
import { Messages } from "./messages.js";
import { makeNotices } from "./notices.js";
import { People } from "./people.js";
import { jumpKeys, makeSettings } from "./settings.js";
import { Thread } from "./thread.js";

/** A finger has to go so far to the side, in pixels, and so much further than up or down, to mean "back". */
const SWIPE = 80;
const SWIPE_SLOPE = 2.5;

/** @typedef {{ messages: Messages, conversation: Promise<import("../src/index.js").Conversation | null> }} First */

/** @param {import("./state.js").State} state @param {HTMLElement} place
 * @param {First | null} first the conversation to begin with, being read */
export function startApp(state, place, first) {
  /** @type {Thread | null} */
  let thread = null;
  const narrow = matchMedia("(max-width: 899.98px)");
  const fine = matchMedia("(pointer: fine)");

  const jump = makeJump(state, (user) => go(user));
  const settings = makeSettings(state, leave);
  const people = new People(state, { open: (user) => go(user), jump: () => jump.open(), settings: () => settings.showModal() });
  const nothing = el("div", { class: "nothing" }, bird(), el("h2", {}, texts.chooseTitle),
    el("p", {}, texts.chooseHint, el("span", { class: "only-keyboard" }, texts.chooseHintKeys)), el("kbd", { class: "only-keyboard" }, jumpKeys));
  const pane = el("div", { class: "pane" }, nothing);
  const app = el("main", { class: "app" }, el("h1", { class: "unseen" }, texts.appName), people.element, pane, makeDetails(state));
  place.replaceChildren(makeNotices(state, leave), app, jump.element, settings);

  /** The address of a conversation, so that the browser's own ways back work. @param {string | null} user */
  function address(user) {
    const url = new URL(location.href);
    url.searchParams.set("as", state.user);
    if (user === null) url.searchParams.delete("to");
    else url.searchParams.set("to", user);
    return url;
  }

  /** @param {string | null} user @param {First | null} [begun] */
  function show(user, begun) {
    if (user === state.open && (thread !== null) === (user !== null)) return;
    thread?.close();
    thread = null;
    state.show(user);
    app.classList.toggle("has-open", user !== null);
    nothing.hidden = user !== null;
    if (user === null) return;
    const shown = new Thread(state, begun?.messages ?? new Messages(state.client, user), back);
    thread = shown;
    pane.append(shown.element);
    const known = state.conversations.get(user);
    const opened = shown.open(begun?.conversation ?? (known ? Promise.resolve(known) : state.client.conversation({ user })))
      .catch((why) => shown.composer.complain(why));
    // On a phone the keyboard would cover half of what one came to read.
    const focus = () => (fine.matches ? shown.composer.focus() : shown.heading.focus({ preventScroll: true }));
    if (!begun) return focus();
    // The focus makes the browser lay out what is there: at the start it comes with the frame that shows the messages.
    void opened.then(() => requestAnimationFrame(() => {
      if (thread === shown && document.activeElement === document.body) focus();
    }));
  }

  /** @param {string} user */
  function go(user) {
    if (user === state.open) return thread?.composer.focus();
    const url = address(user);
    // One step back leads to the list, however many conversations were looked at.
    if (state.open === null) history.pushState({ fromList: true }, "", url);
    else history.replaceState(history.state, "", url);
    show(user);
  }

  function back() {
    const was = state.open;
    if (history.state?.fromList) history.back();
    else {
      history.replaceState(null, "", address(null));
      show(null);
    }
    if (was !== null) queueMicrotask(() => people.focus(was));
  }

  function leave() {
    const url = new URL(location.href);
    url.searchParams.delete("as");
    url.searchParams.delete("to");
    location.assign(url);
  }

  addEventListener("popstate", () => {
    const user = new URLSearchParams(location.search).get("to");
    const was = state.open;
    show(user === "" ? null : user);
    if (user === null && was !== null) people.focus(was);
  });

  addEventListener("keydown", (event) => {
    if (event.isComposing || event.defaultPrevented) return;
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      jump.open();
    } else if (event.key === "Escape" && state.open !== null && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      back();
    }
  });

  /** @type {{ x: number, y: number } | null} */
  let finger = null;
  pane.addEventListener("touchstart", (event) => {
    const touch = event.touches[0];
    finger = touch && event.touches.length === 1 ? { x: touch.clientX, y: touch.clientY } : null;
  }, { passive: true });
  pane.addEventListener("touchend", (event) => {
    const touch = event.changedTouches[0];
    if (!finger || !touch || !narrow.matches || getSelection()?.isCollapsed === false) return;
    const [across, along] = [touch.clientX - finger.x, Math.abs(touch.clientY - finger.y)];
    if (across > SWIPE && across > SWIPE_SLOPE * along) back();
  }, { passive: true });

  // Above the keyboard of a phone, where the browser does not see to it.
  const fit = () => {
    document.documentElement.style.setProperty("--height", `${visualViewport?.height ?? innerHeight}px`);
    // Some push the page up besides.
    scrollTo(0, 0);
  };
  visualViewport?.addEventListener("resize", fit);

  const to = first?.messages.other ?? null;
  history.replaceState(history.state, "", address(to));
  show(to, first);
  people.show();
}
