"use strict";
const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Storage may be refused to a local page; everything then lives until the page is closed.
const store = {
  read(key) { try { return localStorage.getItem(key); } catch { return null; } },
  write(key, value) { try { localStorage.setItem(key, value); return true; } catch { return false; } },
};

// Light or dark: as the system says until the reader chooses.
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
if (["light", "dark"].includes(store.read("clinalign:theme"))) root.dataset.theme = store.read("clinalign:theme");
$("#theme").addEventListener("click", () => {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  root.dataset.theme = isDark ? "light" : "dark";
  store.write("clinalign:theme", root.dataset.theme);
});

const help = $("#keys");
$("#help").addEventListener("click", () => help.showModal());

// An attention map lies over a copy of its card's image.
for (const copy of all("img[data-copy]")) copy.src = $(".main img", copy.closest(".card")).src;

// A picture larger, with what lies over it.
const zoom = $("#zoom");
function enlarge(frame) {
  const copy = frame.cloneNode(true);
  copy.removeAttribute("tabindex");
  $(".stage", zoom).replaceChildren(copy);
  $(".caption", zoom).textContent = $("figcaption", frame.closest("figure")).textContent;
  zoom.showModal();
}
for (const frame of all(".frame")) frame.addEventListener("click", () => enlarge(frame));
zoom.addEventListener("click", () => zoom.close());

// Switches: what is shown on all cards.
for (const box of all("[data-shows]")) {
  const show = () => document.body.classList.toggle(box.dataset.shows, box.checked);
  box.addEventListener("change", show);
  show();
}
const flick = (name) => { const box = $(`[data-shows="${name}"]`); if (box) box.click(); };

// Galleries: search, filters, count.
const galleries = all(".gallery").map((element) => {
  const cards = all(".card", element);
  const search = $("input[type=search]", element);
  const texts = cards.map((card) => $(".text", card).textContent.toLowerCase().replace(/\s+/g, " "));
  const wanted = {};
  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    cards.forEach((card, n) => {
      const fits = Object.entries(wanted).every(([field, value]) => !value || (card.dataset[field] || "").split("\n").includes(value));
      card.hidden = !(fits && words.every((word) => texts[n].includes(word)));
    });
    const shown = cards.filter((card) => !card.hidden).length;
    $(".count", element).textContent = `${shown} of ${cards.length} shown here`;
    $(".empty", element).hidden = shown > 0;
  }
  search.addEventListener("input", apply);
  for (const button of all("button[data-field]", element)) {
    button.addEventListener("click", () => {
      for (const other of all(`button[data-field="${button.dataset.field}"]`, element)) other.setAttribute("aria-pressed", String(other === button));
      wanted[button.dataset.field] = button.dataset.value;
      apply();
    });
  }
  for (const select of all("select[data-field]", element)) {
    select.addEventListener("change", () => { wanted[select.dataset.field] = select.value; apply(); });
  }
  apply();
  return { element, search, apply };
});

// Decisions on edits: kept by run, downloaded as one JSON object a line.
const KEY = `clinalign:decisions:${document.body.dataset.run}`;
const edits = all(".card.edit");
let decisions = {};
try { decisions = Object.assign({}, JSON.parse(store.read(KEY) || "{}")); } catch { decisions = {}; }

function complete(row) { return row && (row.decision !== "correct" || row.text); }

function paint(card) {
  const pair = JSON.parse(card.dataset.pair);
  const row = decisions[pair.pair];
  card.dataset.decision = complete(row) ? row.decision : "none";
  for (const button of all("[data-decide]", card)) button.setAttribute("aria-pressed", String(!!row && row.decision === button.dataset.decide));
  $(".reason", card).hidden = !row || row.decision !== "reject";
  $(".words", card).hidden = !row || row.decision !== "correct";
  $(".words .note", card).hidden = complete(row);
}

