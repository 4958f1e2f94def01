"use strict";
// Tables sort by the column whose header button is pressed; without a number a cell sorts last.
const sortable = (within) => {
  for (const button of within.querySelectorAll("table.sortable thead button"))
    button.addEventListener("click", () => sortBy(button));
};
const sortBy = (button) => {
  const header = button.closest("th");
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  const body = header.closest("table").tBodies[0];
  const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const absent = (text) => text === "" || text === "None" || text === "–";
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (absent(x) || absent(y)) return absent(x) - absent(y);
    const [p, q] = [Number(x), Number(y)];
    const by = Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q;
    return down ? -by : by;
  };
  body.append(...[...body.rows].sort(order));
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
};
sortable(document);
// What is folded in the verdict belongs on paper; the long lists don't.
const folded = () => document.querySelectorAll("#verdict details:not([open])");
addEventListener("beforeprint", () => { for (const part of folded()) { part.open = true; part.dataset.folded = ""; } });
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("[data-folded]")) { part.open = false; delete part.dataset.folded; }
});
const copied = (within) => {
  for (const button of within.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentNode.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
        document.querySelector(".said").textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      } catch {
        getSelection().selectAllChildren(code);
      }
    });
  }
};
copied(document);
