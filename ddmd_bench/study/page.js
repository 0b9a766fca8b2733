"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const main = document.querySelector("main");
const whole = study.form === "side-by-side";
let words, person, state, screens, groups, equalNext, since, spent, zoomed;

function say(key, values = {}) {
  return words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// What is kept: in this browser and nowhere else.
const place = () => `study ${study.study} ${person}`;
function keep() {
  try {
    localStorage.setItem(place(), JSON.stringify(state));
    return true;
  } catch {
    return false;
  }
}
function kept() {
  try {
    return JSON.parse(localStorage.getItem(place()));
  } catch {
    return null;
  }
}

// A short sum of what was done, which whoever pays can compare: FNV-1a of 32 bits.
function completion() {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(`${study.study}|${person}|${state.code}|${state.answers.length}`)) {
    hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  }
  return hash.toString(16).padStart(8, "0").toUpperCase();
}

function speak(language) {
  words = study.words[language];
  document.documentElement.lang = language;
  document.title = words.title;
}

function introduction(chosen) {
  const given = Number(location.hash.slice(1));
  person = Number.isInteger(given) && given >= 1 && given <= study.screens.length ? given : 0;
  const found = person ? kept() : null;
  if (found && !chosen && found.language in study.words) speak(found.language);
  const language = element("select", { id: "language", "aria-label": "Language", onchange: () => { speak(language.value); introduction(true); } });
  for (const [name, of] of Object.entries(study.words)) {
    language.append(element("option", { value: name, lang: name, selected: of === words }, of.language));
  }
  const code = element("input", { id: "code", maxlength: 40, autocomplete: "off", required: true, "aria-describedby": "hint" });
  const number = element("input", { id: "person", type: "number", min: 1, max: study.screens.length, required: true });
  const form = element(
    "form", { onsubmit: (event) => { event.preventDefault(); begin(code.value.trim(), Number(number.value)); } },
    ...(person ? [] : [element("label", { for: "person" }, words.person), number]),
    element("label", { for: "code" }, words.code), code, element("small", { id: "hint" }, words.code_hint),
    element("button", { class: "first", type: "submit" }, words.start),
  );
  const parts = [
    element("div", { class: "corner" }, language), element("h1", {}, words.title),
    ...words.introduction[study.form].map((text) => element("p", {}, text)),
  ];
  if (found) {
    const values = { code: found.code, done: found.answers.length, total: study.screens[person - 1].length };
    parts.push(
      element("button", { class: "first", onclick: () => { state = found; start(); } }, say("go_on_as", values)),
      element("button", { onclick: () => { if (confirm(words.anew_sure)) { localStorage.removeItem(place()); introduction(); } } }, words.anew),
    );
  } else parts.push(form);
  main.replaceChildren(...parts);
}

function begin(code, number) {
  if (!code || (!person && !(number >= 1 && number <= study.screens.length))) return;
  if (!person) {
    person = number;
    history.replaceState(null, "", `#${person}`);
  }
  if (kept()) return introduction(); // another tab has begun since
  state = { code, answers: [] };
  start();
}

function start() {
  screens = study.screens[person - 1];
  state.language = document.documentElement.lang;
  document.getElementById("warning").textContent = keep() ? "" : words.not_kept;
  show();
}

function show() {
  const at = state.answers.length;
  if (at >= screens.length) return finish();
  groups = [];
  equalNext = false;
  spent = 0;
  since = performance.now();
  const { set: number, order } = screens[at];
  const set = study.sets[number];
  const columns = order.map((k) => set.columns[k]);
  const head = element(
    "header", {},
    element("progress", { max: screens.length, value: at, "aria-label": say("progress", { done: at, total: screens.length }) }),
    element("span", {}, say("progress", { done: at, total: screens.length })),
    element("button", { id: "undo", onclick: undo, disabled: at === 0 }, words.undo),
    element("button", { id: "pause", onclick: pause }, words.pause),
  );
  main.replaceChildren(head, ...(whole ? models(set, columns) : images(set, columns)));
  window.scrollTo(0, 0);
  preload(at + 1);
}

function preload(at) {
  if (whole || at >= screens.length) return;
  for (const [file] of study.sets[screens[at].set].columns) new Image().src = `images/${file}`;
}

