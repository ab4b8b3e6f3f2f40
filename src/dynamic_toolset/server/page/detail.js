// All that is known of one Service, in a dialogue at the side.

import { clock, copyButton, endpoint, foreign, full, h, listing, outline, since, visible } from "./dom.js";
import { health, keyOf, listed, why } from "./services.js";
import { entryLine } from "./views.js";

export class Detail {
  #dialog = document.getElementById("detail");
  #key = "";
  #print = "";

  /** `closed()` is called when a person closes it. */
  constructor(closed) {
    // The browser tells of it later: by then, back and forward may have opened it again.
    this.#dialog.addEventListener("close", () => this.#key && !this.#dialog.open && closed());
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  open(key) {
    if (this.#key === key) return;
    this.#key = key;
    this.#print = "";
    this.#fill(h("p", { class: "empty" }, "Looking it up"));
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#dialog.focus();
    this.#dialog.scrollTop = 0;
  }

  shut() {
    this.#key = "";
    if (this.#dialog.open) this.#dialog.close();
  }

  /** Show what the server knows, or why it could not be had, and what history tells of it. */
  show(service, failure, history) {
    if (!this.#key) return;
    const told = history.filter((entry) => entry.service && keyOf(entry.service) === this.#key).slice(0, 8);
    const print = JSON.stringify([service, failure?.message, told]);
    if (print === this.#print) return;
    this.#print = print;
    if (!service) {
      const gone = failure?.status === 404;
      this.#fill(h("p", { class: "notice" }, gone ? "There is no such Service, or not any more." : (failure?.message ?? "")), lately(told));
    } else {
      this.#fill(
        failure ? h("p", { class: "notice" }, failure.message) : null,
        verdict(service),
        checks(service),
        evidence(service),
        ports(service),
        agent(service),
        lately(told),
      );
    }
  }

  #fill(...parts) {
    const { cluster, namespace, name } = split(this.#key);
    const whose = cluster ? `${cluster}: ${namespace}` : namespace;
    const scroll = this.#dialog.scrollTop;
    const held = this.#dialog !== document.activeElement && this.#dialog.contains(document.activeElement) ? document.activeElement : null;
    const label = held?.getAttribute("aria-label");
    const [inner, along] = [held?.scrollTop, held?.scrollLeft];
    const close = h("button", { type: "button", class: "close", click: () => this.#dialog.close() }, "Close");
    this.#dialog.replaceChildren(
      h("div", { class: "head" },
        h("h2", { id: "detail-title" }, h("span", { class: "namespace" }, foreign(whose), " / "), foreign(name)),
        close),
      ...parts.filter(Boolean),
    );
    this.#dialog.scrollTop = scroll;
    if (!held) return;
    // What had the focus has it again, as far as it is still there: a new check is no reason to lose one's place.
    const again = [...this.#dialog.querySelectorAll("[aria-label]")].find((one) => label && one.getAttribute("aria-label") === label);
    (again ?? close).focus({ preventScroll: true });
    again?.scrollTo(along, inner);
  }
}

/** The parts of a Service's key, see keyOf: no part holds a colon or a slash. */
export function split(key) {
  const [whose, ...rest] = key.split("/");
  const [namespace, cluster = ""] = whose.split(":").reverse();
  return { cluster, namespace, name: rest.join("/") };
}

function part(title, ...children) {
  return h("section", {}, h("h3", {}, title), ...children);
}

function verdict(service) {
  const facts = [
    ["Decision", visible(service.decision)],
    ["Type", service.type ? foreign(service.type) : "–"],
    ["Health", health(service.health)],
    ["Listed", listed(service)],
  ];
  return h("section", { class: "verdict" },
    h("p", { class: "because" }, why(service)),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    service.endpoint ? h("p", { class: "endpoint" }, endpoint(service.endpoint), copyButton(service.endpoint, "the endpoint")) : null);
}

function checks({ checks: made = [], failures = 0 }) {
  if (!made.length) return null;
  const good = made.filter((check) => check.health === "healthy").length;
  const strip = h("ol", { class: "strip", "aria-label": `The last ${made.length} checks, oldest first: ${good} healthy, ${made.length - good} not` },
    made.toReversed().map((check) => h("li", { class: visible(check.health), title: `${full(check.at)}: ${visible(check.health)}, ${visible(check.reason)}` },
      h("span", { class: "hidden" }, `${clock(check.at)} ${visible(check.health)}`))));
  const row = (run) => h("tr", {},
    h("td", { class: "when" }, run.length === 1 ? clock(run[0].at) : `${clock(run.at(-1).at)} to ${clock(run[0].at)}`),
    h("td", {}, health(run[0].health)),
    h("td", {}, run.length > 1 ? h("span", { class: "times" }, `${run.length} times: `) : null, foreign(run[0].reason)),
    h("td", { class: "number" }, duration(Math.max(...run.map((check) => check.seconds)))));
  return part("Checks",
    h("div", { class: "ends" }, strip, h("p", { "aria-hidden": "true" }, h("span", {}, clock(made.at(-1).at)), h("span", {}, clock(made[0].at)))),
    failures ? h("p", { class: "failures" }, `The last ${failures === 1 ? "one" : failures} failed.`) : null,
    h("table", { class: "small" },
      h("caption", { class: "hidden" }, "Checks, newest first; equal ones together"),
      h("thead", {}, h("tr", {}, ["When", "Outcome", "Reason", "Longest"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, runs(made).map(row))));
}

const duration = (seconds) => (seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`);

/** Checks in a row with the same outcome and reason, together. */
function runs(made) {
  const all = [];
  for (const check of made) {
    const last = all.at(-1)?.[0];
    if (last && last.health === check.health && last.reason === check.reason) all.at(-1).push(check);
    else all.push([check]);
  }
  return all;
}

function evidence({ evidence: rules = [] }) {
  return rules.length ? part("What it was known by", h("ul", { class: "plain" }, rules.map((rule) => h("li", {}, foreign(rule))))) : null;
}

function ports({ ports: considered = [] }) {
  if (!considered.length) return null;
  return part("Ports considered", h("table", { class: "small" },
    h("caption", { class: "hidden" }, "Ports considered, in the order of the Service"),
    h("thead", {}, h("tr", {}, ["Port", "Name", "Chosen", "Note"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, considered.map((port) => h("tr", {},
      h("td", { class: "number" }, visible(port.port)),
      h("td", {}, port.name ? foreign(port.name, "code") : "–"),
      h("td", {}, port.chosen ? h("strong", {}, "yes") : "no"),
      h("td", {}, foreign(port.note)))))));
}

function agent({ agent: read, toolsets = [] }) {
  if (!read && !toolsets.length) return part("What the agent reads", h("p", { class: "empty" }, "Nothing of this Service."));
  const names = toolsets.map((name, place) => [place ? ", " : "", foreign(name, "code")]).flat();
  return part("What the agent reads",
    toolsets.length ? h("p", {}, toolsets.length === 1 ? "In toolset " : "In toolsets ", ...names, ".") : null,
    read ? listing(visible(outline(read).replace(/^\n/, "")), "What the agent reads of this Service") : null);
}

function lately(told) {
  if (!told.length) return null;
  return part("Lately", h("ul", { class: "plain lately" }, told.map((entry) => h("li", {}, since(entry.at), entryLine(entry)))));
}
