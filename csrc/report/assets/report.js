// Draws the charts of the page from the JSON in #data, in the colours of the reader's scheme.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const isDark = window.matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colourOf = (curve) => css(curve.colour < 0 ? "--teacher" : "--line-" + curve.colour % 8);
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
  const formats = {
    number: short,
    percent: (x) => +(100 * x).toPrecision(3) + "%",
    log10: (x) => (Number.isInteger(x) ? "1e" + x : (+(10 ** x).toPrecision(2)).toExponential()),
  };

  // Rows of [x, value of the first curve, ...]; a curve without that x has null, and is joined across it. Where a chart
  // has intervals a value is [low, y, high].
  const rowsOf = (chart, hasBands) => {
    const rows = new Map();
    const gap = () => (hasBands ? [null, null, null] : null);
    chart.curves.forEach((curve, c) => curve.x.forEach((x, i) => {
      if (!rows.has(x)) rows.set(x, [x, ...chart.curves.map(gap)]);
      const y = curve.y[i];
      const bound = (side) => (curve[side] && curve[side][i] !== null ? curve[side][i] : y);
      rows.get(x)[c + 1] = hasBands ? [bound("low"), y, bound("high")] : y;
    }));
    return [...rows.values()].sort((a, b) => a[0] - b[0]);
  };

  // A plotter of dygraphs: the bars of all curves side by side around each x, a teacher's in outline.
  const drawBars = (chart) => (e) => {
    if (e.seriesIndex !== 0) return;
    const context = e.drawingContext, curves = e.allSeriesPoints, bottom = e.dygraph.toDomYCoord(0);
    const step = e.dygraph.toDomXCoord(1) - e.dygraph.toDomXCoord(0), width = 0.8 * step / curves.length;
    curves.forEach((points, c) => {
      context.fillStyle = context.strokeStyle = colourOf(chart.curves[c]);
      context.lineWidth = 2;
      for (const point of points) {
        if (point.yval === null || isNaN(point.yval)) continue;
        const left = point.canvasx - 0.4 * step + c * width + 1, top = point.canvasy;
        if (chart.curves[c].teacher) context.strokeRect(left + 1, top + 1, width - 4, bottom - top);
        else context.fillRect(left, top, width - 2, bottom - top);
      }
    });
  };

  // Above a chart, made of text nodes: names are anybody's words. Returns what shows the values under the pointer, for
  // which there is always room: a legend that grew would move the chart.
  const legendOf = (chart, parent) => {
    const legend = element("div", "legend", parent);
    const items = chart.curves.map((curve) => {
      const item = element("span", "", legend);
      const line = chart.curves.length > 1 ? element("i", curve.teacher ? "dashed" : "", item) : null;
      if (line) element("span", "name", item, curve.name).title = curve.name;
      return { line, value: element("span", "value", item) };
    });
    return (valueOf) => items.forEach(({ line, value }, c) => {
      if (line) line.style.color = colourOf(chart.curves[c]);
      const y = valueOf ? valueOf(c) : null;
      value.textContent = y === null || y === undefined ? "" : short(y);
    });
  };

  const styles = {
    line: (chart, rows) => ({ drawPoints: rows.length < 12, pointSize: 3 }),
    points: () => ({ drawPoints: true, pointSize: 3 }),
    steps: () => ({ stepPlot: true, includeZero: true }),
    bars: (chart) => ({ plotter: drawBars(chart), includeZero: true, dateWindow: [-0.5, chart.categories.length - 0.5] }),
  };
  // Dragging with a finger scrolls the page, as it does elsewhere; zooming is the mouse's.
  const { touchstart, touchmove, touchend, ...mouseOnly } = Dygraph.defaultInteractionModel;

  const draw = (chart, grid) => {
    const box = element("section", "chart", grid);
    element("h4", "", box, chart.title);
    const showLegend = legendOf(chart, box);
    const plot = element("div", "plot", box);
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", chart.title + " over " + chart.x_label + ": " + chart.curves.map((c) => c.name).join(", "));
    showLegend();
    const hasBands = chart.curves.some((curve) => curve.low);
    const rows = rowsOf(chart, hasBands);
    const series = {};
    chart.curves.forEach((curve, c) => {
      series["curve " + c] = { strokePattern: curve.teacher ? [6, 4] : curve.colour > 7 ? [2, 2] : null };
    });
    const x = { axisLabelFormatter: formats[chart.x_format], pixelsPerLabel: 50 };
    if (chart.categories.length) {
      x.axisLabelWidth = 110;
      x.drawGrid = false;
      x.ticker = () => chart.categories.map((label, v) => ({ v, label }));
    }
    const colours = () => ({ colors: chart.curves.map(colourOf), gridLineColor: css("--grid"), axisLineColor: css("--rule") });
    const axis = () => plot.querySelector(".dygraph-xlabel");
    const graph = new Dygraph(plot, rows, {
      labels: ["x", ...chart.curves.map((curve, c) => "curve " + c)], ...colours(), series, xlabel: chart.x_label,
      xLabelHeight: 20, customBars: hasBands, connectSeparatedPoints: true, strokeWidth: 1.75, highlightCircleSize: 4,
      legend: "never", showLabelsOnHighlight: false, xRangePad: 4, yRangePad: 6, rightGap: 14, interactionModel: mouseOnly,
      ...styles[chart.style](chart, rows),
      axes: { x, y: { axisLabelFormatter: short, axisLabelWidth: 52, pixelsPerLabel: 28 } },
      highlightCallback: (event, at, points) => {
        axis().textContent = chart.categories[at] || chart.x_label + ": " + formats[chart.x_format](at);
        showLegend((c) => points.find((p) => p.name === "curve " + c)?.yval);
      },
      unhighlightCallback: () => {
        axis().textContent = chart.x_label;
        showLegend();
      },
    });
    return { chart, graph, recolour: () => { graph.updateOptions(colours()); showLegend(); } };
  };

  const charts = data.grids.flatMap((grid) => grid.charts.map((chart) => draw(chart, document.getElementById(grid.id))));
  isDark.addEventListener("change", () => charts.forEach((c) => c.recolour()));

  const controls = document.getElementById("controls");
  const control = (text, type, attributes, roles, optionsFor) => {
    const changed = charts.filter((c) => roles.includes(c.chart.role));
    if (!controls || !changed.length) return;
    const input = element("label", "", controls, text).appendChild(document.createElement("input"));
    Object.assign(input, { type, ...attributes });
    input.addEventListener("input", () => changed.forEach((c) => c.graph.updateOptions(optionsFor(input))));
  };
  control("Running mean", "range", { min: 1, max: 50, value: 1 }, ["loss", "training"],
          (input) => ({ rollPeriod: +input.value }));
  control("Logarithmic losses", "checkbox", {}, ["loss", "evaluation"], (input) => ({ logscale: input.checked }));
  if (controls) element("span", "hint", controls, "Drag to zoom, double-click to zoom out.");
})();
