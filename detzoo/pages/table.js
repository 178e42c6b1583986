"use strict";
(() => {
  // ---- Tables that sort: numbers as numbers, blanks last in both directions.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells);
    const keyOf = (row, column) => row.cells[column].dataset.value;
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const isNumber = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        const descending = before ? before === "ascending" : isNumber && head.dataset.better === "more";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const rows = Array.from(body.rows);
        rows.sort((first, second) => {
          const a = keyOf(first, column), b = keyOf(second, column);
          if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
          const order = isNumber ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
          return descending ? -order : order;
        });
        body.append(...rows);
      });
    });
  }

  // ---- Fields that filter the rows of a table.
  for (const field of document.querySelectorAll("input[data-filters]")) {
    const body = document.getElementById(field.dataset.filters).tBodies[0];
    const count = field.closest(".controls").querySelector("[role=status]");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = words.length ? `${shown} of ${body.rows.length} ${field.dataset.noun}` : "";
    });
  }
})();
