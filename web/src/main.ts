// The page at /: findings first, then what happened when, and who did most of it.

import { type Finding, Session, SignedOut, type Stated, type TopValue } from "./api";
import { Chart } from "./chart";
import { byID, el, table } from "./dom";
import { countLine, findingCard } from "./findings";
import { around, extent, finer, moment, type Point, presetMilliseconds, type Range, stepFor, sum } from "./times";

const refreshEvery = 5000;
const pageSize = 10;
const findingsMax = 500;
const rowsMax = 1000;

const session = new Session();
const chart = new Chart(byID("chart"));
const range = byID<HTMLSelectElement>("range");
const severity = byID<HTMLSelectElement>("severity");
let limit = pageSize;
let aroundFinding: Range | null = null;
let timer = 0;
let shownFindings = "";
let shownActivity = "";

/** refresh asks for everything anew and shows what changed. */
async function refresh(): Promise<void> {
  clearTimeout(timer);
  try {
    await Promise.all([showFindings(), showActivity()]);
    byID("error").textContent = "";
  } catch (err) {
    if (err instanceof SignedOut) {
      signedOut(err.message);
      return;
    }
    byID("error").textContent = `${err instanceof Error ? err.message : String(err)} What is shown may be old.`;
  }
  schedule();
}

function schedule(): void {
  clearTimeout(timer);
  timer = window.setTimeout(() => void (document.hidden ? schedule() : refresh()), refreshEvery);
}

function state(answer: Stated<unknown>): void {
  const lag = parseFloat(answer.lag);
  byID("state").textContent = `log position ${answer.position || "unknown"}, ${Number.isNaN(lag) ? "lag unknown" : `${lag.toFixed(1)} s behind`}`;
}

async function showFindings(): Promise<void> {
  const asked = `${severity.value} ${limit}`;
  const answer = await session.findings(severity.value, limit);
  if (asked !== `${severity.value} ${limit}`) return; // The reader has asked for something else since.
  state(answer);
  const { findings, next } = answer.body;
  byID("more").hidden = next === "" || limit >= findingsMax;
  const text = JSON.stringify(findings);
  if (text === shownFindings) return;
  shownFindings = text;
  byID("findings-count").textContent =
    countLine(findings, next !== "") + (next !== "" && limit >= findingsMax ? " Choose a severity, or read them from the API." : "");
  const list = byID("findings");
  const old = new Map([...list.children].map((c) => [c.getAttribute("data-id"), c as HTMLElement]));
  list.replaceChildren(...findings.map((f) => card(f, old.get(f.id))));
}

/** card keeps the element of a finding that did not change, and with it focus and what is open. */
function card(f: Finding, old: HTMLElement | undefined): HTMLElement {
  const text = JSON.stringify(f);
  if (old && texts.get(old) === text) return old;
  const made = findingCard(f, { disable: (finding, button) => void disable(finding, button), activity: showAround });
  texts.set(made, text);
  const details = made.querySelector("details");
  if (details && old?.querySelector("details")?.open) details.open = true;
  return made;
}

const texts = new WeakMap<Element, string>();

async function disable(f: Finding, button: HTMLButtonElement): Promise<void> {
  if (!f.key_id || !confirm(`Disable ${f.key_id}? Whoever uses it is refused from then on.`)) return;
  button.disabled = true;
  try {
    await session.disable(f.key_id);
    button.textContent = "Disabled";
  } catch (err) {
    button.disabled = false;
    button.after(el("span", { class: "error", role: "alert" }, ` ${err instanceof Error ? err.message : String(err)}`));
  }
}

/** showAround makes the time and the key of a finding what the activity is of. */
function showAround(f: Finding): void {
  aroundFinding = { ...around(f.first_seen, f.last_seen), ...(f.key_id ? { key: f.key_id } : {}) };
  let option = range.querySelector<HTMLOptionElement>("option[value=around]");
  if (!option) {
    option = el("option", { value: "around" });
    range.append(option);
  }
  option.textContent = `${f.key_id ?? ""}, ${moment(f.first_seen)}`;
  range.value = "around";
  range.scrollIntoView({ block: "start" });
  range.focus();
  void refresh();
}

