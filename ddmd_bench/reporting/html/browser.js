// All prompts of the run, the students side by side. What is shown stands in the page's address.
(async () => {
  const place = document.getElementById("browser");
  if (!place) return;
  const given = JSON.parse(document.getElementById("browser-data").textContent);
  const run = await unpackedRun(given.packed).catch(() => null);
  if (!run) {
    place.textContent = "This browser cannot unpack the pictures: it is older than 2023.";
    return;
  }
  const { students, metrics, prompts, ids, numbers, at, metricAt, value, mark, fileOf, linkTo, told } = run;
  const setOf = ids.map((id) => id.slice(0, id.lastIndexOf("/")));
  const lower = prompts.map((text) => text.toLowerCase());
  const sets = [...new Set(setOf)];
  const categories = [...new Set(Object.values(run.categories))].sort();
  const small = Math.max(...run.tile) < 128;
  const ORDERS = {
    worst: "lost first", best: "won first", suite: "as in the suite",
    disagree: "metrics disagree most first", random: "at random, always alike",
  };
  const VERDICTS = { all: "all", won: "won", lost: "lost", changed: "changed", alike: "alike" };
  // The two that are compared stand first: the last of twelve columns is out of sight.
  const comparedFirst = ({ a, b, columns }) => [...new Set([a, b, ...columns])];
  const DEFAULT = {
    a: run.a, b: run.b, metric: run.metric, order: "worst", query: "", set: "", category: "", verdict: "all",
    size: small ? 64 : 112, columns: comparedFirst({ ...run, columns: students.map((one) => one.name) }), hidden: [], pins: [], at: "", view: "", look: "", image: 0,
  };
  let state = read(), shown = [], cursor = 0, linked = null, keeping;

  // Positive where a is better; of a metric without a better direction where its value is larger.
  function difference(metric, prompt) {
    const sign = metrics[metric].better === "lower" ? -1 : 1;
    return sign * (value(state.a, metric, prompt) - value(state.b, metric, prompt));
  }

  // ---- The address

  function read() {
    const found = { ...DEFAULT }, [name, query] = location.hash.slice(1).split("?");
    if (name !== "pictures" || query === undefined) return found;
    for (const [key, text] of new URLSearchParams(query)) {
      if (!(key in DEFAULT)) continue;
      if (Array.isArray(DEFAULT[key])) found[key] = text.split(",").filter((one) => one in at);
      else found[key] = typeof DEFAULT[key] === "number" ? Number(text) || 0 : text;
    }
    if (!(found.a in at)) found.a = DEFAULT.a;
    if (!(found.b in at)) found.b = DEFAULT.b;
    if (metricAt(found.metric) < 0) found.metric = DEFAULT.metric;
    if (!(found.order in ORDERS)) found.order = DEFAULT.order;
    if (!(found.verdict in VERDICTS)) found.verdict = DEFAULT.verdict;
    if (found.view && !(found.view in VIEWS)) found.view = "";
    if (!(found.look in at)) found.look = "";
    found.size = Math.min(256, Math.max(32, found.size));
    found.image = Math.min(numbers.images - 1, Math.max(0, found.image));
    found.columns = [...new Set([...found.columns, ...DEFAULT.columns])];
    return found;
  }
  function address() {
    const query = new URLSearchParams();
    for (const [key, start] of Object.entries(DEFAULT)) {
      if (String(state[key]) !== String(start)) query.set(key, String(state[key]));
    }
    return `#pictures?${query}`;
  }
  // The link at once, the address when no more letters come.
  function keep() {
    link.href = address();
    clearTimeout(keeping);
    keeping = setTimeout(() => {
      try {
        history.replaceState(null, "", address());
      } catch {
        // Safari refuses more than 100 of them in 30 seconds; the link has the view all the same.
      }
    }, 300);
  }

  // ---- Which prompts, in which order

  function choose() {
    const metric = metricAt(state.metric), words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const keys = new Float64Array(numbers.prompts), found = [];
    const spread = state.order === "disagree" ? disagreement() : null;
    for (let p = 0; p < numbers.prompts; p++) {
      if (state.set && setOf[p] !== state.set) continue;
      if (state.category && run.categories[ids[p]] !== state.category) continue;
      if (words.some((word) => !lower[p].includes(word))) continue;
      const gain = metric < 0 ? NaN : difference(metric, p);
      if (state.verdict === "won" && !(gain > 0)) continue;
      if (state.verdict === "lost" && !(gain < 0)) continue;
      if (state.verdict === "changed" && !(Math.abs(gain) > 0)) continue;
      if (state.verdict === "alike" && gain !== 0) continue;
      const lost = Number.isNaN(gain) ? Infinity : gain;
      keys[p] = {
        worst: lost, best: Number.isNaN(gain) ? Infinity : -gain, suite: p,
        disagree: spread ? -spread[p] : 0, random: Math.imul(p + 1, 0x9e3779b1) >>> 0,
      }[state.order];
      found.push(p);
    }
    // Ties by prompt id, from both ends, as those were chosen whose pictures are in the page.
    const tie = state.order === "best" ? -1 : 1;
    return found.sort((p, q) => (keys[p] === keys[q] ? (ids[p] < ids[q] ? -tie : tie) : keys[p] < keys[q] ? -1 : 1));
  }
  // How far the metrics' differences lie apart, each in its own standard deviations.
  function disagreement() {
    const least = new Float64Array(numbers.prompts).fill(Infinity), most = least.map(() => -Infinity);
    metrics.forEach((row, m) => {
      if (row.better === "reference") return;
      const all = Array.from({ length: numbers.prompts }, (_, p) => difference(m, p));
      const known = all.filter(Number.isFinite);
      const deviation = Math.sqrt(known.reduce((sum, one) => sum + one * one, 0) / known.length) || 1;
      all.forEach((one, p) => {
        if (!Number.isFinite(one)) return;
        least[p] = Math.min(least[p], one / deviation);
        most[p] = Math.max(most[p], one / deviation);
      });
    });
    return least.map((one, p) => (Number.isFinite(one) ? most[p] - one : -1));
  }

  // ---- Parts of the page

  function select(key, label, options, id = key) {
    const made = element("select", { id: `browser-${id}`, onchange: () => change({ [key]: made.value }) });
    for (const [name, text] of Object.entries(options)) made.append(element("option", { value: name }, text));
    made.value = state[key];
    return element("label", {}, element("span", {}, label), made);
  }
  const titles = Object.fromEntries(students.map((one) => [one.name, one.title]));
  const named = (list) => Object.fromEntries([["", "all"], ...list.map((one) => [one, one])]);
  const search = element("input", { id: "browser-query", type: "search", autocomplete: "off", oninput: () => change({ query: search.value }) });
  const size = element("input", { id: "browser-size", type: "range", min: 32, max: 256, step: 16, oninput: () => change({ size: Number(size.value) }) });
  const count = element("span", { id: "browser-count", role: "status" });
  const link = element("a", { id: "browser-link" }, "link to this view");
  const columnList = element("ul", { class: "columns" });
  const bar = element("div", { class: "bar" });
  const head = element("div", { class: "head" });
  const space = element("div", { class: "space" });
  const scroll = element("div", { class: "rows", tabindex: 0, role: "region", "aria-label": "Pictures of all prompts, students side by side" }, head, space);

  const viewer = pictureViewer(run, titles, tile, change), { dialog } = viewer;
  const view = () => viewer.show(state);

  function controls() {
    const held = [bar, columnList].some((one) => one.contains(document.activeElement)) ? document.activeElement : null;
    const parts = [
      select("a", "Student", titles), select("b", "against", titles),
      ...(metrics.length ? [select("metric", "by", Object.fromEntries(metrics.map((one) => [one.name, one.title])))] : []),
      select("order", "Order", ORDERS), select("verdict", "Only", VERDICTS),
      ...(sets.length > 1 ? [select("set", "Prompt set", named(sets))] : []),
      ...(categories.length ? [select("category", "Category", named(categories))] : []),
      element("label", {}, element("span", {}, "Search"), search), element("label", {}, element("span", {}, "Size"), size),
    ];
    bar.replaceChildren(...parts);
    search.value = state.query;
    size.value = state.size;
    columnList.replaceChildren(...ordered(true).map((name) => {
      const move = (by) => {
        const columns = [...state.columns], k = columns.indexOf(name);
        const other = k + by;
        if (other < 0 || other >= columns.length) return;
        [columns[k], columns[other]] = [columns[other], columns[k]];
        change({ columns });
      };
      const toggle = (key) => change({ [key]: state[key].includes(name) ? state[key].filter((one) => one !== name) : [...state[key], name] });
      return element(
        "li", { "data-student": name },
        element("label", {}, element("input", { id: `browser-shows-${name}`, type: "checkbox", ...(state.hidden.includes(name) ? {} : { checked: true }), onchange: () => toggle("hidden") }), " ", titles[name]),
        element("button", { "aria-pressed": String(state.pins.includes(name)), "aria-label": `Keep ${titles[name]} in sight`, onclick: () => toggle("pins") }, "pin"),
        element("button", { "aria-label": `${titles[name]} further left`, onclick: () => move(-1) }, "\u2190"),
        element("button", { "aria-label": `${titles[name]} further right`, onclick: () => move(1) }, "\u2192"),
      );
    }));
    // Whoever works by keys stays at the control that they used, in what is made anew.
    const same = (one) => (held?.id ? one.id === held.id : held && one.getAttribute("aria-label") === held.getAttribute("aria-label"));
    [bar, columnList].flatMap((one) => [...one.querySelectorAll("select, input, button")]).find(same)?.focus();
  }
  function ordered(all = false) {
    const kept = state.columns.filter((name) => all || !state.hidden.includes(name));
    return all ? kept : [...kept.filter((name) => state.pins.includes(name)), ...kept.filter((name) => !state.pins.includes(name))];
  }
  const gap = 6;
  const cellWidth = () => numbers.images * (state.size + gap) + 10;
  const rowHeight = () => Math.round((state.size * run.tile[1]) / run.tile[0]) + 64;
  const stick = (name, k) => (state.pins.includes(name) ? `left:${k * cellWidth()}px` : "");

  function layout() {
    place.style.setProperty("--tile", `${state.size}px`);
    place.style.setProperty("--shape", `${run.tile[0]} / ${run.tile[1]}`);
    place.style.setProperty("--cell", `${cellWidth()}px`);
    const names = ordered();
    head.style.width = space.style.width = `${names.length * cellWidth()}px`;
    head.replaceChildren(...names.map((name, k) => {
      const role = name === state.a ? "student" : name === state.b ? "against" : "";
      const swatch = students[at[name]].color;
      const dot = element("i", { class: swatch ? "swatch" : "swatch hollow" });
      if (swatch) dot.style.background = swatch;
      return element("div", { class: `cell${state.pins.includes(name) ? " pinned" : ""}`, style: stick(name, k) }, dot, titles[name], ...(role ? [element("small", {}, role)] : []));
    }));
    space.style.height = `${shown.length * rowHeight()}px`;
  }

  // The picture that holds a prompt's tiles: inside the page where it is large enough, else beside it,
  // where the page first looks whether any are. "" while it looks.
  function sheetOf(prompt) {
    const own = given.pictures[prompt];
    if ((own && state.size <= 128) || !run.sheets || linked === false) return own;
    if (linked === null) {
      const probe = new Image();
      probe.src = `${run.sheets}00000.webp`;
      linked = probe.decode().then(() => true, () => false).then((found) => {
        linked = found;
        redraw();
        view();
      });
    }
    return linked === true ? `${run.sheets}${String(prompt).padStart(5, "0")}.webp` : own ?? "";
  }
  // A prompt's tiles are parts of one picture: the students beside, its images below each other.
  function tile(student, prompt, image) {
    const made = element("span", { class: `tile${small ? " small" : ""}` });
    const file = fileOf(student, prompt, image);
    if (file === null) return made;
    const sheet = sheetOf(prompt);
    if (sheet === "") return made;
    if (sheet) {
      const part = (k, of) => (of > 1 ? `${(100 * k) / (of - 1)}%` : "0%");
      made.style.backgroundImage = `url("${sheet}")`;
      made.style.backgroundSize = `${100 * numbers.students}% ${100 * numbers.images}%`;
      made.style.backgroundPosition = `${part(at[student], numbers.students)} ${part(image, numbers.images)}`;
      return made;
    }
    const path = linkTo(student, prompt, image);
    if (path) {
      made.append(element("img", { src: path, alt: "", loading: "lazy", decoding: "async", onerror: (event) => event.target.replaceWith(absent(file)) }));
    } else made.append(absent(file));
    return made;
  }
  const absent = (file) => element("em", { title: `${file} is not beside this page` }, file);

  function row(k) {
    const prompt = shown[k], metric = metricAt(state.metric);
    const gain = metric < 0 ? NaN : difference(metric, prompt);
    const category = run.categories[ids[prompt]] ?? (sets.length > 1 ? setOf[prompt] : "");
    const line = element(
      "div", { class: "text", title: prompts[prompt] },
      element("b", { class: gain > 0 ? "better" : gain < 0 ? "worse" : "muted" }, told(metric < 0 ? 0 : metric, gain, true)),
      ` ${prompts[prompt]}`, ...(category ? [element("small", {}, ` ${category}`)] : []),
    );
    const cells = ordered().map((name, column) => {
      const images = run.students[at[name]].files[prompt]?.length ?? 0;
      const tiles = Array.from({ length: Math.min(images, numbers.images) }, (_, image) => {
        const judged = mark(name, prompt, image);
        const words = judged === 2 ? "" : judged ? ", right" : ", wrong";
        const open = () => {
          moveTo(k);
          // Keys go on from here when the picture is closed; its button may be gone by then.
          scroll.focus({ preventScroll: true });
          change({ look: name, at: ids[prompt], image, view: "one" });
        };
        return element(
          "button", { class: `open${judged === 2 ? "" : judged ? " right" : " wrong"}`, tabindex: -1, onclick: open, "aria-label": `${titles[name]}, image ${image + 1}${words}: ${prompts[prompt]}` },
          tile(name, prompt, image), ...(judged === 2 ? [] : [element("i", { "aria-hidden": "true" }, judged ? "\u2713" : "\u2717")]),
        );
      });
      return element(
        "div", { class: `cell${state.pins.includes(name) ? " pinned" : ""}`, style: stick(name, column) },
        element("div", { class: "tiles" }, ...tiles), element("small", {}, metric < 0 ? "" : told(metric, value(name, metric, prompt))),
      );
    });
    const made = element("div", { class: `row${k === cursor ? " at" : ""}`, "data-prompt": ids[prompt] }, line, element("div", { class: "cells" }, ...cells));
    made.style.top = `${k * rowHeight()}px`;
    made.style.height = `${rowHeight()}px`;
    return made;
  }

  const made = new Map();
  function moveTo(k) {
    cursor = k;
    for (const [other, one] of made) one.classList.toggle("at", other === cursor);
  }
  function draw() {
    const height = rowHeight(), first = Math.max(0, Math.floor(scroll.scrollTop / height) - 1);
    const last = Math.min(shown.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / height) + 1);
    for (const [k, one] of made) {
      if (k < first || k >= last) {
        one.remove();
        made.delete(k);
      }
    }
    for (let k = first; k < last; k++) {
      if (made.has(k)) continue;
      const one = row(k);
      made.set(k, one);
      space.append(one);
    }
  }
  function redraw() {
    for (const one of made.values()) one.remove();
    made.clear();
    layout();
    draw();
  }
  function refresh() {
    shown = choose();
    cursor = Math.max(0, shown.findIndex((p) => ids[p] === state.at));
    count.textContent = `${shown.length.toLocaleString("en")} of ${numbers.prompts.toLocaleString("en")} prompts`;
    redraw();
  }
  const LOOKS = ["size", "columns", "hidden", "pins"], OPENS = ["at", "view", "look", "image"];
  function change(wanted) {
    const before = state;
    state = { ...state, ...wanted };
    if ("a" in wanted || "b" in wanted) state.columns = comparedFirst(state);
    const changed = Object.keys(DEFAULT).filter((key) => String(before[key]) !== String(state[key]));
    const chooses = changed.some((key) => !LOOKS.includes(key) && !OPENS.includes(key));
    if (changed.some((key) => ["columns", "hidden", "pins", "a", "b"].includes(key))) controls();
    if (chooses) {
      scroll.scrollTop = 0;
      refresh();
    } else if (changed.some((key) => LOOKS.includes(key))) redraw();
    keep();
    view();
  }

  function step(by) {
    if (!shown.length) return;
    cursor = Math.min(shown.length - 1, Math.max(0, cursor + by));
    const top = cursor * rowHeight();
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + rowHeight() > scroll.scrollTop + scroll.clientHeight - head.offsetHeight) scroll.scrollTop = top + rowHeight() - scroll.clientHeight + head.offsetHeight;
    state = { ...state, at: ids[shown[cursor]] };
    keep();
    redraw();
    view();
  }
  function another(by) {
    const names = ordered(), [now] = viewer.pair(state);
    change({ look: names[(names.indexOf(now) + by + names.length) % names.length] });
  }
  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, textarea, input")) return;
    const open = dialog.open, key = event.key;
    const does = {
      ArrowDown: () => step(1), j: () => step(1), ArrowUp: () => step(-1), k: () => step(-1),
      ...(open
        ? { ArrowLeft: () => another(-1), ArrowRight: () => another(1), " ": () => { if (state.view === "flicker") viewer.turn(); else change({ view: "flicker" }); } }
        : { Enter: () => change({ at: ids[shown[cursor]] ?? "", view: "one" }), "/": () => search.focus() }),
    }[key];
    if (!does || (key === " " && event.target.closest("button"))) return;
    event.preventDefault();
    does();
  }

  // A card leads to what the run has left, if page and run still lie as they did: an image tells.
  for (const { name, left } of students) {
    const card = document.getElementById(`student-${name}`), line = card?.querySelector(".left");
    if (!line || !left.length) continue;
    card.addEventListener("toggle", async () => {
      const image = new Image();
      image.src = linkTo(name, prompts.findIndex((_, p) => fileOf(name, p, 0) !== null), 0) ?? "";
      if (await image.decode().then(() => true, () => false)) {
        left.forEach(([title, place], k) => line.append(k ? ", " : "", element("a", { href: place }, title)));
      } else line.textContent = "The run that it comes from does not lie beside this page.";
      line.hidden = false;
    }, { once: true });
  }
  scroll.addEventListener("scroll", draw, { passive: true });
  scroll.addEventListener("keydown", pressed);
  dialog.addEventListener("keydown", pressed);
  dialog.addEventListener("close", () => { if (state.view) change({ view: "" }); });
  window.addEventListener("hashchange", () => {
    clearTimeout(keeping);
    if (!location.hash.startsWith("#pictures?")) return; // to another part of the page
    state = read();
    controls();
    refresh();
    view();
  });
  new ResizeObserver(draw).observe(scroll);
  place.replaceChildren(
    bar, element("details", {}, element("summary", {}, "Columns"), columnList),
    element("p", { class: "note" }, count, " \u00b7 ", link, " \u00b7 keys: j and k, Enter opens, / searches"), scroll, dialog,
  );
  controls();
  refresh();
  link.href = address();
  if (location.hash.startsWith("#pictures?")) {
    document.getElementById("pictures").scrollIntoView();
    view();
  }
})();
