// Polls the numbers of the server and draws them. Counters grow for as long as the server runs: what
// is shown are their differences between two polls.
"use strict";

const POLL_MS = 2000, PATIENCE_MS = 6000, KEPT_S = 930, RECENT_S = 60, MOST_LINES = 5, MOST_FEATURES = 12;
const STEPS_S = [15, 30, 60, 120, 300, 600], LABEL_PX = 66;
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
const points = [];
let last = null, failing = false;

// Text goes in as text alone: names, reasons and log lines are others' words.
function element(tag, about = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) made.setAttribute(name, value);
  made.append(...inside.filter((one) => one !== null && one !== ""));
  return made;
}

function drawn(tag, about, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(about)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const keyOf = (one) => `${one.name} / ${one.version}`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });

function shown(value) {
  if (!Number.isFinite(value)) return "–";
  if (value >= 1000) return Math.round(value).toLocaleString("en");
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value >= 1 ? value.toFixed(2) : value ? value.toPrecision(2) : "0";
}

// ---- from two polls to a point

function minus(now, before = {}) {
  const found = {};
  for (const [name, value] of Object.entries(now ?? {})) found[name] = value - (before?.[name] ?? 0);
  return found;
}

function difference(now, before) {
  const codes = minus(now.codes, before?.codes), refused = minus(now.refused, before?.refused);
  const errors = { ...refused };
  for (const [code, count] of Object.entries(codes)) if (code !== "OK") errors[code] = (errors[code] ?? 0) + count;
  const lists = (name) => (now[name] ?? []).map((value, place) => value - (before?.[name]?.[place] ?? 0));
  return {
    answers: sum(Object.values(codes)) + sum(Object.values(refused)), ran: codes.OK ?? 0, errors,
    phases: lists("phases"), latency: lists("latency"),
    batches: (now.batches ?? 0) - (before?.batches ?? 0), rows: (now.rows ?? 0) - (before?.rows ?? 0),
  };
}

function pointOf(now, before) {
  const old = new Map(before.series.map((one) => [keyOf(one), one])), models = {};
  for (const one of now.series) models[keyOf(one)] = difference(one, old.get(keyOf(one)));
  const unknown = minus(now.unknown, before.unknown);
  const lost = before.series.some((one) => !now.series.some((other) => keyOf(other) === keyOf(one)));
  const back = Object.values(models).some((one) => one.ran < 0 || one.batches < 0 || one.answers < 0);
  // Counters that went back are those of another process: the server was started anew.
  return { at: now.wall, seconds: now.wall - before.wall, models, unknown, anew: lost || back };
}

function take(data) {
  const point = last && data.wall > last.wall ? pointOf(data, last) : null;
  if (point) points.push(point.anew ? { at: data.wall, anew: true } : point);
  while (points.length && points[0].at < data.wall - KEPT_S) points.shift();
  last = data;
}

// ---- what is drawn

const wanted = () => at("model").value;
// As many seconds as were asked for; at first what is known, a minute at least.
const spanned = () => Math.min(Number(at("span").value), Math.max(60, last.wall - (points[0]?.at ?? last.wall)));
const within = (seconds) => points.filter((point) => point.at > (last?.wall ?? 0) - seconds);
const chosen = (point) => Object.entries(point.models ?? {}).filter(([key]) => !wanted() || key === wanted()).map(([, one]) => one);
const total = (point, value) => sum(chosen(point).map(value));
const share = (a, b) => (b > 0 ? a / b : NaN);

function errorsOf(point) {
  const found = wanted() ? {} : { ...point.unknown };
  for (const one of chosen(point)) for (const [code, count] of Object.entries(one.errors)) found[code] = (found[code] ?? 0) + count;
  return found;
}

function throughput(shown) {
  if (wanted()) return [{ name: wanted(), value: (point) => total(point, (one) => one.answers) / point.seconds }];
  const sizes = {};
  for (const point of shown) for (const [key, one] of Object.entries(point.models ?? {})) sizes[key] = (sizes[key] ?? 0) + one.answers;
  const names = Object.keys(sizes).sort((a, b) => sizes[b] - sizes[a]);
  const first = names.length > MOST_LINES + 1 ? names.slice(0, MOST_LINES) : names;
  const lines = first.sort().map((name) => ({ name, value: (point) => (point.models?.[name]?.answers ?? 0) / point.seconds }));
  const others = names.filter((name) => !first.includes(name));
  const rest = (point) => sum(others.map((name) => point.models?.[name]?.answers ?? 0)) / point.seconds;
  return others.length ? [...lines, { name: `${others.length} others`, value: rest }] : lines;
}

