// Uses over time, drawn.

import uPlot from "uplot";
import { moment, sum, type Point } from "./times";

const height = 220;

/** dates are the axis's texts from the length of its steps on: the text, and what a new year or day adds to it. */
const dates: uPlot.Axis.Values = [
  [365 * 86400, "{YYYY}", null, null, null, null, null, null, 1],
  [28 * 86400, "{YYYY}-{MM}", null, null, null, null, null, null, 1],
  [86400, "{MM}-{DD}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
];

/** Chart draws points into an element and follows its width and the colour scheme. */
export class Chart {
  private plot: uPlot | null = null;
  private points: Point[] = [];

  constructor(private readonly into: HTMLElement) {
    new ResizeObserver(() => this.plot?.setSize({ width: this.width(), height })).observe(into);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.show(this.points));
  }

  show(points: Point[]): void {
    this.points = points;
    this.plot?.destroy();
    this.plot = null;
    const { count, failures } = sum(points);
    const first = points[0];
    const last = points[points.length - 1];
    if (!first || !last) {
      this.into.setAttribute("aria-label", "No uses in this time.");
      return;
    }
    this.into.setAttribute(
      "aria-label",
      `${count.toLocaleString("en")} uses, ${failures.toLocaleString("en")} of them failed, from ${moment(first.time)} to ${moment(last.time)} UTC.`,
    );
    const data: uPlot.AlignedData = [
      points.map((p) => Date.parse(p.time) / 1000),
      points.map((p) => p.count),
      points.map((p) => p.failures),
    ];
    this.plot = new uPlot(this.options(), data, this.into);
  }

  private width(): number {
    const style = getComputedStyle(this.into);
    return Math.max(200, this.into.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
  }

  private options(): uPlot.Options {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const bars = uPlot.paths.bars?.({ size: [0.9, 60, 2], align: 1 });
    const line = (label: string, name: string): uPlot.Series => ({
      label, stroke: colour(name), fill: colour(name), width: 0, points: { show: false }, ...(bars ? { paths: bars } : {}),
    });
    return {
      width: this.width(),
      height,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.05)] } },
      axes: [{ ...axis, values: dates }, { ...axis, size: 60, values: (_, ticks) => ticks.map((t) => (Number.isInteger(t) ? t.toLocaleString("en") : "")) }],
      series: [{ label: "UTC", value: (_, t) => (t === null ? "–" : moment(new Date(t * 1000).toISOString())) }, line("uses", "--uses"), line("failed", "--failures")],
      cursor: { y: false, drag: { x: false, y: false } },
    };
  }
}
