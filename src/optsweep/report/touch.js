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
  // Other arms, or in another order: those that were switched off stay so.
  renew(arms) {
    const off = new Set(this.all.filter((_, place) => !this.shown[place]).map((arm) => arm.label));
    this.all = arms;
    this.shown = arms.map((arm) => !off.has(arm.label));
    this.many = arms.length > FEW;
    this.focus = null;
    this.charts = this.charts.filter((chart) => chart.figure.isConnected);
    this.switches = this.switches.filter(([place, held]) => held.isConnected && place < arms.length);
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
const touchable = (within) => {
  for (const figure of within.querySelectorAll("figure[data-arms]")) near.observe(figure);
  for (const row of within.querySelectorAll("tr[data-arm]")) {
    const [of, place] = row.dataset.arm.split(":");
    const square = row.querySelector(".swatch");
    if (!all[of] || !square) continue;
    const made = all[of].switch(Number(place), square.cloneNode(true));
    made.className = "switch";
    made.setAttribute("aria-label", `Show ${all[of].all[Number(place)].label} in the figures`);
    square.replaceWith(made);
  }
};
touchable(document);
