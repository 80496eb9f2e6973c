/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chromium under remote control: test_native.py and test_native_demo.py decide what happens, in
 * between they kill hubs and publish.
 *
 *     node native.mjs PROFILE_DIRECTORY
 *
 * Commands come on standard input, one JSON object each line, and are answered in their order by one
 * object each: {"value": ...} or {"error": text}. The browser ends with standard input.
 *
 *     open  {page, url}             a page of that name
 *     run   {page, code}            the value of a JavaScript expression
 *     until {page, code, seconds}   waits until the expression is true
 *     gate  {page, shut}            shut: requests of EventSources wait, until the gate is open again
 *     noted {page}                  what the page asked for and was told so far
 *     streams {page}                the headers of each request of an EventSource, as they were sent
 *     shot  {page, path}            a picture
 *     close {page}
 *     cookie {cookie}               as playwright's addCookies wants it
 */
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { chromium } = createRequire(import.meta.url)("playwright-core");

const pages = new Map();

function note(entry) {
  const { page, noted } = entry;
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) {
      noted.console.push(`${message.type()}: ${message.text()}`);
    }
  });
  page.on("pageerror", (error) => noted.console.push(`exception: ${error.message}`));
  page.on("request", (request) => {
    noted.requests.push({ url: request.url(), type: request.resourceType() });
    if (request.resourceType() === "eventsource") {
      entry.streams.push(request);
    }
  });
  page.on("response", (response) =>
    noted.responses.push({ url: response.url(), status: response.status() }));
}

async function open(context, { page: name, url }) {
  const page = await context.newPage();
  const entry = { page, noted: { console: [], requests: [], responses: [] }, streams: [] };
  pages.set(name, entry);
  note(entry);
  await page.goto(url, { waitUntil: "load" });
  return page.url();
}

async function gate(entry, shut) {
  if (shut) {
    await entry.page.route("**", async (route) => {
      if (route.request().resourceType() === "eventsource") {
        await entry.opened;
      }
      await route.continue();
    });
    entry.opened = new Promise((resolve) => { entry.lift = resolve; });
  } else {
    entry.lift();
    await entry.page.unroute("**");
  }
}

async function obey(context, command) {
  const entry = pages.get(command.page);
  switch (command.do) {
    case "open": return open(context, command);
    case "run": return entry.page.evaluate(command.code);
    case "until":
      await entry.page.waitForFunction(command.code, null, { timeout: command.seconds * 1000 });
      return true;
    case "gate": return gate(entry, command.shut);
    case "noted": return entry.noted;
    case "streams": return Promise.all(entry.streams.map((request) => request.allHeaders()));
    case "shot": return entry.page.screenshot({ path: command.path, fullPage: true }).then(() => true);
    case "close":
      pages.delete(command.page);
      return entry.page.close();
    case "cookie": return context.addCookies([command.cookie]);
    default: throw new Error(`there is no command ${command.do}`);
  }
}

const context = await chromium.launchPersistentContext(process.argv[2], {
  executablePath: process.env.ES_CHROMIUM || "/usr/bin/chromium",
  headless: true,
  ignoreHTTPSErrors: true, /* the servers' certificate is its own CA */
  viewport: { width: 1280, height: 920 },
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { value: (await obey(context, JSON.parse(line))) ?? null };
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
await context.close();
