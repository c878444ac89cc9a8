  // Results in the browser: names of metrics, `.npz` files, and the values of rows, which are loaded on demand.

  const columnPlaces = new Map(rules.columns.map(([field], rank) => [field, rank]));
  function nameOf(number) { // as tokbench.metric_names.MetricName.parse
    const dot = number.indexOf("."), before = dot < 0 ? number : number.slice(0, dot), part = dot < 0 ? "" : number.slice(dot + 1);
    const infinite = before.endsWith(rules.infinity), base = infinite ? before.slice(0, -rules.infinity.length) : before;
    const form = rules.columns[columnPlaces.get(base)]?.[4] || "", cell = form === "cell" && part !== "";
    return { base, part, infinite, cell, finite: base + (part ? "." + part : ""), detail: cell || form === "curve" || (form === "version" && part !== "") };
  }
  function columnFor(number) { // as tokbench.results.columns.column_of
    const { base, part, infinite } = nameOf(number), rank = columnPlaces.get(base);
    if (rank === undefined) return { rank: rules.columns.length, title: number, digits: 4, more: null };
    const [, title, digits, more] = rules.columns[rank];
    return { rank, title: title + (infinite ? " ∞" : "") + (part ? ` (${part})` : ""), digits, more };
  }

  // The arrays of an `.npz` file by name: {shape, data} of numbers, and a list of texts for `name`.
  const MOST_BYTES = 2 ** 29;
  async function readNpz(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), arrays = Object.create(null);
    let end = bytes.length - 22;
    while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
    if (end < 0) throw new Error("it is no .npz file");
    let entry = view.getUint32(end + 16, true), total = 0;
    for (let left = view.getUint16(end + 10, true); left > 0; left--) {
      if (view.getUint32(entry, true) !== 0x02014b50) throw new Error("its list of arrays is damaged");
      const method = view.getUint16(entry + 10, true), packed = view.getUint32(entry + 20, true), size = view.getUint32(entry + 24, true), start = view.getUint32(entry + 42, true);
      const length = view.getUint16(entry + 28, true), skipped = view.getUint16(entry + 30, true) + view.getUint16(entry + 32, true);
      const name = new TextDecoder().decode(bytes.subarray(entry + 46, entry + 46 + length)).replace(/\.npy$/, "");
      entry += 46 + length + skipped;
      total += size;
      if (total > MOST_BYTES) throw new Error("its arrays are larger than 512 MiB");
      if (name.startsWith("readings.")) continue; // recognized words and faces, which are not compared
      const from = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
      arrays[name] = readNpy(await inflate(bytes.subarray(from, from + packed), method, size), name);
    }
    return arrays;
  }
  async function inflate(packed, method, size) {
    if (method === 0) return packed;
    if (method !== 8) throw new Error(`it is compressed with method ${method}, not with deflate`);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader(), whole = new Uint8Array(size);
    let filled = 0;
    for (;;) {
      const { done, value } = await stream.read();
      if (done) break;
      if (filled + value.length > size) throw new Error("an array is larger than its entry says");
      whole.set(value, filled);
      filled += value.length;
    }
    if (filled !== size) throw new Error("an array is incomplete");
    return whole;
  }
  const NUMBERS = {
    f8: [8, "getFloat64"], f4: [4, "getFloat32"], i8: [8, "getBigInt64"], i4: [4, "getInt32"], i2: [2, "getInt16"], i1: [1, "getInt8"],
    u8: [8, "getBigUint64"], u4: [4, "getUint32"], u2: [2, "getUint16"], u1: [1, "getUint8"], b1: [1, "getUint8"],
  };
  function readNpy(bytes, name) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < 12 || bytes[0] !== 0x93) throw new Error(`'${name}' is no array`);
    const wide = bytes[6] > 1, start = (wide ? 12 : 10) + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
    const header = new TextDecoder("latin1").decode(bytes.subarray(wide ? 12 : 10, start));
    const [, order, kind] = header.match(/'descr': *'([<>|=]?)([a-zA-Z]\d+)'/) || [], [, shapeText] = header.match(/'shape': *\(([\d, ]*)\)/) || [];
    if (!kind || order === ">" || shapeText === undefined || /'fortran_order': *True/.test(header)) throw new Error(`'${name}' has an unknown format`);
    const shape = shapeText.split(",").filter((one) => one.trim()).map(Number), count = shape.reduce((a, b) => a * b, 1);
    const [width, read] = kind[0] === "U" ? [4 * Number(kind.slice(1))] : NUMBERS[kind] || [];
    if (!width || start + count * width > bytes.length) throw new Error(`'${name}' has an unknown format or is incomplete`);
    if (kind[0] === "U") {
      return Array.from({ length: count }, (_, i) => {
        let text = "";
        for (let j = 0; j < width; j += 4) { const code = view.getUint32(start + i * width + j, true); if (code) text += String.fromCodePoint(code); }
        return text;
      });
    }
    return { shape, data: Float64Array.from({ length: count }, (_, i) => Number(view[read](start + i * width, true))) };
  }
  function checkArrays(arrays) { // as tokbench.results.result
    const index = arrays.index, own = Object.keys(arrays).filter((name) => !KINDS.some((kind) => name.startsWith(kind + ".")));
    const texts = Object.keys(arrays).find((name) => name !== "name" && !arrays[name].data);
    if (texts) throw new Error(`'${texts}' must contain numbers`);
    if (!own.length) return arrays;
    if (!index || index.data.some((value, i) => value < 0 || (i && value <= index.data[i - 1]))) throw new Error("'index' must contain increasing positions of images");
    arrays.name ??= Array.from(index.data, String);
    if (own.some((name) => (arrays[name].data || arrays[name]).length !== index.data.length)) throw new Error("its arrays have different numbers of images");
    return arrays;
  }

  // The results of rows: those of the page are scripts, because a page opened as a file may not read other files.
  const waiting = new Map(), keptResults = new Map();
  const keyOf = (table, adapter) => JSON.stringify([table, adapter]);
  window.tokbenchValues = (table, adapter, facts, npz) => waiting.get(keyOf(table, adapter))?.([facts, npz]);
  function resultOf(table, row) { // a promise; it fails if the file is missing or damaged
    const key = keyOf(table.name, row.adapter);
    if (row.result) return Promise.resolve(row.result);
    if (!keptResults.has(key)) {
      const read = loadScript(key, row.file).then(async ([facts, npz]) => {
        const bytes = Uint8Array.from(atob(npz), (letter) => letter.charCodeAt(0));
        return { ...facts, arrays: bytes.length ? checkArrays(await readNpz(bytes)) : Object.create(null) };
      });
      read.catch(() => keptResults.delete(key));
      keptResults.set(key, read);
    }
    return keptResults.get(key);
  }
  const loadScript = (key, file) => new Promise((done, failed) => {
    const script = make("script", undefined, { src: file });
    waiting.set(key, done);
    script.addEventListener("error", () => failed(new Error(`${file} is missing beside the page; run tokbench report again`)));
    script.addEventListener("load", () => { script.remove(); failed(new Error(`${file} belongs to another page; run tokbench report again`)); }); // no effect once it is done
    document.head.append(script);
  });
