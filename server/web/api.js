// Talks to the server, and nothing else does. The key, if the server wants one, is sent in a header by this file alone:
// no cookie exists that a page from elsewhere could make a browser send.
import { keep, recall, signal, useEffect, useState } from './lib.js';

/** What the server refused, and why; `offline` if it did not answer at all. */
export class ApiError extends Error {
  /** @param {string} message @param {{status?: number, code?: string | null, param?: string | null}} [about] */
  constructor(message, { status = 0, code = 'offline', param = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

export const key = signal(/** @type {string} */ (recall('key', '')));
/** Whether the server wants a key that we do not have. */
export const locked = signal(false);
export const online = signal(true);

/** @param {string} secret */
export function useKey(secret) {
  key.value = secret;
  keep('key', secret);
  if (secret) locked.value = false;
}

/** @param {object} [more] @param {string} [secret] */
const headers = (more, secret = key.value) => ({ ...more, ...(secret ? { authorization: `Bearer ${secret}` } : {}) });

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @param {string} [secret] Another key than the one that is kept.
 * @returns {Promise<Response>} An answer that is a success.
 */
export async function ask(path, init = {}, secret) {
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(path, { ...init, headers: headers(init.headers, secret) });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    online.value = false;
    throw new ApiError('The server does not answer.');
  }
  online.value = true;
  if (answer.ok) return answer;
  if (answer.status === 401) locked.value = true;
  const told = (await answer.json().catch(() => null))?.error ?? {};
  throw new ApiError(told.message ?? `The server answered ${answer.status}.`, { ...told, status: answer.status });
}

/** @param {string} path @param {AbortSignal} [signal] @param {string} [secret] @returns {Promise<any>} */
export const get = async (path, signal, secret) => (await ask(path, { signal }, secret)).json();

/**
 * @param {string} path
 * @param {object | FormData} [body]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function post(path, body = {}, signal) {
  const isForm = body instanceof FormData;
  const init = isForm ? { body } : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
  return (await ask(path, { method: 'POST', signal, ...init })).json();
}

/** @param {string} path @returns {Promise<any>} */
export const remove = async (path) => (await ask(path, { method: 'DELETE' })).json();

/** @param {string} id @param {'video' | 'thumbnail' | 'spritesheet'} [variant] */
export const contentPath = (id, variant = 'video') =>
  `/v1/videos/${id}/content${variant === 'video' ? '' : `?variant=${variant}`}`;

// With a key, <video> and <img> cannot ask for themselves, as they send no headers: what they show is fetched here.
const MAX_KEPT = 60;
/** @type {Map<string, Promise<string>>} */
const fetched = new Map();

/** @param {string} path @returns {Promise<string>} An address that media elements can show. */
export function shown(path) {
  if (!key.value) return Promise.resolve(path);
  const known = fetched.get(path);
  const address = known ?? ask(path).then(async (answer) => URL.createObjectURL(await answer.blob()));
  fetched.delete(path);
  fetched.set(path, address);
  address.catch(() => fetched.delete(path));
  for (const [old, gone] of fetched) {
    if (fetched.size <= MAX_KEPT) break;
    fetched.delete(old);
    gone.then(URL.revokeObjectURL, () => {});
  }
  return address;
}

/** @param {string | null} path @returns {string | undefined} The same for components; undefined until it is there. */
export function useShown(path) {
  const [address, set] = useState(/** @type {string | undefined} */ (undefined));
  useEffect(() => {
    let isWanted = true;
    if (!path) set(undefined);
    else shown(path).then((it) => isWanted && set(it), () => {});
    return () => { isWanted = false; };
  }, [path, key.value]);
  return key.value || !path ? address : path;
}

/**
 * Follow the server's events for as long as the page is open; come back where it was when the connection breaks.
 * @param {(type: string, data: any) => void} tell
 * @param {() => void} connected Called whenever a stream begins: what happened before may have been missed.
 */
export async function follow(tell, connected) {
  let last = '';
  for (let failures = 0; ; ) {
    try {
      const answer = await ask('/v1/events', last ? { headers: { 'last-event-id': last } } : {});
      connected();
      failures = 0;
      const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
      for (let pending = '', decoder = new TextDecoder(); ; ) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (pending + decoder.decode(value, { stream: true })).split('\n\n');
        pending = /** @type {string} */ (blocks.pop());
        for (const block of blocks) {
          const fields = Object.fromEntries(block.split('\n').map((line) => line.split(/: ?(.*)/s, 2)));
          if (fields.id) last = fields.id;
          if (fields.data) tell(fields.event, JSON.parse(fields.data).data);
        }
      }
    } catch (error) {
      failures += 1;
      if (!(error instanceof ApiError)) online.value = false;
    }
    await new Promise((done) => setTimeout(done, Math.min(500 * 2 ** failures, 8000)));
    while (locked.value) await new Promise((done) => setTimeout(done, 300));
  }
}
