// A column's title sorts its table's rows: the best first, again the other way; what is missing last.
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...[...table.tHead.rows].at(-1).cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.order;
      body.append(...[...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return turn * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
      }));
    });
  });
}
// Columns of one group go and come together.
for (const table of document.querySelectorAll("table.grouped")) {
  const [groups, titles] = table.tHead.rows, buttons = document.createElement("div");
  let first = 0;
  buttons.className = "buttons";
  buttons.append("Columns:");
  for (const group of groups.cells) {
    const from = first, until = (first += group.colSpan);
    if (!group.textContent) continue;
    const button = document.createElement("button");
    button.textContent = group.textContent;
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      group.hidden = !shown;
      for (const row of [titles, ...table.tBodies[0].rows]) {
        for (let k = from; k < until; k++) row.cells[k].hidden = !shown;
      }
    });
    buttons.append(button);
  }
  if (buttons.childElementCount > 1) table.closest(".scroll").before(buttons);
}
// Settings: those in which students differ, or all; and of these the ones that hold every word.
for (const table of document.querySelectorAll("table.searched")) {
  const bar = document.createElement("div"), rows = [...table.tBodies[0].rows];
  const search = Object.assign(document.createElement("input"), { type: "search", autocomplete: "off" });
  const all = Object.assign(document.createElement("input"), { type: "checkbox" });
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  const labelled = (text, input) => {
    const label = document.createElement("label");
    label.append(`${text} `, input);
    return label;
  };
  const choose = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !((all.checked || "differs" in row.dataset) && words.every((word) => text.includes(word)));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} settings`;
  };
  search.addEventListener("input", choose);
  all.addEventListener("change", choose);
  bar.className = "buttons";
  bar.append(labelled("Search", search), labelled("also those in which no student differs", all), count);
  table.closest(".scroll").before(bar);
  choose();
}
