  // The compare view: paired differences of two rows of the shown table, and the images in which they differ most.

  const numberText = (number, value, extra = 2) => (value === null || Number.isNaN(value) ? "–" : formatted(value, columnFor(number).digits + extra));
  const signed = (value, digits) => (value < 0 ? "-" : "+") + formatted(Math.abs(value), digits);
  function short(value) { // two significant digits, as Python's format "+.2g"
    const [mantissa, exponent] = Math.abs(value).toExponential(1).split("e"), power = Number(exponent);
    const digits = power < -4 || power >= 2 ? `${Number(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}` : String(Number(Math.abs(value).toPrecision(2)));
    return (value < 0 ? "-" : "+") + digits;
  }
  function gapText({ number, gap, low, high }) { // as tokbench.analysis.render.gap_text
    if (gap === 0) return "0";
    if (Number.isNaN(gap)) return "–";
    const digits = columnFor(number).digits + 1, text = (value) => (Math.abs(gap) < 10 ** -digits ? short(value) : signed(value, digits));
    return text(gap) + (Number.isNaN(low) ? "" : ` [${text(low)}, ${text(high)}]`);
  }

  let seen = false, compared = null, latest = null; // latest: the differences that are shown
  const comparable = (table) => table.rows.filter((row) => row.file || row.result);
  async function drawComparison() {
    const rows = state.shown ? comparable(state.shown) : [], names = rows.map((row) => row.adapter);
    at("comparison").classList.toggle("empty", rows.length < 2);
    if (rows.length < 2) {
      compared = latest = null;
      at("compare-note").textContent = state.shown ? "This table has fewer than two rows with stored values, so there is nothing to compare." : "No table matches the filters above.";
      return;
    }
    const own = names.includes(state.row) && state.row !== "identity" ? state.row : names[0];
    const a = names.includes(state.a) ? state.a : own, b = names.includes(state.b) ? state.b : names.find((name) => name !== a && name !== "identity") || names.find((name) => name !== a);
    options(at("first"), names, a);
    options(at("second"), names, b);
    if (!seen && !state.a && !state.b) return; // nothing is loaded before it is looked at
    const table = state.shown, [first, second] = [a, b].map((name) => rows.find((row) => row.adapter === name)), key = JSON.stringify([table.name, a, b]);
    if (compared?.key === key && compared.first === first && compared.second === second) { drawDiffering(); return; }
    const now = compared = { key, first, second };
    latest = null;
    at("compare-note").textContent = "Computing …";
    for (const body of [at("differences"), at("differing")]) { body.tHead.replaceChildren(); body.tBodies[0].replaceChildren(); }
    at("differing-pictures").replaceChildren();
    try {
      const [ours, theirs] = await Promise.all([resultOf(table, first), resultOf(table, second)]), { found: numbers, otherwise } = differences(ours, theirs), found = [];
      for (const number of numbers) {
        found.push(difference(number, ours, theirs));
        await new Promise((done) => { setTimeout(done); }); // the page stays responsive
        if (compared !== now) return; // other rows were chosen meanwhile
      }
      latest = { table, a, b, found };
      const left = otherwise.length ? ` Not compared, because network, weights or settings differ: ${otherwise.map((number) => columnFor(number).title).join(", ")}.` : "";
      at("compare-note").textContent = (found.length ? `Differences are ${b} minus ${a} on the same images.` : `${a} and ${b} have no number computed with the same settings.`) + left;
      drawDifferences(latest);
      drawDiffering();
    } catch (error) {
      if (compared !== now) return;
      compared = null;
      at("compare-note").textContent = `The values cannot be read: ${error.message}.`;
    }
  }
  function drawDifferences({ a, b, found }) {
    at("differences").tHead.replaceChildren(heads(["metric", "difference [95 %]", "verdict", "images needed", a, b, "N"]));
    at("differences").tBodies[0].replaceChildren(...found.map((one) => {
      const tr = make("tr"), needed = imagesNeeded(one), clear = ["better", "worse"].includes(one.verdict);
      const verdict = clear ? `${b} is ${one.verdict}` : one.verdict;
      tr.dataset.number = one.number;
      tr.append(make("th", columnFor(one.number).title, { scope: "row" }), make("td", gapText(one)), make("td", verdict, { className: clear ? one.verdict : "unclear" }));
      tr.append(make("td", needed === null ? "–" : needed.toLocaleString("en")), make("td", numberText(one.number, one.first)), make("td", numberText(one.number, one.second)));
      tr.append(make("td", one.n.toLocaleString("en") + (one.alone ? ` (+${one.alone} in one only)` : "")));
      return tr;
    }));
  }

  const LISTED = 10, PICTURED = 6;
  function drawDiffering() {
    if (!latest) return;
    const { table, a, b, found } = latest, choices = found.filter((one) => one.moved.length && (one.movedIn === one.number || one.number === "psnr")), names = choices.map((one) => one.number);
    const usual = ["lpips", "psnr", "ssim"].find((number) => names.includes(number)) || names[0];
    const number = names.includes(state.differ) ? state.differ : usual, one = choices.find((each) => each.number === number);
    at("differing-view").hidden = !one;
    at("differ-none").hidden = Boolean(one);
    if (!one) return;
    options(at("differ"), names, number, names.map((name) => columnFor(name).title));
    const extra = one.movedIn === number ? 2 : 0, unit = one.movedIn === number ? "" : ` (${one.movedIn})`;
    at("differing").tHead.replaceChildren(heads(["image", a + unit, b + unit, "difference"]));
    at("differing").tBodies[0].replaceChildren(...one.moved.slice(0, LISTED).map((image) => {
      const tr = make("tr");
      tr.append(make("th", image.name, { scope: "row" }), make("td", numberText(number, image.first, extra)), make("td", numberText(number, image.second, extra)), make("td", signed(image.gap, columnFor(number).digits + extra)));
      return tr;
    }));
    const pictured = one.moved.filter((image) => pictureOf(table, image.name, a) && pictureOf(table, image.name, b)).slice(0, PICTURED);
    at("differing-note").textContent = pictured.length ? "Pictures: of the images that both rows have pictures of, those with the largest differences." : "There are no pictures of these images by both rows.";
    at("differing-pictures").replaceChildren(...pictured.map((image) => {
      const figure = make("figure"), line = make("div", undefined, { className: "three" });
      const [ours, theirs] = [a, b].map((name) => pictureOf(table, image.name, name));
      for (const [title, src] of [["original", ours.original], [a, ours.file], [b, theirs.file]]) {
        const part = make("div");
        part.append(make("img", undefined, { loading: "lazy", alt: `${image.name}, ${title}`, width: 192, height: 192, src }), make("small", title));
        line.append(part);
      }
      figure.append(line, make("figcaption", `${image.name}: ${numberText(number, image.first, extra)} and ${numberText(number, image.second, extra)}, difference ${signed(image.gap, columnFor(number).digits + extra)}`));
      return figure;
    }));
  }
  function pictureOf(table, image, adapter) { // {original, file}, or undefined
    const { images, reconstructions, differing } = data.pictures, own = (object, key) => (object && Object.hasOwn(object, key) ? object[key] : undefined);
    const chosen = own(own(own(differing, table.name), adapter), image);
    if (chosen || table.name !== "samples-reconstruct") return chosen;
    const original = images.find((one) => one.name === image), file = own(own(reconstructions, adapter), image)?.file;
    return original && file ? { original: original.file, file } : undefined;
  }
