"use strict";
// Fills what lies between both ends of an interval, which MLflow draws as curves like any other.
(() => {
  const END = /^(.*)_(low|high)$/;
  const known = new WeakSet();

  // Curves of ends by run and metric: { low, high }. What MLflow draws faintly behind a smoothed curve is none.
  const intervals = (traces) => {
    const found = new Map();
    for (const trace of traces ?? []) {
      const [, metric, end] = END.exec(trace.metricKey ?? "") ?? [];
      if (!end || trace.hoverinfo === "skip") continue;
      const of = `${trace.uuid} ${metric}`;
      found.set(of, { ...found.get(of), [end]: trace });
    }
    return [...found.values()].filter(({ low, high }) => low && high);
  };

  const draw = (plot) => {
    const curves = plot.querySelector(".cartesianlayer .scatterlayer");
    const { xaxis, yaxis } = plot._fullLayout ?? {};
    plot.querySelectorAll(".interval").forEach((band) => band.remove());
    if (!curves || !xaxis || !yaxis) return;
    for (const { low, high } of intervals(plot.data)) {
      const points = ({ x, y }) => x.map((value, at) => [xaxis.d2p(value), yaxis.d2p(y[at])]);
      const around = [...points(high), ...points(low).reverse()].filter((point) => point.every(Number.isFinite));
      const band = document.createElementNS("http://www.w3.org/2000/svg", "path");
      band.setAttribute("class", "interval");
      band.setAttribute("d", around.length ? `M${around.join("L")}Z` : "");
      band.setAttribute("style", `fill:${low.marker?.color};fill-opacity:0.15;stroke:none;pointer-events:none`);
      curves.before(band);
    }
  };

  // Another version may keep its curves otherwise: then they stay as it draws them.
  const fill = (plot) => {
    try {
      draw(plot);
    } catch (error) {
      console.warn("optsweep: intervals aren't filled", error);
    }
  };

  new MutationObserver(() => {
    for (const plot of document.querySelectorAll(".js-plotly-plot")) {
      if (known.has(plot) || !plot.on) continue;
      known.add(plot);
      plot.on("plotly_afterplot", () => fill(plot));
      fill(plot);
    }
  }).observe(document, { childList: true, subtree: true });
})();
