// The reference of the API: what /openapi.json says, put into words.

import { copyButton, h, listing } from "./page/dom.js";
import "./page/theme.js";

const TOKEN = 'TOKEN=$(kubectl create token NAME --audience dynamic-toolset)';
const METHODS = ["get", "post", "put", "patch", "delete"];
const WIDE = matchMedia("(min-width: 981px)");
const DEPTH = 8; // of the fields that are listed

const $ = (id) => document.getElementById(id);
let spec;

// --- Reading the document --------------------------------------------------------------------------------------------

const resolved = (schema) => (schema?.$ref ? schema.$ref.slice(2).split("/").reduce((one, key) => one[key], spec) : (schema ?? {}));

/** The schema without the null that it may also be, and whether there was one. */
function present(schema) {
  const one = resolved(schema);
  const choices = one.oneOf ?? one.anyOf;
  if (!choices && [one.type].flat().includes("null")) {
    const types = one.type.filter((type) => type !== "null");
    return [{ ...one, type: types.length === 1 ? types[0] : types, enum: one.enum?.filter((value) => value !== null) }, true];
  }
  if (!choices) return [one, false];
  const rest = choices.filter((choice) => choice.type !== "null");
  return [rest.length === 1 ? { ...resolved(rest[0]), ...without(one, "oneOf", "anyOf") } : one, rest.length < choices.length];
}

const without = (object, ...keys) => Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));

/** A type as words. */
function kind(schema) {
  const [one] = present(schema);
  if (one.enum) return one.enum.map(String).join(", ");
  const choices = one.oneOf ?? one.anyOf;
  if (choices) return choices.map(kind).join(" or ");
  if (one.type === "array") return one.items?.enum ? `any of ${kind(one.items)}` : `list of ${plural(kind(one.items))}`;
  if (one.type === "object") {
    const values = one.additionalProperties;
    return values && !one.properties && Object.keys(values).length ? `map to ${plural(kind(values))}` : "object";
  }
  return [one.type ?? "any value"].flat().join(" or ");
}

const plural = (word) => (/^(string|integer|number|object|boolean)$/.test(word) ? `${word}s` : word);

/** What a value must keep to, beyond its type. */
function bounds(schema) {
  const [one] = present(schema);
  const { minimum, maximum, maxLength, minLength, default: standard } = one;
  return [
    minimum !== undefined && maximum !== undefined ? `${minimum} to ${maximum}` : null,
    minimum !== undefined && maximum === undefined ? `at least ${minimum}` : null,
    maximum !== undefined && minimum === undefined ? `at most ${maximum}` : null,
    minLength ? `at least ${minLength} characters` : null,
    maxLength !== undefined ? `at most ${maxLength} characters` : null,
    one.type === "array" ? "may be repeated" : null,
    standard !== undefined && standard !== null && standard !== "" ? `default ${JSON.stringify(standard)}` : null,
  ].filter(Boolean);
}

/** The fields of an object, those within it too: [path, type, whether it may be null]. */
function fields(schema, path = "", depth = 0) {
  const [one, nullable] = present(schema);
  const own = path ? [[path, kind(one), nullable]] : [];
  if (depth > DEPTH) return own;
  if (one.type === "array") return [...own, ...fields(one.items, `${path}[]`, depth + 1).slice(1)];
  const inside = Object.entries(one.properties ?? {}).flatMap(([name, value]) => fields(value, path ? `${path}.${name}` : name, depth + 1));
  const values = one.additionalProperties;
  const mapped = values && !one.properties && Object.keys(values).length ? fields(values, `${path}.*`, depth + 1).slice(1) : [];
  return [...own, ...inside, ...mapped];
}

function example(content) {
  const { examples, example: single } = content;
  const value = single ?? Object.values(examples ?? {})[0]?.value;
  if (value === undefined) return null;
  return typeof value === "string" ? value.replace(/\n+$/, "\n") : JSON.stringify(value, null, 2);
}

const isProblem = ([status]) => Number(status) >= 400;
const title = (response) => Object.values(response.content ?? {}).map((content) => Object.values(content.examples ?? {})[0]?.value?.title)[0] ?? response.description;
const needsToken = (operation) => (operation.security ?? spec.security ?? []).some((one) => Object.keys(one).length);

