// Draws the Plotly figures of a page, each when it comes near the window, in the colours of the page.
(() => {
  const MIME = "application/vnd.plotly.v1+json";
  const NARROW = 560; // pixels: below this a legend goes under the figure, unless its author placed it

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // The page's colours, as a change of layout. What the figure's author set by hand stays as it is.
  const pageColours = (figure, drawn) => {
    const text = colour("--pst-color-text-base"), line = colour("--pst-color-border");
    const change = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": text };
    const own = figure.layout || {};
    const background = colour("--pst-color-surface");
    change["hoverlabel.bgcolor"] = background;
    change["hoverlabel.font.color"] = text;
    change["hoverlabel.bordercolor"] = line;
    for (const name of Object.keys(drawn).filter((key) => /^[xy]axis\d*$/.test(key))) {
      for (const part of ["gridcolor", "zerolinecolor", "linecolor"]) {
        if (!(own[name] && own[name][part])) change[`${name}.${part}`] = line;
      }
    }
    (drawn.updatemenus || []).forEach((_, i) => {
      change[`updatemenus[${i}].bgcolor`] = background;
      change[`updatemenus[${i}].font.color`] = text;
      change[`updatemenus[${i}].bordercolor`] = line;
    });
    return change;
  };

  // A dot that stands for a latent was clicked: a table of latents on the page may want to show it (browser.js).
  const tellLatent = (figure, point) => {
    const wanted = ((figure.layout || {}).meta || {}).click === "latent" && Number.isInteger(point.customdata);
    if (wanted) document.dispatchEvent(new CustomEvent("latent-chosen", { detail: point.customdata }));
  };

  // A text in lines of about the same length, so many that each is narrow enough.
  const inLines = (text, n) => {
    const most = text.length / n, lines = [""];
    for (const word of text.split(" ")) {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (lines.at(-1) && longer.length > most + 2) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    return lines.join("<br>");
  };

  // On a narrow page nothing may be cut off at the sides, or stand on something else.
  const fit = async (plot) => {
    const whole = plot.getBoundingClientRect(), layout = plot._fullLayout, change = {};
    for (const name of Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key))) {
      const words = plot.querySelector(`.${name.replace("axis", "")}title`);
      if (!words) continue;
      const place = words.getBoundingClientRect();
      if (place.left < whole.left || place.right > whole.right) {
        const middle = (place.left + place.right) / 2, room = 2 * Math.min(middle - whole.left, whole.right - middle);
        change[`${name}.title.text`] = inLines(layout[name].title.text, Math.ceil(place.width / room));
      }
    }
    const [title, legend] = [".gtitle", ".legend"].map((part) => plot.querySelector(part));
    if (title && legend) {
      const [above, below] = [title, legend].map((part) => part.getBoundingClientRect());
      if (above.bottom > below.top && above.top < below.bottom) {
        const missing = Math.ceil(above.height + 14 - (below.top - whole.top)), height = layout.height + missing;
        Object.assign(change, { height, "margin.t": layout._size.t + missing, "title.yanchor": "middle",
          "title.y": 1 - (4 + above.height / 2) / height });
      }
    }
    if (Object.keys(change).length) await Plotly.relayout(plot, change);
  };

  const draw = async (box) => {
    const figure = JSON.parse(box.querySelector("script").textContent);
    const layout = { ...figure.layout, autosize: true };
    delete layout.width; // the page decides how wide a figure is
    if (box.clientWidth < NARROW && (layout.legend || {}).y === undefined) {
      layout.legend = { ...layout.legend, orientation: "h", y: -0.25, x: 0, yanchor: "top", xanchor: "left" };
    }
    const plot = document.createElement("div");
    const least = (layout.meta || {}).least_width || 0; // pixels: narrower, and its words would run into each other
    if (box.clientWidth < least) {
      plot.style.width = `${least}px`;
      box.tabIndex = 0; // so that the arrow keys can scroll it
    }
    box.append(plot);
    const config = { responsive: true, displaylogo: false, ...figure.config };
    await Plotly.newPlot(plot, figure.data, layout, config);
    plot.on("plotly_click", ({ points }) => tellLatent(figure, points[0]));
    if (figure.frames) await Plotly.addFrames(plot, figure.frames);
    const paint = () => Plotly.relayout(plot, pageColours(figure, plot._fullLayout));
    await paint();
    await fit(plot);
    new MutationObserver(paint).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    box.dataset.drawn = "true";
  };

  const start = () => {
    const boxes = [...document.querySelectorAll(".plotly-figure")];
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    }, { rootMargin: "400px" });
    boxes.forEach((box) => watcher.observe(box));
    window.addEventListener("beforeprint", () => boxes.filter((box) => !box.querySelector(".js-plotly-plot")).forEach(draw));
  };

  start(); // the script is deferred: the page is there
})();
