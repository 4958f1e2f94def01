"use strict";
// Curves that can be read off, switched and zoomed. Without this script, and on paper, the page has them as drawn.

// The arms of a group, and which of them its charts show.
class Arms {
  constructor(arms) {
    this.all = arms;
    this.shown = arms.map(() => true);
    this.focus = null;
    this.many = arms.length > FEW;
    this.charts = [];
    this.switches = []; // [place, button]
  }
  show(which) {
    this.shown = this.all.map((arm, place) => which(arm, place));
    for (const [place, held] of this.switches) held.setAttribute("aria-pressed", this.shown[place]);
    for (const chart of this.charts) chart.showArms();
  }
  toggle(place) {
    this.show((_, at) => this.shown[at] !== (at === place));
  }
  only(place) {
    const alone = this.shown.every((shown, at) => shown === (at === place));
    this.show((_, at) => alone || at === place);
  }
  focusOn(place) {
    if (this.focus === place) return;
    this.focus = place;
    for (const [at, held] of this.switches) held.classList.toggle("near", at === place);
    for (const chart of this.charts) chart.redraw();
  }
  // A button that switches an arm; with Shift it leaves that arm alone.
  switch(place, ...inside) {
    const made = button("", "switch on or off; with Shift: only this one", (event) =>
      event.shiftKey ? this.only(place) : this.toggle(place),
    );
    made.append(...inside);
    made.setAttribute("aria-pressed", this.shown[place]);
    made.addEventListener("pointerenter", () => this.focusOn(place));
    made.addEventListener("pointerleave", () => this.focusOn(null));
    this.switches.push([place, made]);
    return made;
  }
  get count() {
    return this.shown.filter(Boolean).length;
  }
}

readTheme();
const held = JSON.parse(document.getElementById("curves").textContent);
const all = Object.fromEntries(Object.entries(held).map(([id, group]) => [id, new Arms(group.arms)]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readTheme();
  for (const arms of Object.values(all)) for (const chart of arms.charts) chart.redraw();
});
// Charts are made when one comes near them: the first paint has none to wait for.
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      const of = target.dataset.arms;
      new Chart(target, held[of].figures[target.id], all[of]);
    }
  },
  { rootMargin: "600px" },
);
for (const figure of document.querySelectorAll("figure[data-arms]")) near.observe(figure);
for (const row of document.querySelectorAll("tr[data-arm]")) {
  const [of, place] = row.dataset.arm.split(":");
  const square = row.querySelector(".swatch");
  if (!all[of] || !square) continue;
  const made = all[of].switch(Number(place), square.cloneNode(true));
  made.className = "switch";
  made.setAttribute("aria-label", `Show ${all[of].all[Number(place)].label} in the figures`);
  square.replaceWith(made);
}
