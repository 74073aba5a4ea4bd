// Tables sort by a click, or by Enter or space, on a column's head; a second one turns the order round.

const SENTENCE = 40; // characters from which a cell is prose, and its column wraps

// A number may have its spread, interval or verdict behind it; a word that starts with a digit is a word.
const NUMBER = /^[+-]?(\d[\d,]*)?\.?\d+(e[+-]?\d+)?(?![\w.-])/i;

function key(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = text.replace("−", "-").match(NUMBER);
  return number ? Number(number[0].replace(/,/g, "")) : text;
}

// Numbers before words; cells that say that there is no value come last in both orders.
function compare(a, b, direction) {
  const empty = (value) => value === "" || value === "–" || value === "nan";
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return direction * (typeof a === "number" ? a - b : a.localeCompare(b));
}

function sort(head, column) {
  const body = head.closest("table").tBodies[0];
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const rows = [...body.rows].map((row) => [key(row, column), row]);
  rows.sort(([a], [b]) => compare(a, b, direction));
  body.append(...rows.map(([, row]) => row));
}

// pandas writes the name of the index into a second row of heads, which is otherwise empty.
function mergeHeads(table) {
  const [first, second] = table.tHead?.rows ?? [];
  if (!second || table.tHead.rows.length !== 2 || first.cells.length !== second.cells.length) return;
  const pairs = [...first.cells].map((cell, column) => [cell, second.cells[column]]);
  if (pairs.some(([above, below]) => above.textContent.trim() && below.textContent.trim())) return;
  for (const [above, below] of pairs) above.textContent ||= below.textContent;
  second.remove();
}

function makeSortable(table) {
  mergeHeads(table);
  const heads = table.tHead?.rows;
  const body = table.tBodies[0];
  if (heads?.length !== 1 || !body || body.rows.length < 2) return;
  if (table.querySelector("[rowspan]:not([rowspan='1']), [colspan]:not([colspan='1'])")) return;
  const width = heads[0].cells.length;
  if ([...body.rows].some((row) => row.cells.length !== width)) return;
  [...heads[0].cells].forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head, column));
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(head, column);
    });
  });
}

function wrapSentences(table) {
  const cells = [...table.querySelectorAll("td")];
  const long = cells.filter((cell) => cell.textContent.length > SENTENCE);
  const columns = new Set(long.map((cell) => cell.cellIndex));
  for (const cell of cells) cell.classList.toggle("sentence", columns.has(cell.cellIndex));
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table")) {
    makeSortable(table);
    wrapSentences(table);
  }
});
