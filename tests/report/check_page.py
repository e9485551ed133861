"""Opens a report in a real headless browser and looks at it: check_page.py PAGE.html [--screenshots FOLDER].

In light, in dark (switched while open) and at a phone's width: no error, no request but for the page itself, every curve
drawn in its colour (one that lies under another is taken for missing), nothing wider than the window, text large and contrasted enough (WCAG 2.2: 4.5 for text, 3 for
lines), no labels over each other, lines that stay apart for the colour-blind. Exits with 77 where there is no browser.
"""
import argparse
import base64
import itertools
import os
import pathlib
import sys

import devtools

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
DEFICIENCIES = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.95047, 1, 1.08883)
LEAST_DIFFERENCE = 15  # CIE76 between any two lines; 2.3 is just noticeable side by side


def product(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector)) for row in matrix]


def linear(colour):
    values = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def lab(rgb):
    ratio = [v / w for v, w in zip(product(XYZ, [min(max(v, 0), 1) for v in rgb]), WHITE)]
    x, y, z = [v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in ratio]
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def colour_problems(colours, ground):
    for colour in colours:
        low, high = sorted(product(XYZ, linear(c))[1] for c in (colour, ground))
        if (high + 0.05) / (low + 0.05) < 3:
            yield f"the line {colour} has too little contrast with {ground}"
    for name, matrix in DEFICIENCIES.items():
        for a, b in itertools.combinations(colours, 2):
            difference = sum((u - v) ** 2 for u, v in zip(*(lab(product(matrix, linear(c))) for c in (a, b)))) ** 0.5
            if difference < LEAST_DIFFERENCE:
                yield f"lines {a} and {b} differ by {difference:.1f} only (colour vision deficiency: {name})"


def problems_of(page):
    for chart in page["drawn"]:
        for curve in chart["curves"]:
            if curve["pixels"] < 20:
                yield f"'{chart['title']}': the curve '{curve['name']}' is not drawn ({curve['pixels']} pixels)"
    if page["num_charts"] != len(page["drawn"]) or not page["drawn"]:
        yield f"{page['num_charts']} charts for {len(page['drawn'])} in the data"
    if page["width"][0] > page["width"][1]:
        yield f"the page scrolls sideways: {page['width'][0]} px in a window of {page['width'][1]}"
    for what, words in (("wide", "reaches beyond the window"), ("illegible", "is too small or too pale"), ("clashes", "")):
        yield from (f"{text} {words}" for text in page[what][:10])
    yield from colour_problems(page["colours"], page["raised"])


def problems_of_events(events, url):
    requests = [e["params"]["request"]["url"] for e in events if e.get("method") == "Network.requestWillBeSent"]
    if url not in requests:
        yield f"the page itself was not requested: {requests}"  # or the list would prove nothing
    yield from (f"the page requests {other}" for other in requests if other != url)
    for event in events:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            yield "exception: " + parameters["exceptionDetails"].get("exception", {}).get("description", str(parameters))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            yield "log: " + parameters["entry"]["text"]
        elif event.get("method") == "Runtime.consoleAPICalled":
            yield "console: " + str(parameters["args"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    path = devtools.find()
    if not path:
        print("SKIPPED: needs a browser, one of " + ", ".join(devtools.NAMES) + " (scripts/setup --tests)")
        return 77
    url = arguments.page.resolve().as_uri()
    look = pathlib.Path(__file__).with_name("check_page.js").read_text()
    problems = []

    with devtools.Browser(path) as browser:
        def show(scheme, width, is_phone):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=2 if is_phone else 1,
                         mobile=is_phone)

        def load():
            browser.events.clear()
            browser.call("Page.navigate", url=url)
            browser.wait_for("Page.loadEventFired")

        def check(name):
            browser.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            page = browser.evaluate(look)
            found = [*problems_of(page), *problems_of_events(browser.events, url)]
            problems.extend(f"{name}: {problem}" for problem in found)
            print(f"{name}: {page['num_charts']} charts, {len(found)} problems")
            if arguments.screenshots:
                os.makedirs(arguments.screenshots, exist_ok=True)
                image = browser.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                (arguments.screenshots / f"{name}.png").write_bytes(base64.b64decode(image))

        show("light", 1280, False)
        load()
        check("light")
        show("dark", 1280, False)
        check("dark")
        # A pointer over a chart: the axis says where, in its own words, and the legend what.
        point = browser.evaluate("""(() => {
            const plot = document.querySelector(".chart .plot");
            plot.scrollIntoView({ block: "center" });
            const box = plot.getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2];
        })()""")
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=point[0], y=point[1])
        axis, value, label = browser.evaluate("""[".dygraph-xlabel", ".legend .value"].map(
            (part) => document.querySelector(".chart " + part)?.textContent ?? "").concat(
            JSON.parse(document.getElementById("data").textContent).grids[0].charts[0].x_label)""")
        if not axis.startswith(label + ": ") or not value:
            problems.append(f"pointer: expected '{label}: ...' and a value, found '{axis}' and '{value}'")
        browser.evaluate("""document.querySelectorAll("#controls input").forEach((input) => {
            if (input.type === "range") input.value = 5; else input.checked = true;
            input.dispatchEvent(new Event("input"));
        })""")
        check("controls")
        for scheme in ("light", "dark"):
            show(scheme, 390, True)
            load()
            check(f"phone-{scheme}")

    print("\n".join(problems))
    return 1 if problems else 0


sys.exit(main())
