// A run inside its page: texts, values and marks of all prompts, and where images lie.
async function unpackedRun(uri) {
  const text = atob(uri.slice(uri.indexOf(",") + 1));
  const bytes = Uint8Array.from(text, (one) => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const whole = await new Response(stream).arrayBuffer();
  const length = new DataView(whole).getUint32(0, true);
  const run = JSON.parse(new TextDecoder().decode(new Uint8Array(whole, 4, length)));
  const { students, metrics, prompts } = run;
  const numbers = { students: students.length, metrics: metrics.length, prompts: prompts.length, images: run.num_images };
  const count = numbers.students * numbers.metrics * numbers.prompts;
  const values = new Uint16Array(whole.slice(4 + length, 4 + length + 2 * count));
  const marks = new Uint8Array(whole, 4 + length + 2 * count);
  const at = Object.fromEntries(students.map((one, k) => [one.name, k]));

  const metricAt = (name) => metrics.findIndex((one) => one.name === name);
  function value(student, metric, prompt) {
    const code = values[(at[student] * numbers.metrics + metric) * numbers.prompts + prompt];
    const { low, high } = metrics[metric];
    return code === 65535 ? NaN : low + (code / 65534) * (high - low);
  }
  const mark = (student, prompt, image) => marks[(at[student] * numbers.prompts + prompt) * numbers.images + image];
  const fileOf = (student, prompt, image) => students[at[student]].files[prompt]?.[image] ?? null;
  function linkTo(student, prompt, image) {
    const { folder } = students[at[student]], file = fileOf(student, prompt, image);
    return folder === null || file === null ? null : [...folder.split("/"), file].map(encodeURIComponent).join("/");
  }
  // A number of a metric as the tables show it.
  function told(metric, number, signed = false) {
    if (!Number.isFinite(number)) return "-";
    const row = metrics[metric], text = (number * row.scale).toFixed(row.decimals);
    const plain = Number(text) === 0 ? text.replace("-", "") : text.replace("-", "\u2212");
    const unit = row.unit ? (signed && row.unit === "%" ? " points" : ` ${row.unit}`) : "";
    return (signed && Number(text) > 0 ? "+" : "") + plain + unit;
  }
  return { ...run, numbers, at, metricAt, value, mark, fileOf, linkTo, told };
}
