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

  const draw = async (box) => {
    const figure = JSON.parse(box.querySelector("script").textContent);
    const layout = { ...figure.layout, autosize: true };
    delete layout.width; // the page decides how wide a figure is
    if (box.clientWidth < NARROW && (layout.legend || {}).y === undefined) {
      layout.legend = { ...layout.legend, orientation: "h", y: -0.25, x: 0, yanchor: "top", xanchor: "left" };
    }
    const plot = document.createElement("div");
    box.append(plot);
    const config = { responsive: true, displaylogo: false, ...figure.config };
    await Plotly.newPlot(plot, figure.data, layout, config);
    plot.on("plotly_click", ({ points }) => tellLatent(figure, points[0]));
    if (figure.frames) await Plotly.addFrames(plot, figure.frames);
    const paint = () => Plotly.relayout(plot, pageColours(figure, plot._fullLayout));
    await paint();
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