async function showActivity(): Promise<void> {
  const asked = range.value;
  let chosen: Range | null;
  if (asked === "around") chosen = aroundFinding;
  else chosen = asked === "all" ? await wholeRange() : presetRange(asked);
  const [series, top] = chosen ? await Promise.all([session.series(chosen), session.top(chosen)]) : [null, null];
  if (asked !== range.value || asked === "around" && chosen !== aroundFinding) return;
  const points = series?.body.series ?? [];
  const keys = top?.body.top ?? [];
  const text = JSON.stringify([points, keys, chosen?.key]);
  if (text === shownActivity) return;
  shownActivity = text;
  chart.show(points);
  const { count, failures } = sum(points);
  byID("chart-note").textContent =
    count === 0 || !chosen
      ? "No uses in this time."
      : `${count.toLocaleString("en")} uses, ${failures.toLocaleString("en")} failed, by ${chosen.step}, ${moment(chosen.from)} to ${moment(chosen.to)} UTC.`;
  showTable(points);
  showTop(keys, count, chosen?.key);
}

function presetRange(preset: string): Range {
  const length = presetMilliseconds(preset);
  const to = new Date();
  return { from: new Date(to.getTime() - length).toISOString(), to: to.toISOString(), step: stepFor(length) };
}

/** wholeRange finds where there are uses, from months down to the step that suits them. */
async function wholeRange(): Promise<Range | null> {
  let at: Range = { from: "1970-01-01T00:00:00Z", to: new Date(Date.now() + 86_400_000).toISOString(), step: "month" };
  for (;;) {
    const answer = await session.series(at);
    const found = extent(answer.body.series, at.step);
    if (!found) return null;
    const wanted = stepFor(found.to.getTime() - found.from.getTime());
    const next = finer(at.step);
    at = { from: found.from.toISOString(), to: found.to.toISOString(), step: at.step };
    if (wanted === at.step || next === null) return at;
    at.step = next;
  }
}

function showTable(points: Point[]): void {
  const used = points.filter((p) => p.count > 0);
  const rows = used.slice(0, rowsMax).map((p) => [moment(p.time), p.count, p.failures, p.addresses]);
  const into = byID("chart-table").querySelector(".scroll");
  into?.replaceChildren(
    table("Uses over time", ["From (UTC)", "Uses", "Failed", "Addresses"], rows),
    ...(used.length > rowsMax ? [el("p", {}, `and ${used.length - rowsMax} more; choose a shorter time.`)] : []),
  );
}

/** showTop shows the busiest keys or, of one key, its most frequent actions. */
function showTop(values: TopValue[], all: number, key: string | undefined): void {
  const [title, head, none] = key ? [`Actions of ${key}`, "Action", "(no action)"] : ["Busiest keys", "Key", "(no key)"];
  byID("keys-title").textContent = title;
  const rows = values.map((v) => [
    el("code", {}, v.value || none),
    v.count,
    v.failures,
    el("meter", { min: "0", max: String(Math.max(all, 1)), value: String(v.count), "aria-label": `share of ${v.value || none}` }),
  ]);
  byID("keys").replaceChildren(rows.length ? table(title, [head, "Uses", "Failed", "Share"], rows) : el("p", {}, "No uses in this time."));
}

function signedOut(message: string): void {
  clearTimeout(timer);
  session.signOut();
  shownFindings = shownActivity = "";
  aroundFinding = null;
  range.querySelector("option[value=around]")?.remove();
  chart.show([]);
  showTable([]);
  showTop([], 0, undefined);
  for (const id of ["findings", "keys"]) byID(id).replaceChildren();
  for (const id of ["findings-count", "chart-note", "error"]) byID(id).textContent = "";
  byID("state").textContent = "";
  show(false);
  byID("sign-in-error").textContent = message;
  byID("key").focus();
}

function show(signedIn: boolean): void {
  byID("console").hidden = !signedIn;
  byID("sign-out").hidden = !signedIn;
  byID("sign-in").hidden = signedIn;
}

async function signIn(): Promise<void> {
  const input = byID<HTMLInputElement>("key");
  const error = byID("sign-in-error");
  error.textContent = "";
  try {
    await session.signIn(input.value.trim());
  } catch (err) {
    error.textContent = err instanceof Error ? err.message : String(err);
    return;
  }
  input.value = "";
  show(true);
  byID("main").focus();
  await refresh();
}

byID("sign-in").addEventListener("submit", (e) => {
  e.preventDefault();
  void signIn();
});
byID("sign-out").addEventListener("click", () => signedOut(""));
byID("more").addEventListener("click", () => {
  limit = Math.min(findingsMax, limit * 2);
  void refresh();
});
severity.addEventListener("change", () => {
  limit = pageSize;
  void refresh();
});
range.addEventListener("change", () => void refresh());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && session.signedIn) void refresh();
});

show(session.signedIn);
if (session.signedIn) void refresh();