function picture(file, text) {
  return element("img", {
    src: `images/${file}`, alt: text, draggable: "false", decoding: "async",
    onerror: () => { document.getElementById("warning").textContent = words.no_picture; },
  });
}

function images(set, columns) {
  const grid = element("div", { class: "grid", style: `--columns: ${columns.length}` });
  columns.forEach(([file], k) => {
    const text = say("image", { place: k + 1 });
    grid.append(
      element(
        "figure", {},
        element("button", { class: "choice", "data-place": k, "aria-pressed": "false", "aria-label": text, onclick: () => choose(k) }, picture(file, ""), element("b", { class: "rank" })),
        element("button", { class: "enlarge", "aria-label": say("enlarge", { place: k + 1 }), onclick: () => enlarge(k) }, "\u2922"),
      ),
    );
  });
  const equal = study.ties ? [element("button", { id: "equal", "aria-pressed": "false", onclick: tie }, columns.length === 2 ? words.equal : words.equal_to_last)] : [];
  const keys = say("keys", { size: columns.length, equal: study.ties ? words.keys_equal : "" });
  return [
    element("blockquote", { "aria-label": words.text }, set.prompts[0]), grid,
    element(
      "footer", {}, element("button", { id: "clear", onclick: clear, disabled: true }, words.clear), ...equal,
      element("button", { id: "next", class: "first", disabled: true, onclick: answer }, words.next),
    ),
    element("p", { class: "keys" }, keys),
  ];
}

function models(set, columns) {
  const table = element("div", { class: "models" }, element("b", {}, words.left), element("b", {}, words.right));
  set.prompts.forEach((prompt, row) => {
    table.append(element("blockquote", {}, prompt));
    columns.forEach((files, k) => {
      const shown = picture(files[row], say("image", { place: k + 1 }));
      shown.loading = "lazy";
      table.append(shown);
    });
  });
  const reason = element("textarea", { id: "reason", rows: 2, maxlength: 1000, oninput: marks, "aria-label": words.reason, placeholder: words.reason });
  const sides = [words.left, words.right].map((text, k) =>
    element("button", { class: "choice", "data-place": k, "aria-pressed": "false", onclick: () => choose(k) }, text));
  const equal = study.ties ? [element("button", { id: "equal", "aria-pressed": "false", onclick: tie }, words.equal)] : [];
  return [
    table,
    element("footer", { class: "vote" }, ...sides, ...equal, reason, element("button", { id: "next", class: "first", disabled: true, onclick: answer }, words.next)),
  ];
}

const size = () => screens[state.answers.length].order.length;
const complete = () => groups.flat().length === size() && (!whole || document.getElementById("reason").value.trim() !== "");

// A pair is answered at once: the second half of a double-click is no answer to the next one.
const SEEN = 250; // milliseconds, fewer than anybody needs for two images
const unseen = () => study.form === "pairs" && performance.now() - since < SEEN;

function choose(k) {
  if (unseen()) return;
  if (size() === 2) groups = [[k], [1 - k]];
  else if (groups.flat().includes(k)) groups = groups.map((group) => group.filter((one) => one !== k)).filter((group) => group.length);
  else {
    if (equalNext && groups.length) groups.at(-1).push(k);
    else groups.push([k]);
    const left = [...Array(size()).keys()].filter((one) => !groups.flat().includes(one));
    // Where no two may be equal the last one has its place.
    if (!study.ties && left.length === 1) groups.push(left);
  }
  equalNext = false;
  marks();
  if (study.form === "pairs" && complete()) answer();
}

function tie() {
  if (unseen()) return;
  if (size() === 2) {
    groups = [[0, 1]];
    marks();
    if (study.form === "pairs") answer();
    return;
  }
  equalNext = !equalNext;
  marks();
}

function clear() {
  groups = [];
  equalNext = false;
  marks();
}

