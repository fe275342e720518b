// Pages for a real browser: an empty page, and the SDK's sources, from 127.0.0.1.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";

const SOURCES = new URL("../../src/", import.meta.url);

/** @returns {Promise<{ url: string, stop: () => void }>} */
export async function servePages() {
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://127.0.0.1").pathname;
    if (path === "/") {
      response.writeHead(200, { "content-type": "text/html" });
      response.end('<!doctype html><title>test</title><link rel="icon" href="data:,">');
      return;
    }
    readFile(new URL(`.${path}`, SOURCES)).then(
      (body) => {
        response.writeHead(200, { "content-type": "text/javascript", "cache-control": "no-store" });
        response.end(body);
      },
      () => {
        response.writeHead(404);
        response.end();
      },
    );
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}/`,
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}
