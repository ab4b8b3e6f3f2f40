// What an operator sees of the running service. It renders what the API says, and never more than that.

import { Api, Failure } from "./page/api.js";
import { Detail, split } from "./page/detail.js";
import { foreign, h, since, tick, visible } from "./page/dom.js";
import { VIEWS, filters, link, push, read, replace } from "./page/route.js";
import { Services } from "./page/services.js";
import { Stream } from "./page/stream.js";
import "./page/theme.js";
import { showFile, showHistory, showOverrides } from "./page/views.js";

const PAGE = 500; // Services a request
const APART = 1000; // milliseconds between two refreshes
const KEPT = 100; // entries of the history
const UNSEEN = 30_000; // milliseconds after which a page that nobody sees lets go of its connection

const $ = (id) => document.getElementById(id);
const api = new Api();
const seen = { statistics: null, toolset: null, history: null, services: null, detail: null };
const failures = {};
let state = read();
let all = false; // whether the ignored Services are among those that were fetched

// --- Fetching --------------------------------------------------------------------------------------------------------

const LOADERS = {
  statistics: () => api.get("api/v1/statistics"),
  toolset: () => api.get("api/v1/toolset"),
  history: async () => {
    heard = [];
    const { items } = await api.get("api/v1/history");
    const known = new Set(items.map((entry) => entry.id));
    return [...heard.filter((entry) => !known.has(entry.id)), ...items].slice(0, KEPT);
  },
  services: async () => {
    const ignored = state.decision === "all" || state.decision === "ignored";
    const wanted = ignored ? "" : "&decision=candidate&decision=duplicate&decision=rejected";
    const items = [];
    let next = "";
    do {
      const answer = await api.get(`api/v1/services?limit=${PAGE}${wanted}${next}`);
      items.push(...answer.items);
      next = answer.continue ? `&continue=${encodeURIComponent(answer.continue)}` : "";
    } while (next);
    all = ignored;
    return items;
  },
  detail: () => {
    const { cluster, namespace, name } = split(state.service);
    if (/^\.\.?$/.test(namespace) || /^\.\.?$/.test(name)) throw new Failure(404, "Not found"); // it would lead elsewhere
    const query = cluster ? `?cluster=${encodeURIComponent(cluster)}` : "";
    return api.get(`api/v1/services/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}${query}`);
  },
};
let heard = []; // changes that the stream told since the history was asked for: its answer may be older
const EVERYTHING = ["statistics", "toolset", "history", "services"];

const wanted = new Set();
let timer = null;
let busy = false;
let last = -Infinity;
let failed = 0;
let locked = false; // until there is a token

/** Fetch these again: soon, together with what else is wanted by then, and not while nobody looks. */
function refresh(...names) {
  for (const name of names) wanted.add(name);
  if (state.service && names.length) wanted.add("detail");
  schedule();
}

function schedule() {
  if (timer || busy || locked || document.hidden || !wanted.size) return;
  const pause = failed ? Math.min(30_000, 1000 * 2 ** (failed - 1)) : 0;
  timer = setTimeout(run, Math.max(0, last + Math.max(APART, pause) - Date.now(), api.patience));
}

/** Fetch these at once: a person waits for them. */
function now(...names) {
  clearTimeout(timer);
  timer = null;
  last = -Infinity;
  refresh(...names);
}

async function run() {
  timer = null;
  busy = true;
  last = Date.now();
  const names = [...wanted];
  wanted.clear();
  let again = false;
  await Promise.all(names.map(async (name) => {
    const service = state.service;
    if (name === "detail" && !service) return;
    try {
      const value = await LOADERS[name]();
      if (name === "detail" && service !== state.service) return;
      seen[name] = value;
      delete failures[name];
    } catch (error) {
      const failure = error instanceof Failure ? error : new Failure(0, "The answer is not understood");
      if (!(error instanceof Failure)) console.error(error);
      if (failure.status === 401 && failure.stale) return void wanted.add(name);
      if (failure.status === 401) return lock(failure);
      if (name === "detail" && service !== state.service) return;
      failures[name] = failure;
      if (failure.status === 403 || failure.status === 404) seen[name] = null;
      if (failure.passing) { wanted.add(name); again = true; }
    }
  }));
  failed = again ? failed + 1 : 0;
  busy = false;
  if (!locked) {
    render(names);
    if (!stream.running && !document.hidden && !refused) stream.start();
  }
  schedule();
}

// --- The stream ------------------------------------------------------------------------------------------------------

