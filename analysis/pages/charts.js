/* Interactive charts of a sweep's trials, for the page of `geosweep watch` and for the report.
 *
 * Everything that comes from a sweep is shown as text: with textContent, or drawn on a canvas.
 * Nothing here sets HTML, and tooltips are elements.
 */
"use strict";

const SCORES = {
  test_accuracy: "test accuracy", lss: "LSS", geodesic_excess: "excess", ots: "OTS",
};
const PANELS = [  // of the curves: [column of a curve, title, scale]
  [1, "Test accuracy", "value"], [2, "LSS (1: straight)", "value"],
  [3, "Straightness factor (log); dots: excess", "log"],
];
const SHORT = { network: "", dataset: "", layers: "", stages: "K=", gamma: "γ=" };
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const OKABE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];
const NETWORKS = { resnet: "#0072B2", plain: "#D55E00" };  // as in the report's figures
const DASHES = ["solid", [6, 3], [2, 2], [8, 3, 2, 3]];
const MOST = 12;     // With more values than this, colours stand for ranges of values.
const LISTED = 100;  // rows of the table; the others are counted
const NARROW = 840;  // pixels; below this, charts are one below the other, as their titles need the width
const ORDER = new Intl.Collator(undefined, { numeric: true });  // of texts with numbers in them

function element(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function shown(value, digits = 3) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  return Math.abs(value) >= 1000 ? value.toPrecision(4) : value.toFixed(digits);
}

const short = value => typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);

function labelOf(axes, trial) {
  const parts = axes.map((name, i) => [name, trial.values[i]]).filter(pair => pair[1] !== null);
  const text = parts.map(([name, value]) => (SHORT[name] ?? name + "=") + short(value)).join(" ");
  return text || trial.label || trial.trial;
}

