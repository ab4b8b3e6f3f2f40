// What the address says: the view, the filters, and the Service whose detail is open.

const FILTERS = ["search", "type", "namespace", "health", "decision"];
const NAMES = ["view", ...FILTERS, "service"];

export const VIEWS = { services: "Services", file: "Toolset file", overrides: "Overrides", history: "History" };

/** The state that the address holds now. */
export function read() {
  const query = new URLSearchParams(location.search);
  const state = Object.fromEntries(NAMES.map((name) => [name, query.get(name) ?? ""]));
  if (!Object.hasOwn(VIEWS, state.view)) state.view = "services";
  return state;
}

export const filters = (state) => Object.fromEntries(FILTERS.map((name) => [name, state[name]]));

/** The address of the state of now with some changes. */
export function link(changes) {
  const state = { ...read(), ...changes };
  if (state.view === "services") state.view = "";
  const query = NAMES.filter((name) => state[name]).map((name) => `${name}=${encodeURIComponent(state[name]).replaceAll("%2F", "/").replaceAll("%3A", ":")}`);
  return query.length ? `?${query.join("&")}` : location.pathname;
}

/** The address of a Service's detail, and nothing else: what is shared is short. */
export const serviceLink = (key) => `?service=${encodeURIComponent(key).replaceAll("%2F", "/").replaceAll("%3A", ":")}`;

/** Go to another state: something that the back button undoes. */
export function push(changes) {
  history.pushState({ inside: true }, "", link(changes));
}

/** Change the state in place. Browsers refuse a page that does this too often; the next change mends it. */
export function replace(changes) {
  try {
    history.replaceState(history.state, "", link(changes));
  } catch {
    // As said above.
  }
}