let origin = null; // of the server's ids: another one is another server
let refused = false;

const stream = new Stream(api, (name, data) => {
  if (name === "hello") {
    const [start] = String(data.lastEventId ?? "").split("-");
    const other = origin !== null && start !== origin;
    origin = start;
    if (other) everything();
    else refresh(...EVERYTHING); // what happened before the stream began
  } else if (name === "change") {
    heard = [data, ...heard].slice(0, KEPT);
    if (seen.history && !seen.history.some((entry) => entry.id === data.id)) {
      seen.history = [data, ...seen.history].slice(0, KEPT);
      render([]);
    }
  } else if (name === "report") refresh("statistics", "toolset", "services");
  else if (name === "reset") everything();
}, connection);

function everything() {
  api.forget();
  stream.forget();
  refresh(...EVERYTHING);
}

let countdown = null;

function connection(condition, detail) {
  clearInterval(countdown);
  const place = $("connection");
  const say = (text) => {
    place.dataset.state = condition;
    if (place.textContent !== text) place.textContent = text;
  };
  if (condition === "live") say("Live");
  else if (condition === "connecting") say("Connecting");
  else if (condition === "paused") say("Paused");
  else if (condition === "closed") say("Not connected");
  else if (condition === "refused") {
    refused = true;
    if (detail.status === 401) lock(detail);
    else say("Not live: this is not allowed to you");
  } else say("Connection lost");
  place.title = condition === "lost" && detail ? `Next try in ${Math.ceil(detail / 1000)} s` : "";
  document.body.classList.toggle("lost", condition === "lost");
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) unseen = setTimeout(() => stream.running && stream.stop(), UNSEEN);
  else if (!locked) {
    if (!stream.running && seen.statistics && !refused) stream.start();
    schedule();
  }
});
let unseen = null;
addEventListener("online", () => stream.hurry());

// --- Who asks --------------------------------------------------------------------------------------------------------

let asked = false;

function lock(failure) {
  if (!locked) {
    $("login-why").textContent = asked
      ? `The token is not accepted: ${visible(failure.message)}. It may have expired, or be for another audience.`
      : "This service shows itself only to those whom the cluster knows and allows to see it.";
  }
  locked = true;
  wanted.clear();
  stream.stop("closed");
  show(false);
  $("token").focus();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.replace(/\s+/g, "");
  $("token").value = "";
  if (!/^[\x21-\x7e]+$/.test(token)) {
    $("login-why").textContent = "This is no token: it holds characters that none can hold.";
    return;
  }
  api.token = token;
  asked = true;
  locked = refused = false;
  now(...EVERYTHING);
});

function show(open) {
  $("login").hidden = open;
  $("app").hidden = !open;
  $("discover").hidden = !open;
  if (!open) detail.shut();
}

// --- Showing ---------------------------------------------------------------------------------------------------------

const services = new Services((changes) => {
  state = { ...state, ...changes };
  clearTimeout(typed);
  typed = setTimeout(() => replace(filters(state)), 150);
  if (!all && (state.decision === "all" || state.decision === "ignored")) now("services");
});
let typed = null;
const detail = new Detail(() => {
  const key = state.service;
  if (history.state?.inside) history.back();
  else replace({ service: "" });
  follow({ ...state, service: "" });
  if (state.view === "services") services.focusOn(key);
});

/** Show the state that the address holds. */
function follow(next) {
  const old = state;
  state = next;
  if (old.service !== state.service) {
    seen.detail = null;
    delete failures.detail;
    if (state.service) now("detail");
  }
  services.filters = filters(state);
  if (!all && (state.decision === "all" || state.decision === "ignored") && seen.services) now("services");
  render([]);
}

function render(names) {
  if (locked) return;
  if (!seen.statistics && !Object.keys(failures).length) return;
  show(true);
  glance();
  problems();
  for (const tab of $("views").children) {
    const current = tab.dataset.view === state.view;
    current ? tab.setAttribute("aria-current", "page") : tab.removeAttribute("aria-current");
    tab.href = link({ view: tab.dataset.view, service: "" });
  }
  for (const view of Object.keys(VIEWS)) $(view).hidden = view !== state.view;
  if (names.includes("services")) {
    services.items = seen.services;
    services.prune();
  }
  $("services-notice").hidden = !failures.services;
  $("services-notice").textContent = failures.services?.message ?? "";
  if (state.view === "file") showFile(seen.toolset, seen.history, failures);
  if (state.view === "overrides") showOverrides(seen.toolset, failures.toolset);
  if (state.view === "history") showHistory(seen.history, failures.history);
  if (state.service) {
    detail.open(state.service);
    if (seen.detail || failures.detail) detail.show(seen.detail, failures.detail, seen.history ?? []);
  } else detail.shut();
}

