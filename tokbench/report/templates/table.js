  // The tables: filters, columns, order, ranks, and the settings and provenance of every value.

  function drawControls() {
    for (const key of filters) options(at(key), ["", ...sorted(data.tables.map((one) => one[key]))], state[key] || "", ["all", ...sorted(data.tables.map((one) => one[key]))]);
    const kinds = sorted([...data.tables.flatMap((one) => one.rows).flatMap((row) => row.kinds), ...(state.kind ? [state.kind] : [])]);
    options(at("kind"), ["", ...kinds], state.kind || "", ["all", ...kinds]);
    if (document.activeElement !== at("family")) at("family").value = state.family || "";
    at("published").checked = Boolean(state.published);
    options(at("table"), state.fits.map((one) => one.name), state.shown?.name);
  }

  function drawColumns(table) {
    const key = JSON.stringify([table.name, state.names]);
    if (at("columns").dataset.table !== key) { // rebuilt only for other columns, so that a checkbox keeps the focus
      at("columns").dataset.table = key;
      at("columns").replaceChildren(...table.columns.map((column, i) => {
        const label = make("label", " " + column.title);
        const box = make("input", undefined, { type: "checkbox" });
        box.addEventListener("change", () => {
          const kept = state.names.filter((name) => (name === state.names[i] ? box.checked : state.columns.includes(name)));
          write({ cols: kept.join(",") || state.names[0] });
        });
        label.prepend(box);
        return label;
      }));
    }
    at("columns").querySelectorAll("input").forEach((box, i) => { box.checked = state.columns.includes(state.names[i]); });
  }

  // The rank of each row by its mean rank over the columns that all rows have; equal ranks share a place.
  const measured = (row, i) => Boolean(row.values[i]) && (row.values[i][0] !== null || row.values[i][5] === "exact");
  const places = (values) => { // 1 is the smallest; equal values have the mean of their places
    const ordered = [...values].sort((a, b) => a - b);
    return values.map((value) => (ordered.indexOf(value) + ordered.lastIndexOf(value)) / 2 + 1);
  };
  function proportional(rows, i, other) {
    const pairs = rows.map((row) => [row.values[i][0], row.values[other][0]]), alike = (values) => values.every((value) => Math.abs(value / values[0] - 1) < 1e-6);
    return alike(pairs.map(([a, b]) => a / b)) || alike(pairs.map(([a, b]) => a * b));
  }
  function ranking(table, rows, columns) {
    const directed = columns.filter((i) => table.columns[i].more !== null), ranked = rows.filter((row) => row.adapter !== "identity"); // which returns the images themselves
    const coverage = new Map(rows.map((row) => [row, directed.filter((i) => measured(row, i)).length])), ranks = new Map(), used = [];
    for (const i of ranked.length > 1 ? directed.filter((one) => ranked.every((row) => measured(row, one))) : []) {
      const { more } = table.columns[i];
      const own = places(ranked.map((row) => (row.values[i][0] === null ? -Infinity : more ? -row.values[i][0] : row.values[i][0])));
      if (used.some(([other]) => proportional(ranked, i, other))) continue; // such as bits per image and bits per pixel, which would count twice
      used.push([i, own]);
    }
    const means = ranked.map((_, at) => used.reduce((total, [, own]) => total + own[at], 0) / used.length);
    if (used.length) ranked.forEach((row, at) => ranks.set(row, { place: 1 + means.filter((mean) => mean < means[at] - 1e-9).length, mean: means[at] }));
    return { ranks, coverage, of: directed.length, over: used.map(([i]) => table.columns[i].title), count: ranked.length };
  }

  const OWN_ORDER = { adapter: "adapter", rank: "rank", coverage: "coverage" };
  const inWords = (table, i) => i >= 0 && table.rows.every((row) => !row.values[i] || row.values[i][0] === null); // such as names of floors
  function inOrder(table, rows, by, way, { ranks, coverage }) {
    const column = state.names.indexOf(by), entry = inWords(table, column) ? 5 : 0;
    if (!Object.hasOwn(OWN_ORDER, by) && column < 0) return rows;
    const key = (row) => (by === "adapter" ? row.adapter : by === "rank" ? ranks.get(row)?.mean : by === "coverage" ? coverage.get(row) : row.values[column]?.[entry]);
    const empty = (value) => value === null || value === undefined;
    return [...rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y); // rows without a value come last in both directions
      const order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return way === "down" ? -order : order;
    });
  }
  function orderText(table, by, way) {
    const column = table.columns[state.names.indexOf(by)];
    if (by === "adapter" || (column && inWords(table, table.columns.indexOf(column)))) return `Sorted by ${column ? column.title : by}, ${way === "down" ? "Z to A" : "A to Z"}.`;
    if (column || Object.hasOwn(OWN_ORDER, by)) return `Sorted by ${column ? column.title : by}, ${way === "down" ? "highest" : "lowest"} first.`;
    if (table.task === "prune") return "Sorted by method and keep ratio.";
    return table.columns.some((one) => one.field === "bpp") ? "Sorted by bits per pixel, lowest first." : "Sorted by adapter, A to Z.";
  }
  function rankText({ over, of, count }) {
    const which = over.length ? `Rank: by the mean rank over the shown columns that all ${count} shown rows have, which are ${over.join(", ")} (multiples, such as bits per image and per pixel, count once).` : count > 1 ? "There is no rank: no shown column with a direction has a value in all shown rows." : "There is no rank of a single row.";
    return `${which} Coverage: in how many of the ${of} shown columns with a direction a row has a value.`;
  }

  function drawTable() {
    const table = state.shown;
    if (!table) {
      at("legend").textContent = "No table matches these filters.";
      for (const id of ["count", "order", "ranking"]) at(id).textContent = "";
      at("columns").replaceChildren();
      delete at("columns").dataset.table;
      at("rows").tHead.replaceChildren();
      at("rows").tBodies[0].replaceChildren();
      return;
    }
    at("legend").textContent = table.legend;
    drawColumns(table);
    const columns = state.columns.map((name) => state.names.indexOf(name));
    const [by, way] = (state.sort || "").split(":");
    const family = (state.family || "").toLowerCase();
    const kept = table.rows.filter((row) => row.family.toLowerCase().includes(family) && (!state.kind || row.kinds.includes(state.kind)));
    const ranked = ranking(table, kept, columns), rows = inOrder(table, kept, by, way, ranked);
    at("order").textContent = orderText(table, by, way);
    at("ranking").textContent = rankText(ranked);
    const head = (title, name, more, first) => { // first: the order of the first click
      const cell = make("th", undefined, { scope: "col" }), button = make("button", title);
      if (more !== null) button.append(make("span", more ? " ↑" : " ↓", { className: "better", title: more ? "higher is better" : "lower is better" }));
      if (by === name) {
        const [small, large] = name === "adapter" || inWords(table, state.names.indexOf(name)) ? ["A", "Z"] : ["1", "9"];
        button.append(make("span", way === "down" ? `${large}→${small}` : `${small}→${large}`, { className: "sorted", title: "the order of the rows" }));
        cell.setAttribute("aria-sort", way === "down" ? "descending" : "ascending");
      }
      cell.addEventListener("click", () => { // of the whole cell, and of its button with a key
        write({ sort: name + ":" + (by !== name ? first : way === "down" ? "up" : "down") });
        at("rows").querySelector(`thead th[data-name="${CSS.escape(name)}"] button`)?.focus();
      });
      cell.dataset.name = name;
      cell.append(button);
      return cell;
    };
    const line = make("tr");
    line.append(head("adapter", "adapter", null, "up"), head("rank", "rank", null, "up"), head("coverage", "coverage", null, "down"));
    line.append(...columns.map((i) => head(table.columns[i].title, state.names[i], table.columns[i].more, table.columns[i].more ? "down" : "up")));
    if (state.published) line.append(make("th", "published elsewhere", { scope: "col", className: "other" }));
    at("rows").tHead.replaceChildren(line);
    at("rows").tBodies[0].replaceChildren(...rows.map((row) => {
      const tr = make("tr", undefined, { className: (row.adapter === state.row ? "marked " : "") + (row.result ? "dropped" : "") });
      tr.dataset.adapter = row.adapter;
      const name = make("th", undefined, { scope: "row" });
      const page = Object.hasOwn(data.pages, row.family) ? data.pages[row.family] : undefined;
      name.append(page ? make("a", row.adapter, { href: page }) : row.adapter);
      const rank = ranked.ranks.get(row), covered = `${ranked.coverage.get(row)}/${ranked.of}`;
      tr.append(name, make("td", rank ? String(rank.place) : "–", { title: rank ? `mean rank ${rank.mean.toFixed(2)}` : "" }), make("td", covered, { className: ranked.coverage.get(row) < ranked.of ? "partial" : "" }));
      tr.append(...columns.map((i) => drawCell(table, row, i)));
      if (state.published) tr.append(drawPublished(row));
      return tr;
    }));
    at("count").textContent = `${rows.length} of ${table.rows.length} ${table.rows.length === 1 ? "row" : "rows"}`;
  }

  function drawCell(table, row, i) {
    const cell = row.values[i], td = make("td");
    if (!cell) { td.textContent = "–"; return td; }
    if (cell[3] === 1) td.className = "tied";
    const button = make("button", (cell[3] === 1 ? "≈ " : "") + shown(cell, table.columns[i].digits), { title: "Show settings and provenance" });
    button.addEventListener("click", () => explain(row, table, i));
    td.append(button);
    return td;
  }

  function drawPublished(row) { // values of this configuration, or of its family if it has none
    const all = (Object.hasOwn(data.published, row.family) && data.published[row.family]) || [], own = all.filter((one) => one.adapter === row.adapter);
    const td = make("td", undefined, { className: "other" });
    td.append(...(own.length ? own : all).map((one) => {
      const entry = make("div", `${one.number} ${one.value}, ${one.of} `);
      entry.append(make("a", "source", { href: one.source, rel: "noreferrer" }));
      return entry;
    }));
    return td;
  }

  function explain(row, table, i) {
    const column = table.columns[i], details = row.details, cell = row.values[i], own = table.settings[details.settings[column.field]] || {};
    at("details-title").textContent = `${column.title} of ${row.adapter}: ${shown(cell, column.digits)}`;
    const list = make("dl");
    const add = (key, value) => { if (value !== undefined && value !== "" && value !== null) list.append(make("dt", key), make("dd", typeof value === "object" ? JSON.stringify(value) : String(value))); };
    const [, low, high, , n] = cell;
    if (low !== null && low !== undefined) add("95 % interval", `${low.toPrecision(6)} to ${high.toPrecision(6)}`);
    add("N", n === undefined || n === null || n === details.n ? details.n : `${n} (in ${details.n} images)`);
    for (const text of details.warnings || []) add("warning", text);
    add("data", details.data); add("protocol", details.protocol); add("reference", details.reference);
    for (const [key, value] of Object.entries(own)) add(key, value);
    for (const [key, value] of Object.entries(details.adapter)) add("adapter: " + key, value);
    add("seed", details.seed); add("precision", details.precision); add("device", details.device);
    for (const [key, value] of Object.entries(details.versions)) add(key, value);
    const origin = details.command ? [make("p", "Command:"), make("pre", details.command)] : [make("p", `From the dropped file ${row.result.path}.`)];
    at("details-body").replaceChildren(...origin, list);
    at("details").showModal();
  }
