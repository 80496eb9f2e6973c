/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ties the page to its event stream.
 *
 * htmx's sse extension owns the EventSource and swaps html by event name. This file watches that
 * EventSource for the live indicator, feeds the chart, and measures the delivery time.
 */
"use strict";

(() => {
  const live = document.getElementById("live");
  const QUIET_AFTER = 5000;
  let quiet = 0;

  function setState(state, text) {
    live.dataset.state = state;
    live.querySelector(".live__text").textContent = text;
  }

  /* "connected" is said when the stream is open, "waiting" when it has been silent for a while */
  function connected() {
    clearTimeout(quiet);
    quiet = setTimeout(() => setState("connected", "Connected, no events"), QUIET_AFTER);
    if (live.dataset.state !== "connected" || live.textContent.includes("no events")) {
      setState("connected", "Connected");
    }
  }

  /* the extension calls this for its one EventSource, and again when it has to open a new one */
  htmx.createEventSource = (url) => {
    const source = new EventSource(url);
    source.addEventListener("open", connected);
    source.addEventListener("error", () => {
      clearTimeout(quiet);
      setState("reconnecting", "Reconnecting…");
    });
    return source;
  };

  /* chart */

  const root = document.getElementById("chart");
  const start = JSON.parse(document.getElementById("chart-start").textContent);
  const chart = new LineChart(root, start);
  root.addEventListener("sse:sse_chart", (event) => {
    const value = Number(event.detail.data);
    if (Number.isFinite(value)) {
      chart.add(value);
      count();
    }
  });

  /* delivery: send_sse writes its clock into the fragment, the page compares it with its own */

  const MEDIAN_OF = 20;
  const times = [];
  const delivery = {
    ms: document.querySelector('[data-delivery="ms"]'),
    events: document.querySelector('[data-delivery="events"]'),
  };
  let events = 0;

  function count() {
    events += 1;
    delivery.events.textContent = `${events} events on one connection`;
  }

  function measure() {
    const fragment = document.querySelector("#pushed [data-sent]");
    const took = performance.timeOrigin + performance.now() - Number(fragment.dataset.sent);
    /* two machines, two clocks: such a difference says nothing */
    if (took < 0 || took > 10000) {
      delivery.ms.textContent = "–";
      return;
    }
    times.push(took);
    times.splice(0, times.length - MEDIAN_OF);
    const sorted = [...times].sort((a, b) => a - b);
    delivery.ms.textContent = sorted[sorted.length >> 1].toFixed(1);
  }

  /* an event travels along the lane at the foot of the page */

  const hops = [...document.querySelectorAll(".lane--publish .hop")];

  function travel() {
    hops.forEach((hop, i) => {
      if (hop.querySelector("i")) {
        return;
      }
      const spark = document.createElement("i");
      spark.style.animationDelay = `${i * 0.3}s`;
      spark.addEventListener("animationend", () => spark.remove());
      hop.append(spark);
    });
  }

  document.body.addEventListener("htmx:sseMessage", (event) => {
    connected();
    if (event.detail.type === "sse_stat") {
      count();
      measure();
      if (!document.hidden) {
        travel();
      }
    }
  });
})();
