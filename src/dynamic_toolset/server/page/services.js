// The table of Services: filters, search, and rows that are made as they are needed.

import { endpoint, foreign, h, visible } from "./dom.js";
import { serviceLink } from "./route.js";

const FIRST = 40; // rows that are made at once, more than a screen holds
const BATCH = 150; // rows that follow as they are scrolled to
const DECISIONS = ["candidate", "duplicate", "rejected", "ignored"];

/** What a Service is called everywhere: `namespace/name`, with `cluster:` before it if that is not our own. */
export const keyOf = (item) => `${item.cluster ? `${item.cluster}:` : ""}${item.namespace}/${item.name}`;

/** Health as a shape and a word. */
export function health(value) {
  return value ? h("span", { class: `health ${visible(value)}` }, visible(value)) : h("span", { class: "none" }, "–");
}

export function listed(item) {
  if (!item.listed) return h("span", { class: "no" }, "no");
  const held = item.held ? h("span", { class: "held", title: "Stays only because many fail at once, or its cluster is away" }, ", held") : null;
  return h("span", { class: "yes" }, "yes", held);
}

/** Why it is listed or not; in front what detection decided, unless it is a candidate. */
export function why(item) {
  const decision = item.decision === "candidate" ? null : h("span", { class: "decision" }, `${visible(item.decision)}: `);
  return [decision, foreign(item.reason)];
}

export class Services {
  #items = [];
  #known = false;
  #texts = new Map(); // key -> what a search looks at
  #rows = new Map(); // key -> {row, print}
  #matching = [];
  #made = FIRST;
  #filters = {};
  #changed;
  #settled = false;

