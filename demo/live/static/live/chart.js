/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line chart of the last minute on a canvas, no library.
 *
 * The right edge is not "now" but LAG ms ago, and the line is cut there: by the time a stretch of the
 * line comes into view both its ends are known, so it glides instead of jumping twice a second.
 * Times are performance.now() milliseconds.
 */
"use strict";

class LineChart {
  static LAG = 650;
  static PAD = { top: 12, right: 16, bottom: 24, left: 40 };

  constructor(root, ageAndValue) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.tip = root.querySelector(".chart__tip");
    this.span = Number(root.dataset.seconds) * 1000;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    const now = performance.now();
    this.points = ageAndValue.map(([age, value]) => ({ t: now - age, value }));
    this.low = 0;
    this.high = 100;
    this.pointer = null;
    this.readColours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.readColours());
    new ResizeObserver(() => this.resize()).observe(root);
    root.addEventListener("pointermove", (event) => this.point(event));
    root.addEventListener("pointerleave", () => this.point(null));
    this.fitScale(true);
    this.frame = this.frame.bind(this);
    requestAnimationFrame(this.frame);
  }

  add(value) {
    const now = performance.now();
    this.points.push({ t: now, value });
    while (this.points.length > 2 && this.points[1].t < now - this.span - 2000) {
      this.points.shift();
    }
    this.root.dataset.points = String(Number(this.root.dataset.points) + 1);
    if (this.still.matches) {
      this.draw();
    }
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.colours = {
      line: colour("--accent"),
      end: colour("--accent-2"),
      grid: colour("--grid"),
      text: colour("--faint"),
      card: colour("--card"),
    };
    this.font = "12px " + getComputedStyle(document.body).fontFamily;
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.root.clientWidth;
    this.height = this.root.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.ratio = ratio;
    this.draw();
  }

  point(event) {
    this.pointer = event === null ? null : event.clientX - this.root.getBoundingClientRect().left;
    if (this.pointer === null) {
      this.tip.hidden = true;
    }
  }

  frame(now) {
    /* 30 frames a second are enough for a line that moves 20 pixels a second */
    if (!this.still.matches && now - (this.drawn || 0) > 30) {
      this.drawn = now;
      this.fitScale(false);
      this.draw();
    }
    requestAnimationFrame(this.frame);
  }

  /* the value scale: the points' range in steps of 10, at least 40 high; it glides to a new range */
  fitScale(atOnce) {
    const values = this.points.map((point) => point.value);
    let low = values.length ? Math.floor((Math.min(...values) - 3) / 10) * 10 : 20;
    let high = values.length ? Math.ceil((Math.max(...values) + 3) / 10) * 10 : 80;
    while (high - low < 40) {
      low -= 10;
      high += 10;
    }
    low = Math.max(low, 0);
    high = Math.min(high, 100);
    const share = atOnce ? 1 : 0.12;
    this.low += (low - this.low) * share;
    this.high += (high - this.high) * share;
  }

  valueAt(t) {
    const next = this.points.findIndex((point) => point.t >= t);
    if (next === -1) {
      return null;
    }
    if (next === 0) {
      return this.points[0].t === t ? this.points[0].value : null;
    }
    const a = this.points[next - 1];
    const b = this.points[next];
    return a.value + ((b.value - a.value) * (t - a.t)) / (b.t - a.t);
  }

  /* the points up to `edge`, the last one cut there */
  visible(edge) {
    const shown = this.points.filter((point) => point.t <= edge);
    const value = this.valueAt(edge);
    if (value !== null && shown.length > 0) {
      shown.push({ t: edge, value });
    }
    return shown;
  }

  draw() {
    if (!this.width) {
      return;
    }
    const pad = LineChart.PAD;
    const g = this.canvas.getContext("2d");
    const edge = performance.now() - (this.still.matches ? 0 : LineChart.LAG);
    const inner = this.width - pad.left - pad.right;
    const x = (t) => pad.left + inner * (1 - (edge - t) / this.span);
    const y = (v) =>
      pad.top + ((this.high - v) / (this.high - this.low)) * (this.height - pad.top - pad.bottom);
    g.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    g.clearRect(0, 0, this.width, this.height);
    this.drawGrid(g, y, inner);
    this.drawLine(g, x, y, this.visible(edge));
    this.drawPointer(g, x, y, edge, inner);
  }

  drawGrid(g, y, inner) {
    const pad = LineChart.PAD;
    const bottom = this.height - pad.bottom;
    g.font = this.font;
    g.lineWidth = 1;
    g.strokeStyle = this.colours.grid;
    g.fillStyle = this.colours.text;
    g.textAlign = "right";
    g.textBaseline = "middle";
    const step = this.high - this.low > 60 ? 20 : 10;
    for (let v = Math.ceil(this.low / step) * step; v <= this.high + 0.01; v += step) {
      const line = Math.round(y(v)) + 0.5;
      if (line < pad.top - 1 || line > bottom + 1) {
        continue;
      }
      g.beginPath();
      g.moveTo(pad.left, line);
      g.lineTo(this.width - pad.right, line);
      g.stroke();
      g.fillText(String(v), pad.left - 10, line);
    }
    g.textBaseline = "alphabetic";
    const seconds = this.span / 1000;
    const every = inner < 420 ? 30 : 15;
    for (let ago = 0; ago <= seconds; ago += every) {
      const at = this.width - pad.right - (inner * ago) / seconds;
      g.textAlign = ago === 0 ? "right" : ago === seconds ? "left" : "center";
      g.fillText(ago === 0 ? "now" : `−${ago} s`, at, this.height - 5);
    }
  }

  drawLine(g, x, y, shown) {
    if (shown.length < 2) {
      return;
    }
    const pad = LineChart.PAD;
    const bottom = this.height - pad.bottom;
    const last = shown[shown.length - 1];
    g.save();
    g.beginPath();
    g.rect(pad.left, 0, this.width - pad.left, this.height);
    g.clip();

    const path = new Path2D();
    path.moveTo(x(shown[0].t), y(shown[0].value));
    for (let i = 1; i < shown.length - 1; i++) {
      const a = shown[i];
      const b = shown[i + 1];
      path.quadraticCurveTo(
        x(a.t), y(a.value), (x(a.t) + x(b.t)) / 2, (y(a.value) + y(b.value)) / 2);
    }
    path.lineTo(x(last.t), y(last.value));

    const area = new Path2D(path);
    area.lineTo(x(last.t), bottom);
    area.lineTo(x(shown[0].t), bottom);
    area.closePath();
    const fill = g.createLinearGradient(0, pad.top, 0, bottom);
    fill.addColorStop(0, this.colours.line + "38");
    fill.addColorStop(1, this.colours.line + "00");
    g.fillStyle = fill;
    g.fill(area);

    const stroke = g.createLinearGradient(pad.left, 0, this.width - pad.right, 0);
    stroke.addColorStop(0, this.colours.line);
    stroke.addColorStop(1, this.colours.end);
    g.strokeStyle = stroke;
    g.lineWidth = 2.5;
    g.lineJoin = "round";
    g.lineCap = "round";
    g.stroke(path);
    g.restore();

    this.dot(g, x(last.t), y(last.value), this.colours.end);
  }

  dot(g, cx, cy, colour) {
    g.beginPath();
    g.arc(cx, cy, 9, 0, 2 * Math.PI);
    g.fillStyle = colour + "33";
    g.fill();
    g.beginPath();
    g.arc(cx, cy, 4.5, 0, 2 * Math.PI);
    g.fillStyle = colour;
    g.fill();
    g.lineWidth = 2;
    g.strokeStyle = this.colours.card;
    g.stroke();
  }

  drawPointer(g, x, y, edge, inner) {
    if (this.pointer === null) {
      return;
    }
    const pad = LineChart.PAD;
    const at = Math.min(Math.max(this.pointer, pad.left), this.width - pad.right);
    const t = edge - this.span * (1 - (at - pad.left) / inner);
    const value = this.valueAt(t);
    this.tip.hidden = value === null;
    if (value === null) {
      return;
    }
    g.strokeStyle = this.colours.text;
    g.lineWidth = 1;
    g.setLineDash([3, 4]);
    g.beginPath();
    g.moveTo(at, pad.top);
    g.lineTo(at, this.height - pad.bottom);
    g.stroke();
    g.setLineDash([]);
    this.dot(g, at, y(value), this.colours.line);
    const ago = Math.round((edge - t) / 1000);
    this.tip.textContent = `${value.toFixed(1)} % · ${ago === 0 ? "now" : `${ago} s ago`}`;
    this.tip.style.left = `${Math.min(Math.max(at, 60), this.width - 60)}px`;
  }
}
