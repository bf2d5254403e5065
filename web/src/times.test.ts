import assert from "node:assert/strict";
import { test } from "node:test";
import { after, around, extent, finer, moment, presetMilliseconds, stepFor, sum } from "./times";

const point = (time: string, count: number) => ({ time, count, failures: 1, addresses: 1 });

test("moments are UTC to the second, and what is no time stays as it is", () => {
  assert.equal(moment("2026-01-02T03:04:05.678+01:00"), "2026-01-02 02:04:05");
  assert.equal(moment("<b>never</b>"), "<b>never</b>");
});

test("the step fits the range", () => {
  const hour = 3_600_000;
  assert.deepEqual([hour, 25 * hour, 90 * 24 * hour, 5000 * 24 * hour].map(stepFor), ["minute", "hour", "day", "month"]);
});

test("the extent covers every step with uses, whole", () => {
  const points = [point("2026-01-01T00:00:00Z", 0), point("2026-02-01T00:00:00Z", 3), point("2026-12-01T00:00:00Z", 1)];
  assert.deepEqual(extent(points, "month"), { from: new Date("2026-02-01T00:00:00Z"), to: new Date("2027-01-01T00:00:00Z") });
  assert.equal(extent([point("2026-01-01T00:00:00Z", 0)], "month"), null);
  assert.equal(extent([], "day"), null);
});

test("steps follow one another and get finer until there is none", () => {
  assert.equal(after(new Date("2026-12-01T00:00:00Z"), "month").toISOString(), "2027-01-01T00:00:00.000Z");
  assert.equal(after(new Date("2026-12-31T00:00:00Z"), "day").toISOString(), "2027-01-01T00:00:00.000Z");
  assert.deepEqual([finer("month"), finer("day"), finer("hour"), finer("minute")], ["day", "hour", "minute", null]);
});

test("presets are lengths of time", () => {
  assert.deepEqual([presetMilliseconds("-1h"), presetMilliseconds("-7d")], [3_600_000, 7 * 86_400_000]);
});

test("around a finding there is a margin on both sides", () => {
  const short = around("2026-01-02T10:00:00Z", "2026-01-02T10:00:05Z");
  assert.deepEqual(short, { from: "2026-01-02T09:50:00.000Z", to: "2026-01-02T10:10:05.000Z", step: "minute" });
  assert.equal(around("2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z").step, "hour");
});

test("sums add counts and failures", () => {
  assert.deepEqual(sum([point("a", 2), point("b", 3)]), { count: 5, failures: 2 });
});
