/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens the demo's dashboard in Chromium, waits until the page has been brought up to date from
 * outside, and prints what was seen as one JSON object. test_dashboard.py judges it.
 *
 *     node dashboard.mjs URL PROFILE_DIRECTORY SCREENSHOT
 *
 * playwright-core is found through NODE_PATH, the browser is ES_CHROMIUM. Each wait is for a
 * condition and ends after PATIENCE; the report then says in `waited_in_vain` which one it was.
 */
import { createRequire } from "node:module";

const { chromium } = createRequire(import.meta.url)("playwright-core");

const PATIENCE = 45_000;
const PUSHED_CHANGES = 3;
const POLLED_CHANGES = 2;
const CHART_POINTS = 5;

const [url, profile, screenshot] = process.argv.slice(2);

const report = { url, console: [], failed: [], requests: [], statuses: {}, waited_in_vain: null };

function watch(page) {
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) {
      report.console.push(`${message.type()}: ${message.text()}`);
    }
  });
  page.on("pageerror", (error) => report.console.push(`exception: ${error.message}`));
  page.on("request", (request) => report.requests.push(request.url()));
  page.on("requestfailed", (request) =>
    report.failed.push(`${request.url()}: ${request.failure().errorText}`));
  page.on("response", (response) => {
    report.statuses[response.url()] = response.status();
  });
}

/* In the page: records each text that the element with this id has had, without repetitions. */
function recordTexts(ids) {
  window.seen = {};
  for (const id of ids) {
    const note = () => {
      const element = document.getElementById(id);
      const text = element ? element.innerText.replace(/\s+/g, " ").trim() : "";
      const texts = window.seen[id];
      if (text && text !== texts[texts.length - 1]) {
        texts.push(text);
      }
    };
    window.seen[id] = [];
    new MutationObserver(note).observe(document.body, {
      childList: true, subtree: true, characterData: true,
    });
    note();
  }
}

/*
 * In the page: how many pixels the chart's line has, known by its blue from the grey of grid and
 * labels, and a fingerprint of where they are. Read from a copy: reading the page's canvas itself
 * makes the browser warn.
 */
function chartLine() {
  const canvas = document.querySelector("#chart canvas");
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const g = copy.getContext("2d", { willReadFrequently: true });
  g.drawImage(canvas, 0, 0);
  const data = g.getImageData(0, 0, copy.width, copy.height).data;
  let pixels = 0;
  let fingerprint = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 200 && data[i + 2] - data[i] > 60) {
      pixels += 1;
      fingerprint = (fingerprint * 31 + i) % 2147483647;
    }
  }
  return { pixels, fingerprint };
}

const chartPoints = (page) => page.locator("#chart").getAttribute("data-points").then(Number);

async function until(page, what, condition, argument) {
  try {
    await page.waitForFunction(condition, argument, { timeout: PATIENCE });
  } catch (error) {
    report.waited_in_vain = `${what}: ${error.message.split("\n")[0]}`;
    throw error;
  }
}

async function observe(page) {
  await page.goto(url, { waitUntil: "load", timeout: PATIENCE });
  report.landed = page.url();
  report.title = await page.title();
  await page.evaluate(recordTexts, ["pushed", "polled"]);
  report.points_before = await chartPoints(page);
  report.chart_before = await page.evaluate(chartLine);

  await until(page, "the live indicator says connected",
    () => document.getElementById("live").dataset.state === "connected");
  await until(page, "the pushed stat changes",
    (n) => window.seen.pushed.length > n, PUSHED_CHANGES);
  await until(page, "the chart gains points",
    (n) => Number(document.getElementById("chart").dataset.points) >= n,
    report.points_before + CHART_POINTS);
  await until(page, "the polled stat changes",
    (n) => window.seen.polled.length > n, POLLED_CHANGES);

  report.points_after = await chartPoints(page);
  report.chart_after = await page.evaluate(chartLine);
  report.seen = await page.evaluate(() => window.seen);
  report.live = await page.locator("#live").innerText();
  report.delivery = (await page.locator("#delivery").innerText()).replace(/\s+/g, " ");
  await page.screenshot({ path: screenshot, fullPage: true });
}

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.ES_CHROMIUM || "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1280, height: 920 },
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});
try {
  const page = context.pages()[0] ?? (await context.newPage());
  watch(page);
  await observe(page);
} catch (error) {
  report.error = error.message;
} finally {
  await context.close();
}
process.stdout.write(JSON.stringify(report) + "\n");
