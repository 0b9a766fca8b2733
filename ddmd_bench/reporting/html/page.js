"use strict";
// Pointing at a student's name, by mouse, finger or Tab, leaves its lines alone in the figures.
for (const entry of document.querySelectorAll(".legend [data-student]")) {
  const alone = (on) => {
    for (const line of document.querySelectorAll(".figures [data-student]")) {
      line.classList.toggle("dim", on && line.dataset.student !== entry.dataset.student);
    }
  };
  entry.tabIndex = 0;
  for (const name of ["mouseenter", "focus"]) entry.addEventListener(name, () => alone(true));
  for (const name of ["mouseleave", "blur"]) entry.addEventListener(name, () => alone(false));
}
// A table that goes on beyond its edge can be moved by keys too.
const reachable = new ResizeObserver((changed) => {
  for (const { target } of changed) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const one of document.querySelectorAll(".scroll")) reachable.observe(one);
// Paper shows all: what was closed is closed again afterwards.
const closed = [];
window.addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) {
    one.open = true;
    closed.push(one);
  }
});
window.addEventListener("afterprint", () => {
  for (const one of closed.splice(0)) one.open = false;
});
