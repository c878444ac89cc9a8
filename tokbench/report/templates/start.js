  // Draws the page and binds its controls.

  function draw() {
    read();
    drawControls();
    drawTable();
    drawComparison();
    drawPlot();
    drawPictures();
    drawSheet();
    if (state.row && state.row !== scrolledTo) at("rows").querySelector("tr.marked")?.scrollIntoView({ block: "center" });
    scrolledTo = state.row;
  }

  const bind = (id, key = id) => at(id)?.addEventListener("change", (event) => write({ [key]: event.target.type === "checkbox" ? (event.target.checked ? "1" : "") : event.target.value }));
  at("table").addEventListener("change", (event) => write({ ...OF_TABLE, table: event.target.value }));
  for (const key of filters) at(key).addEventListener("change", (event) => write({ ...OF_TABLE, [key]: event.target.value, table: "" }));
  at("family").addEventListener("input", (event) => write({ family: event.target.value }));
  for (const id of ["kind", "published", "plot", "differ", "image", "left", "right", "zoom", "error", "sheet"]) bind(id);
  bind("worst-of", "worst");
  bind("worst-by", "by");
  for (const [id, key] of [["first", "a"], ["second", "b"]]) { // the other one is fixed, too, so that it does not follow the table
    at(id).addEventListener("change", () => write({ a: at("first").value, b: at("second").value, [key]: at(id).value }));
  }
  at("swap").addEventListener("click", () => write({ a: at("second").value, b: at("first").value }));
  at("slider")?.addEventListener("input", slide);
  listenForFiles();
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => { // the address is reserved for the state of the page
      event.preventDefault();
      at(link.hash.slice(1)).scrollIntoView();
    });
  }
  at("families").append(...sorted(data.tables.flatMap((one) => one.rows.map((row) => row.family))).map((value) => make("option", undefined, { value })));
  addEventListener("hashchange", draw);
  for (const query of ["(prefers-color-scheme: dark)", "(max-width: 600px)"]) matchMedia(query).addEventListener("change", drawPlot);
  new IntersectionObserver((entries) => {
    if (seen || !entries.some((entry) => entry.isIntersecting)) return;
    seen = true;
    drawComparison();
  }).observe(at("comparison"));
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
