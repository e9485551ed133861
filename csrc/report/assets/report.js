// Draws the charts of the page from the JSON in #data, a line a run, in the colours of the reader's scheme.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const isDark = window.matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const element = (tag, className, parent, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return parent.appendChild(made);
  };

  const units = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const short = (y) => {
    const size = Math.abs(y);
    for (const [unit, name] of units) if (size >= unit) return +(y / unit).toPrecision(4) + name;
    return size !== 0 && size < 1e-3 ? (+y.toPrecision(3)).toExponential() : String(+y.toPrecision(4));
  };

  // Rows of [step, value of the first curve, ...]; a curve without that step has null, and is joined across it.
  const rowsOf = (chart) => {
    const rows = new Map();
    chart.curves.forEach((curve, c) => curve.steps.forEach((step, i) => {
      if (!rows.has(step)) rows.set(step, [step, ...chart.curves.map(() => null)]);
      rows.get(step)[c + 1] = curve.values[i];
    }));
    return [...rows.values()].sort((a, b) => a[0] - b[0]);
  };

  const colours = () => ({
    lines: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => css("--line-" + i)), grid: css("--grid"), rule: css("--rule"),
  });

  const charts = data.charts.map((chart) => {
    const box = element("section", "chart", document.getElementById("charts"));
    element("h3", "", box, chart.title);
    const legend = element("div", "legend", box);
    const plot = element("div", "plot", box);
    // Built by hand, with text nodes: run names are anybody's words.
    const showLegend = (x, valueOf) => {
      legend.textContent = x === undefined ? "" : "step " + x + "  ";
      chart.curves.forEach((curve, c) => {
        const value = valueOf ? valueOf(c) : undefined;
        if (data.runs.length < 2 && value === undefined) return;
        const name = element("b", "", legend, data.runs.length < 2 ? "" : data.runs[curve.run] + " ");
        name.style.color = colours().lines[curve.run % 8];
        element("span", "", legend, value === undefined || value === null ? " " : short(value) + "  ");
      });
    };
    showLegend();
    const colour = colours();
    const rows = rowsOf(chart);
    const graph = new Dygraph(plot, rows, {
      labels: ["step", ...chart.curves.map((curve, c) => "curve " + c)],
      colors: chart.curves.map((curve) => colour.lines[curve.run % 8]),
      gridLineColor: colour.grid, axisLineColor: colour.rule,
      connectSeparatedPoints: true, strokeWidth: 1.5, highlightCircleSize: 4, legend: "never", showLabelsOnHighlight: false,
      drawPoints: rows.length < 12, pointSize: 3, xRangePad: 4, yRangePad: 6, rightGap: 14,
      axes: { x: { axisLabelFormatter: short, pixelsPerLabel: 60 },
              y: { axisLabelFormatter: short, axisLabelWidth: 52, pixelsPerLabel: 28 } },
      highlightCallback: (event, x, points) => showLegend(x, (c) => {
        const point = points.find((p) => p.name === "curve " + c);
        return point ? point.yval : null;
      }),
      unhighlightCallback: () => showLegend(),
    });
    return { chart, graph, showLegend };
  });

  const controls = document.getElementById("controls");
  const control = (text, type, attributes, apply) => {
    const label = element("label", "", controls, text);
    const input = label.appendChild(Object.assign(document.createElement("input"), { type, ...attributes }));
    input.addEventListener("input", () => apply(input));
  };
  if (charts.length) {
    control("Running mean", "range", { min: 1, max: 50, value: 1 }, (input) =>
      charts.forEach((c) => { if (c.chart.group !== 1) c.graph.updateOptions({ rollPeriod: +input.value }); }));
    control("Logarithmic losses", "checkbox", {}, (input) =>
      charts.forEach((c) => { if (c.chart.group < 2) c.graph.updateOptions({ logscale: input.checked }); }));
    element("span", "", controls, "Drag to zoom, double-click to zoom out.");
  }
  isDark.addEventListener("change", () => {
    const colour = colours();
    charts.forEach((c) => {
      c.graph.updateOptions({ colors: c.chart.curves.map((curve) => colour.lines[curve.run % 8]),
                              gridLineColor: colour.grid, axisLineColor: colour.rule });
      c.showLegend();
    });
  });
})();
