// Run inside a report by check_page.py: what a reader would see, as JSON.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const name = (node) => (node.closest(".chart") ? node.closest(".chart").querySelector("h4").textContent + ": " : "") +
    node.tagName + " " + node.textContent.trim().slice(0, 60);
  const isShown = (node) => node.checkVisibility();

  const pixelsOf = (canvas) => {
    const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    return context.getImageData(0, 0, copy.width, copy.height).data;
  };

  // Pixels of each curve's colour on the canvases of its chart; the lower of two equal curves cannot be seen.
  const drawn = data.grids.flatMap((grid) => {
    const boxes = document.getElementById(grid.id).querySelectorAll(".chart");
    return grid.charts.map((chart, i) => {
      const pixels = boxes[i] ? [...boxes[i].querySelectorAll("canvas")].map(pixelsOf) : [];
      const seen = chart.curves.filter((curve, c) =>
        !chart.curves.slice(c + 1).some((over) => JSON.stringify(over.y) === JSON.stringify(curve.y)));
      return { title: chart.title, curves: seen.map((curve) => {
        const want = rgb(css(curve.colour < 0 ? "--teacher" : "--line-" + curve.colour % 8));
        let count = 0;
        for (const p of pixels)
          for (let at = 0; at < p.length; at += 4)
            count += p[at + 3] > 150 && Math.max(...want.map((v, j) => Math.abs(v - p[at + j]))) < 24;
        return { name: curve.name, pixels: count };
      }) };
    });
  });

  const width = document.documentElement.clientWidth;
  const wide = [...document.body.querySelectorAll("*")].filter((node) => {
    const box = node.closest(".scroll, pre");
    return isShown(node) && (!box || box === node) && node.getBoundingClientRect().right > width + 0.5;
  }).map(name);

  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    if (node.textContent.trim() && isShown(node.parentElement) && !node.parentElement.closest("script, noscript, style"))
      texts.push(node);
  const boxOf = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return range.getBoundingClientRect();
  };
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const groundOf = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const illegible = texts.filter((node) => {
    const style = getComputedStyle(node.parentElement);
    const [low, high] = [luminance(style.color), luminance(groundOf(node.parentElement))].sort((a, b) => a - b);
    return parseFloat(style.fontSize) < 11.5 || (high + 0.05) / (low + 0.05) < 4.5;
  }).map((node) => name(node.parentElement));

  // Labels of axes over each other, or over the edge of their chart.
  const clashes = [];
  for (const chart of document.querySelectorAll(".chart")) {
    const frame = chart.getBoundingClientRect();
    const labels = texts.filter((node) => chart.contains(node) && node.parentElement.closest(".plot"))
      .map((node) => ({ node, box: boxOf(node) }));
    labels.forEach((a, i) => {
      if (a.box.left < frame.left || a.box.right > frame.right || a.box.bottom > frame.bottom)
        clashes.push(name(a.node.parentElement) + " is cut off");
      for (const b of labels.slice(i + 1))
        if (a.box.left < b.box.right - 1 && b.box.left < a.box.right - 1 && a.box.top < b.box.bottom - 1 && b.box.top < a.box.bottom - 1)
          clashes.push(name(a.node.parentElement) + " overlaps " + b.node.textContent);
    });
  }
  return {
    drawn, wide, illegible, clashes, num_charts: document.querySelectorAll(".chart").length,
    width: [document.documentElement.scrollWidth, width],
    colours: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => css("--line-" + i)).concat(css("--teacher")), raised: css("--raised"),
  };
})()
