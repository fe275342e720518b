// Keeps the page's own files, so that it opens at once, and without the server.
//
// The server puts a line before this one: `self.kept = { version, files }`, where the version changes with any of the files and with the
// page's policy. All files of a version are fetched before it is used, and a page gets all of its files from one version. The browser asks
// for this script anew at every start, so the next version is fetched beside the page that runs, which then offers to start anew.

/** @type {{ version: string, files: string[] }} */
const { version, files } = /** @type {any} */ (self).kept;
/** @type {any} */
const worker = self;
const cacheName = `whimbrel-page-${version}`;

async function keep() {
  const cache = await caches.open(cacheName);
  await Promise.all(files.map(async (file) => {
    const response = await fetch(file, { cache: "no-cache", headers: file === "/" ? { accept: "text/html" } : {} });
    if (!response.ok) throw new Error(`${file}: ${response.status}`);
    await cache.put(file, response);
  }));
  await worker.skipWaiting();
}

async function takeOver() {
  const old = (await caches.keys()).filter((other) => other.startsWith("whimbrel-page-") && other !== cacheName);
  await Promise.all(old.map((other) => caches.delete(other)));
  await worker.clients.claim();
}

/** @param {string} file @param {Request} request */
async function answer(file, request) {
  const cache = await caches.open(cacheName);
  return (await cache.match(file)) ?? fetch(request);
}

worker.addEventListener("install", (/** @type {any} */ event) => {
  event.waitUntil(keep());
  // Where browsers can, they take the files from the cache without asking this script: the page starts sooner.
  event.addRoutes?.({ condition: { urlPattern: "/web/*" }, source: { cacheName } })?.catch(() => {});
});
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(takeOver()));
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin) return;
  // Only the page itself, and its files: whatever else is asked of the server goes to the server.
  const isPage = url.pathname === "/" && request.mode === "navigate";
  if (isPage || (url.pathname !== "/" && files.includes(url.pathname))) event.respondWith(answer(isPage ? "/" : url.pathname, request));
});
