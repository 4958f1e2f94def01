"use strict";
// The page while its sweep goes on. What the server says is put in place part by part: what one has opened, sorted,
// switched off or zoomed into stays, and what one is reading isn't taken away. At the end the final report replaces it.
const now = document.getElementById("now");
const away = now.querySelector(".away");
const shown = new Map(); // what stands where, as it was sent
const waiting = new Map(); // sections that somebody is in
let version = now.dataset.version;
let source = null;

const inUse = (part) => {
  const selection = getSelection();
  return part.contains(document.activeElement) || (!selection.isCollapsed && part.contains(selection.anchorNode));
};

const showNow = ({ parts, curves }) => {
  for (const [name, content] of Object.entries(parts)) {
    const part = now.querySelector(`[data-part="${name}"]`);
    if (shown.get(name) === content || [...part.children].some(inUse)) continue;
    shown.set(name, content);
    part.innerHTML = content;
  }
  showTraining(curves);
  const fresh = [...now.querySelectorAll(".incidents li")].map((line) => line.textContent);
  const unsaid = fresh.find((line) => heard !== null && !heard.has(line));
  if (unsaid) said.textContent = unsaid;
  heard = new Set(fresh);
};
let heard = null; // incidents; null: those of before aren't announced

// Trials in training. Their charts stay when there are none for a while, faint: nothing below moves.
const showTraining = ({ arms, figures }) => {
  held.now = { arms, figures };
  (all.now ??= new Arms([])).renew(arms);
  for (const figure of now.querySelectorAll("figure")) {
    const curves = figures[figure.id];
    figure.hidden &&= !curves;
    figure.classList.toggle("past", !curves);
    const chart = all.now.charts.find((one) => one.figure === figure);
    if (curves && chart) chart.renew(curves);
    else if (curves) new Chart(figure, curves, all.now);
  }
};

// The report below, as it is by now.
const showReport = async (fresh) => {
  if (fresh === version) return;
  const answer = await fetch("/");
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const found = page.getElementById("now");
  if (!found) return location.reload(); // it is the final one
  version = found.dataset.version;
  const curves = JSON.parse(page.getElementById("curves").textContent);
  for (const [id, group] of Object.entries(curves)) {
    held[id] = group;
    (all[id] ??= new Arms([])).renew(group.arms);
  }
  for (const facts of [".facts", ".notice[role=status]"]) {
    const [mine, its] = [document.querySelector(`header ${facts}`), page.querySelector(`header ${facts}`)];
    if (mine && its) mine.replaceWith(its);
    else if (its) document.querySelector("header nav").before(its);
    else mine?.remove();
  }
  for (const section of page.querySelectorAll("main > section:not(#now)")) waiting.set(section.id, section);
  place();
};

const place = () => {
  for (const [id, fresh] of waiting) {
    const old = document.getElementById(id);
    const text = fresh.outerHTML;
    if (!old) {
      document.querySelector("main").append(fresh);
      alive(fresh);
    } else if (!(id === "figures" && renewed(old, fresh)) && shown.get(id) !== text) {
      if (inUse(old)) continue;
      replace(old, fresh);
    }
    shown.set(id, text);
    waiting.delete(id);
  }
};

const ids = (section) => [...section.querySelectorAll("figure")].map((figure) => figure.id).join();

// The same figures with other curves; false where there are others.
const renewed = (old, fresh) => {
  if (ids(old) !== ids(fresh) || !ids(old)) return false;
  for (const figure of old.querySelectorAll("figure")) {
    const its = fresh.querySelector(`figure[id="${figure.id}"]`);
    figure.querySelector("figcaption").replaceWith(its.querySelector("figcaption"));
    const of = figure.dataset.arms;
    all[of]?.charts.find((chart) => chart.figure === figure)?.renew(held[of].figures[figure.id]);
  }
  return true;
};

const alive = (section) => {
  sortable(section);
  copied(section);
  touchable(section);
};

// Another content of a section, opened, sorted and scrolled as it was.
const replace = (old, fresh) => {
  const opened = [...old.querySelectorAll("details")].map((part) => part.open);
  const scrolled = [...old.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
  const sorted = [...old.querySelectorAll("table")].map((table) => {
    const header = table.querySelector("thead [aria-sort]");
    return header && { column: header.cellIndex, down: header.getAttribute("aria-sort") === "descending" };
  });
  old.replaceWith(fresh);
  alive(fresh);
  const details = [...fresh.querySelectorAll("details")];
  if (details.length === opened.length) details.forEach((part, at) => (part.open = opened[at]));
  [...fresh.querySelectorAll(".scroll")].forEach((part, at) => (part.scrollLeft = scrolled[at] ?? 0));
  [...fresh.querySelectorAll("table")].forEach((table, at) => {
    const by = sorted[at];
    const header = by && table.tHead.rows[0].cells[by.column]?.querySelector("button");
    if (!header) return;
    sortBy(header);
    if (by.down) sortBy(header);
  });
};

const listen = () => {
  source = new EventSource("/events");
  source.onopen = () => (away.hidden = true);
  source.onerror = () => {
    away.hidden = false;
    if (source.readyState !== EventSource.CLOSED) return;
    source = null; // a browser gives up where something else answers
    setTimeout(() => { if (!source && !document.hidden) listen(); }, 2000);
  };
  source.addEventListener("now", (event) => {
    showNow(JSON.parse(event.data));
    place();
  });
  source.addEventListener("report", (event) => showReport(event.data).catch(() => {}));
  source.addEventListener("ended", () => location.reload());
};
// Who isn't looked at doesn't listen: a browser has six connections to a server, for all its pages.
document.addEventListener("visibilitychange", () => {
  source?.close();
  source = null;
  if (!document.hidden) listen();
});
if (!document.hidden) listen();
