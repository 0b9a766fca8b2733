// One prompt, large: a student, or two of them in turn, beside a slider, or what differs.
const VIEWS = { one: "One", flicker: "Flicker", slider: "Slider", difference: "Difference" };
// `tile(student, prompt, image)` makes a small picture; `change` asks for another view.
function pictureViewer(run, titles, tile, change) {
  const { students, metrics, prompts, ids, numbers, at, value, fileOf, linkTo, told } = run;
  const dialog = element("dialog", { class: "viewer", tabindex: -1, "aria-label": "One prompt" });
  let flickered = false, timer, flick;

  function layer(student, prompt, image, className) {
    const made = element("div", { class: `layer ${className}` }, tile(student, prompt, image));
    const path = linkTo(student, prompt, image);
    if (path) {
      const whole = element("img", { src: path, alt: `${titles[student]}: ${prompts[prompt]}`, onerror: () => whole.remove() });
      if (Math.max(...run.tile) < 128) whole.className = "small";
      made.append(whole);
    }
    return made;
  }
  // Whom it shows, and beside whom.
  function pair(state) {
    const first = state.look || state.a;
    return [first, first === state.b ? state.a : state.b];
  }
  function show(state) {
    clearInterval(timer);
    flickered = false;
    const prompt = ids.indexOf(state.at), [a, b] = pair(state);
    if (!state.view || prompt < 0) {
      if (dialog.open) dialog.close();
      return;
    }
    // Sets have their own numbers of images: the last, where another prompt had more of them.
    const numImages = Math.min(students[at[a]].files[prompt]?.length ?? 0, numbers.images);
    const image = Math.max(0, Math.min(state.image, numImages - 1));
    const chosen = element("select", { id: "browser-look", "aria-label": "Student", onchange: () => change({ look: chosen.value }) });
    for (const [name, text] of Object.entries(titles)) chosen.append(element("option", { value: name, selected: name === a }, text));
    const two = state.view !== "one";
    const stage = element("div", { class: `stage ${state.view}` });
    stage.style.aspectRatio = `${run.tile[0]} / ${run.tile[1]}`;
    stage.append(layer(a, prompt, image, "a"), ...(two ? [layer(b, prompt, image, "b")] : []));
    const cut = element("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Where one image ends and the other begins", oninput: () => stage.style.setProperty("--cut", `${cut.value}%`) });
    const caption = element("p", { class: "caption", role: "status" });
    const say = () => {
      const name = { one: titles[a], slider: `${titles[b]} left, ${titles[a]} right`, difference: `${titles[a]} and ${titles[b]}: black is alike, four times as bright as it is` };
      caption.textContent = state.view === "flicker" ? titles[flickered ? b : a] : name[state.view];
      stage.classList.toggle("other", flickered);
    };
    say();
    const modes = Object.entries(VIEWS).map(([name, text]) => element("button", { "aria-pressed": String(state.view === name), onclick: () => change({ view: name }) }, text));
    const images = Array.from({ length: numImages }, (_, k) => k);
    const which = numImages > 1 ? images.map((k) => element("button", { "aria-pressed": String(k === image), onclick: () => change({ image: k }) }, `image ${k + 1}`)) : [];
    const rows = metrics.map((one, m) => element(
      "tr", {}, element("th", { scope: "row" }, one.title), ...[a, b].map((name) => element("td", { class: "num" }, told(m, value(name, m, prompt)))),
      element("td", { class: "num" }, told(m, value(a, m, prompt) - value(b, m, prompt), true)),
    ));
    const titlesRow = element("tr", {}, element("td"), element("th", { scope: "col" }, titles[a]), element("th", { scope: "col" }, titles[b]), element("th", { scope: "col" }, "Difference"));
    const paths = [a, b].map((name) => linkTo(name, prompt, image));
    const files = [a, b].map((name, k) => (paths[k] ? element("a", { href: paths[k] }, `${titles[name]}: ${fileOf(name, prompt, image)}`) : element("span", {}, `${titles[name]}: ${fileOf(name, prompt, image) ?? "no image"}`)));
    const held = dialog.contains(document.activeElement) ? document.activeElement : null;
    dialog.replaceChildren(
      element("div", { class: "buttons" }, ...modes, ...which, element("button", { class: "close", onclick: () => change({ view: "" }) }, "Close")),
      element("div", { class: "halves" }, element("div", {}, stage, ...(state.view === "slider" ? [cut] : []), caption),
        element("div", {},
          element("blockquote", {}, prompts[prompt]), element("p", { class: "muted" }, ids[prompt]),
          element("div", { class: "bar" }, chosen),
          element("table", {}, element("thead", {}, titlesRow), element("tbody", {}, ...rows)),
          element("p", { class: "muted" }, ...files.flatMap((one, k) => (k ? [element("br"), one] : [one]))),
          element("p", { class: "muted" }, "Keys: left and right another student, up and down another prompt, Space flickers, Esc closes."))),
    );
    if (!dialog.open) dialog.showModal();
    // Whoever works by keys stays where they were, in what is made anew.
    const same = (one) => (held?.id ? one.id === held.id : held?.tagName === "BUTTON" && one.textContent === held.textContent);
    ([...dialog.querySelectorAll("button, select")].find(same) ?? dialog).focus();
    flick = () => {
      flickered = !flickered;
      say();
    };
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (state.view === "flicker" && !still) timer = setInterval(flick, 700);
  }
  // By hand from now on.
  function turn() {
    clearInterval(timer);
    flick();
  }
  return { dialog, show, pair, turn };
}