function latency() {
  return (last?.phases ?? []).map((name, place) => ({
    name: name.replace("_", " "),
    value: (point) => share(1000 * total(point, (one) => one.phases[place] ?? 0), total(point, (one) => one.ran)),
  }));
}

function errors(shown) {
  const codes = [...new Set(shown.flatMap((point) => Object.entries(errorsOf(point)).filter(([, n]) => n > 0).map(([code]) => code)))].sort();
  const first = codes.slice(0, MOST_LINES), others = codes.slice(MOST_LINES);
  const rate = (names) => (point) => sum(names.map((code) => errorsOf(point)[code] ?? 0)) / point.seconds;
  const lines = first.map((code) => ({ name: code, value: rate([code]) }));
  return others.length ? [...lines, { name: "others", value: rate(others) }] : lines;
}

const batches = () => [{ name: "rows", value: (point) => share(total(point, (one) => one.rows), total(point, (one) => one.batches)) }];

// ---- charts

function ticks(most) {
  const rough = most / 3, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, place) => place * step);
}

function chart(id, lines, { stacked = false, empty, colours = [0, 1, 2, 3, 4, 5] }) {
  const figure = at(id), seconds = spanned(), found = within(seconds);
  const svg = figure.querySelector("svg") ?? figure.appendChild(drawn("svg", { role: "img", "aria-label": figure.querySelector("figcaption").textContent }));
  const legend = figure.querySelector(".legend") ?? figure.appendChild(element("div", { class: "legend" }));
  const width = svg.clientWidth || 300, height = svg.clientHeight || 190, left = 46, bottom = height - 20, top = 10;
  const values = lines.map((line) => found.map((point) => (point.anew ? NaN : line.value(point))));
  const tops = stacked ? values.map((_, place) => found.map((_, i) => sum(values.slice(0, place + 1).map((row) => row[i])))) : values;
  const known = tops.flat().filter(Number.isFinite), end = last?.wall ?? 0;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const marks = ticks(Math.max(...known, 0) || 1), most = marks[marks.length - 1];
  const x = (time) => left + (width - left - 6) * (1 - (end - time) / seconds), y = (value) => bottom - (bottom - top) * (value / most);
  for (const mark of marks) {
    svg.append(drawn("line", { class: "grid", x1: left, x2: width - 6, y1: y(mark), y2: y(mark) }));
    svg.append(drawn("text", { class: "axis", x: left - 7, y: y(mark) + 4, "text-anchor": "end" }, Number(mark.toPrecision(3)).toLocaleString("en")));
  }
  timeAxis(svg, end, seconds, x, height);
  if (!known.some((value) => value > 0)) svg.append(drawn("text", { class: "none", x: (left + width) / 2, y: (top + bottom) / 2, "text-anchor": "middle" }, empty));
  for (let place = lines.length - 1; place >= 0; place--) line(svg, found, tops[place], stacked && place ? tops[place - 1] : null, `k${colours[place]}`, x, y, stacked);
  const tell = (i) => told(legend, lines, values.map((row) => row[i]), colours);
  tell(found.length - 1);
  hover(svg, legend, tell, found, x, top, bottom);
}

function timeAxis(svg, end, seconds, x, height) {
  const step = STEPS_S.find((size) => x(size) - x(0) > LABEL_PX) ?? seconds;
  for (let time = Math.ceil((end - seconds) / step) * step; end && time <= end; time += step) {
    if (x(time) > 60) svg.append(drawn("text", { class: "axis", x: x(time), y: height - 4, "text-anchor": x(time) > x(end) - 24 ? "end" : "middle" }, clock(time).slice(0, step < 60 ? 8 : 5)));
  }
}

// A line and what is below it; with holes where nothing is known.
function line(svg, found, tops, below, colour, x, y, stacked) {
  let run = [];
  const flush = () => {
    if (run.length === 1 && !stacked) svg.append(drawn("circle", { class: `area full ${colour}`, cx: x(found[run[0]].at), cy: y(tops[run[0]]), r: 2 }));
    if (run.length > 1) {
      const over = run.map((i) => `${x(found[i].at).toFixed(1)},${y(tops[i]).toFixed(1)}`);
      const under = [...run].reverse().map((i) => `${x(found[i].at).toFixed(1)},${y(below ? below[i] : 0).toFixed(1)}`);
      svg.append(drawn("polygon", { class: `area ${colour}${stacked ? " full" : ""}`, points: [...over, ...under].join(" ") }));
      if (!stacked) svg.append(drawn("polyline", { class: `mark ${colour}`, points: over.join(" ") }));
    }
    run = [];
  };
  tops.forEach((value, i) => (Number.isFinite(value) ? run.push(i) : flush()));
  flush();
}

