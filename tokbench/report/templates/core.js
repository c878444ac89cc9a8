  // The data of the page, its state, and what all views share.

  const data = JSON.parse(document.getElementById("data").textContent), rules = data.rules;
  const at = (id) => document.getElementById(id);
  const make = (tag, text, more = {}) => {
    const element = Object.assign(document.createElement(tag), more);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const options = (select, values, chosen, names = values) => {
    select.replaceChildren(...values.map((value, i) => make("option", names[i], { value, selected: value === chosen })));
  };
  const heads = (titles) => {
    const line = make("tr");
    line.append(...titles.map((title) => make("th", title, { scope: "col" })));
    return line;
  };
  const sorted = (values) => [...new Set(values)].sort();
  const place = (text, count) => { // an index from the address, which may contain anything
    const index = Number(text);
    return text && Number.isInteger(index) && index >= 0 && index < count ? index : -1;
  };
  const filters = ["dataset", "task", "size", "protocol"];
  let state = {}, scrolledTo = null; // scrolledTo: the row that was scrolled into view

  // The state of the page is stored only in the address.
  const parameters = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const columnName = (column) => column.field + (column.label ? "|" + column.label : "");
  function read() {
    state = Object.fromEntries(parameters());
    state.fits = data.tables.filter((one) => filters.every((key) => !state[key] || one[key] === state[key]));
    state.shown = state.fits.find((one) => one.name === state.table) || state.fits[0];
    state.names = state.shown ? state.shown.columns.map(columnName) : [];
    const placeOf = (name) => `,${state.cols},`.indexOf(`,${name},`); // not split at commas, which are also in names of columns
    const chosen = state.names.filter((name) => placeOf(name) >= 0).sort((a, b) => placeOf(a) - placeOf(b));
    state.columns = chosen.length ? chosen : state.names.filter((_, i) => state.shown.columns[i].first);
  }
  function write(change) {
    const kept = parameters();
    for (const [key, value] of Object.entries(change)) value ? kept.set(key, value) : kept.delete(key);
    history.replaceState(null, "", "#" + kept);
    draw();
  }
  const OF_TABLE = { row: "", cols: "", sort: "", plot: "", a: "", b: "" }; // choices that another table resets
  const go = (table, row, more = {}) => write({ table, row, family: "", kind: "", ...Object.fromEntries(filters.map((key) => [key, ""])), ...more });

  const formatted = (number, digits) => number.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const shown = (cell, digits) => {
    if (!cell) return "–";
    const [value, low, high, , , words] = cell;
    if (value === null) return words;
    return formatted(value, digits) + (low === null || low === undefined || high === low ? "" : " ± " + formatted((high - low) / 2, digits));
  };