function tally() {
  const rows = Object.values(decisions).filter(complete);
  for (const place of all("[data-counts]")) {
    const kind = place.dataset.counts;
    place.textContent = kind === "none" ? edits.filter((card) => card.dataset.decision === "none").length : rows.filter((row) => row.decision === kind).length;
  }
  $("#download").disabled = rows.length === 0;
  $("#forget").disabled = Object.keys(decisions).length === 0;
}

function record(card, row) {
  const pair = JSON.parse(card.dataset.pair);
  if (row) decisions[pair.pair] = { pair: pair.pair, round: pair.round, decision: row.decision, chosen: pair.chosen, rejected: pair.rejected, reason: row.reason || "", text: row.text || "", time: new Date().toISOString() };
  else delete decisions[pair.pair];
  $("#kept").hidden = store.write(KEY, JSON.stringify(decisions));
  paint(card);
  tally();
}

function edited(pair) { return pair.own === "chosen" ? pair.rejected : pair.chosen; }

function decide(card, decision) {
  const pair = JSON.parse(card.dataset.pair);
  const now = decisions[pair.pair];
  record(card, now && now.decision === decision ? null : { decision });
  if (decisions[pair.pair] && decision === "correct") {
    const words = $("textarea", card);
    words.value = edited(pair);
    words.focus();
  }
}

for (const card of edits) {
  const pair = JSON.parse(card.dataset.pair);
  const row = decisions[pair.pair];
  $("textarea", card).value = (row && row.text) || edited(pair);
  $("input[type=text]", card).value = (row && row.reason) || "";
  for (const button of all("[data-decide]", card)) button.addEventListener("click", () => decide(card, button.dataset.decide));
  $("input[type=text]", card).addEventListener("input", (event) => record(card, { decision: "reject", reason: event.target.value }));
  $("textarea", card).addEventListener("input", (event) => {
    const text = event.target.value.trim();
    record(card, { decision: "correct", text: text && text !== edited(pair) ? text : "" });
  });
  paint(card);
}

function save(name, kind, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

$("#save").addEventListener("click", () => save("recipe.yaml", "application/yaml", $("#recipe").textContent));
if (edits.length) {
  tally();
  $("#download").addEventListener("click", () => {
    save("decisions.jsonl", "application/x-ndjson", Object.values(decisions).filter(complete).map((row) => JSON.stringify(row) + "\n").join(""));
  });
  $("#forget").addEventListener("click", () => {
    if (!confirm("Forget all decisions made on this page?")) return;
    decisions = {};
    $("#kept").hidden = store.write(KEY, "{}");
    edits.forEach(paint);
    tally();
  });
}

// Keyboard.
const current = () => document.activeElement && document.activeElement.closest(".card");
function step(by) {
  const cards = all(".card").filter((card) => !card.hidden);
  const at = cards.indexOf(current());
  const start = at >= 0 ? at + by : cards.findIndex((card) => card.getBoundingClientRect().top > 0);
  const next = cards[Math.max(0, Math.min(cards.length - 1, start))];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "center" });
}
const keys = {
  j: () => step(1), k: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
  t: () => flick("corrupted-images"), o: () => flick("outlines"), m: () => flick("heats"), w: () => flick("rewards"),
  "/": () => {
    const near = galleries.find((g) => g.element.contains(current())) || galleries.find((g) => g.element.getBoundingClientRect().bottom > 0) || galleries[0];
    if (near) { near.search.focus(); near.search.select(); }
  },
  z: () => { const frame = current() && $(".frame", current()); if (frame) enlarge(frame); },
  "?": () => help.showModal(),
};
const verdicts = { a: "accept", x: "reject", c: "correct" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || zoom.open) return;
  if (event.target.matches("textarea, select, input:not([type=checkbox])")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const card = current();
  if (event.key.startsWith("Arrow") && !card) return;
  if (verdicts[event.key] && card && card.classList.contains("edit")) decide(card, verdicts[event.key]);
  else if (Object.hasOwn(keys, event.key)) keys[event.key]();
  else return;
  event.preventDefault();
});
