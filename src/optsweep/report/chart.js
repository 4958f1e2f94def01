"use strict";
// A chart of curves: read off, zoomed, on logarithmic axes or linear ones. touch.js makes them.
const LATE = 0.1; // share of a run whose steep start may leave the chart at the top
const ROOM = 0.5; // of the curves' span: as much of a wide band as the axis makes room for
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const KEYS = "left and right read off, up and down go through arms, plus and minus zoom, Escape resets";
const DASHES = [undefined, [8, 3], [7, 3, 2, 3], [2, 2], [12, 3, 3, 3]]; // told apart without colour too

class Chart {
  constructor(figure, curves, arms) {
    Object.assign(this, { figure, curves, arms, known: arms.all, logX: false, logY: curves.log, at: null });
    this.title = figure.querySelector("h3, h4");
    this.lines = [...curves.lines].reverse(); // the best are drawn last, on top
    this.view = { x: null, y: null };
    this.place = element("div", { className: "canvas", tabIndex: 0 });
    this.place.setAttribute("role", "application");
    this.place.setAttribute("aria-label", `${this.title.textContent}: ${KEYS}`);
    this.readout = element("output", { className: "at" });
    this.tools = this.makeTools();
    this.values = new Map();
    this.legend = this.makeLegend();
    this.title.after(element("div", { className: "touch" }, this.tools, this.place, this.legend));
    figure.classList.add("touched");
    figure.classList.toggle("many", arms.many);
    this.seen = true; // what isn't in sight is drawn when it comes
    this.stale = false;
    this.old = false; // other curves have come meanwhile
    this.pressed = false;
    this.draw();
    new ResizeObserver(() => this.resize()).observe(this.place);
    new IntersectionObserver(([{ isIntersecting }]) => this.see(isIntersecting)).observe(this.place);
    this.place.addEventListener("pointerdown", () => (this.pressed = true));
    addEventListener("pointerup", () => {
      this.pressed = false;
      if (this.old && this.seen) setTimeout(() => this.draw());
    });
    this.place.addEventListener("keydown", (event) => this.key(event));
    arms.charts.push(this);
  }

  makeTools() {
    const flag = (text, title, key) => {
      const made = button(text, title, () => {
        this[key] = !this[key];
        made.setAttribute("aria-pressed", this[key]);
        this.view = { x: null, y: null };
        this.draw();
      });
      made.setAttribute("aria-pressed", this[key]);
      return made;
    };
    this.back = button("reset zoom", "drag in the chart to zoom; a double click resets too", () =>
      this.zoom(null, null),
    );
    const held = element(
      "div",
      { className: "tools" },
      flag("log y", "loss axis logarithmic or linear", "logY"),
      flag("log x", "lower axis logarithmic or linear", "logX"),
      this.back,
    );
    if (this.arms.all.length > 2) held.append(button("all", "show all arms", () => this.arms.show(() => true)));
    if (this.arms.many)
      held.append(
        button("best", "show the baseline and the best arms", () => this.arms.show((arm) => arm.style < FEW)),
      );
    held.append(this.readout);
    return held;
  }

  makeLegend() {
    const list = element("ul", { className: "arms" });
    for (const line of this.curves.lines) {
      const arm = this.known[line.arm];
      const value = element("span", { className: "value" });
      this.values.set(line, value);
      const square = element("i");
      square.style.background = arm.style < FEW ? `var(--arm-${arm.style})` : "var(--rest)";
      const name = element(
        "span",
        { className: "name", title: line.n ? `${arm.label}, n = ${line.n}` : arm.label },
        arm.short,
      );
      const tag = arm.baseline ? [element("span", { className: "tag" }, "baseline")] : [];
      list.append(element("li", {}, this.arms.switch(line.arm, square, name, ...tag, value)));
    }
    return list;
  }

