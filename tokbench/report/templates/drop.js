  // Result files and folders that are dropped onto the page: they are read in the browser and join the tables.

  const number = (value) => typeof value === "number" && Number.isFinite(value), text = (value) => typeof value === "string", map = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

  function refuse(facts) { // what is wrong with a result, as tokbench.results.schema checks it, or ""
    if (!map(facts) || !text(facts.adapter) || !map(facts.provenance)) return "it is no result of tokbench eval";
    if ((facts.schema_version ?? 1) > rules.schema) return "it was written by a newer version of tokbench; make the page with that version";
    if (facts.error) return `the adapter failed: ${facts.error}`;
    const { data: images, protocol, adapter, metrics } = facts.provenance;
    for (const key of ["dataset", "task"]) if (!text(facts[key])) return `'${key}' must be text`;
    if (!Number.isInteger(facts.num_images)) return "'num_images' must be a whole number";
    if (!map(images) || !text(images.sha256) || !number(images.width) || !number(images.height) || (images.modality === "sound" && !number(images.side))) return "'provenance.data' is incomplete";
    if (!map(protocol) || !text(protocol.sha256) || !text(protocol.name)) return "'provenance.protocol' is incomplete";
    if (!map(adapter) || !text(adapter.kind) || !map(metrics)) return "'provenance.adapter' or 'provenance.metrics' is incomplete";
    if (!Array.isArray(facts.warnings ?? []) || !(facts.warnings ?? []).every(map)) return "'warnings' is damaged";
    if (!map(facts.metrics)) return "'metrics' must be an object";
    for (const [name, entry] of Object.entries(facts.metrics)) {
      const fine = map(entry) && (entry.value === null || number(entry.value)) && ["low", "high", "n"].every((key) => entry[key] === undefined || entry[key] === null || number(entry[key]));
      if (!fine) return `the metric '${name}' is damaged`;
    }
    return "";
  }

  function tableOfTask(task) { // the task of the table and the variant of the row, as tokbench.metric_names.table_of_task
    return task.startsWith("decode-") ? ["decode", task.slice("decode-".length)] : [task, ""];
  }
  function tableName(facts) { // as tokbench.results.result.Result.table
    const { data: images, protocol, reference } = facts.provenance;
    const side = images.width === images.height ? `${images.width}` : `${images.width}x${images.height}`;
    const size = text(images.extent) ? `.${images.extent}` : (images.own_size ?? null) !== null && side === String(images.own_size) ? "" : `.s${side}`;
    const limit = images.limit ? `.${images.sampling === "even" ? "even" : "n"}${images.limit}` : "";
    const statistics = reference ? `.ref-${String(reference.sha256).slice(0, 8)}` : "";
    const restorer = facts.provenance.restore, restored = map(restorer) && text(restorer.name) ? `.restored-${restorer.name}` : "";
    const degraded = (text(protocol.degrade) ? `.${protocol.degrade.replace(":", "-")}` : "") + restored;
    return `${facts.dataset}${size}${limit}${statistics}${degraded}${protocol.name === "tokbench" ? "" : "@" + protocol.name}-${tableOfTask(facts.task)[0]}`;
  }
  function describeItems(images, count) { // as tokbench.results.items
    const [noun, unit] = rules.items[images.modality ?? "image"] ?? ["item", "values"], { width, height } = images, whole = (value) => value.toLocaleString("en");
    const size = images.modality === "sound" ? `${whole(width)} samples at ${whole(images.side)}` : images.modality === "shape" ? `${width}x${width}x${width}` : `${width}x${height}`;
    return { items: `${whole(count)} ${noun}${count === 1 ? "" : "s"} of ${size} ${unit}`, noun, size: `${size} ${unit}` };
  }
  function tableFor(facts) { // the table of the same images and protocol, or a new one
    const group = tableName(facts), { data: images, protocol } = facts.provenance, sha256 = [images.sha256, protocol.sha256];
    const members = data.tables.filter((one) => one.sha256.length && (one.name === group || one.name.startsWith(group + ".")));
    const known = members.find((one) => String(one.sha256) === String(sha256));
    if (known) return known;
    const name = members.length ? `${group}.${sha256.map((hash) => hash.slice(0, 8)).join(".")}` : group;
    const { items, noun, size } = describeItems(images, facts.num_images);
    const legend = `Dropped results: ${items}, protocol ${protocol.name} (${sha256[1].slice(0, 8)}), pixels ${sha256[0].slice(0, 8)}. ± is half of the 95 % interval over ${noun}s.`;
    const made = { name, dataset: facts.dataset, task: tableOfTask(facts.task)[0], size, n: facts.num_images, protocol: text(protocol.degrade) ? `${protocol.name}, ${protocol.degrade}` : protocol.name, legend, columns: [], rows: [], settings: [], sha256 };
    data.tables.push(made);
    return made;
  }

  // The column of a number: the one whose values have the same settings. Others get a column of their own.
  function columnOf(table, number, recorded) {
    const own = settingsOf(recorded), alike = table.columns.map((column, i) => [column, i]).filter(([column]) => column.field === number);
    const settingsIn = (i) => { const row = table.rows.find((one) => one.values[i]); return row && table.settings[row.details.settings[number]]; };
    const found = alike.find(([, i]) => settingsOf(settingsIn(i)) === own);
    if (found) return found[1];
    const { title, digits, more, rank } = columnFor(number), other = alike.length ? settingsIn(alike[0][1]) || {} : {};
    const differing = Object.keys({ ...recorded, ...other }).filter((key) => recorded?.[key] !== other[key] && !rules.found.some((start) => key.startsWith(start))).sort();
    const label = alike.length ? differing.map((key) => { const value = String(recorded?.[key] ?? "unknown"); return value.length === 64 ? value.slice(0, 8) : value; }).join(", ") || "dropped" : "";
    const after = table.columns.findIndex((column) => columnFor(column.field).rank > rank), i = after < 0 ? table.columns.length : after;
    table.columns.splice(i, 0, { field: number, label, title: title + (label ? ` [${label}]` : ""), digits, more, first: rules.first.includes(number) });
    for (const row of table.rows) row.values.splice(i, 0, null);
    return i;
  }

  function join(facts, arrays, path) { // adds a row and returns it with its table
    const table = tableFor(facts), { provenance } = facts, [, variant] = tableOfTask(facts.task), settings = {};
    const own = facts.adapter + (variant && ` (${variant})`), taken = table.rows.some((row) => row.adapter === own && !row.result);
    const name = taken ? `${own} (dropped)` : own;
    table.rows = table.rows.filter((row) => row.adapter !== name);
    const row = {
      adapter: name, family: facts.adapter.split(".")[0], file: "", result: { ...facts, adapter: name, arrays, path }, values: table.columns.map(() => null),
      kinds: [provenance.adapter.kind, ...(provenance.adapter.variable || provenance.adapter.prefixes ? ["variable length"] : []), ...(provenance.adapter.tokenizer ? ["generator"] : [])],
      details: {
        command: "", protocol: `${provenance.protocol.name} (${provenance.protocol.sha256.slice(0, 12)})`, data: `${facts.dataset}, pixels ${provenance.data.sha256.slice(0, 12)}`, n: facts.num_images,
        seed: provenance.seed, precision: provenance.precision, device: provenance.device, reference: provenance.reference?.file || "the images themselves", adapter: provenance.adapter,
        versions: provenance.versions || {}, settings, skipped: facts.skipped || {}, warnings: (facts.warnings || []).map((one) => one.text),
      },
    };
    const numbers = Object.keys(facts.metrics).filter((number) => !nameOf(number).detail && (facts.metrics[number].value !== null || number === "psnr"));
    for (const number of numbers) if (Object.hasOwn(provenance.metrics, number)) settings[number] = table.settings.push(provenance.metrics[number]) - 1;
    table.rows.push(row); // first, so that new columns reach it, too
    for (const number of numbers) {
      const { value, low = null, high = null, n = facts.num_images } = facts.metrics[number], count = n === facts.num_images && value !== null ? null : n;
      const i = columnOf(table, number, provenance.metrics[number]);
      row.values[i] = value === null ? [value, low, high, 0, count, "exact"] : [value, low, high, 0, count];
    }
    const bits = table.columns.findIndex((column) => column.field === "bpp"), key = (one) => one.values[bits]?.[0] ?? Infinity;
    table.rows.sort((a, b) => key(a) - key(b) || (a.adapter < b.adapter ? -1 : 1));
    return { table, row };
  }

  // Marks the rows that a paired comparison does not tell from the best, in the columns of a dropped row. The other rows
  // keep their marks unless the dropped row is the best.
  async function retie(table, dropped) {
    for (let i = 0; i < table.columns.length; i++) {
      const { field, more } = table.columns[i], rows = table.rows.filter((row) => row.adapter !== "identity" && row.values[i] && row.values[i][0] !== null);
      if (more === null || rows.length < 2 || !dropped.some((row) => rows.includes(row))) continue;
      const best = rows.reduce((a, b) => ((more ? b.values[i][0] > a.values[i][0] : b.values[i][0] < a.values[i][0]) ? b : a));
      for (const row of best.result ? rows : rows.filter((one) => one.result)) row.values[i][3] = Number(row === best || (await tiedWith(table, field, best, row)));
    }
  }
  async function tiedWith(table, number, best, row) {
    try {
      const [first, second] = await Promise.all([resultOf(table, best), resultOf(table, row)]);
      if (!sameSettings(number, first, second) || differsClearly(number, first, second)) return false;
      return ["same", "cannot tell"].includes(difference(number, first, second).verdict);
    } catch { return false; } // values that are missing beside the page tell nothing
  }

  async function receive(files) { // [path, File] of everything that was dropped or chosen
    const known = new Map(files), messages = [], joined = [];
    at("drop-note").textContent = "Reading …";
    for (const [path, file] of known) {
      const [folder, name] = path.split("/").slice(-2).length === 2 ? path.split("/").slice(-2) : ["", path];
      if (!name.endsWith(".json") || folder === "leaderboard" || name.startsWith(rules.pruned)) continue;
      try {
        const content = JSON.parse(await file.text()), npz = known.get(path.replace(/\.json$/, ".npz"));
        for (const facts of Array.isArray(content) ? content : [content]) {
          const fault = refuse(facts);
          if (fault) throw new Error(fault);
          const arrays = npz && !Array.isArray(content) ? checkArrays(await readNpz(new Uint8Array(await npz.arrayBuffer()))) : Object.create(null);
          joined.push({ ...join(facts, arrays, path), paired: Boolean(npz) });
        }
      } catch (error) { messages.push(`${path} was not read: ${error instanceof SyntaxError ? "it is no JSON" : error instanceof RangeError ? "its .npz file is damaged" : error.message}`); }
    }
    const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
    const without = joined.filter((one) => !one.paired).map((one) => one.row.adapter);
    if (without.length) messages.push(`No .npz file lies beside the result of ${without.join(", ")}: drop both files for paired intervals.`);
    if (!joined.length && !messages.length) messages.push("No result was among the dropped files: results are <adapter>/<data>-<task>.json, with their .npz files.");
    const tables = [...new Set(joined.map((one) => one.table))];
    at("drop-note").replaceChildren(...[...(joined.length ? [`${count(joined.length, "result")} joined ${count(tables.length, "table")}: ${tables.map((one) => one.name).join(", ")}. ${joined.length === 1 ? "Its row is" : "Their rows are"} marked with ●; reload the page to remove ${joined.length === 1 ? "it" : "them"}.`] : []), ...messages].map((text) => make("li", text)));
    if (!joined.length) return;
    go(tables[0].name, joined[0].row.adapter, state.shown === tables[0] ? {} : { ...OF_TABLE, row: joined[0].row.adapter });
    for (const table of tables) await retie(table, table.rows.filter((row) => row.result));
    draw();
  }

  async function filesOf(entry, folder = "") { // of a dropped file or folder
    const path = folder + entry.name;
    if (entry.isFile) return [[path, await new Promise((done, failed) => { entry.file(done, failed); })]];
    const reader = entry.createReader(), found = [];
    for (;;) { // a reader returns up to 100 entries at a time
      const some = await new Promise((done, failed) => { reader.readEntries(done, failed); });
      if (!some.length) return found;
      for (const one of some) found.push(...await filesOf(one, path + "/"));
    }
  }
  const chosenFiles = (input) => receive([...input.files].map((file) => [file.webkitRelativePath || file.name, file])).finally(() => { input.value = ""; });
  function listenForFiles() {
    let depth = 0;
    const marked = (change) => { depth = Math.max(0, change ? depth + change : 0); document.body.classList.toggle("dropping", depth > 0); };
    addEventListener("dragenter", () => marked(1));
    addEventListener("dragleave", () => marked(-1));
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", async (event) => {
      event.preventDefault();
      marked(0);
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean), plain = [...event.dataTransfer.files].map((file) => [file.name, file]);
      await receive(entries.length ? (await Promise.all(entries.map((entry) => filesOf(entry)))).flat() : plain);
    });
    for (const id of ["choose-files", "choose-folder"]) at(id).addEventListener("change", (event) => chosenFiles(event.target));
  }