/** The operations by tag, in the order of the document. */
function groups() {
  const all = Object.entries(spec.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method])
    .map((method) => ({ path, method, operation: item[method], id: item[method].operationId ?? `${method}${path}` })));
  const tags = [...new Map([...(spec.tags ?? []), ...all.flatMap(({ operation }) => operation.tags ?? ["Other"]).map((name) => ({ name }))]
    .reverse().map((tag) => [tag.name, tag])).values()].reverse();
  return tags.map((tag) => ({ ...tag, operations: all.filter(({ operation }) => (operation.tags ?? ["Other"])[0] === tag.name) }))
    .filter((group) => group.operations.length);
}

/** A command that does it, for a POSIX shell. */
function curl({ path, method, operation }) {
  const parameters = operation.parameters ?? [];
  const query = parameters.filter((one) => one.in === "query" && one.required)
    .map((one) => `${one.name}=${encodeURIComponent(present(one.schema)[0].enum?.[0] ?? one.name.toUpperCase())}`).join("&");
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => name.toUpperCase());
  const address = new URL(filled.replace(/^\//, ""), new URL(".", location.href)).href + (query ? `?${query}` : "");
  const body = Object.keys(operation.requestBody?.content ?? {})[0];
  const stream = Object.values(operation.responses).some((response) => response.content?.["text/event-stream"]);
  const head = ["curl", stream ? "-N" : "", method === "get" ? "" : `-X ${method.toUpperCase()}`, needsToken(operation) ? '-H "Authorization: Bearer $TOKEN"' : ""];
  return [
    head.filter(Boolean).join(" "),
    ...(body ? [`-H 'Content-Type: ${body}'`, "--data-binary @overrides.yaml"] : []),
    `'${address}'`,
  ].join(" \\\n  ");
}

// --- Showing it ------------------------------------------------------------------------------------------------------

/** Paragraphs; what stands between backticks is code. */
function prose(text = "") {
  return text.trim().split(/\n\s*\n/).filter(Boolean).map((paragraph) => h("p", {},
    paragraph.split(/(`+[^`]+`+)/).map((piece) => (piece.startsWith("`") ? h("code", {}, piece.replaceAll("`", "")) : piece.replace(/\s+/g, " ")))));
}

/** A text with a title; `of` is what it belongs to. */
function snippet(text, label, of, copy = false) {
  return h("figure", { class: "snippet", "aria-label": `${label}, ${of}` },
    h("figcaption", {}, h("span", {}, label), copy ? copyButton(text, of) : null),
    listing(text, `${label} of ${of}`, copy ? "command" : ""));
}

function table(caption, names, rows) {
  return h("table", { class: "small" },
    h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows));
}

function parameterRow(one) {
  const about = [one.in, one.required ? "required" : null].filter(Boolean).join(", ");
  const limits = bounds(one.schema);
  return h("tr", {},
    h("th", { scope: "row", class: "whole" }, h("code", {}, one.name), h("span", { class: "about" }, about)),
    h("td", {}, kind(one.schema), limits.length ? h("span", { class: "about" }, limits.join("; ")) : null),
    h("td", {}, one.description ?? ""));
}

function answers(operation) {
  return Object.entries(operation.responses).filter((entry) => !isProblem(entry)).map(([status, response]) => h("div", { class: "answer" },
    h("h4", {}, `${status} `, h("span", { class: "about" }, Object.keys(response.content ?? {}).join(", "))),
    prose(response.description),
    Object.entries(response.headers ?? {}).map(([name, header]) => h("p", {}, "Header ", h("code", {}, name), `: ${header.description ?? kind(header.schema)}`)),
    Object.values(response.content ?? {}).map((content) => fields(content.schema)).filter((rows) => rows.length).map((rows) => h("details", {},
      h("summary", {}, `${rows.length} fields`),
      table(`Fields of the answer ${status} of ${operation.operationId}`, ["Field", "Type"], rows.map(([path, words, nullable]) => h("tr", {},
        h("th", { scope: "row" }, h("code", {}, path.split(/(?=[.[])/).flatMap((piece, place) => (place ? [h("wbr"), piece] : [piece])))),
        h("td", {}, words, nullable ? h("span", { class: "about" }, "or null") : null))))))));
}

function operationArticle(one) {
  const { path, method, operation, id } = one;
  const problems = Object.entries(operation.responses).filter(isProblem);
  const examples = Object.entries(operation.responses).filter((entry) => !isProblem(entry))
    .flatMap(([status, response]) => Object.entries(response.content ?? {}).map(([type, content]) => [status, type, example(content)]))
    .filter(([, , text]) => text !== null);
  const body = Object.entries(operation.requestBody?.content ?? {})[0];
  return h("article", { id, class: "operation", "data-operation": id, "aria-labelledby": `${id}-title` },
    h("div", { class: "words" },
      h("h3", { id: `${id}-title` }, h("a", { href: `#${id}` }, h("span", { class: `method ${method}` }, method.toUpperCase()), " ", h("code", {}, path.split(/(?=\/)/).flatMap((piece) => [h("wbr"), piece])))),
      prose(operation.description ?? operation.summary),
      operation.parameters?.length ? h("div", {}, h("h4", {}, "Parameters"), table(`Parameters of ${id}`, ["Name", "Type", "Meaning"], operation.parameters.map(parameterRow))) : null,
      operation.requestBody ? h("div", {}, h("h4", {}, "Body ", h("span", { class: "about" }, Object.keys(operation.requestBody.content).join(", "))), prose(operation.requestBody.description)) : null,
      answers(operation),
      problems.length ? h("p", { class: "problems" }, "Problems: ", problems.flatMap(([status], place) => [place ? ", " : "", h("a", { href: `#problem-${status}` }, status)])) : null),
    h("div", { class: "code-column" },
      snippet(curl(one), "Command", id, true),
      body && example(body[1]) ? snippet(example(body[1]), `Body, ${body[0]}`, id) : null,
      examples.map(([status, type, text]) => snippet(text, `Answer ${status}, ${type}`, id))));
}

function problemSection(all) {
  const seen = new Map();
  for (const { operation } of all) {
    for (const [status, response] of Object.entries(operation.responses).filter(isProblem)) {
      const content = response.content?.["application/problem+json"];
      if (!seen.has(status) || (!seen.get(status).content && content)) seen.set(status, { response, content });
    }
  }
  if (!seen.size) return null;
  const first = [...seen.values()].find(({ content }) => content)?.content;
  return h("section", { id: "problems-of-all", "aria-labelledby": "problems-title" },
    h("h2", { id: "problems-title" }, "Problems"),
    prose("Every answer that is no success is an `application/problem+json` document (RFC 9457). `requestId` is what the log calls it, and comes as the header `X-Request-ID` of every answer."),
    first ? table("Fields of a problem", ["Field", "Type"], fields(first.schema).map(([path, words]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, path)), h("td", {}, words)))) : null,
    h("div", { class: "problem-list" }, [...seen].sort(([a], [b]) => a - b).map(([status, { response, content }]) => h("article", { id: `problem-${status}` },
      h("h3", {}, `${status} ${title(response)}`),
      content && example(content) ? listing(example(content), `Example of ${status}`) : null))));
}

