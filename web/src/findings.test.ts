import assert from "node:assert/strict";
import { test } from "node:test";
import type { Finding } from "./api";
import { countLine } from "./findings";

const finding = (severity: string) => ({ severity }) as Finding;

test("the line counts by severity and says when there are more", () => {
  assert.equal(countLine([], false), "Nothing looks wrong.");
  assert.equal(countLine([finding("low"), finding("high"), finding("high")], false), "3: 2 high, 1 low.");
  assert.equal(countLine([finding("critical")], true), "The newest 1: 1 critical. There are more.");
});
