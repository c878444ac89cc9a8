"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const make = (tag, text, more = {}) => {
    const element = Object.assign(document.createElement(tag), more);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const options = (select, values, chosen, names = values) => {
    select.replaceChildren(...values.map((value, i) => make("option", names[i], { value, selected: value === chosen })));
  };
  const sorted = (values) => [...new Set(values)].sort();
  const place = (text, count) => { // an index from the address, which may contain anything
    const index = Number(text);
    return Number.isInteger(index) && index >= 0 && index < count ? index : 0;
  };
  const filters = ["dataset", "task", "size", "protocol"];
  let state = {}, scrolledTo = null; // scrolledTo: the row that was scrolled into view

  // The state of the page is stored only in the address.
  const parameters = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  function read() {
    state = Object.fromEntries(parameters());
    state.fits = data.tables.filter((one) => filters.every((key) => !state[key] || one[key] === state[key]));
    state.shown = state.fits.find((one) => one.name === state.table) || state.fits[0];
    state.names = state.shown ? state.shown.columns.map((one) => one.field + (one.label ? "|" + one.label : "")) : [];
    const chosen = state.cols ? state.cols.split(",").filter((one) => state.names.includes(one)) : [];
    state.columns = chosen.length ? chosen : state.names.filter((_, i) => state.shown.columns[i].first);
  }
  function write(change) {
    const kept = parameters();
    for (const [key, value] of Object.entries(change)) value ? kept.set(key, value) : kept.delete(key);
    history.replaceState(null, "", "#" + kept);
    draw();
  }
  const go = (table, row) => write({ table, row, family: "", kind: "", ...Object.fromEntries(filters.map((key) => [key, ""])) });

  const formatted = (number, digits) => number.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const shown = (cell, digits) => {
    if (!cell) return "–";
    const [value, low, high, , , words] = cell;
    if (value === null) return words;
    return formatted(value, digits) + (low === null || low === undefined || high === low ? "" : " ± " + formatted((high - low) / 2, digits));
  };

  function drawControls() {
    for (const key of filters) options(at(key), ["", ...sorted(data.tables.map((one) => one[key]))], state[key] || "", ["all", ...sorted(data.tables.map((one) => one[key]))]);
    const kinds = sorted([...data.tables.flatMap((one) => one.rows).flatMap((row) => row.kinds), ...(state.kind ? [state.kind] : [])]);
    options(at("kind"), ["", ...kinds], state.kind || "", ["all", ...kinds]);
    if (document.activeElement !== at("family")) at("family").value = state.family || "";
    at("published").checked = Boolean(state.published);
    options(at("table"), state.fits.map((one) => one.name), state.shown?.name);
  }

  function drawColumns(table) {
    if (at("columns").dataset.table !== table.name) { // rebuilt only for another table, so that a checkbox keeps the focus
      at("columns").dataset.table = table.name;
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

  function inOrder(rows, by, way) {
    const column = state.names.indexOf(by);
    if (by !== "adapter" && column < 0) return rows;
    const key = (row) => (by === "adapter" ? row.adapter : row.values[column]?.[0]);
    const empty = (value) => value === null || value === undefined;
    return [...rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y); // rows without a value come last in both directions
      const order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return way === "down" ? -order : order;
    });
  }

  function drawTable() {
    const table = state.shown;
    if (!table) {
      at("legend").textContent = "No table matches these filters.";
      at("count").textContent = "";
      at("columns").replaceChildren();
      delete at("columns").dataset.table;
      at("rows").tHead.replaceChildren();
      at("rows").tBodies[0].replaceChildren();
      return;
    }
    at("legend").textContent = table.legend;
    drawColumns(table);
    const places = state.columns.map((name) => state.names.indexOf(name));
    const [by, way] = (state.sort || "").split(":");
    const family = (state.family || "").toLowerCase();
    const rows = inOrder(table.rows.filter((row) => row.family.toLowerCase().includes(family) && (!state.kind || row.kinds.includes(state.kind))), by, way);
    const head = (title, name, more) => {
      const cell = make("th", undefined, { scope: "col" });
      const arrow = by === name ? (way === "down" ? " ▼" : " ▲") : "";
      const button = make("button", title + (more === null ? "" : more ? " ↑" : " ↓") + arrow);
      button.addEventListener("click", () => {
        const next = by !== name ? (more ? "down" : "up") : way === "down" ? "up" : "down";
        write({ sort: name + ":" + next });
        at("rows").querySelector(`thead th[data-name="${CSS.escape(name)}"] button`)?.focus();
      });
      cell.dataset.name = name;
      if (by === name) cell.setAttribute("aria-sort", way === "down" ? "descending" : "ascending");
      cell.append(button);
      return cell;
    };
    const line = make("tr");
    line.append(head("adapter", "adapter", null), ...places.map((i) => head(table.columns[i].title, state.names[i], table.columns[i].more)));
    if (state.published) line.append(make("th", "published elsewhere", { scope: "col", className: "other" }));
    at("rows").tHead.replaceChildren(line);
    at("rows").tBodies[0].replaceChildren(...rows.map((row) => {
      const tr = make("tr", undefined, { className: row.adapter === state.row ? "marked" : "" });
      tr.dataset.adapter = row.adapter;
      const name = make("th", undefined, { scope: "row" });
      const page = data.pages[row.family];
      name.append(page ? make("a", row.adapter, { href: page }) : row.adapter);
      tr.append(name, ...places.map((i) => drawCell(table, row, i)));
      if (state.published) tr.append(drawPublished(row));
      return tr;
    }));
    at("count").textContent = `${rows.length} of ${table.rows.length} rows`;
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
    const all = data.published[row.family] || [], own = all.filter((one) => one.adapter === row.adapter);
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
    at("details-body").replaceChildren(make("p", "Command:"), make("pre", details.command), list);
    at("details").showModal();
  }

  let drawn = null;
  function drawPlot() {
    const plots = data.plots;
    if (!plots.length) { at("plot-note").textContent = "There are no results to plot."; return; }
    const titles = plots.map((one) => `${one.title} (${one.table})`);
    const chosen = place(state.plot, plots.length), plot = plots[chosen];
    options(at("plot"), plots.map((_, i) => String(i)), String(chosen), titles);
    at("plot-note").textContent = plot.note;
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = chosen + (dark ? "d" : "l");
    if (now === drawn || !window.vegaEmbed) return;
    drawn = now;
    const text = getComputedStyle(document.body).color, line = getComputedStyle(document.documentElement).getPropertyValue("--line");
    const config = {
      background: "transparent", view: { stroke: line },
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: text, titleColor: text, orient: "bottom", columns: matchMedia("(max-width: 600px)").matches ? 2 : 8 }, title: { color: text },
    };
    window.vegaEmbed(at("figure"), { ...plot.spec, config }, { renderer: "svg", actions: false }).then(({ view }) => {
      view.addEventListener("click", (_, item) => { if (item?.datum?.row) go(plot.table, item.datum.row); });
    });
    const [x, y] = plot.axes; // the same data as a table, for screen readers and keyboards
    const head = make("tr");
    head.append(...["", x, y].map((title) => make("th", title, { scope: "col" })));
    at("points").tHead.replaceChildren(head);
    at("points").tBodies[0].replaceChildren(...plot.points.map((point) => {
      const tr = make("tr"), th = make("th", undefined, { scope: "row" }), button = make("button", point[0]);
      button.addEventListener("click", () => go(plot.table, point[3]));
      th.append(button);
      tr.append(th, ...point.slice(1, 3).map((value) => make("td", value === null ? "–" : String(Number(value.toPrecision(6))))));
      return tr;
    }));
  }

  function drawPictures() {
    const { images, adapters, worst, reconstructions } = data.pictures;
    if (!images.length) return;
    const image = images.find((one) => one.name === state.image) || images[0];
    const names = ["original", ...adapters];
    const left = names.includes(state.left) ? state.left : "original";
    const right = names.includes(state.right) ? state.right : adapters[0] || "original";
    options(at("image"), images.map((one) => one.name), image.name);
    options(at("left"), names, left);
    options(at("right"), names, right);
    at("error").checked = Boolean(state.error);
    const zoom = ["1", "2", "4"].includes(state.zoom) ? Number(state.zoom) : 2;
    at("zoom").value = String(zoom);
    const file = (name) => (name === "original" ? image.file : reconstructions[name][image.name][state.error ? "error" : "file"]);
    for (const [img, name] of [[at("under"), right], [at("above"), left]]) {
      Object.assign(img, { alt: `${image.name}, ${name}`, width: image.width * zoom, height: image.height * zoom, src: file(name) });
    }
    slide();
    const captions = [left, right].filter((name) => name !== "original").map((name) => `${name}: ${reconstructions[name][image.name].caption}`);
    at("numbers").textContent = captions.join(" · ");
    const having = Object.keys(worst), of = having.includes(state.worst) ? state.worst : having[0];
    if (!of) return;
    const by = Object.keys(worst[of]).includes(state.by) ? state.by : Object.keys(worst[of])[0];
    options(at("worst-of"), having, of);
    options(at("worst-by"), Object.keys(worst[of]), by);
    at("worst").replaceChildren(...worst[of][by].map((one) => {
      const figure = make("figure");
      for (const src of [one.original, one.file]) figure.append(make("img", undefined, { loading: "lazy", alt: `${one.name}, ${src === one.file ? of : "original"}`, width: 128, height: 128, src }));
      figure.append(make("figcaption", `${one.name}: ${one.caption}`));
      return figure;
    }));
  }
  function drawSheet() {
    const { sheets } = data.pictures;
    if (!sheets.length) return;
    const chosen = place(state.sheet, sheets.length);
    options(at("sheet"), sheets.map((_, i) => String(i)), String(chosen), sheets.map((one) => one.title));
    const { file: src, title: alt, width, height, captions } = sheets[chosen];
    Object.assign(at("sheet-shown"), { alt, width, height, src });
    at("sheet-captions").replaceChildren(...captions.map((text) => make("li", text)));
  }
  const slide = () => { at("over").style.width = at("slider").value + "%"; };

  function draw() {
    read();
    drawControls();
    drawTable();
    drawPlot();
    drawPictures();
    drawSheet();
    if (state.row && state.row !== scrolledTo) at("rows").querySelector("tr.marked")?.scrollIntoView({ block: "center" });
    scrolledTo = state.row;
  }

  const bind = (id, key = id) => at(id)?.addEventListener("change", (event) => write({ [key]: event.target.type === "checkbox" ? (event.target.checked ? "1" : "") : event.target.value }));
  at("table").addEventListener("change", (event) => write({ table: event.target.value, row: "", cols: "", sort: "" }));
  for (const key of filters) at(key).addEventListener("change", (event) => write({ [key]: event.target.value, table: "" }));
  at("family").addEventListener("input", (event) => write({ family: event.target.value }));
  for (const id of ["kind", "published", "plot", "image", "left", "right", "zoom", "error", "sheet"]) bind(id);
  bind("worst-of", "worst");
  bind("worst-by", "by");
  at("slider")?.addEventListener("input", slide);
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => { // the address is reserved for the state of the page
      event.preventDefault();
      at(link.hash.slice(1)).scrollIntoView();
    });
  }
  at("families").append(...sorted(data.tables.flatMap((one) => one.rows.map((row) => row.family))).map((value) => make("option", undefined, { value })));
  addEventListener("hashchange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlot);
  draw();
  addEventListener("load", drawPlot); // the plotting library comes after this script
  if (location.protocol.startsWith("http")) { // `tokbench view` serves a stamp that changes with the results
    let known = null;
    setInterval(async () => {
      try {
        const stamp = await (await fetch("stamp")).text();
        if (known !== null && stamp !== known) location.reload();
        known = stamp;
      } catch { /* the server has stopped; the page stays as it is */ }
    }, 2000);
  }
})();
