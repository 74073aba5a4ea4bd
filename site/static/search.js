// Long tables can be searched: a row stays if it holds every word.

function makeSearchable(table) {
  const rows = [...table.tBodies[0].rows].map((row) => [row.textContent.toLowerCase(), row]);
  const field = document.createElement("input");
  field.type = "search";
  field.className = "table-search";
  field.placeholder = "Search in the table";
  field.setAttribute("aria-label", "Search in the table");
  const count = document.createElement("span");
  count.className = "table-count";
  count.setAttribute("aria-live", "polite");
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [text, row] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = ` ${shown} of ${rows.length} rows`;
  };
  field.addEventListener("input", show);
  const wrapper = table.closest(".table-wrapper") ?? table;
  wrapper.before(field, count);
  show();
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.searchable")) makeSearchable(table);
});