function told(legend, lines, values, colours) {
  legend.replaceChildren(...lines.map((one, place) => element("span", { class: `k${colours[place]}` }, element("i"), one.name, element("b", {}, shown(values[place] ?? NaN)))));
}

function hover(svg, legend, tell, found, x, top, bottom) {
  svg.onpointermove = (event) => {
    const place = event.clientX - svg.getBoundingClientRect().left;
    const near = found.reduce((best, point, i) => (Math.abs(x(point.at) - place) < Math.abs(x(found[best].at) - place) ? i : best), 0);
    if (!found.length) return;
    svg.querySelector(".cursor")?.remove();
    svg.append(drawn("line", { class: "cursor", x1: x(found[near].at), x2: x(found[near].at), y1: top, y2: bottom }));
    tell(near);
    legend.append(element("span", {}, clock(found[near].at)));
  };
  svg.onpointerleave = () => { svg.querySelector(".cursor")?.remove(); tell(found.length - 1); };
}

// ---- tables

function quantile(counts, bounds, part) {
  const all = sum(counts);
  let below = 0;
  for (let place = 0; all && place < counts.length; place++) {
    if (below + counts[place] >= part * all) {
      const low = place ? bounds[place - 1] : 0, high = bounds[place] ?? bounds[bounds.length - 1];
      return low + (high - low) * ((part * all - below) / counts[place]);
    }
    below += counts[place];
  }
  return NaN;
}

function recent(key) {
  const found = within(RECENT_S).filter((point) => point.models), seconds = sum(found.map((point) => point.seconds));
  const ones = found.flatMap((point) => (key === null ? chosen(point) : point.models[key] ? [point.models[key]] : []));
  const counts = ones.reduce((all, one) => one.latency.map((count, i) => count + (all[i] ?? 0)), []);
  return {
    rate: share(sum(ones.map((one) => one.answers)), seconds),
    errors: share(sum(key === null ? found.flatMap((point) => Object.values(errorsOf(point))) : ones.flatMap((one) => Object.values(one.errors))), seconds),
    p50: 1000 * quantile(counts, last.bounds, 0.5), p99: 1000 * quantile(counts, last.bounds, 0.99),
    rows: share(sum(ones.map((one) => one.rows)), sum(ones.map((one) => one.batches))),
  };
}

function table(id, heads, rows, empty) {
  const cells = (row) => row.map((cell, place) => element("td", { class: cell.class ?? "", "data-label": heads[place] }, ...(cell.inside ?? [cell])));
  const head = element("thead", {}, element("tr", {}, ...heads.map((name, place) => element("th", { class: rows[0]?.[place]?.class === "number" ? "number" : "" }, name))));
  const body = element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row))));
  at(id).replaceChildren(element("div", { class: "card" }, rows.length ? element("table", {}, head, body) : element("p", { class: "empty" }, empty)));
}

const number = (value) => ({ class: "number", inside: [shown(value)] });
const main = (text) => ({ class: "main", inside: [text] });
const pill = (text, kind) => ({ inside: [element("span", { class: `pill ${kind}` }, text)] });
const why = (...texts) => texts.filter(Boolean).map((text) => element("span", { class: "why" }, text));
const STATES = { READY: "good", LOADING: "warn", UNLOADING: "warn" };

function models(data) {
  const series = new Map(data.series.map((one) => [keyOf(one), one]));
  const rows = data.models.filter((one) => !wanted() || keyOf(one) === wanted()).map((one) => {
    const now = recent(keyOf(one)), plan = one.plan_state ? `plan ${one.plan_state}` : "";
    const engine = element("span", {}, one.engine ?? "", ...why(one.reason, one.engine_reason, plan, one.batch_reason));
    return [main(keyOf(one)), pill(one.state, STATES[one.state] ?? "bad"), { class: "wide", inside: [engine] },
      number(now.rate), number(now.p50), number(now.p99), number(now.rows), number(series.get(keyOf(one))?.waiting ?? 0)];
  });
  table("models", ["Model / version", "State", "Engine, and why", "Requests/s", "p50, ms", "p99, ms", "Rows/batch", "Waiting"], rows, "No model is here.");
}

