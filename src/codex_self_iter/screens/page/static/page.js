// The page without this file shows everything, too; with it the page goes on by itself.
"use strict";
(() => {
  const root = document.documentElement;
  const stream = root.dataset.stream;
  const output = document.getElementById("output");
  const newer = document.getElementById("newer");
  const link = document.getElementById("link");
  const MOST = 3000; // lines of output that a page keeps

  const atEnd = () => !output || output.scrollHeight - output.scrollTop - output.clientHeight < 40;
  const toEnd = () => { if (output) { output.scrollTop = output.scrollHeight; newer.hidden = true; } };

  const ago = (seconds) => {
    const whole = Math.max(0, Math.round(seconds));
    const two = (number) => String(number).padStart(2, "0");
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole % 3600 / 60))} m`;
    return `${Math.floor(whole / 86400)} d ${two(Math.floor(whole % 86400 / 3600))} h`;
  };
  let ahead = 0; // of this machine's clock, in seconds
  const ages = () => {
    if (document.hidden) return;
    const now = Date.now() / 1000 - ahead;
    for (const one of document.querySelectorAll("time[data-at]")) {
      const seconds = now - Number(one.dataset.at);
      const text = seconds < 0 ? `in ${ago(-seconds)}` : `${ago(seconds)} ago`;
      const shown = one.nextElementSibling;
      if (shown && shown.className === "age") shown.textContent = ` (${text})`;
    }
  };

  const told = (text, state) => {
    if (!link || link.dataset.state === state) return;
    link.textContent = text;
    link.dataset.state = state;
  };

  const region = (data) => {
    const place = document.getElementById(data.id);
    if (!place) return;
    const held = place.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...place.querySelectorAll("details[id][open]")].map((one) => one.id);
    if (data.title) document.title = `${data.title} · codex-self-iter`;
    place.innerHTML = data.html; // made by the same templates as the page, every text in it escaped
    for (const id of open) { const one = document.getElementById(id); if (one) one.open = true; }
    if (held) { const one = document.getElementById(held); if (one) one.focus(); }
    ages();
  };

  const lines = (items) => {
    if (!output) return;
    const follow = atEnd();
    for (const item of items) {
      const line = document.createElement("div");
      line.className = item.kind;
      line.textContent = item.text;
      output.append(line);
    }
    while (output.childElementCount > MOST) output.firstElementChild.remove();
    if (follow) toEnd(); else newer.hidden = false;
  };

  let source = null, patience = 1000, timer = 0, last = root.dataset.since || "";
  const listen = () => {
    clearTimeout(timer);
    if (source) source.close(); // one at a time: two would show every line twice
    // not the browser's own repetition: that gives up at an error page, such as a restart shows
    const from = last ? `?since=${encodeURIComponent(last)}` : "";
    source = new EventSource(stream + from);
    const keep = (event) => { if (event.lastEventId) last = event.lastEventId; };
    source.addEventListener("open", () => { patience = 1000; told("live", "live"); });
    source.addEventListener("region", (event) => { keep(event); region(JSON.parse(event.data)); });
    source.addEventListener("output", (event) => { keep(event); lines(JSON.parse(event.data)); });
    source.addEventListener("position", keep);
    source.addEventListener("clock", (event) => { ahead = Date.now() / 1000 - Number(event.data); ages(); });
    source.addEventListener("reload", () => { source.close(); location.reload(); });
    source.addEventListener("error", () => {
      source.close();
      told("not connected; it tries again", "lost");
      clearTimeout(timer);
      timer = setTimeout(listen, patience);
      patience = Math.min(patience * 2, 15000);
    });
  };
  if (stream) {
    listen();
    addEventListener("pagehide", () => source.close());
    addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
    addEventListener("online", () => { if (source.readyState === 2) { clearTimeout(timer); listen(); } });
  }
  if (newer) newer.addEventListener("click", () => { toEnd(); output.focus(); });
  if (output) output.addEventListener("scroll", () => { if (atEnd()) newer.hidden = true; });
  for (const form of document.querySelectorAll("form[data-ask]")) {
    form.addEventListener("submit", (event) => { if (!confirm(form.dataset.ask)) event.preventDefault(); });
  }
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const cards = [...document.querySelectorAll(".card h3 a")];
    const at = cards.indexOf(document.activeElement);
    if (event.key === "j" && cards.length) cards[Math.min(at + 1, cards.length - 1)].focus();
    else if (event.key === "k" && cards.length) cards[Math.max(at - 1, 0)].focus();
    else if (event.key === "G") toEnd();
    else if (event.key === "u") location.assign("/");
  });
  setInterval(ages, 1000);
  ages();
  toEnd();
})();
