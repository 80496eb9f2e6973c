/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records what a page's EventSource, of whatever make, hands to the page: `seen` has the events,
 * `states` what became of the connection. The list on the page shows the same.
 */
const seen = [];
const states = [];

function show(text) {
  const item = document.createElement("li");
  item.textContent = text;
  document.getElementById("list").append(item);
}

function listen(source) {
  const kinds = ["message", "named", "stream-open", "stream-reset", "stream-error", "keep-alive"];
  for (const kind of kinds) {
    source.addEventListener(kind, (event) => {
      seen.push({ kind, data: event.data, id: event.lastEventId });
      show(`${kind} ${event.data} (${event.lastEventId})`);
    });
  }
  source.onopen = () => {
    states.push("open");
    show("open");
  };
  source.onerror = () => {
    states.push(source.readyState === 2 ? "stopped" : "broken");
    show(states.at(-1));
  };
  window.source = source;
  return true;
}

/* The data of the events of that kind. */
const data = (kind) => seen.filter((event) => event.kind === kind).map((event) => event.data);
