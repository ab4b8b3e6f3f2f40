// The other views: the published file, people's overrides, and the history.

import { clock, copyButton, day, diff, foreign, full, h, listing, since, visible } from "./dom.js";
import { serviceLink } from "./route.js";
import { keyOf } from "./services.js";

const EVENTS = {
  service_listed: ["Listed", "good"],
  service_not_listed: ["Not listed", "bad"],
  service_gone: ["Gone", ""],
  published: ["Published", "accent"],
  problem: ["Problem", "bad"],
  problem_solved: ["Solved", "good"],
};
const KINDS = { changed: "changes", added: "adds", removed: "removes", waiting: "waits", none: "no effect" };

/** What is to be said of a change: of a service its health, but not of one that is gone, whose health was before. */
function words(entry) {
  if (!entry.service || entry.event === "service_gone") return visible(entry.message);
  return [entry.health, entry.reason].filter(Boolean).map(visible).join(", ");
}

/** The name of what happened, and its tone. A service that fails, and is listed all the same, is no good news. */
function named(entry) {
  if (entry.event === "service_listed" && entry.health !== "healthy") return ["Still listed", "warn"];
  return EVENTS[entry.event] ?? [visible(entry.event), ""];
}

/** What happened to a service, in a line. */
export function entryLine(entry) {
  const [name] = named(entry);
  const told = words(entry) || visible(entry.cause);
  return h("span", {}, h("b", {}, name), told ? ": " : null, told ? h("bdi", {}, told) : null);
}

/** The words of a view, unless it says them already: what a person selected, opened or scrolled to stays. */
function fill(id, print, build) {
  const view = document.getElementById(id);
  const text = JSON.stringify(print);
  if (view.dataset.print === text) return;
  view.dataset.print = text;
  const held = view.contains(document.activeElement) ? document.activeElement : null;
  view.replaceChildren(...build().filter(Boolean));
  if (held?.isConnected) held.focus({ preventScroll: true });
}

const notice = (failure) => (failure ? h("p", { class: "notice" }, failure.message) : null);

export function showFile(toolset, history, failures) {
  const last = history?.find((entry) => entry.event === "published" && entry.diff);
  fill("file", [toolset?.documents, last, failures.toolset?.message, failures.history?.message], () => [
    notice(failures.toolset),
    h("section", {},
      h("h2", {}, "Last change"),
      last ? h("p", { class: "about" }, since(last.at), " · ", foreign(last.cause || last.message)) : null,
      last ? diff(last.diff) : h("p", { class: "empty" }, failures.history?.message ?? "It has not changed since this instance started.")),
    ...(toolset?.documents ?? []).map(({ key, text }) => h("section", {},
      h("div", { class: "heading" }, h("h2", {}, foreign(key)), copyButton(text, visible(key))),
      listing(visible(text), visible(key)))),
    toolset && !toolset.documents.length ? h("p", { class: "empty" }, "Nothing is published yet.") : null,
  ]);
}

export function showOverrides(toolset, failure) {
  const { overrides, configMap } = toolset ?? {};
  fill("overrides", [overrides, configMap, failure?.message], () => {
    if (!overrides) return [notice(failure)];
    const edit = listing(`kubectl -n ${visible(configMap.namespace)} edit configmap ${visible(configMap.name)}`, "Command", "command");
    if (overrides.text === null) {
      return [
        notice(failure),
        h("section", {},
          h("h2", {}, "Nobody has changed anything"),
          h("p", {}, "The key ", h("code", {}, "overrides.yaml"), " of the ConfigMap is yours: what stands there is merged into what is generated, and is never touched."),
          edit),
      ];
    }
    return [
      notice(failure),
      h("section", {},
        h("h2", {}, "What they do"),
        overrides.effects.length
          ? h("ul", { class: "effects" }, overrides.effects.map((effect) => h("li", {},
            h("span", { class: `kind ${visible(effect.kind)}` }, KINDS[effect.kind] ?? visible(effect.kind)),
            h("div", {}, foreign(effect.toolset, "code"), h("p", {}, foreign(effect.message))))))
          : h("p", { class: "empty" }, "They change nothing.")),
      h("section", {},
        h("div", { class: "heading" }, h("h2", {}, "overrides.yaml"), copyButton(overrides.text, "overrides.yaml")),
        listing(visible(overrides.text), "overrides.yaml"),
        h("p", { class: "about" }, "People write this key; it is merged in and never touched:"), edit),
    ];
  });
}

let rows = new Map(); // the entries that are shown, by their id: one that a person opened is so still when another one comes

export function showHistory(history, failure) {
  fill("history", [history, failure?.message], () => {
    rows = new Map((history ?? []).map((entry) => [entry.id, rows.get(entry.id) ?? entryRow(entry)]));
    const days = Map.groupBy(history ?? [], (entry) => day(entry.at));
    return [
      notice(failure),
      history && !history.length ? h("p", { class: "empty" }, "Nothing has changed since this instance started.") : null,
      ...[...days].map(([name, entries]) => h("section", {}, h("h2", {}, name), h("ol", { class: "entries" }, entries.map((entry) => rows.get(entry.id))))),
    ];
  });
}

function entryRow(entry) {
  const [name, tone] = named(entry);
  const key = entry.service && keyOf(entry.service);
  const told = words(entry);
  return h("li", {},
    h("time", { datetime: visible(entry.at), title: full(entry.at) }, clock(entry.at)),
    h("span", { class: `event ${tone}` }, name),
    h("div", {},
      h("p", {},
        key ? h("a", { href: serviceLink(key) }, foreign(key)) : null,
        !key && entry.event.startsWith("problem") ? h("b", {}, foreign(entry.reason)) : null,
        (key || entry.event.startsWith("problem")) && told ? " " : null,
        h("bdi", {}, told)),
      entry.cause ? h("p", { class: "cause" }, foreign(entry.cause)) : null,
      entry.diff ? h("details", {}, h("summary", {}, "What changed in the file"), diff(entry.diff)) : null));
}
