// The students' pictures at one evaluation of the trainings, chosen by a slider.
for (const place of document.querySelectorAll(".course")) {
  const iterations = JSON.parse(place.dataset.iterations);
  const slider = document.createElement("input"), said = document.createElement("output"), label = document.createElement("label");
  Object.assign(slider, { type: "range", min: 0, max: iterations.length - 1, value: iterations.length - 1, id: "course-at" });
  const show = () => {
    const at = String(iterations[slider.value]);
    said.textContent = `after ${at} updates`;
    slider.setAttribute("aria-valuetext", said.textContent);
    for (const picture of place.querySelectorAll("img")) picture.hidden = picture.dataset.at !== at;
  };
  slider.addEventListener("input", show);
  label.append("Pictures ", slider, " ", said);
  place.prepend(label);
  show();
}
