"use strict";
const cards = [...document.querySelectorAll("#examples .card")];
const buttons = [...document.querySelectorAll("[data-filter]")];
for (const button of buttons) {
  button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    const kind = button.dataset.filter;
    for (const card of cards) card.hidden = kind !== "all" && card.dataset.kind !== kind;
  });
}
const outlines = document.getElementById("outlines");
if (outlines) outlines.addEventListener("change", () => document.body.classList.toggle("no-outlines", !outlines.checked));
