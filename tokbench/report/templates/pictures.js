  // Pictures of the same images side by side, the images with the worst values, and the worst words and faces.

  function drawPictures() {
    const { images, adapters, worst, reconstructions } = data.pictures;
    if (!images.length) return;
    const image = images.find((one) => one.name === state.image) || images[0];
    const names = ["original", ...adapters], usual = (list) => list.find((name) => name !== "identity") || list[0]; // identity has no errors to show
    const left = names.includes(state.left) ? state.left : "original";
    const right = names.includes(state.right) ? state.right : usual(adapters) || "original";
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
    const having = Object.keys(worst), of = having.includes(state.worst) ? state.worst : usual(having);
    if (!of) return;
    const by = Object.keys(worst[of]).includes(state.by) ? state.by : Object.keys(worst[of])[0];
    options(at("worst-of"), having, of);
    options(at("worst-by"), Object.keys(worst[of]), by);
    at("worst").replaceChildren(...worst[of][by].map((one) => {
      const figure = make("figure", undefined, { className: one.width > one.height ? "wide" : "" });
      for (const [which, src, sound] of [["original", one.original, one.original_sound], [of, one.file, one.file_sound]]) {
        const alt = `${one.name}, ${which}`;
        figure.append(make("img", undefined, { loading: "lazy", alt, width: Math.round(128 * one.width / one.height), height: 128, src }));
        if (sound) figure.append(make("audio", undefined, { controls: true, preload: "none", ariaLabel: alt, src: sound }));
      }
      figure.append(make("figcaption", `${one.name}: ${one.caption}`));
      return figure;
    }));
  }
  function drawSheet() {
    const { sheets } = data.pictures;
    if (!sheets.length) return;
    const chosen = Math.max(0, place(state.sheet, sheets.length));
    options(at("sheet"), sheets.map((_, i) => String(i)), String(chosen), sheets.map((one) => one.title));
    const { file: src, title: alt, width, height, captions } = sheets[chosen];
    Object.assign(at("sheet-shown"), { alt, width, height, src });
    at("sheet-captions").replaceChildren(...captions.map((text) => make("li", text)));
  }
  const slide = () => { at("over").style.width = at("slider").value + "%"; };
