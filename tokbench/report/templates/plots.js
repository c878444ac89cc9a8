  // The plots: those of the shown table first. Points of dropped results are added to plots with one point per row.

  const plotTitle = (plot) => `${plot.title} (${plot.table})`;
  function chosenPlot() { // an index; -1 if the shown table has no plot
    const asked = place(state.plot, data.plots.length);
    return asked >= 0 ? asked : data.plots.findIndex((plot) => plot.table === state.shown?.name);
  }
  function drawPlotChoice(chosen) {
    const groups = [["of this table", (plot) => plot.table === state.shown?.name], ["of other tables", (plot) => plot.table !== state.shown?.name]].map(([label, fits]) => {
      const group = make("optgroup", undefined, { label });
      data.plots.forEach((plot, i) => { if (fits(plot)) group.append(make("option", plotTitle(plot), { value: String(i), selected: i === chosen })); });
      return group;
    });
    const none = chosen < 0 ? [make("option", "none of this table", { value: "", selected: true })] : [];
    at("plot").replaceChildren(...none, ...groups.filter((group) => group.children.length));
  }

  function withDropped(plot) { // the points of a plot and those of dropped rows of its table
    const points = plot.spec.datasets.points, table = data.tables.find((one) => one.name === plot.table);
    if (!plot.fields || !table) return points;
    const [x, y] = plot.fields.map((field) => table.columns.findIndex((one) => one.field === field && !one.label));
    if (x < 0 || y < 0) return points;
    const added = table.rows.filter((row) => row.result && measured(row, x) && measured(row, y) && row.values[x][0] !== null && row.values[y][0] !== null);
    return [...points, ...added.map((row) => {
      const [value, low, high] = row.values[y], digits = table.columns[y].digits;
      const interval = low === null || low === undefined ? "none" : `${formatted(low, digits)} to ${formatted(high, digits)}`;
      return { row: row.adapter, label: row.adapter, line: row.adapter, family: "dropped results", x: row.values[x][0], y: value, low, high, interval };
    })];
  }
  function withColours(part, points) { // dropped results have a colour of their own
    if (!points.some((point) => point.family === "dropped results")) return part;
    const encoding = { ...part.encoding };
    for (const [channel, look] of [["color", "#e0218a"], ["shape", "diamond"]]) {
      const { scale } = encoding[channel] || {};
      if (scale) encoding[channel] = { ...encoding[channel], scale: { domain: [...scale.domain, "dropped results"], range: [...scale.range, look] } };
    }
    return { ...part, encoding };
  }

  let drawn = null;
  function drawPlot() {
    const chosen = chosenPlot(), plot = data.plots[chosen];
    drawPlotChoice(chosen);
    const narrow = matchMedia("(max-width: 600px)").matches;
    const points = plot ? withDropped(plot) : [];
    const now = JSON.stringify([chosen, matchMedia("(prefers-color-scheme: dark)").matches, narrow, points.length, state.shown?.name]);
    if (now === drawn) return;
    at("figure").hidden = at("points-list").hidden = !plot;
    if (!plot) {
      at("plot-note").textContent = data.plots.length ? "This table has no plot: no two of its numbers that are plotted together have values in the same row. Plots of other tables can be chosen above." : "There are no results to plot.";
      at("figure").replaceChildren();
      drawn = now;
      return;
    }
    at("plot-note").textContent = plot.note;
    drawPoints(plot, points);
    if (!window.vegaEmbed) return;
    drawn = now;
    const { color: text, backgroundColor: back } = getComputedStyle(document.body), line = getComputedStyle(document.documentElement).getPropertyValue("--line");
    const config = {
      background: "transparent", view: { stroke: line },
      style: { label: { color: text, fontWeight: 600, fontSize: 12 }, halo: { color: back, stroke: back, strokeWidth: 5, strokeJoin: "round", fontWeight: 600, fontSize: 12 } },
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: text, titleColor: text, orient: "bottom", columns: narrow ? 3 : 9, symbolOpacity: 1 }, title: { color: text },
    };
    const spec = { ...plot.spec, datasets: { ...plot.spec.datasets, points }, config };
    if (spec.layer) spec.layer = spec.layer.map((part) => withColours(part, points));
    if (spec.hconcat && narrow) { spec.vconcat = spec.hconcat.map((part) => ({ ...part, width: 250 })); delete spec.hconcat; }
    window.vegaEmbed(at("figure"), spec, { renderer: "svg", actions: false }).then(({ view }) => {
      view.addEventListener("click", (_, item) => { if (item?.datum?.row) go(plot.table, item.datum.row, { plot: String(chosen) }); });
    });
  }
  function drawPoints(plot, points) { // the same data as a table, for screen readers and keyboards
    at("points").tHead.replaceChildren(heads(["", ...plot.axes]));
    at("points").tBodies[0].replaceChildren(...points.map((point) => {
      const tr = make("tr"), th = make("th", undefined, { scope: "row" }), button = make("button", point.label);
      button.addEventListener("click", () => go(plot.table, point.row, { plot: state.plot || "" }));
      th.append(button);
      tr.append(th, ...[point.x, point.y].map((value) => make("td", value === null ? "–" : String(Number(value.toPrecision(6))))));
      return tr;
    }));
  }