function glance() {
  const { statistics, toolset, history: entries } = seen;
  const target = toolset ? `${toolset.configMap.namespace}/${toolset.configMap.name}` : "";
  $("target").replaceChildren(foreign(target));
  if (!statistics) {
    $("headline").textContent = failures.statistics?.message ?? "Dynamic Toolset";
    return;
  }
  $("version").textContent = visible(statistics.version);
  const { known, candidates, listed, unhealthy, unknown, held } = statistics.services;
  $("headline").textContent = listed === 1 ? "1 service in the toolset" : `${listed.toLocaleString("en")} services in the toolset`;
  document.title = `${toolset?.problems.length ? `(${toolset.problems.length}) ` : ""}${listed} listed · Dynamic Toolset`;
  const newest = entries?.[0];
  if (toolset) {
    $("published").dataset.state = toolset.published ? "yes" : "no";
    $("published").replaceChildren(toolset.published ? "The cluster holds exactly what is decided" : "The cluster does not hold what is decided");
  }
  const facts = [
    ["Candidates", candidates.toLocaleString("en"), ""],
    ["Unhealthy", unhealthy.toLocaleString("en"), unhealthy ? "bad" : ""],
    unknown ? ["Not known yet", unknown.toLocaleString("en"), ""] : null,
    held ? ["Held", held.toLocaleString("en"), "warn"] : null,
    ["Services known", known.toLocaleString("en"), ""],
    ["Last change", newest ? since(newest.at) : "None yet", ""],
    ["This instance", statistics.leads ? "Leader" : "Standby", "", statistics.leads ? null : visible(statistics.holder)],
  ].filter(Boolean);
  $("facts").replaceChildren(...facts.map(([name, value, tone, more]) => h("div", { class: tone || null, title: more ? `${more} leads` : null },
    h("dt", {}, name), h("dd", {}, value))));
}

function problems() {
  const place = $("problems");
  const list = seen.toolset?.problems ?? [];
  const own = Object.entries(failures).filter(([name]) => name === "statistics" || (name === "toolset" && !seen.toolset)).map(([, failure]) => failure.message);
  const print = JSON.stringify([list, own]);
  if (place.dataset.print === print) return;
  place.dataset.print = print;
  place.replaceChildren(
    ...[...new Set(own)].map((message) => h("div", { class: "problem own" }, h("p", {}, message))),
    ...list.map(({ reason, message }) => h("div", { class: "problem" }, h("h2", {}, foreign(reason)), h("p", {}, foreign(message)))),
  );
}

// --- What people do --------------------------------------------------------------------------------------------------

$("views").append(...Object.entries(VIEWS).map(([view, name]) => h("a", { href: link({ view }), "data-view": view }, name)));

document.addEventListener("click", (event) => {
  const target = event.target.closest?.('a[href^="?"], nav a');
  if (!target || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const row = target.closest("tr[data-key]");
  const changes = row ? { service: row.dataset.key } : Object.fromEntries(new URLSearchParams(target.search));
  clearTimeout(typed);
  replace(filters(state));
  push(target.dataset.view ? { view: target.dataset.view, service: "" } : { service: changes.service ?? "" });
  follow(read());
});
addEventListener("popstate", () => follow(read()));

addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey || $("app").hidden) return;
  event.preventDefault();
  if (state.view !== "services") { push({ view: "services" }); follow(read()); }
  $("search").focus();
  $("search").select();
});

$("discover").addEventListener("click", async () => {
  const button = $("discover");
  button.disabled = true;
  try {
    await api.post("api/v1/discover");
    button.textContent = "Looking";
  } catch (error) {
    button.textContent = error.status === 403 ? "Not allowed" : error.status === 429 ? "Too often" : "Failed";
    button.title = error.message;
    if (error.status === 401 && !error.stale) lock(error);
  }
  setTimeout(() => { button.textContent = "Look again"; button.disabled = false; }, 2500);
});

setInterval(() => {
  tick();
  if (state.service) { wanted.add("detail"); schedule(); } // its checks go on, though nothing comes of them
}, 15_000);
services.filters = filters(state);
refresh(...EVERYTHING);
