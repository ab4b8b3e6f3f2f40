// Speaks with the server: requests, the token, and the patience that the server asks for.

/**
 * An answer that is no success. `status` is 0 where there was no answer. `stale`: it is to a request with another token
 * than the one that has been given since, so what it says of the token is no news.
 */
export class Failure extends Error {
  constructor(status, message, seconds = 0) {
    super(message);
    this.status = status;
    this.seconds = seconds;
    this.stale = false;
  }

  /** Whether the same request may well succeed later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const DEADLINE = 15_000;

export class Api {
  #token = null; // here and nowhere else
  #known = new Map(); // path -> {etag, value}
  #notBefore = 0;
  #quota = 100; // requests a minute that the server grants
  #left = 50;
  #counted = Date.now();

  set token(value) {
    this.#token = value;
    this.forget();
  }

  forget() {
    this.#known.clear();
  }

  /** Milliseconds to wait before a refresh: half of what the server grants is for other tabs and people. */
  get patience() {
    this.#refill();
    const short = Math.max(0, 4 - this.#left);
    return Math.max(this.#notBefore - Date.now(), (short * 60_000) / (this.#quota / 2));
  }

  #refill() {
    const now = Date.now();
    const half = this.#quota / 2;
    this.#left = Math.min(half, this.#left + ((now - this.#counted) * half) / 60_000);
    this.#counted = now;
  }

  /** fetch() with the token, and with what is not a success as a Failure. */
  async request(path, { headers = {}, ...options } = {}) {
    this.#refill();
    this.#left -= 1;
    const token = this.#token;
    const authorization = token ? { Authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(path, {
        headers: { ...authorization, ...headers },
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
        referrerPolicy: "no-referrer",
        ...options,
      });
    } catch (error) {
      throw new Failure(0, error.name === "TimeoutError" ? "The server does not answer" : "The server cannot be reached");
    }
    const policy = /;\s*q=(\d+).*;\s*w=(\d+)/.exec(response.headers.get("RateLimit-Policy") ?? "");
    if (policy) this.#quota = Math.max(6, (policy[1] * 60) / policy[2]);
    if (response.ok || response.status === 304) return response;
    const failure = await this.#failure(response);
    failure.stale = token !== this.#token;
    throw failure;
  }

  async get(path) {
    const known = this.#known.get(path);
    const response = await this.request(path, {
      headers: { Accept: "application/json", ...(known ? { "If-None-Match": known.etag } : {}) },
      signal: AbortSignal.timeout(DEADLINE),
    });
    if (response.status === 304 && known) return known.value;
    let value;
    try {
      value = await response.json();
    } catch {
      throw new Failure(0, "The answer broke off");
    }
    const etag = response.headers.get("ETag");
    if (etag) this.#known.set(path, { etag, value });
    return value;
  }

  async post(path) {
    return this.request(path, { method: "POST", headers: { Accept: "application/json" }, signal: AbortSignal.timeout(DEADLINE) });
  }

  async #failure(response) {
    let said = "";
    try {
      const problem = await response.json();
      said = String(problem.detail || problem.title || "").replace(/\.$/, "");
    } catch {
      // No problem document: the status must do.
    }
    const { status } = response;
    if (status === 401) return new Failure(status, said || "The server asks who you are");
    if (status === 403) return new Failure(status, `You are known, but not allowed to see this${said ? `: ${said}` : ""}. Whoever grants rights in the cluster can allow it.`);
    if (status === 404) return new Failure(status, said || "Not found");
    const seconds = Math.min(600, Math.max(0, Number(response.headers.get("Retry-After")) || (status === 429 ? 10 : 0)));
    if (status === 429) {
      this.#notBefore = Date.now() + seconds * 1000;
      return new Failure(status, `More requests than the server grants. The page waits ${seconds} s, as it was told, and goes on by itself.`, seconds);
    }
    return new Failure(status, `The server answers ${status}${said ? `: ${said}` : ""}`, seconds);
  }
}
