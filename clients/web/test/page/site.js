// Serves the page's files the way the server does, with the SDK or its fake behind it: what the page's own tests need, and no more.

import { createServer } from "node:http";
import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("../../", import.meta.url));
const fake = fileURLToPath(new URL("fake/", import.meta.url));

const types = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml", ".png": "image/png", ".webmanifest": "application/manifest+json",
};

async function files() {
  const all = await readdir(join(web, "chat"), { recursive: true, withFileTypes: true });
  const chat = all.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const kept = chat.filter((path) => extname(path) in types);
  return new Map([...kept.map((path) => [`/web/${path.slice(web.length)}`, path]), ["/web/src/index.js", join(fake, "index.js")]]);
}

export async function serveFake() {
  const known = await files();
  /** @type {Map<string, (body: string) => string>} */
  const changes = new Map();
  const policy = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'; object-src 'none'";

  /** @param {string} name @param {string} path */
  async function read(name, path) {
    let body = await readFile(path);
    // The modules one by one, since the SDK among them is another.
    if (name === "/web/chat/index.html") body = Buffer.from(body.toString().replace("/web/dist/page.js", "/web/chat/main.js"));
    const change = changes.get(name);
    return change ? Buffer.from(change(body.toString())) : body;
  }

  async function worker() {
    const hash = createHash("sha256");
    for (const [name, path] of known) hash.update(await read(name, path));
    const names = [...known.keys()].filter((name) => !name.endsWith("/sw.js") && !name.endsWith("/index.html"));
    return JSON.stringify({ version: hash.digest("hex").slice(0, 16), files: ["/", ...names] });
  }

  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://site");
    const name = pathname === "/" ? "/web/chat/index.html" : pathname;
    const path = known.get(name);
    if (!path) return void response.writeHead(404).end("no such file");
    let body = await read(name, path);
    if (pathname.endsWith("/sw.js")) body = Buffer.concat([Buffer.from(`self.kept = ${await worker()};\n`), body]);
    response.writeHead(200, {
      "content-type": types[extname(path)], "content-security-policy": policy, "cache-control": "no-cache", "service-worker-allowed": "/",
    }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** Serves a file changed from now on: another version of the page. @param {string} name @param {(body: string) => string} change */
    change: (name, change) => void changes.set(name, change),
    close: () => new Promise((resolve) => {
      server.closeAllConnections();
      server.close(() => resolve(null));
    }),
  };
}
