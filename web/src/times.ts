// Times and the choice of what a chart shows. All times are UTC.

export type Step = "minute" | "hour" | "day" | "month";

export interface Point {
  time: string;
  count: number;
  failures: number;
  addresses: number;
}

/** Range is what the chart shows: a stretch of time, of one key if one is named. */
export interface Range {
  from: string;
  to: string;
  step: Step;
  key?: string;
}

/** around is the stretch from first to last with a margin on both sides. */
export function around(first: string, last: string): Range {
  const from = Date.parse(first);
  const to = Date.parse(last);
  const margin = Math.max(10 * 60_000, (to - from) / 2);
  return { from: new Date(from - margin).toISOString(), to: new Date(to + margin).toISOString(), step: stepFor(to - from + 2 * margin) };
}

const hour = 3_600_000;
const day = 24 * hour;

/** moment spells a time to the second, in UTC. */
export function moment(text: string): string {
  const t = new Date(text);
  return Number.isNaN(t.getTime()) ? text : t.toISOString().slice(0, 19).replace("T", " ");
}

/** stepFor chooses the step that gives a readable number of points. */
export function stepFor(milliseconds: number): Step {
  if (milliseconds <= 6 * hour) return "minute";
  if (milliseconds <= 21 * day) return "hour";
  if (milliseconds <= 1200 * day) return "day";
  return "month";
}

/** extent returns where in points there is anything, widened to the ends of its steps; null if nowhere. */
export function extent(points: Point[], step: Step): { from: Date; to: Date } | null {
  const used = points.filter((p) => p.count > 0);
  const first = used[0];
  const last = used[used.length - 1];
  if (!first || !last) return null;
  return { from: new Date(first.time), to: after(new Date(last.time), step) };
}

/** after returns the beginning of the step after t's. */
export function after(t: Date, step: Step): Date {
  switch (step) {
    case "minute":
      return new Date(t.getTime() + 60_000);
    case "hour":
      return new Date(t.getTime() + hour);
    case "day":
      return new Date(t.getTime() + day);
    case "month":
      return new Date(Date.UTC(t.getUTCFullYear(), t.getUTCMonth() + 1, 1));
  }
}

/** finer is the next shorter step, null if there is none. */
export function finer(step: Step): Step | null {
  return ({ month: "day", day: "hour", hour: "minute", minute: null } as const)[step];
}

/** presetMilliseconds reads "-24h" and "-7d". */
export function presetMilliseconds(preset: string): number {
  const n = Number(preset.slice(1, -1));
  return n * (preset.endsWith("d") ? day : hour);
}

/** sum adds up points. */
export function sum(points: Point[]): { count: number; failures: number } {
  return points.reduce((s, p) => ({ count: s.count + p.count, failures: s.failures + p.failures }), { count: 0, failures: 0 });
}
