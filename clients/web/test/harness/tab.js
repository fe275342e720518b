// Tabs of a real Chromium as people have them: hidden behind others, frozen, kept for the way back. The pages of the tests' driver are none
// of it: it makes each believe that it is seen. So these are not its own.

/** Begin Chromium without this to have it keep pages for the way back. */
export const FORGETS_PAGES = "--disable-back-forward-cache";

/**
 * Opens tabs of one profile.
 * @param {import("playwright-core").Browser} browser
 */
export async function tabs(browser) {
  const chromium = await browser.newBrowserCDPSession();
  let last = 0;
  /** @type {Map<number, { resolve: (result: any) => void, reject: (why: Error) => void }>} */
  const asked = new Map();
  chromium.on("Target.receivedMessageFromTarget", ({ message }) => {
    const { id, result, error } = JSON.parse(message);
    const { resolve, reject } = asked.get(id) ?? {};
    asked.delete(id);
    if (error) reject?.(new Error(error.message));
    else resolve?.(result);
  });
  /**
   * In front of the others.
   * @param {string} url
   */
  const open = async (url) => {
    const { targetId } = await chromium.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await chromium.send("Target.attachToTarget", { targetId, flatten: false });
    /** @param {string} method @param {object} [params] @returns {Promise<any>} */
    const send = (method, params = {}) => new Promise((resolve, reject) => {
      const id = ++last;
      asked.set(id, { resolve, reject });
      chromium.send("Target.sendMessageToTarget", { sessionId, message: JSON.stringify({ id, method, params }) }).catch(reject);
    });
    /** @param {string | Function} code @param {unknown} [argument] */
    const evaluate = async (code, argument) => {
      const expression = typeof code === "string" ? code : `(${code})(${JSON.stringify(argument)})`;
      const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    };
    /** What is at the address is there. @param {string} url */
    const arrives = async (url) => {
      const there = `location.href === ${JSON.stringify(url)} && document.readyState === "complete"`;
      // Where the page is just being replaced, nothing can be asked.
      while (!(await evaluate(there).catch(() => false))) await new Promise((resolve) => setTimeout(resolve, 20));
    };
    /** @param {string} url */
    const goto = async (url) => {
      await send("Page.navigate", { url });
      await arrives(url);
    };
    const goBack = async () => {
      const { currentIndex, entries } = await send("Page.getNavigationHistory");
      const { id, url } = entries[currentIndex - 1];
      await send("Page.navigateToHistoryEntry", { entryId: id });
      await arrives(url);
    };
    await goto(url);
    return {
      evaluate, goto, goBack,
      /** Hides the page and freezes it, whatever it holds. Nothing can be asked of it then. */
      freeze: () => send("Page.setWebLifecycleState", { state: "frozen" }),
      /** Lets it run; it stays hidden. */
      resume: () => send("Page.setWebLifecycleState", { state: "active" }),
      toFront: () => chromium.send("Target.activateTarget", { targetId }),
      close: () => chromium.send("Target.closeTarget", { targetId }),
    };
  };
  return { open };
}