  /** `changed(filters)` is called when a person changed the filters. */
  constructor(changed) {
    this.#changed = changed;
    this.search = document.getElementById("search");
    this.body = document.getElementById("rows");
    this.more = document.getElementById("more");
    this.selects = ["type", "namespace", "health", "decision"].map((id) => document.getElementById(id));
    this.search.addEventListener("input", () => this.#edit());
    for (const select of this.selects) select.addEventListener("change", () => this.#edit());
    const form = document.getElementById("filters");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" && event.target === this.search) this.#focus(0, event);
    });
    this.body.addEventListener("keydown", (event) => this.#walk(event));
    this.more.addEventListener("click", () => this.#extend(true));
    this.near = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.#extend(false), { rootMargin: "600px" });
  }

  /** Set the filters, as the URL has them. */
  set filters(filters) {
    this.#filters = { ...filters };
    if (this.search.value !== (filters.search ?? "")) this.search.value = filters.search ?? "";
    this.#options();
    this.#made = FIRST;
    this.render();
  }

  /** Set the Services; null where it is not known which there are. */
  set items(items) {
    this.#known = items !== null;
    this.#items = items ?? [];
    this.#texts = new Map(this.#items.map((item) => [
      keyOf(item),
      [keyOf(item), item.type, item.endpoint, item.health, item.decision, item.reason].join(" ").toLowerCase(),
    ]));
    this.#options();
    this.render();
    this.#settled = this.#known;
  }

  #edit() {
    const [type, namespace, condition, decision] = this.selects.map((select) => select.value);
    this.#filters = { search: this.search.value, type, namespace, health: condition, decision };
    this.#made = FIRST;
    this.render();
    this.#changed(this.#filters);
  }

  #options() {
    const some = (name) => [...new Set(this.#items.map((item) => item[name]).filter(Boolean))].sort();
    const choices = {
      type: [["", "All types"], ...some("type").map((one) => [one, one])],
      namespace: [["", "All namespaces"], ...some("namespace").map((one) => [one, one])],
      health: [["", "Any health"], ["healthy", "Healthy"], ["unhealthy", "Unhealthy"], ["unknown", "Unknown"]],
      decision: [["", "All but ignored"], ...DECISIONS.map((one) => [one, one[0].toUpperCase() + one.slice(1)]), ["all", "All decisions"]],
    };
    for (const select of this.selects) {
      const value = this.#filters[select.id] ?? "";
      const wanted = choices[select.id];
      if (!wanted.some(([one]) => one === value)) wanted.push([value, value]);
      const print = JSON.stringify(wanted);
      if (select.dataset.print !== print) {
        select.dataset.print = print;
        select.replaceChildren(...wanted.map(([one, text]) => h("option", { value: one }, visible(text).slice(0, 80))));
      }
      if (select.value !== value) select.value = value;
      select.classList.toggle("set", value !== "");
    }
  }

  #matches(item) {
    const { type, namespace, health: condition, decision } = this.#filters;
    if (type && item.type !== type) return false;
    if (namespace && item.namespace !== namespace) return false;
    if (condition && item.health !== condition) return false;
    if (!decision) return item.decision !== "ignored";
    return decision === "all" || item.decision === decision;
  }

  render() {
    const words = (this.#filters.search ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    this.#matching = this.#items.filter((item) => {
      if (!this.#matches(item)) return false;
      const text = this.#texts.get(keyOf(item));
      return words.every((word) => text.includes(word));
    });
    for (const select of this.selects) select.classList.toggle("set", select.value !== "");
    const focused = document.activeElement?.closest?.("tr[data-key]")?.dataset.key;
    const rows = this.#matching.slice(0, this.#made).map((item) => this.#row(item));
    rows.forEach((row, place) => {
      if (this.body.children[place] !== row) this.body.insertBefore(row, this.body.children[place] ?? null);
    });
    while (this.body.children.length > rows.length) this.body.lastChild.remove();
    if (focused && document.activeElement === document.body) this.focusOn(focused);
    this.#words();
  }

  #words() {
    const [found, all] = [this.#matching.length, this.#items.length];
    const rest = found - this.#made;
    this.more.hidden = rest <= 0;
    this.near.disconnect(); // it tells changes only: observed anew, it says whether the end is still near
    if (rest > 0) this.near.observe(this.more);
    this.more.textContent = `Show ${Math.min(rest, BATCH)} more of ${found}`;
    const count = !this.#known ? "" : `${found.toLocaleString("en")} ${found === 1 ? "Service" : "Services"}`;
    const place = document.getElementById("count");
    if (place.textContent !== count) place.textContent = count;
    const nothing = document.getElementById("nothing");
    nothing.hidden = found > 0 || !this.#known;
    nothing.textContent = all
      ? "No Service matches. Change the search or the filters; ignored Services are shown when all decisions are."
      : "No Service here looks like something that the agent could use. Ignored Services are shown when all decisions are.";
    document.getElementById("table").hidden = found === 0;
  }

  #row(item) {
    const key = keyOf(item);
    const print = JSON.stringify(item);
    const known = this.#rows.get(key);
    if (known?.print === print) return known.row;
    const open = h("a", { href: serviceLink(key), class: "open" }, foreign(item.name));
    const row = h("tr", { role: "row", "data-key": key, class: this.#settled ? "fresh" : null },
      h("td", { role: "cell", class: "c-namespace" }, foreign(item.cluster ? `${item.cluster}: ${item.namespace}` : item.namespace)),
      h("th", { role: "rowheader", scope: "row", class: "c-name" }, open),
      h("td", { role: "cell", class: "c-type" }, item.type ? foreign(item.type) : h("span", { class: "none" }, "–")),
      h("td", { role: "cell", class: "c-endpoint" }, item.endpoint ? endpoint(item.endpoint) : h("span", { class: "none" }, "–")),
      h("td", { role: "cell", class: "c-health" }, health(item.health)),
      h("td", { role: "cell", class: "c-listed" }, listed(item)),
      h("td", { role: "cell", class: "c-why" }, h("span", { class: "clamp" }, why(item))),
    );
    row.addEventListener("click", (event) => {
      // Anywhere on the row, but not for who selects text, or opens the link in a new tab.
      if (!event.target.closest("a") && getSelection().isCollapsed) open.click();
    });
    this.#rows.set(key, { row, print });
    return row;
  }

  #extend(focus) {
    if (this.#made >= this.#matching.length) return;
    const first = this.#made;
    this.#made += BATCH;
    this.render();
    if (focus) this.#focus(first);
  }

  #focus(place, event = null) {
    if (place >= this.body.children.length) this.#extend(false);
    const target = this.body.children[place]?.querySelector("a");
    if (target) {
      event?.preventDefault();
      target.focus();
    }
  }

  #walk(event) {
    const row = event.target.closest("tr");
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const place = [...this.body.children].indexOf(row);
    if (event.key === "ArrowDown") this.#focus(place + 1, event);
    else if (event.key === "ArrowUp" && place === 0) this.search.focus();
    else if (event.key === "ArrowUp") this.#focus(place - 1, event);
    else if (event.key === "Home") this.#focus(0, event);
    else if (event.key === "End") this.#focus(this.body.children.length - 1, event);
  }

  /** Give the focus to the row of a Service, or to the search where there is none. */
  focusOn(key) {
    (this.#rows.get(key)?.row.isConnected ? this.#rows.get(key).row.querySelector("a") : this.search).focus();
  }

  /** Forget the rows of Services that are gone. */
  prune() {
    for (const key of this.#rows.keys()) if (!this.#texts.has(key)) this.#rows.delete(key);
  }
}