function judged(data) {
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  table("accuracy", ["Model / version", "Right", "95 % interval", "Labels"], data.accuracy.map((one) => [
    main(keyOf(one)), number2(percent(one.value)), number2(`${percent(one.lower)} – ${percent(one.upper)}`), number(one.support),
  ]), "No true labels came lately (inferd.v1.Feedback).");
  const bar = (value) => { const made = element("meter", { min: 0, max: 1, high: 0.1, optimum: 0 }); made.value = value; return made; };
  const far = [...data.drift].sort((a, b) => b.alarm - a.alarm || (b.ks ?? 0) - (a.ks ?? 0)), first = far.slice(0, Math.max(MOST_FEATURES, sum(far.map((one) => one.alarm))));
  const rest = far.length > first.length ? [[{ class: "wide part", inside: [`${far.length - first.length} more features are alike`] }]] : [];
  table("drift", ["Model / version", "Feature", "KS", "PSI", "Last window"], [...first.map((one) => [
    main(keyOf(one)), one.feature, { class: "number", inside: one.ks === undefined ? ["–"] : [bar(one.ks), ` ${shown(one.ks)}`] },
    number(one.psi ?? NaN), pill(one.alarm ? "drifted" : "alike", one.alarm ? "bad" : "good"),
  ]), ...rest], "No window of requests was compared with a reference yet.");
}

const number2 = (text) => ({ class: "number", inside: [text] });
const time = (seconds) => ({ class: "time", inside: [clock(seconds)] });
const HIDDEN = "Shown to nobody here: metrics_page says so, or that callers are identified.";

function happened(data) {
  const alerts = (data.alerts ?? []).toReversed().map((one) => [time(one.at), pill(one.resolved ? "over" : "fires", one.resolved ? "good" : "bad"), { class: "wide", inside: [one.text] }]);
  const quiet = data.alerts === null ? "Nobody is told of alerts (alert_urls_file)." : "Nothing fired.";
  table("alerts", ["Time", "What", "Alert"], alerts, data.everything ? quiet : HIDDEN);
  const lines = data.lines.toReversed().map((one) => [time(one.at), pill(one.level, one.level === "warning" ? "warn" : "bad"), { class: "part", inside: [one.part || "server"] }, { class: "wide log", inside: [one.text] }]);
  table("lines", ["Time", "Level", "Part", "Line"], lines, data.everything ? "No warnings, no errors." : HIDDEN);
}

function tiles(data) {
  const now = recent(null), waiting = sum(data.series.filter((one) => !wanted() || keyOf(one) === wanted()).map((one) => one.waiting));
  const found = [["requests/s", shown(now.rate)], ["p99, ms", shown(now.p99)], ["errors/s", shown(now.errors)],
    ["engines busy", `${Math.round(100 * data.busy)} %`], ["requests wait", shown(waiting)]];
  at("tiles").replaceChildren(...found.map(([name, value]) => element("div", { class: "tile" }, element("b", {}, value), element("span", {}, name))));
}

// ---- the page

function choices(data) {
  const names = [...new Set([...data.models, ...data.series].map(keyOf))].sort(), select = at("model"), before = select.value;
  if (names.join("\n") === [...select.options].slice(1).map((one) => one.value).join("\n")) return;
  select.replaceChildren(element("option", { value: "" }, "all models"), ...names.map((name) => element("option", { value: name }, name)));
  select.value = names.includes(before) ? before : "";
}

function draw() {
  if (!last) return;
  const shown = within(spanned());
  at("version").textContent = last.info.version ?? "";
  at("state").textContent = failing ? "no answer" : last.ready ? "ready" : "not ready";
  at("state").className = `pill ${failing || !last.ready ? "bad" : "good"}`;
  at("when").textContent = `as of ${clock(last.wall)} · ${last.info.transport ?? ""}`;
  choices(last);
  tiles(last);
  chart("throughput", throughput(shown), { empty: "No requests." });
  chart("latency", latency(), { stacked: true, empty: "Nothing ran." });
  chart("batches", batches(), { empty: "Nothing ran.", colours: [2] });
  chart("errors", errors(shown), { stacked: true, empty: "No errors.", colours: [4, 1, 3, 0, 2, 5] });
  models(last);
  judged(last);
  happened(last);
}

function trouble(error) {
  failing = true;
  at("trouble").hidden = false;
  at("trouble").textContent = `The server does not answer (${error.message}); what is shown is from ${last ? clock(last.wall) : "nowhere yet"}. It is asked again every ${POLL_MS / 1000} seconds.`;
}

async function poll() {
  try {
    if (!document.hidden) {
      const answer = await fetch("page.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      take(await answer.json());
      failing = false;
      at("trouble").hidden = true;
    }
  } catch (error) {
    trouble(error);
  }
  draw();
  setTimeout(poll, POLL_MS);
}

for (const id of ["model", "span"]) at(id).addEventListener("change", draw);
addEventListener("resize", draw);
document.addEventListener("visibilitychange", draw);
poll();