  // What the axes can show: no value that has no logarithm, none of an arm that is switched off.
  usable() {
    const x = this.curves.x;
    const from = this.logX
      ? Math.max(
          x.findIndex((value) => value > 0),
          0,
        )
      : 0;
    const of = (values) => values.slice(from).map((value) => (this.logY && !(value > 0) ? null : value));
    this.x = x.slice(from);
    this.from = from;
    return [this.x, ...this.lines.map((line) => of(line.y))];
  }

  // Other curves of the same figure, and the arms that they are of; what was chosen, zoomed into and pointed at stays.
  renew(curves) {
    Object.assign(this, { curves, known: this.arms.all });
    this.lines = [...curves.lines].reverse();
    this.near = null;
    this.values.clear();
    const { scrollTop } = this.legend;
    const legend = this.makeLegend();
    this.legend.replaceWith(legend);
    this.legend = legend;
    legend.scrollTop = scrollTop;
    this.figure.classList.toggle("many", this.arms.many);
    this.old = !this.seen || this.pressed;
    if (!this.old) this.draw();
  }

  draw() {
    this.old = false;
    const { left, top } = this.plot?.cursor ?? {};
    this.plot?.destroy();
    this.data = this.usable();
    const axis = (label, more) => ({
      label,
      labelSize: 22,
      labelFont: FONT,
      font: FONT,
      stroke: () => theme.ink,
      grid: { stroke: () => theme.grid, width: 1 },
      ticks: { stroke: () => theme.grid, width: 1, size: 4 },
      values: (_, splits) => splits.map((value) => (value === null ? "" : number(value, 4))),
      ...more,
    });
    const units = this.logY ? ", log scale" : "";
    const series = this.lines.map((line) => this.seriesOf(line));
    this.plot = new uPlot(
      {
        ...this.size(),
        legend: { show: false },
        scales: {
          x: { time: false, distr: this.logX ? 3 : 1, auto: false },
          y: { distr: this.logY ? 3 : 1, auto: false },
        },
        axes: [
          axis(this.curves.xLabel + (this.logX ? ", log scale" : ""), { size: 30 }),
          axis(this.curves.yLabel + units, {
            size: (u, values) => 14 + 7 * Math.max(3, ...(values ?? []).map((text) => text.length)),
          }),
        ],
        cursor: {
          drag: { x: true, y: true, uni: 24, setScale: false },
          focus: { prox: this.arms.many ? 16 : -1 },
          y: false,
          points: { size: 7, show: !this.arms.many },
          bind: { dblclick: () => () => this.zoom(null, null) },
        },
        focus: { alpha: 1 },
        series: [{}, ...series],
        hooks: {
          drawAxes: [(u) => this.drawBands(u)],
          setCursor: [(u) => this.read(u.cursor.idx)],
          setSelect: [(u) => this.selected(u)],
          setSeries: [(u, place, known) => known.focus && this.pointAt(place ? this.lines[place - 1] : null)],
        },
      },
      this.data,
      this.place,
    );
    this.plot.over.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") this.plot.setCursor({ left: event.offsetX, top: event.offsetY });
    });
    this.zoom(this.view.x, this.view.y);
    this.at = null;
    if (left >= 0) this.plot.setCursor({ left, top });
  }

  seriesOf(line) {
    const arm = this.known[line.arm];
    const near = () => this.arms.focus === line.arm;
    const faint = () => this.arms.focus !== null && !near();
    return {
      label: arm.label,
      show: this.arms.shown[line.arm],
      stroke: () =>
        near() && arm.style >= FEW ? theme.ink : colour(arm) + (faint() ? "55" : arm.style < FEW ? "" : "aa"),
      width: arm.style < FEW ? 2 : 1,
      dash: arm.style < FEW ? DASHES[arm.style % DASHES.length] : undefined,
      points: { show: this.x.length < 3 },
      spanGaps: true,
    };
  }

  size() {
    const width = Math.max(this.place.clientWidth, 200);
    return { width, height: Math.round(Math.min(Math.max(0.62 * width, 230), 400)) };
  }

  resize() {
    const size = this.size();
    if (size.width !== this.plot.width) this.plot.setSize(size);
  }

  redraw() {
    this.stale = !this.seen;
    if (this.seen && !this.old) this.plot.redraw(false);
  }

  see(seen) {
    this.seen = seen;
    if (seen && this.old) this.draw();
    else if (seen && this.stale) this.redraw();
  }

  showArms() {
    if (this.old) return; // it is drawn as a whole
    this.plot.batch(() => {
      this.lines.forEach((line, at) => this.plot.setSeries(at + 1, { show: this.arms.shown[line.arm] }));
      this.zoom(this.view.x, this.view.y);
    });
    this.redraw();
  }

  zoom(x, y) {
    this.view = { x, y };
    this.back.disabled = !x && !y;
    const whole = [this.x[0], this.x[this.x.length - 1]];
    const [low, high] = x ?? (whole[1] > whole[0] ? whole : [whole[0] - 1, whole[0] + 1]);
    const [bottom, top] = y ?? this.limits(low, high);
    this.plot.batch(() => {
      this.plot.setScale("x", { min: low, max: high });
      this.plot.setScale("y", { min: bottom, max: top });
    });
  }

  // Ends of the upright axis: of the end of the run, unless one has zoomed in.
  limits(low, high) {
    let shown = this.lines.filter((line) => this.arms.shown[line.arm]);
    if (shown.some((line) => !line.loose)) shown = shown.filter((line) => !line.loose);
    const late = this.view.x || this.curves.whole || this.logY ? -Infinity : LATE * high;
    let [bottom, top, least, most] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const line of shown) {
      const values = this.data[1 + this.lines.indexOf(line)];
      for (let at = 0; at < this.x.length; at++) {
        const value = values[at];
        if (value === null || this.x[at] < low || this.x[at] > high) continue;
        const half = this.banded() ? (line.half[at + this.from] ?? 0) : 0;
        bottom = Math.min(bottom, value);
        least = Math.min(least, value - half);
        if (this.x[at] < late) continue;
        top = Math.max(top, value);
        most = Math.max(most, value + half);
      }
    }
    if (top === -Infinity)
      [bottom, top, least, most] = bottom === Infinity ? [0, 1, 0, 1] : [bottom, bottom, least, least];
    const floor = Math.max(this.view.x ? 0 : this.curves.floor, 1e-12 * top);
    if (this.logY) return bottom > 0 ? [Math.max(bottom, floor) / 1.1, top * 1.1] : [0.1, 1];
    const room = ROOM * (top - bottom) || Infinity;
    [bottom, top] = [Math.max(least, bottom - room), Math.min(most, top + room)];
    const edge = top - bottom || Math.abs(top) || 1;
    return [bottom - 0.04 * edge, top + 0.06 * edge];
  }

  banded() {
    return this.arms.count <= FEW;
  }

  drawBands(u) {
    const { left, top, width, height } = u.bbox;
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(left, top, width, height);
    u.ctx.clip();
    for (const [, value] of this.curves.marks) this.drawMark(u, value);
    for (const line of this.lines) {
      const alone = this.arms.focus === line.arm;
      if (line.half.length && this.arms.shown[line.arm] && (alone || (this.arms.focus === null && this.banded())))
        this.drawBand(u, line);
    }
    u.ctx.restore();
  }

  drawMark(u, value) {
    const y = u.valToPos(value, "y", true);
    u.ctx.strokeStyle = theme.muted;
    u.ctx.setLineDash([2, 4]);
    u.ctx.beginPath();
    u.ctx.moveTo(u.bbox.left, y);
    u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
    u.ctx.stroke();
    u.ctx.setLineDash([]);
  }

  drawBand(u, line) {
    const lowest = this.logY ? u.scales.y.min : -Infinity;
    const edge = (side) => (value, at) => [
      u.valToPos(this.x[at], "x", true),
      u.valToPos(Math.max(value + side * line.half[at + this.from], lowest), "y", true),
    ];
    const values = this.data[1 + this.lines.indexOf(line)];
    const ends = (side) => values.map((value, at) => (value === null ? null : edge(side)(value, at))).filter(Boolean);
    u.ctx.fillStyle = colour(this.known[line.arm]) + "2e";
    u.ctx.beginPath();
    for (const [x, y] of [...ends(1), ...ends(-1).reverse()]) u.ctx.lineTo(x, y);
    u.ctx.fill();
  }

  selected(u) {
    const { left, top, width, height } = u.select;
    if (width < 5 && height < 5) return;
    const x = width < 5 ? this.view.x : [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
    const y =
      height < 5 || height >= u.over.clientHeight - 1 ? null : [u.posToVal(top + height, "y"), u.posToVal(top, "y")];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.zoom(x && width >= u.over.clientWidth - 1 ? this.view.x : x, y);
  }

  read(at) {
    if (at === this.at) return;
    this.at = at;
    const here = at !== null && at !== undefined;
    this.say();
    for (const [line, value] of this.values) value.textContent = here ? this.valueAt(line, at) : "";
  }

  // The arm whose curve is nearest to the pointer, named beside the step and brought into sight in the list.
  pointAt(line) {
    this.arms.focusOn(line ? line.arm : null);
    this.near = line;
    this.say();
    if (!line) return;
    const row = this.values.get(line).closest("li");
    const list = row.parentNode;
    if (row.offsetTop < list.scrollTop || row.offsetTop + row.offsetHeight > list.scrollTop + list.clientHeight)
      list.scrollTop = row.offsetTop - list.clientHeight / 2;
  }

  say() {
    const here = this.at !== null && this.at !== undefined;
    const near =
      here && this.near ? ` · ${this.known[this.near.arm].label} ${this.valueAt(this.near, this.at)}` : "";
    this.readout.textContent = here ? this.where(this.at) + near : "";
  }

  where(at) {
    const x = number(this.x[at], 6);
    return this.curves.unit ? `at ${x} ${this.curves.unit}` : `at step ${x}`;
  }

  valueAt(line, at) {
    return withHalf(line.y[at + this.from] ?? null, line.half[at + this.from]);
  }

  key(event) {
    const last = this.x.length - 1;
    const at = this.at ?? last;
    const far = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: at - far, ArrowRight: at + far, Home: 0, End: last }[event.key];
    const through = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const closer = { "+": 0.25, "=": 0.25, "-": 1 }[event.key];
    if (to !== undefined) this.moveTo(Math.min(Math.max(this.at === null ? last : to, 0), last));
    else if (through) this.nextArm(through, at);
    else if (closer) this.closer(closer, at);
    else if (event.key === "Escape") this.zoom(null, null);
    else return;
    event.preventDefault();
  }

  moveTo(at) {
    const left = this.plot.valToPos(this.x[at], "x");
    this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 });
    this.read(at);
    const near = this.curves.lines.filter(
      (line) => this.arms.shown[line.arm] && (this.arms.focus === null || this.arms.focus === line.arm),
    );
    said.textContent = `${this.where(at)}: ${near
      .slice(0, 5)
      .map((line) => `${this.known[line.arm].label} ${this.valueAt(line, at)}`)
      .join("; ")}`;
  }

  nextArm(by, at) {
    const held = this.curves.lines.map((line) => line.arm).filter((arm) => this.arms.shown[arm]);
    if (!held.length) return;
    const from = held.indexOf(this.arms.focus);
    this.arms.focusOn(held[from < 0 ? 0 : (from + by + held.length) % held.length]);
    this.moveTo(at);
  }

  closer(share, at) {
    const [low, high] = this.view.x ?? [this.x[0], this.x[this.x.length - 1]];
    const half = (high - low) * share;
    const ends = [Math.max(this.x[at] - half, this.x[0]), Math.min(this.x[at] + half, this.x[this.x.length - 1])];
    const whole = ends[0] === this.x[0] && ends[1] === this.x[this.x.length - 1];
    this.zoom(whole || ends[1] <= ends[0] ? null : ends, null);
  }
}
