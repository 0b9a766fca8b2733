// Any two quantities of the students against each other, and who is beaten in neither.
(() => {
  const place = document.getElementById("trade");
  if (!place) return;
  const { quantities, students } = JSON.parse(document.getElementById("trade-data").textContent);
  const NS = "http://www.w3.org/2000/svg", WIDTH = 720, HEIGHT = 380;
  const LEFT = 70, RIGHT = 20, TOP = 16, BOTTOM = 44;
  const svg = (tag, attributes, text) => {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const chosen = (label, start, id) => {
    const made = document.createElement("select");
    made.id = id;
    quantities.forEach((one, k) => made.append(new Option(one.title, k, k === start, k === start)));
    const whole = document.createElement("label");
    whole.append(`${label} `, made);
    made.addEventListener("change", draw);
    return [whole, made];
  };
  const told = (number, { decimals, unit }) => `${number.toFixed(decimals).replace("-", "\u2212")}${unit ? ` ${unit}` : ""}`;

  // A scale from values to pixels; of a cost logarithmic where they differ by more than twentyfold.
  function scale(values, from, to, cost) {
    const least = Math.min(...values), most = Math.max(...values);
    const log = cost && least > 0 && most / least > 20, f = log ? Math.log10 : (x) => x;
    const room = (f(most) - f(least) || Math.abs(f(most)) || 1) * 0.06;
    const low = f(least) - room, high = f(most) + room;
    const at = (x) => from + ((f(x) - low) / (high - low)) * (to - from);
    if (log) {
      const ticks = [];
      for (let power = Math.ceil(low - 1); power <= high; power++) {
        for (const step of high - low > 3 ? [1] : [1, 2, 5]) ticks.push(step * 10 ** power);
      }
      return { at, ticks: ticks.filter((x) => f(x) >= low && f(x) <= high) };
    }
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough);
    const ticks = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(k * step);
    return { at, ticks };
  }
  // Those that no other one equals or betters in both and betters in one.
  function front(points, x, y) {
    const sign = (one) => (one.better === "lower" ? 1 : -1);
    const cost = ({ values }) => [sign(x) * values[x.name], sign(y) * values[y.name]];
    return points.filter((one) => {
      const [a, b] = cost(one);
      return !points.some((other) => {
        const [c, d] = cost(other);
        return c <= a && d <= b && (c < a || d < b);
      });
    });
  }
  const short = (number) => Number(number.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 }).replace("-", "\u2212");
  function draw() {
    const x = quantities[across.value], y = quantities[up.value];
    const points = students.filter(({ values }) => values[x.name] !== undefined && values[y.name] !== undefined);
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${y.title} against ${x.title}` });
    if (points.length) {
      const over = scale(points.map((one) => one.values[x.name]), LEFT, WIDTH - RIGHT, x.cost);
      const along = scale(points.map((one) => one.values[y.name]), HEIGHT - BOTTOM, TOP, y.cost);
      for (const tick of over.ticks) {
        picture.append(svg("line", { class: "grid", x1: over.at(tick), x2: over.at(tick), y1: TOP, y2: HEIGHT - BOTTOM }));
        picture.append(svg("text", { x: over.at(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, short(tick)));
      }
      for (const tick of along.ticks) {
        picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: along.at(tick), y2: along.at(tick) }));
        picture.append(svg("text", { x: LEFT - 8, y: along.at(tick) + 4, "text-anchor": "end" }, short(tick)));
      }
      const arrow = (one) => ({ higher: " \u2191", lower: " \u2193", reference: "" })[one.better];
      picture.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, x.title + arrow(x)));
      picture.append(svg("text", { transform: `translate(14 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, y.title + arrow(y)));
      const judged = x.better !== "reference" && y.better !== "reference";
      const best = judged ? front(points, x, y) : [];
      const path = [...best].sort((a, b) => a.values[x.name] - b.values[x.name]).map((one) => `${over.at(one.values[x.name])},${along.at(one.values[y.name])}`);
      if (path.length > 1) picture.append(svg("polyline", { class: "front", points: path.join(" ") }));
      const labels = [];
      for (const one of [...points].sort((a, b) => along.at(a.values[y.name]) - along.at(b.values[y.name]))) {
        const px = over.at(one.values[x.name]), py = along.at(one.values[y.name]), late = px > WIDTH * 0.7;
        const dot = svg("circle", { cx: px, cy: py, r: 5, ...(one.color ? { fill: one.color } : { class: "hollow" }) });
        dot.append(svg("title", {}, `${one.title}: ${told(one.values[x.name], x)}, ${told(one.values[y.name], y)}`));
        picture.append(dot);
        // Names of points that lie close stand below each other.
        let line = py + 4;
        for (const [x0, y0] of labels) if (Math.abs(x0 - px) < 140 && line - y0 < 13) line = y0 + 13;
        labels.push([px, line]);
        picture.append(svg("text", { x: px + (late ? -9 : 9), y: line, "text-anchor": late ? "end" : "start", ...(best.includes(one) ? { class: "best" } : {}) }, one.title));
      }
    }
    shown.replaceChildren(picture);
  }
  const start = (name, otherwise) => Math.max(0, quantities.findIndex((one) => one.name === (name ?? otherwise)));
  const controls = document.createElement("p"), shown = document.createElement("div");
  const [acrossLabel, across] = chosen("Across:", start(place.dataset.across), "trade-across");
  const [upLabel, up] = chosen("up:", start(place.dataset.up), "trade-up");
  controls.append(acrossLabel, " ", upLabel);
  place.append(controls, shown);
  draw();
})();
