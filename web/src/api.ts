// The API of keytrail as far as the page needs it, and signing in to it.

import type { Point, Range } from "./times";

export interface Evidence {
  event_id: string;
  position: number;
  index?: number;
  time: string;
  action?: string;
}

export interface Finding {
  id: string;
  rule_id: string;
  rule_version: number;
  severity: string;
  technique?: string;
  account_id: string;
  key_id?: string;
  iam_id?: string;
  title: string;
  reason: string;
  advice?: string;
  first_seen: string;
  last_seen: string;
  count: number;
  evidence: Evidence[];
  status: string;
}

export interface TopValue {
  value: string;
  count: number;
  failures: number;
}

/** Stated is an answer and how far it is behind the log. */
export interface Stated<T> {
  body: T;
  position: string;
  lag: string;
}

/** SignedOut says that there is no key, or that it is refused. */
export class SignedOut extends Error {}

const stored = "keytrail.key";

/** Session calls the API with the key that was pasted; the key lives in this tab's session storage only. */
export class Session {
  private token = "";
  private renewAt = 0;

  get signedIn(): boolean {
    return sessionStorage.getItem(stored) !== null;
  }

  /** signIn tries key and keeps it if it is good. */
  async signIn(key: string): Promise<void> {
    await this.exchange(key);
    sessionStorage.setItem(stored, key);
  }

  signOut(): void {
    this.token = "";
    sessionStorage.removeItem(stored);
  }

  async findings(severity: string, limit: number): Promise<Stated<{ findings: Finding[]; next: string }>> {
    return this.get("/v1/findings", { severity, limit: String(limit) });
  }

  async series({ from, to, step, key }: Range): Promise<Stated<{ series: Point[] }>> {
    return this.get("/v1/usage/series", { from, to, step, key_id: key ?? "" });
  }

  /** top counts the uses by key; of one key, by action. */
  async top({ from, to, key }: Range): Promise<Stated<{ top: TopValue[] }>> {
    return this.get("/v1/usage/top", { by: key ? "action" : "key", from, to, key_id: key ?? "", limit: "10" });
  }

  async disable(key: string): Promise<void> {
    await this.call("POST", `/v1/apikeys/${encodeURIComponent(key)}/disable`);
  }

  private async get<T>(path: string, parameters: Record<string, string>): Promise<Stated<T>> {
    const given = Object.entries(parameters).filter(([, value]) => value !== "");
    const answer = await this.call("GET", `${path}?${new URLSearchParams(given)}`);
    return {
      body: (await answer.json()) as T,
      position: answer.headers.get("Keytrail-Position") ?? "",
      lag: answer.headers.get("Keytrail-Lag") ?? "",
    };
  }

  private async call(method: string, url: string): Promise<Response> {
    for (let attempt = 0; ; attempt++) {
      const answer = await fetch(url, { method, cache: "no-store", headers: { Authorization: `Bearer ${await this.current(attempt > 0)}` } });
      if (answer.ok) return answer;
      if (answer.status !== 401 || attempt > 0) {
        if (answer.status === 401) this.signOut();
        throw await refusal(answer);
      }
    }
  }

  /** current returns a token that is good for a while, a new one if renew is set. */
  private async current(renew: boolean): Promise<string> {
    if (renew || this.token === "" || Date.now() > this.renewAt) {
      const key = sessionStorage.getItem(stored);
      if (key === null) throw new SignedOut("Sign in first.");
      await this.exchange(key);
    }
    return this.token;
  }

  private async exchange(key: string): Promise<void> {
    const answer = await fetch("/identity/token", {
      method: "POST",
      cache: "no-store",
      body: new URLSearchParams({ grant_type: "urn:ibm:params:oauth:grant-type:apikey", apikey: key }),
    });
    if (!answer.ok) {
      if (answer.status >= 500) throw await refusal(answer);
      this.signOut();
      throw new SignedOut((await refusal(answer)).message);
    }
    const { access_token, expires_in } = (await answer.json()) as { access_token: string; expires_in: number };
    this.token = access_token;
    this.renewAt = Date.now() + expires_in * 800;
  }
}

/** refusal turns an answer that is no success into an error with the server's words. */
async function refusal(answer: Response): Promise<Error> {
  let message = `The server answered ${answer.status}.`;
  try {
    const body = (await answer.json()) as { errorMessage?: string; errors?: { message?: string; details?: string }[] };
    const first = body.errors?.[0];
    message = body.errorMessage ?? [first?.message, first?.details].filter(Boolean).join(": ") ?? message;
  } catch {
    // No JSON: the status says it all.
  }
  return answer.status === 401 ? new SignedOut(message) : new Error(message);
}
