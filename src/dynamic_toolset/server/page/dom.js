// Builds the page out of text. Nothing here, or anywhere in the page, turns text into markup.

/** An element. Functions become listeners; true, false and null do what they do for boolean attributes. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Control characters, and those that are invisible or change the direction of the text around them.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** The text with what cannot be seen made visible, as \u202e. */
export function visible(text) {
  return String(text ?? "").replace(HIDDEN, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** What somebody else wrote: isolated, so that its direction reorders nothing around it. */
export function foreign(text, className = null) {
  return h("bdi", { class: className }, visible(text));
}

/** An endpoint, as text that may wrap after the namespace. It leads to nowhere from a browser, so it is no link. */
export function endpoint(url) {
  const [head, ...tail] = visible(url).split(/(?=\.svc\.)/);
  return h("bdi", { class: "code" }, head, tail.length ? h("wbr") : null, tail.join(""));
}

export function copyButton(text, what) {
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

/** Text that scrolls by itself, and can be reached with the keyboard to do so. */
export function listing(text, label, className = "") {
  return h("pre", { class: `listing ${className}`, tabindex: "0", role: "region", "aria-label": label }, text);
}

/** A unified diff; what was added and removed is told by the signs, too. */
export function diff(text) {
  const lines = text.replace(/\n$/, "").split("\n").map((line) => {
    const kind = /^(---|\+\+\+) /.test(line) ? "file" : { "+": "added", "-": "removed", "@": "place" }[line[0]];
    return h("span", { class: kind ?? null }, `${visible(line)}\n`);
  });
  return listing(lines.length ? "" : text, "Difference", "diff").appendChild(h("code", {}, lines)).parentElement;
}

// --- Time ------------------------------------------------------------------------------------------------------------

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const moment = (at) => (Number.isNaN(Date.parse(at)) ? null : new Date(at));

/** A point in time as text, or the text itself where it is none. */
const told = (format) => (at) => (moment(at) ? format.format(moment(at)) : visible(at));
export const clock = told(CLOCK);
export const day = told(DAY);
export const full = told(FULL);

export function ago(at) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(at)) / 1000));
  if (Number.isNaN(seconds)) return visible(at);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

/** How long ago; kept true by tick(). */
export function since(at) {
  return h("time", { datetime: visible(at), title: full(at), class: "since" }, ago(at));
}

export function tick() {
  for (const time of document.querySelectorAll("time.since")) {
    const text = ago(time.dateTime);
    if (time.textContent !== text) time.textContent = text;
  }
}

// --- Values ----------------------------------------------------------------------------------------------------------

/** A JSON value as it reads best: one key a line, long texts as they are. */
export function outline(value, indent = "") {
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return value.map((one) => {
      const text = outline(one, `${indent}  `);
      return `\n${indent}- ${text.startsWith("\n") ? text.slice(indent.length + 3) : text}`;
    }).join("");
  }
  if (value && typeof value === "object") {
    const entries = Object.entries(value);
    if (!entries.length) return "{}";
    return entries.map(([key, one]) => {
      const text = outline(one, `${indent}  `);
      return `\n${indent}${key}:${text.startsWith("\n") ? text : ` ${text}`}`;
    }).join("");
  }
  if (typeof value === "string" && value.includes("\n")) {
    return `|${value.replace(/\n+$/, "").split("\n").map((line) => `\n${indent}${line}`).join("")}`;
  }
  return String(value);
}
