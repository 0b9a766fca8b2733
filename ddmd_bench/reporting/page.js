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