/** The mean of what is known; null if nothing is. */
function mean(values) {
  const known = values.filter(value => typeof value === "number");
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

class Charts {
  /** Draw into an element; `update` fills it. */
  constructor(root) {
    this.root = root;
    this.state = { axes: [], trials: new Map(), curves: new Map() };
    this.selected = null;  // names of items, or null for all
    this.sorted = null;  // [column, ascending] of the table
    this.width = 0;  // of the element when the charts were drawn
    this.cost = 0;  // milliseconds that the last drawing took
    this.anew = false;  // whether charts that wait for a frame have to begin anew
    const style = name => getComputedStyle(root).getPropertyValue(name).trim();
    this.font = getComputedStyle(root).fontFamily;
    this.ink = () => ({ text: style("--ink"), soft: style("--soft"), line: style("--line"), page: style("--page") });
    this.tools = element("div", undefined, { class: "tools" });
    this.legend = element("div", undefined, { class: "legend" });
    this.by = this._choice("Colour", "by");
    this.averaged = element("input", undefined, { type: "checkbox" });
    this.averagedLabel = element("label");
    this.averagedLabel.append(this.averaged, " means over seeds");
    this.averaged.addEventListener("change", () => { this.selected = null; this.brushing = false; this.draw(true); });
    this.note = element("span", "", { class: "note", "aria-live": "polite" });
    this.clear = element("button", "Show all", { type: "button" });
    this.clear.addEventListener("click", () => this._select(null, null));
    this.tools.append(this.by.label, this.averagedLabel, this.note, this.clear);
    this.curves = this._box("Curves by epoch: test accuracy, LSS, straightness factor", "curves");
    const pair = element("div", undefined, { class: "pair" });
    const left = element("div"), right = element("div");
    this.y = this._choice("", "y axis");
    this.x = this._choice("against", "x axis");
    const axes = element("div", undefined, { class: "tools" });
    axes.append(this.y.label, this.x.label, element("span", "Drag a box around points to select them.", { class: "soft hint" }));
    this.points = this._box("Scatter of trials", "points");
    left.append(axes, this.points.box);
    const hint = element("div", undefined, { class: "tools" });
    hint.append(element("span", "Drag along an axis to select; click it to undo.", { class: "soft hint" }));
    this.parallel = this._box("Parallel coordinates of trials", "parallel");
    right.append(hint, this.parallel.box);
    pair.append(left, right);
    this.table = element("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Trials" });
    this.more = element("p", "", { class: "soft" });
    this.tip = element("div", "", { class: "tip", hidden: "" });
    root.append(this.tools, this.legend, this.curves.box, pair, this.table, this.more, this.tip);
    this._listen();
  }

  _box(name, kind) {
    const box = element("div", undefined, { class: `chart ${kind}`, role: "img", "aria-label": name });
    return { box, chart: null };
  }

  _choice(text, name) {
    const label = element("label"), select = element("select", undefined, { "aria-label": name });
    label.append(text ? text + " " : "", select);
    select.addEventListener("change", () => this.draw(true));
    return { label, select, value: () => select.value };
  }

  _listen() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(true));
    new ResizeObserver(() => {
      if (this.root.clientWidth === this.width || !this.items) return;
      for (const one of [this.curves, this.points, this.parallel]) one.chart?.resize();
      this.draw(true);
    }).observe(this.root);
  }

  /** Show another state: {axes, trials: Map of records, curves: Map of [epoch, ...] lists}.
   *
   * The curves are drawn at once, and each other chart in a frame of its own.
   */
  update(state) {
    const before = this.state.axes.join();
    this.state = state;
    this._draw(before !== state.axes.join(), false);
  }

  /** Draw everything at once. */
  draw(anew = false) {
    this._draw(anew, true);
  }

  _draw(anew, whole) {
    this.cost = 0;
    this.anew ||= anew;
    cancelAnimationFrame(this.next);
    const steps = [
      () => { this._make(); this._choices(); this._colours(); this.width = this.root.clientWidth; this._drawCurves(this.anew); },
      () => this._list(), () => this._drawPoints(this.anew),
      () => { this._drawParallel(this.anew); this.anew = false; },
    ];
    const step = () => {
      const start = performance.now();
      do steps.shift()(); while (whole && steps.length);
      this.cost += performance.now() - start;
      this.next = requestAnimationFrame(steps.length ? step : () => performance.mark("charts drawn"));
    };
    step();
  }

  /** The items to show: trials, or means over trials that differ only in their seed. */
  _make() {
    const { axes, trials, curves } = this.state, seed = axes.indexOf("seed"), groups = new Map();
    this.averagedLabel.hidden = seed < 0;
    for (const trial of trials.values()) {
      const values = this.averaged.checked && seed >= 0 ? trial.values.with(seed, null) : trial.values;
      const key = this.averaged.checked && seed >= 0 && values.some(value => value !== null) ? JSON.stringify([values, trial.points]) : trial.trial;
      if (!groups.has(key)) groups.set(key, { key, values, members: [] });
      groups.get(key).members.push(trial);
    }
    this.items = [];
    for (const group of groups.values()) {
      const [first] = group.members, many = group.members.length > 1;
      const item = { ...first, values: group.values, members: group.members, key: group.key };
      const scored = group.members.filter(trial => trial.status !== "failed");
      if (many) {
        for (const name of [...Object.keys(SCORES), "geodesic_excess_initial"]) item[name] = mean(scored.map(trial => trial[name]));
        const kinds = new Set(group.members.map(trial => trial.status));
        item.status = kinds.size === 1 ? first.status : [...kinds].sort().join(", ");
      }
      item.label = labelOf(axes, item) + (many ? ` (${group.members.length} seeds)` : "");
      const own = scored.map(trial => curves.get(trial.trial)).filter(Boolean);
      item.curve = own.length > 1 ? averageCurve(own) : own[0] || [];
      this.items.push(item);
    }
    if (this.selected) {
      const there = new Set(this.items.map(item => item.key));
      this.selected = new Set([...this.selected].filter(key => there.has(key)));
    }
  }

  _choices() {
    const { axes } = this.state;
    const fields = axes.filter(name => name !== "seed" || !this.averaged.checked);
    const numbers = fields.filter(name => this._values(name).every(value => typeof value === "number"));
    const scores = Object.keys(SCORES).filter(name => this.items.some(item => item[name] !== null && item[name] !== undefined));
    const first = ["gamma", "network"].find(name => fields.includes(name)) || fields[0] || "";
    fill(this.by.select, fields.length ? fields : [""], first);
    fill(this.y.select, [...scores, ...numbers], "test_accuracy");
    fill(this.x.select, [...scores, ...numbers], "lss");
    this.fields = fields;
    this.scores = scores;
  }

  _field(item, name) {
    const i = this.state.axes.indexOf(name);
    return i >= 0 ? item.values[i] : item[name];
  }

  _values(name) {
    const found = new Set(this.items.map(item => this._field(item, name)).filter(value => value !== null && value !== undefined));
    return [...found].sort((a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  }

  /** Choose a colour and a dash for each item; fill the legend.
   *
   * Dashes tell networks and K apart. With more of these than dashes, they tell networks apart, or nothing.
   */
  _colours() {
    const name = this.by.value(), values = this._values(name), dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const numeric = values.length > 1 && values.every(value => typeof value === "number");
    const steps = Math.min(values.length, MOST), colours = new Map();
    values.forEach((value, i) => {
      const step = Math.floor(i * steps / values.length), at = steps > 1 ? step / (steps - 1) : 0.4;
      colours.set(value, numeric ? shade(dark ? 0.32 + 0.68 * at : 0.88 * at) : NETWORKS[value] || OKABE[(i + 2 * (name === "network")) % OKABE.length]);
    });
    const dashed = ["network", "stages"].filter(field => field !== name && this._values(field).length > 1);
    const kindOf = item => dashed.map(field => SHORT[field] + this._field(item, field)).join(" ");
    while (new Set(this.items.map(kindOf)).size > DASHES.length) dashed.pop();
    const order = (a, b) => -ORDER.compare(this._field(a, "network"), this._field(b, "network")) || this._field(a, "stages") - this._field(b, "stages");
    const kinds = dashed.length ? [...new Set(this.items.toSorted(order).map(kindOf))] : [];
    for (const item of this.items) {
      item.colour = colours.get(this._field(item, name)) || "#8a939c";
      item.dash = Math.max(0, kinds.indexOf(kindOf(item)));
    }
    this.legend.replaceChildren();
    const swatch = (colour, text, dash = 0) => {
      const one = element("span"), mark = element("i");
      mark.style.background = stripes(colour, DASHES[dash]);
      one.append(mark, text);
      this.legend.append(one);
    };
    const title = name === "gamma" ? "γ" : name === "stages" ? "K" : name;
    if (values.length > 1) {
      this.legend.append(element("b", title));
      const some = values.length <= MOST ? values : values.filter((_, i) => i % Math.ceil(values.length / 6) === 0 || i === values.length - 1);
      for (const value of some) swatch(colours.get(value), short(value));
    }
    kinds.forEach((kind, i) => swatch("var(--ink)", kind, i));
    const count = this.selected?.size;
    this.note.textContent = this.selected ? `${count} of ${this.items.length} selected` : "";
    this.clear.hidden = !this.selected;
  }

  _isIn(item) {
    return !this.selected || this.selected.has(item.key);
  }

  _chart(one) {
    if (!one.chart) one.chart = echarts.init(one.box, null, { renderer: "canvas" });
    return one.chart;
  }

  _axis(colours, extra) {
    return {
      nameTextStyle: { color: colours.soft }, axisLine: { lineStyle: { color: colours.line } },
      axisLabel: { color: colours.soft, hideOverlap: true, fontSize: 11 }, axisTick: { show: false },
      splitLine: { lineStyle: { color: colours.line, opacity: 0.5 } }, scale: true, ...extra,
    };
  }

  _drawCurves(anew) {
    const ink = this.ink(), narrow = this.root.clientWidth < NARROW, height = 210, fresh = !this.curves.chart;
    this.curves.box.style.height = `${narrow ? 3 * height + 20 : 280}px`;
    const chart = this._chart(this.curves);
    if (fresh) this._hover(chart);
    else if (anew) chart.resize();
    const grids = PANELS.map((_, i) => narrow
      ? { left: 46, right: 14, top: i * height + 34, height: height - 66 }
      : { left: `${i * 33.4 + 3.6}%`, width: "28.5%", top: 34, bottom: 34 });
    const titles = PANELS.map(([, text], i) => ({
      text, left: narrow ? 6 : `${i * 33.4 + 0.6}%`, top: narrow ? i * height + 4 : 4,
      textStyle: { fontSize: 12.5, fontWeight: 600, color: ink.text },
    }));
    const ranges = PANELS.map(() => [Infinity, -Infinity, 0]), groups = new Map();  // least, most, last epoch
    const widen = (i, value) => { if (value < ranges[i][0]) ranges[i][0] = value; if (value > ranges[i][1]) ranges[i][1] = value; };
    for (const item of this.items) {
      if (!item.curve.length) continue;
      PANELS.forEach(([column], i) => {
        for (const row of item.curve) if (row[column] !== null) widen(i, row[column]);
        ranges[i][2] = Math.max(ranges[i][2], item.curve.at(-1)[0]);
        if (column === 3) for (const value of [item.geodesic_excess_initial, item.geodesic_excess]) if (value) widen(i, value);
      });
      const inside = this._isIn(item), key = inside ? `${item.colour} ${item.dash}` : "others";
      if (!groups.has(key)) groups.set(key, { inside, colour: inside ? item.colour : ink.soft, dash: inside ? item.dash : 0, items: [] });
      groups.get(key).items.push(item);
    }
    const zr = chart.getZr();
    for (const one of this.curves.drawn ?? []) zr.remove(one);
    chart.setOption({
      animation: false, title: titles, grid: grids, textStyle: { fontFamily: this.font },
      xAxis: PANELS.map((_, i) => this._axis(ink, { gridIndex: i, type: "value", min: 0, minInterval: 1, name: "epoch", nameLocation: "middle", nameGap: 22, splitLine: { show: false } })),
      yAxis: PANELS.map(([column, , type], i) => this._axis(ink, { gridIndex: i, type, ...(column === 1 ? { max: 1 } : {}) })),
      // The series only span the axes. A thousand curves are drawn faster without one for each.
      series: ranges.map(([least, most, last], i) => ({
        type: "line", id: `range ${i}`, xAxisIndex: i, yAxisIndex: i, data: least <= most ? [[0, least], [last, most]] : [],
        showSymbol: false, silent: true, lineStyle: { opacity: 0 }, emphasis: { disabled: true },
      })),
    });
    this.curves.place = PANELS.map(([, , type], i) => ranges[i][0] <= ranges[i][1] ? this._place(chart, i, type, ranges[i][0]) : null);
    this.curves.drawn = [...groups.values()].flatMap(group => this._linesOf(group));
    for (const one of this.curves.drawn) zr.add(one);
  }

  /** The functions that give the pixels of an epoch and of a value in a panel. */
  _place(chart, i, type, value) {
    const log = type === "log", next = log ? value * Math.E : value + 1;
    const [left, low] = chart.convertToPixel({ gridIndex: i }, [0, value]), [right, high] = chart.convertToPixel({ gridIndex: i }, [1, next]);
    const first = log ? Math.log(value) : value;
    return { x: epoch => left + (right - left) * epoch, y: y => low + (high - low) * ((log ? Math.log(y) : y) - first) };
  }

  /** The curves of a group, all of one colour, as one path in each panel, and the dots of the excess. */
  _linesOf({ inside, colour, dash, items }) {
    const lines = Math.max(1, this.items.filter(item => this._isIn(item)).length), found = [];
    const opacity = inside ? (lines > 300 ? 0.45 : lines > 60 ? 0.7 : 0.95) : 0.1, z = inside ? 3 : 2;
    PANELS.forEach(([column], i) => {
      const place = this.curves.place[i];
      if (!place) return;
      const curves = items.map(item => {  // x, y, x, y, ...
        const flat = [];
        for (const row of item.curve) if (row[column] !== null) flat.push(place.x(row[0]), place.y(row[column]));
        return flat;
      });
      const style = { stroke: colour, fill: "none", lineWidth: lines > 60 ? 1 : 1.6, lineDash: DASHES[dash], lineJoin: "bevel", opacity };
      found.push(new (shape("Lines"))({ shape: { curves: curves.filter(curve => curve.length > 2) }, style, z, silent: true }));
      const dots = curves.filter(curve => curve.length === 2).flat();
      if (column === 3 && inside) for (const item of items) {
        if (item.geodesic_excess_initial > 0) dots.push(place.x(0), place.y(item.geodesic_excess_initial));
        if (item.geodesic_excess > 0) dots.push(place.x(item.curve.at(-1)[0]), place.y(item.geodesic_excess));
      }
      if (dots.length) found.push(new (shape("Dots"))({ shape: { dots, radius: lines > 60 ? 1.5 : 2.5 }, style: { fill: colour, opacity }, z: z + 1, silent: true }));
    });
    return found;
  }

  /** Name the nearest curve at the pointer, and select its item on a click. */
  _hover(chart) {
    const zr = chart.getZr(), marks = PANELS.map(() => null);
    const nearest = event => {
      const panel = PANELS.findIndex((_, i) => chart.containPixel({ gridIndex: i }, [event.offsetX, event.offsetY]));
      if (panel < 0) return null;
      const epoch = Math.round(chart.convertFromPixel({ gridIndex: panel }, [event.offsetX, event.offsetY])[0]), place = this.curves.place[panel];
      let best = null, least = 16;
      for (const item of this.items) {
        const row = this._isIn(item) && item.curve[epoch - (item.curve[0]?.[0] ?? 0)], value = row && row[PANELS[panel][0]];
        if (typeof value !== "number") continue;
        const away = Math.abs(place.y(value) - event.offsetY);
        if (away < least) [least, best] = [away, { item, row, epoch }];
      }
      return best;
    };
    const forget = () => {
      this.tip.hidden = true;
      marks.forEach((mark, i) => { if (mark) zr.remove(mark); marks[i] = null; });
    };
    zr.on("mousemove", event => {
      forget();
      const found = nearest(event);
      if (!found) return;
      PANELS.forEach(([column], i) => {
        const points = found.item.curve.filter(row => row[column] !== null).map(row => [this.curves.place[i].x(row[0]), this.curves.place[i].y(row[column])]);
        marks[i] = new echarts.graphic.Polyline({ shape: { points }, style: { stroke: this.ink().text, lineWidth: 2.5, fill: "none" }, silent: true, zlevel: 1 });
        zr.add(marks[i]);
      });
      const [, accuracy, lss, factor] = found.row;
      this._say(this.curves.box, event, [found.item.label, `epoch ${found.epoch}: accuracy ${shown(accuracy)}, LSS ${shown(lss)}, straightness factor ${shown(factor, 2)}`]);
    });
    zr.on("globalout", forget);
    zr.on("click", event => { const found = nearest(event); if (found) this._select(new Set([found.item.key]), null); });
  }

  _say(box, event, lines) {
    this.tip.replaceChildren(...lines.map((line, i) => element(i ? "div" : "b", line)));
    this.tip.hidden = false;
    const left = Math.min(event.offsetX + 14, box.clientWidth - this.tip.offsetWidth - 4);
    this.tip.style.left = `${box.offsetLeft + Math.max(0, left)}px`;
    this.tip.style.top = `${box.offsetTop + event.offsetY + 16}px`;
  }

  _select(keys, from) {
    this.selected = keys;
    this._colours();
    this._drawCurves(false);
    if (from !== this.points) {
      this.brushing = false;
      this._drawPoints(true);
    }
    if (from !== this.parallel) this._drawParallel(true);
    this._list();
  }

  _drawPoints(anew) {
    const ink = this.ink(), x = this.x.value(), y = this.y.value(), fresh = !this.points.chart, chart = this._chart(this.points);
    const drawn = this.items.filter(item => typeof this._field(item, x) === "number" && typeof this._field(item, y) === "number");
    this.points.items = drawn;
    const axis = (name, extra) => {
      const positive = drawn.every(item => this._field(item, name) > 0), values = drawn.map(item => this._field(item, name));
      const wide = positive && Math.max(...values) / Math.min(...values) > 30;
      return this._axis(ink, { type: wide ? "log" : "value", name: (SCORES[name] || name) + (wide ? " (log)" : ""), nameLocation: "middle", ...extra });
    };
    const faint = from => this.selected && !this._isIn(from) ? 0.12 : 0.85;
    const option = {
      animation: false, grid: { left: 52, right: 16, top: 12, bottom: 44 }, textStyle: { fontFamily: this.font },
      xAxis: axis(x, { nameGap: 26 }), yAxis: axis(y, { nameGap: 38 }),
      tooltip: { confine: true, backgroundColor: ink.page, borderColor: ink.line, textStyle: { color: ink.text, fontSize: 12 }, formatter: hit => this._about(drawn[hit.dataIndex]) },
      brush: { xAxisIndex: "all", brushStyle: { borderWidth: 1, color: "rgba(100,150,220,0.18)", borderColor: "#5b8dd6" }, outOfBrush: { colorAlpha: 0.15 }, throttleType: "debounce", throttleDelay: 60 },
      toolbox: { show: false },
      series: [{
        type: "scatter", id: "points", symbolSize: drawn.length > 300 ? 6 : 9,
        data: drawn.map(item => [this._field(item, x), this._field(item, y)]),
        itemStyle: { borderColor: ink.page, borderWidth: 0.5, color: hit => echarts.color.modifyAlpha(drawn[hit.dataIndex].colour, faint(drawn[hit.dataIndex])) },
      }],
    };
    if (anew) chart.resize();
    if (fresh || anew) {  // without points, since the action draws the chart once more
      chart.setOption({ ...option, series: [] }, { notMerge: true });
      chart.dispatchAction({ type: "takeGlobalCursor", key: "brush", brushOption: { brushType: "rect", brushMode: "single" } });
    }
    chart.setOption(option);
    if (fresh) chart.on("brushSelected", event => this._brushed(event));
  }

  _brushed({ batch: [found] }) {
    if (!found.areas.length) {
      if (this.brushing) this._select(null, this.points);
      this.brushing = false;
      return;
    }
    this.brushing = true;
    const keys = found.selected.flatMap(one => one.dataIndex).map(i => this.points.items[i]?.key);
    this._select(new Set(keys), this.points);
  }

  _about(item) {
    const box = element("div");
    const rows = Object.entries(SCORES).filter(([name]) => typeof item[name] === "number");
    box.append(element("b", item.label));
    for (const [name, text] of rows) box.append(element("div", `${text} ${shown(item[name])}${name === "ots" && item.points ? ` (m = ${item.points})` : ""}`));
    return box;
  }

  _drawParallel(anew) {
    const ink = this.ink(), fresh = !this.parallel.chart, narrow = this.root.clientWidth < NARROW;
    const names = [...this.fields.slice(0, 8), ...this.scores];
    this.parallel.box.style.height = narrow ? `${names.length * 58 + 40}px` : "";
    const chart = this._chart(this.parallel);
    const drawn = this.items.filter(item => this.scores.some(name => typeof item[name] === "number"));
    const shape = JSON.stringify([names, narrow]);
    anew ||= shape !== this.parallel.shape;
    this.parallel.items = drawn;
    this.parallel.shape = shape;
    const dimensions = names.map((name, dim) => {
      const values = this._values(name), score = name in SCORES;
      const numeric = values.every(value => typeof value === "number");
      const title = { dim, name: SCORES[name] || (name === "gamma" ? "γ" : name === "stages" ? "K" : name) };
      if (!score && (!numeric || values.length <= MOST)) return { ...title, type: "category", data: values.map(short), values };
      const wide = values[0] > 0 && values.at(-1) / values[0] > 30;
      return wide ? { ...title, name: `${title.name} (log)`, type: "log", scale: true } : { ...title, type: "value", scale: true };
    });
    const at = (item, name, i) => {
      const value = this._field(item, name);
      if (value === null || value === undefined) return "-";
      return dimensions[i].type === "category" ? dimensions[i].values.indexOf(value) : value;
    };
    const plain = { axisLine: { lineStyle: { color: ink.soft } }, axisLabel: { color: ink.text, fontSize: 11, textBorderColor: ink.page, textBorderWidth: 3 }, nameTextStyle: { color: ink.text, fontSize: 12 } };
    if (anew) chart.resize();
    chart.setOption({
      animation: false, textStyle: { fontFamily: this.font },
      parallel: { left: narrow ? 100 : 40, right: narrow ? 24 : 46, top: narrow ? 16 : 36, bottom: narrow ? 30 : 24, layout: narrow ? "vertical" : "horizontal",
        parallelAxisDefault: { ...plain, nameLocation: narrow ? "start" : "end", nameGap: narrow ? 8 : 14, axisTick: { show: false }, areaSelectStyle: { width: 18, color: "#5b8dd6", opacity: 0.25, borderColor: "#5b8dd6" } } },
      parallelAxis: dimensions.map(({ values, ...one }) => ({ id: one.name, ...one })),
      series: [{
        type: "parallel", id: "lines", inactiveOpacity: 0.05, activeOpacity: 0.95, silent: true, progressive: 0,
        data: drawn.map(item => ({ value: names.map((name, i) => at(item, name, i)), lineStyle: { color: item.colour, width: drawn.length > 200 ? 1 : 1.4, opacity: this._isIn(item) ? (drawn.length > 300 && !this.selected ? 0.4 : 0.8) : 0.05 } })),
      }],
    }, { notMerge: anew });
    if (fresh) chart.on("axisareaselected", () => this._axesBrushed(chart));
  }

  _axesBrushed(chart) {
    const [series] = chart.getModel().getSeries(), inside = series.getRawIndicesByActiveState("active");
    const any = chart.getOption().parallelAxis.some((_, i) => chart.getModel().getComponent("parallelAxis", i).activeIntervals.length);
    this._select(any ? new Set(inside.map(i => this.parallel.items[i].key)) : null, this.parallel);
  }

  /** List the items, the selected ones only if some are. */
  _list() {
    const kinds = [["trial", item => item.label], ["status", item => item.status], ["epoch", item => item.epoch],
      ...Object.entries(SCORES).map(([name, text]) => [text, item => item[name]]), ["m", item => item.points]];
    const order = item => ["running", "interrupted", "failed", "diverged"].indexOf(item.status) + 1 || 9;
    let rows = this.items.filter(item => this._isIn(item));
    if (this.sorted) {
      const [column, up] = this.sorted, get = kinds[column][1];
      const none = value => value === null || value === undefined;
      rows = rows.toSorted((a, b) => {
        const [x, y] = [get(a), get(b)];
        if (none(x) || none(y)) return none(x) - none(y);
        return (up ? 1 : -1) * (typeof x === "number" ? x - y : ORDER.compare(String(x), String(y)));
      });
    } else rows = rows.toSorted((a, b) => order(a) - order(b) || ORDER.compare(a.label, b.label));
    const table = element("table"), head = element("tr"), body = element("tbody");
    kinds.forEach(([text], i) => {
      const cell = element("th", undefined, { scope: "col", class: i < 2 ? "text" : "" }), button = element("button", text, { type: "button" });
      if (this.sorted?.[0] === i) cell.setAttribute("aria-sort", this.sorted[1] ? "ascending" : "descending");
      button.addEventListener("click", () => { this.sorted = [i, this.sorted?.[0] === i ? !this.sorted[1] : true]; this._list(); });
      cell.append(button);
      head.append(cell);
    });
    for (const item of rows.slice(0, LISTED)) {
      const row = element("tr");
      kinds.forEach(([, get], i) => {
        const value = get(item), whole = i === 2 || i === kinds.length - 1;
        const text = i === 2 && item.epochs ? `${value ?? 0} of ${item.epochs}` : whole ? short(value ?? "") : shown(value);
        const cell = element("td", text, { class: i < 2 ? "text" : "" });
        if (i === 1) cell.classList.add(`is-${String(value).split(",")[0]}`);
        row.append(cell);
      });
      body.append(row);
    }
    const top = element("thead");
    top.append(head);
    table.append(top, body);
    const kept = this.table.scrollLeft;
    this.table.replaceChildren(table);
    this.table.scrollLeft = kept;
    this.more.textContent = rows.length > LISTED ? `... and ${rows.length - LISTED} more; select fewer to see them.` : "";
  }
}

/** A kind of path: lines through pixels, or dots. It is made when the library is there. */
function shape(kind) {
  const build = {
    Lines: (path, { curves }) => {
      for (const curve of curves) {
        path.moveTo(curve[0], curve[1]);
        for (let i = 2; i < curve.length; i += 2) path.lineTo(curve[i], curve[i + 1]);
      }
    },
    Dots: (path, { dots, radius }) => {
      for (let i = 0; i < dots.length; i += 2) {
        path.moveTo(dots[i] + radius, dots[i + 1]);
        path.arc(dots[i], dots[i + 1], radius, 0, 2 * Math.PI);
      }
    },
  };
  return shape[kind] ??= echarts.graphic.extendShape({ type: kind, shape: { curves: [], dots: [], radius: 0 }, buildPath: build[kind] });
}

/** The means of several curves, at the epochs that all of them have. */
function averageCurve(curves) {
  const rest = curves.slice(1).map(curve => new Map(curve.map(row => [row[0], row])));
  const both = curves[0].filter(row => rest.every(curve => curve.has(row[0])));
  return both.map(row => row.map((value, i) => i ? mean([value, ...rest.map(curve => curve.get(row[0])[i])]) : value));
}

function shade(at) {
  const place = Math.min(0.9999, Math.max(0, at)) * (VIRIDIS.length - 1), i = Math.floor(place), part = place - i;
  const channel = (colour, k) => parseInt(colour.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mixed = [0, 1, 2].map(k => Math.round(channel(VIRIDIS[i], k) * (1 - part) + channel(VIRIDIS[i + 1], k) * part));
  return `rgb(${mixed.join(",")})`;
}

/** The background that looks like a line with these dashes, for the legend. */
function stripes(colour, dash) {
  if (dash === "solid") return colour;
  let at = 0;
  const parts = dash.map((length, i) => `${i % 2 ? "transparent" : colour} ${at}px ${at += length}px`);
  return `repeating-linear-gradient(90deg, ${parts.join(", ")})`;
}

/** Put options into a select, and keep what was chosen if it is still there. */
function fill(select, names, first) {
  if ([...select.options].map(option => option.value).join("\n") === names.join("\n")) return;
  const before = select.value;
  select.replaceChildren(...names.map(name => element("option", SCORES[name] || (name === "gamma" ? "γ" : name || "nothing"), { value: name })));
  select.value = names.includes(before) && before ? before : names.includes(first) ? first : names[0];
}

/** Take news into a state: records of trials, and epochs of curves from a position on. */
function merged(state, news) {
  const trials = news.whole ? new Map() : state.trials, curves = news.whole ? new Map() : state.curves;
  for (const trial of news.trials) trials.set(trial.trial, trial);
  for (const [trial, [first, rows]] of Object.entries(news.curves)) {
    curves.set(trial, (curves.get(trial) || []).slice(0, first).concat(rows));
  }
  return { axes: news.axes, trials, curves };
}
