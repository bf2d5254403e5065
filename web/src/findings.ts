// Findings as cards.

import type { Finding } from "./api";
import { el, table } from "./dom";
import { moment } from "./times";

const levels = ["critical", "high", "medium", "low"];

/** Actions are what the reader can ask for about a finding. */
export interface Actions {
  disable(f: Finding, button: HTMLButtonElement): void;
  activity(f: Finding): void;
}

/** findingCard shows one finding. */
export function findingCard(f: Finding, actions: Actions): HTMLLIElement {
  const who = f.key_id ? el("span", {}, "key ", el("code", {}, f.key_id)) : el("span", {}, "identity ", el("code", {}, f.iam_id ?? ""));
  const time = (t: string) => el("time", { datetime: t }, moment(t));
  const card = el(
    "li",
    { class: levels.includes(f.severity) ? f.severity : "low", "data-id": f.id },
    el("div", { class: "title" }, el("span", { class: "badge" }, f.severity), el("h3", {}, f.title), who),
    el("p", {}, f.reason),
    el(
      "div",
      { class: "facts" },
      el("span", {}, `rule ${f.rule_id} v${f.rule_version}`),
      f.technique ? el("span", {}, f.technique) : null,
      el("span", {}, `${f.count.toLocaleString("en")} ${f.count === 1 ? "record" : "records"}`),
      el("span", {}, time(f.first_seen), " – ", time(f.last_seen), " UTC"),
      el("span", {}, f.status),
    ),
  );
  const details = el("details", {}, el("summary", {}, "Evidence and what to do"));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(...evidence(f, actions));
  });
  card.append(details);
  return card;
}

function evidence(f: Finding, actions: Actions): Node[] {
  const out: Node[] = [];
  if (f.advice) out.push(el("p", {}, f.advice));
  if (f.key_id) {
    const disable = el("button", { type: "button" }, "Disable this key");
    disable.addEventListener("click", () => actions.disable(f, disable));
    const activity = el("button", { type: "button" }, "Show what the key did then");
    activity.addEventListener("click", () => actions.activity(f));
    out.push(el("p", {}, disable, " ", activity));
  }
  const rows = f.evidence.map((e) => [moment(e.time), e.action ?? "", el("code", {}, e.event_id), el("code", {}, `${e.position}/${e.index ?? 0}`)]);
  const more = f.count - f.evidence.length;
  out.push(
    el("p", { class: "facts" }, el("span", {}, `account ${f.account_id}`), f.iam_id ? el("span", {}, f.iam_id) : null, el("span", {}, `finding ${f.id}`)),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Evidence" }, table("Evidence", ["Time (UTC)", "Action", "Record", "Position"], rows)),
  );
  if (more > 0) out.push(el("p", {}, `and ${more.toLocaleString("en")} more, which are not listed in the finding.`));
  return out;
}

/** countLine says how many findings of which severity are shown. */
export function countLine(findings: Finding[], more: boolean): string {
  if (findings.length === 0) return "Nothing looks wrong.";
  const parts = levels
    .map((level) => [level, findings.filter((f) => f.severity === level).length] as const)
    .filter(([, n]) => n > 0)
    .map(([level, n]) => `${n} ${level}`);
  return `${more ? "The newest " : ""}${findings.length}: ${parts.join(", ")}.${more ? " There are more." : ""}`;
}
