"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const make = (tag, text, more = {}) => {
    const made = Object.assign(document.createElement(tag), more);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const options = (select, values, chosen, names = values) => {
    select.replaceChildren(...values.map((value, i) => make("option", names[i], { value, selected: value === chosen })));
  };
  const filters = ["dataset", "task", "size", "protocol"];
  let state = {};

  // What is shown is in the address, and only there.
  function read() {
    const hash = location.hash.slice(1);
    const asked = new URLSearchParams(hash.includes("=") ? hash : "");
    state = Object.fromEntries(asked);
    const fits = data.tables.filter((one) => filters.every((key) => !state[key] || one[key] === state[key]));
    state.fits = fits.length ? fits : data.tables;
    state.shown = state.fits.find((one) => one.name === state.table) || state.fits[0];
    const columns = state.shown ? state.shown.columns.map((one) => one.field + (one.label ? "|" + one.label : "")) : [];
    state.names = columns;
    state.columns = state.cols ? state.cols.split(",").filter((one) => columns.includes(one))
      : columns.filter((_, i) => state.shown.columns[i].first);
  }
  function write(change) {
    const kept = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    for (const [key, value] of Object.entries(change)) value ? kept.set(key, value) : kept.delete(key);
    history.replaceState(null, "", "#" + kept);
    draw();
  }

  const shown = (cell, digits) => {
    if (!cell) return "–";
    const [value, low, high, , words] = cell;
    if (value === null) return words;
    const said = (number) => number.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return said(value) + (low === null || low === undefined || high === low ? "" : " ± " + said((high - low) / 2));
  };

  function drawTable() {
    const table = state.shown;
    options(at("table"), state.fits.map((one) => one.name), table.name);
    for (const key of filters) {
      const values = [...new Set(data.tables.map((one) => one[key]))].sort();
      options(at(key), ["", ...values], state[key] || "", ["all", ...values]);
    }
    const kinds = [...new Set(table.rows.flatMap((row) => row.kinds))].sort();
    options(at("kind"), ["", ...kinds], state.kind || "", ["all", ...kinds]);
    if (document.activeElement !== at("family")) at("family").value = state.family || "";
    at("published").checked = Boolean(state.published);
    at("legend").textContent = table.legend;
    if (at("columns").dataset.table !== table.name) { // made anew only then, so that a box keeps the focus
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
    const places = state.columns.map((name) => state.names.indexOf(name));
    const [by, way] = (state.sort || "").split(":");
    const sorted = state.names.indexOf(by);
    let rows = table.rows.filter((row) => (!state.family || row.adapter.includes(state.family)) && (!state.kind || row.kinds.includes(state.kind)));
    if (by === "adapter" || sorted >= 0) {
      const key = (row) => (by === "adapter" ? row.adapter : row.values[sorted] && row.values[sorted][0]);
      const empty = (value) => value === null || value === undefined;
      rows = [...rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (empty(x) || empty(y)) return empty(x) - empty(y); // rows without the number come last, either way
        const order = typeof x === "string" ? x.localeCompare(y) : x - y;
        return way === "down" ? -order : order;
      });
    }
    const head = (title, name, more) => {
      const cell = make("th", undefined, { scope: "col" });
      const arrow = by === name ? (way === "down" ? " ▼" : " ▲") : "";
      const button = make("button", title + (more === null ? "" : more ? " ↑" : " ↓") + arrow);
      button.addEventListener("click", () => {
        const best = more ? "down" : "up";
        const next = by !== name ? best : way === "down" ? "up" : "down";
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
    const published = state.published ? [...new Set(table.rows.flatMap((row) => (data.published[row.family] || []).map((one) => one.number)))] : [];
    line.append(...published.map((number) => make("th", "published " + number, { scope: "col" })));
    at("rows").tHead.replaceChildren(line);
    at("rows").tBodies[0].replaceChildren(...rows.map((row) => {
      const tr = make("tr");
      tr.dataset.adapter = row.adapter;
      if (row.adapter === state.row) tr.className = "marked";
      const name = make("th", undefined, { scope: "row" });
      const page = data.pages[row.family];
      name.append(page ? make("a", row.adapter, { href: page }) : row.adapter);
      tr.append(name, ...places.map((i) => {
        const cell = row.values[i];
        const td = make("td");
        if (!cell) { td.textContent = "–"; return td; }
        const best = cell[3] === 1;
        if (best) td.className = "tied";
        const button = make("button", (best ? "≈ " : "") + shown(cell, table.columns[i].digits));
        button.title = "How was this made?";
        button.addEventListener("click", () => explain(row, table, i));
        td.append(button);
        return td;
      }), ...published.map((number) => {
        const told = (data.published[row.family] || []).filter((one) => one.number === number);
        const td = make("td", undefined, { className: told.length ? "other" : "" });
        told.forEach((one, i) => {
          if (i) td.append(", ");
          td.append(make("a", String(one.value), { href: one.source, rel: "noreferrer", title: one.of }));
        });
        return td;
      }));
      return tr;
    }));
    at("count").textContent = `${rows.length} of ${table.rows.length} rows`;
    if (state.row) at("rows").querySelector("tr.marked")?.scrollIntoView({ block: "center" });
  }

  function explain(row, table, i) {
    const column = table.columns[i], made = row.made, own = table.ways[made.numbers[column.field]] || {};
    at("made-title").textContent = `${column.title} of ${row.adapter}: ${shown(row.values[i], column.digits)}`;
    const list = make("dl");
    const say = (key, value) => { if (value !== undefined && value !== "" && value !== null) list.append(make("dt", key), make("dd", typeof value === "object" ? JSON.stringify(value) : String(value))); };
    const [, low, high] = row.values[i];
    if (low !== null && low !== undefined) say("95 % interval", `${low.toPrecision(6)} to ${high.toPrecision(6)}`);
    say("N", made.n); say("data", made.data); say("protocol", made.protocol); say("reference", made.reference);
    for (const [key, value] of Object.entries(own)) say(key, value);
    for (const [key, value] of Object.entries(made.adapter)) say("adapter: " + key, value);
    say("seed", made.seed); say("precision", made.precision); say("device", made.device);
    for (const [key, value] of Object.entries(made.versions)) say(key, value);
    at("made-body").replaceChildren(make("p", "The same again:"), make("pre", made.command), list);
    at("made").showModal();
  }

  let drawn = null;
  function drawPlot() {
    const plots = data.plots;
    if (!plots.length) { at("plot-note").textContent = "There are no results to plot yet."; return; }
    const titles = plots.map((one) => (one.table ? `${one.title} (${one.table})` : one.title));
    const chosen = Math.min(Number(state.plot) || 0, plots.length - 1);
    options(at("plot"), plots.map((_, i) => String(i)), String(chosen), titles);
    at("plot-note").textContent = plots[chosen].note;
    at("figure").setAttribute("aria-label", titles[chosen]);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = chosen + (dark ? "d" : "l");
    if (now === drawn || !window.vegaEmbed) return;
    drawn = now;
    const text = getComputedStyle(document.body).color, line = getComputedStyle(document.documentElement).getPropertyValue("--line");
    const config = {
      background: "transparent", view: { stroke: line },
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: text, titleColor: text, orient: "bottom" }, title: { color: text },
    };
    
    window.vegaEmbed(at("figure"), { ...plots[chosen].spec, config }, { renderer: "svg", actions: false });
  }

  function drawPictures() {
    const { images, adapters, worst, made } = data.pictures;
    if (!images.length) return;
    const image = images.find((one) => one.name === state.image) || images[0];
    const names = ["original", ...adapters];
    const left = names.includes(state.left) ? state.left : "original";
    const right = names.includes(state.right) ? state.right : adapters[0] || "original";
    options(at("image"), images.map((one) => one.name), image.name);
    options(at("left"), names, left);
    options(at("right"), names, right);
    at("error").checked = Boolean(state.error);
    const zoom = Number(state.zoom) || 2;
    at("zoom").value = String(zoom);
    const file = (name) => (name === "original" ? image.file : made[name][image.name][state.error ? "error" : "file"]);
    for (const [img, name] of [[at("under"), right], [at("above"), left]]) {
      Object.assign(img, { src: file(name), alt: `${image.name}, ${name}`, width: image.width * zoom, height: image.height * zoom });
    }
    slide();
    const told = [left, right].filter((name) => name !== "original").map((name) => `${name}: ${made[name][image.name].told}`);
    at("numbers").textContent = told.join(" · ");
    const having = Object.keys(worst);
    const of = having.includes(state.worst) ? state.worst : having[0];
    if (!of) return;
    const by = Object.keys(worst[of]).includes(state.by) ? state.by : Object.keys(worst[of])[0];
    options(at("worst-of"), having, of);
    options(at("worst-by"), Object.keys(worst[of]), by);
    at("worst").replaceChildren(...worst[of][by].map((one) => {
      const figure = make("figure");
      for (const src of [one.original, one.file]) figure.append(make("img", undefined, { src, loading: "lazy", alt: `${one.name}, ${src === one.file ? of : "original"}`, width: 128, height: 128 }));
      figure.append(make("figcaption", `${one.name}: ${one.told}`));
      return figure;
    }));
  }
  function drawSheet() {
    const { sheets } = data.pictures;
    if (!sheets.length) return;
    const chosen = Math.min(Number(state.sheet) || 0, sheets.length - 1);
    options(at("sheet"), sheets.map((_, i) => String(i)), String(chosen), sheets.map((one) => one.title));
    const { file: src, title: alt, width, height } = sheets[chosen];
    Object.assign(at("sheet-shown"), { src, alt, width, height });
  }
  const slide = () => { at("over").style.width = at("slider").value + "%"; };

  function draw() {
    read();
    if (state.shown) drawTable();
    drawPlot();
    drawPictures();
    drawSheet();
  }

  at("table").addEventListener("change", (event) => write({ table: event.target.value, row: "", cols: "", sort: "" }));
  for (const key of filters) at(key).addEventListener("change", (event) => write({ [key]: event.target.value, table: "" }));
  at("family").addEventListener("input", (event) => write({ family: event.target.value }));
  at("kind").addEventListener("change", (event) => write({ kind: event.target.value }));
  at("published").addEventListener("change", (event) => write({ published: event.target.checked ? "1" : "" }));
  at("plot").addEventListener("change", (event) => write({ plot: event.target.value }));
  for (const key of ["image", "left", "right", "zoom"]) at(key)?.addEventListener("change", (event) => write({ [key]: event.target.value }));
  at("error")?.addEventListener("change", (event) => write({ error: event.target.checked ? "1" : "" }));
  at("sheet")?.addEventListener("change", (event) => write({ sheet: event.target.value }));
  at("worst-of")?.addEventListener("change", (event) => write({ worst: event.target.value }));
  at("worst-by")?.addEventListener("change", (event) => write({ by: event.target.value }));
  at("slider")?.addEventListener("input", slide);
  addEventListener("hashchange", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlot);
  draw();
  addEventListener("load", drawPlot); // the plotting library comes after this script
  if (location.protocol.startsWith("http")) { // `tokbench view` tells when results have changed
    let known = null;
    setInterval(async () => {
      try {
        const stamp = await (await fetch("stamp")).text();
        if (known !== null && stamp !== known) location.reload();
        known = stamp;
      } catch { /* the server is gone; what is here stays */ }
    }, 2000);
  }
})();