function show() {
  const grouped = groups();
  const all = grouped.flatMap((group) => group.operations);
  $("version").textContent = spec.info.version;
  $("links").replaceChildren(...grouped.map((group) => h("div", {}, h("p", {}, group.name),
    h("ul", {}, group.operations.map(({ id, path, method }) => h("li", {}, h("a", { href: `#${id}` }, h("span", { class: `method ${method}` }, method.toUpperCase()), " ", path.replace("/api/v1", ""))))))),
  h("div", {}, h("ul", {}, h("li", {}, h("a", { href: "#problems-of-all" }, "Problems")))));
  $("state").remove();
  $("content").append(...[
    h("div", { class: "lead" }, prose(spec.info.description)),
    snippet(TOKEN, "A token for the commands below", "token", true),
    ...grouped.map((group) => h("section", { "aria-labelledby": `group-${group.name}` },
      h("h2", { id: `group-${group.name}` }, group.name), prose(group.description), group.operations.map(operationArticle))),
    problemSection(all),
  ].filter(Boolean));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

const fold = () => ($("index").open = WIDE.matches);
WIDE.addEventListener("change", fold);
fold();
$("links").addEventListener("click", (event) => event.target.closest("a") && fold());

try {
  const answer = await fetch("openapi.json", { redirect: "error", signal: AbortSignal.timeout(15_000) });
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  spec = await answer.json();
  show();
} catch (error) {
  const place = $("state");
  if (!place) throw error;
  place.textContent = `The document openapi.json cannot be had: ${error.message}. Load this page again to try again.`;
}
