// Elements made from data: text is only ever set as text, never read as HTML.

type Child = Node | string | null;

/** el makes an element with attributes and children; texts become text nodes. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children.filter((c) => c !== null));
  return e;
}

/** byID returns the element of the page with that id, which index.html must have. */
export function byID<T extends HTMLElement = HTMLElement>(id: string): T {
  const e = document.getElementById(id);
  if (!e) throw new Error(`the page has no #${id}`);
  return e as T;
}

/** table makes a table; numbers stand to the right. */
export function table(caption: string, heads: string[], rows: (Node | string | number)[][]): HTMLTableElement {
  const cell = (tag: "td" | "th", c: Node | string | number) =>
    el(tag, typeof c === "number" ? { class: "number" } : {}, typeof c === "number" ? c.toLocaleString("en") : c);
  const numeric = (i: number) => typeof rows[0]?.[i] === "number";
  return el(
    "table",
    { "aria-label": caption },
    el("thead", {}, el("tr", {}, ...heads.map((h, i) => el("th", numeric(i) ? { scope: "col", class: "number" } : { scope: "col" }, h)))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, ...r.map((c) => cell("td", c))))),
  );
}
