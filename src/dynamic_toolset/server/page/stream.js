// Follows the server's events (text/event-stream) with fetch(), because EventSource cannot send a token.

import { Failure } from "./api.js";

const SILENCE = 45_000; // the server says something every 15 s
const LONGEST_LINE = 1 << 20;
const LONGEST_PAUSE = 30_000;

export class Stream {
  #api;
  #hear;
  #tell;
  #lastId = null;
  #ended = null; // ends the connection of now, and whether there shall be another one
  #wake = () => {};

  /** `hear(name, data)` gets the events; `tell(state, milliseconds)` connecting, live, lost, paused or refused. */
  constructor(api, hear, tell) {
    this.#api = api;
    this.#hear = hear;
    this.#tell = tell;
  }

  get running() {
    return this.#ended !== null;
  }

  start() {
    if (this.running) return;
    this.#ended = new AbortController();
    void this.#follow(this.#ended.signal);
  }

  stop(state = "paused") {
    this.#ended?.abort();
    this.#ended = null;
    this.#wake();
    this.#tell(state);
  }

  forget() {
    this.#lastId = null;
  }

  /** Try again now, if the stream waits. */
  hurry() {
    this.#wake();
  }

  async #follow(ended) {
    let failures = 0;
    while (!ended.aborted) {
      this.#tell(failures ? "lost" : "connecting");
      let pause = 1000;
      try {
        await this.#connect(ended, () => (failures = 0));
      } catch (error) {
        if (ended.aborted) return;
        if (error instanceof Failure && !error.stale && (error.status === 401 || error.status === 403)) {
          this.#ended = null;
          this.#tell("refused", error);
          return;
        }
        pause = error.seconds ? error.seconds * 1000 : Math.min(LONGEST_PAUSE, 1000 * 2 ** failures);
      }
      if (ended.aborted) return;
      failures += 1;
      pause *= 0.75 + Math.random() / 2; // many pages that lost the same server do not come back at once
      this.#tell("lost", pause);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        this.#wake = () => { clearTimeout(timer); resolve(); };
      });
    }
  }

  async #connect(ended, succeeded) {
    const connection = new AbortController();
    const signal = AbortSignal.any([ended, connection.signal]);
    let watchdog;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => connection.abort(), SILENCE);
    };
    alive();
    try {
      const headers = { Accept: "text/event-stream", ...(this.#lastId ? { "Last-Event-ID": this.#lastId } : {}) };
      const response = await this.#api.request("api/v1/events", { headers, signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parse = parser((name, data, id) => {
        if (id !== null) this.#lastId = id;
        if (name === "hello") { succeeded(); this.#tell("live"); }
        this.#hear(name, data);
      });
      for (;;) {
        const { done, value } = await reader.read();
        if (done || ended.aborted) return;
        alive();
        parse(value);
      }
    } finally {
      clearTimeout(watchdog);
      connection.abort();
    }
  }
}

/** A function that takes pieces of a stream, and calls `emit(name, data, id)` for each event (HTML, 9.2.6). */
export function parser(emit) {
  let rest = "";
  let name = "";
  let data = [];
  let id = null;
  return (piece) => {
    rest += piece;
    // A carriage return at the end may be half of a line's end.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    if (rest.length > LONGEST_LINE) throw new Failure(0, "An event without end");
    for (const line of lines) {
      if (line === "") {
        if (data.length) emit(name || "message", decode(data.join("\n")), id);
        [name, data, id] = ["", [], null];
        continue;
      }
      const [, field, value] = /^([^:]*):? ?([^]*)$/.exec(line);
      if (field === "event") name = value;
      else if (field === "data") data.push(value);
      else if (field === "id" && !value.includes("\0")) id = value;
    }
  };
}

function decode(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