function marks() {
  for (const button of main.querySelectorAll(".choice")) {
    const k = Number(button.dataset.place);
    const rank = groups.findIndex((group) => group.includes(k));
    const first = whole ? rank === 0 : rank >= 0;
    button.setAttribute("aria-pressed", String(first));
    if (whole) continue;
    button.querySelector(".rank").textContent = rank >= 0 ? rank + 1 : "";
    button.setAttribute("aria-label", rank >= 0 ? say("ranked", { place: k + 1, rank: rank + 1 }) : say("image", { place: k + 1 }));
  }
  document.getElementById("equal")?.setAttribute("aria-pressed", String(equalNext || groups[0]?.length === size()));
  document.getElementById("next").disabled = !complete();
  const again = document.getElementById("clear");
  if (again) again.disabled = !groups.length;
}

function elapsed() {
  if (since !== null) spent += performance.now() - since;
  since = null;
  return Math.round(spent);
}

function answer() {
  if (!complete()) return;
  const { set: number, order } = screens[state.answers.length];
  const ranks = order.map((_, k) => groups.findIndex((group) => group.includes(k)) + 1);
  const given = { set: number, order, ranks, ms: elapsed() };
  if (whole) given.reason = document.getElementById("reason").value.trim();
  state.answers.push(given);
  document.getElementById("warning").textContent = keep() ? "" : words.not_kept;
  show();
}

function undo() {
  if (!state.answers.length) return;
  state.answers.pop();
  keep();
  show();
}

function pause() {
  elapsed();
  const dialog = document.getElementById("paused");
  dialog.replaceChildren(element("p", {}, words.paused), element("button", { class: "first", onclick: () => dialog.close() }, words.go_on));
  dialog.onclose = () => { since = performance.now(); };
  dialog.showModal();
}

function enlarge(k) {
  zoomed = k;
  const files = [...main.querySelectorAll(".choice img")].map((one) => one.getAttribute("src"));
  const dialog = document.getElementById("large");
  const shown = element("img", { src: files[k], alt: say("image", { place: k + 1 }) });
  const step = (by) => enlarge((zoomed + by + files.length) % files.length);
  dialog.replaceChildren(
    shown,
    element(
      "footer", {}, element("button", { "aria-label": words.previous, onclick: () => step(-1) }, "\u2190"),
      element("span", {}, say("image", { place: k + 1 })), element("button", { "aria-label": words.following, onclick: () => step(1) }, "\u2192"),
      element("button", { class: "first", onclick: () => dialog.close() }, words.close),
    ),
  );
  dialog.onkeydown = (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key.toLowerCase() === "z") dialog.close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  if (!dialog.open) dialog.showModal();
}

function finish() {
  const text = JSON.stringify({ schema: 1, study: study.study, person, ...state, completion: completion() });
  const name = `answers-${person}-${state.code.replace(/[^\p{L}\p{N}_-]/gu, "_")}.json`;
  const file = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  main.replaceChildren(
    element("h1", {}, words.finished),
    element("p", { id: "completion" }, say("completion", { code: completion() })),
    element("p", {}, element("a", { id: "download", class: "first", href: file, download: name }, words.download)),
    element("p", {}, words.send),
    element("textarea", { id: "answers", readonly: true, rows: 6, "aria-label": words.download }, text),
    element("p", {}, element("button", { id: "undo", onclick: undo }, words.undo)),
  );
}

document.addEventListener("visibilitychange", () => {
  if (!screens || document.querySelector("dialog[open]#paused")) return;
  if (document.hidden) elapsed();
  else since = performance.now();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (!screens || event.repeat || typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const at = state.answers.length;
  const key = event.key.toLowerCase();
  if (event.key === "Backspace") undo();
  else if (at >= screens.length) return;
  else if (/^[1-9]$/.test(key) && Number(key) <= size()) choose(Number(key) - 1);
  else if (key === "enter" && !event.target.closest("button")) answer();
  else if (key === "=" && study.ties) tie();
  else if (key === "z" && !whole) enlarge(Number(document.activeElement?.dataset?.place ?? 0));
  else if (key === "p") pause();
  else return;
  event.preventDefault();
});

function backToStart() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  screens = undefined;
  introduction();
}
window.addEventListener("hashchange", backToStart);
// Another tab goes on with these answers: those here are old, and would be written over them.
window.addEventListener("storage", (event) => { if (event.key === place()) backToStart(); });
const wanted = navigator.language.split("-")[0];
speak(wanted in study.words ? wanted : Object.keys(study.words)[0]);
introduction();
