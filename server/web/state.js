// What the page knows: where it is, which models there are, what is being made. Views read it and change it through
// the functions below.
import { ApiError, follow, get, post, remove } from './api.js';
import { batch, computed, effect, keep, recall, signal } from './lib.js';

/** @type {View[]} */
export const VIEWS = ['create', 'gallery', 'compare', 'library', 'system'];

/** @returns {Route} */
function here() {
  const [view, ids = ''] = location.hash.replace(/^#\/?/, '').split('/');
  const known = VIEWS.find((it) => it === view);
  return { view: known ?? 'create', ids: ids ? ids.split(',').filter((id) => /^video_\w+$/.test(id)) : [] };
}

export const route = signal(here());
addEventListener('hashchange', () => { route.value = here(); });

/** @param {View} view @param {...string} ids */
export const address = (view, ...ids) => `#/${view}${ids.length ? `/${ids.join(',')}` : ''}`;

/** @param {View} view @param {...string} ids */
export const go = (view, ...ids) => { location.hash = address(view, ...ids); };

// ---------------------------------------------------------------------------------------------------- messages
export const toasts = signal(/** @type {Toast[]} */ ([]));
let lastToast = 0;

/** @param {string} text @param {Partial<Toast>} [more] */
export function say(text, more = {}) {
  const toast = { id: ++lastToast, text, kind: /** @type {const} */ ('info'), ...more };
  toasts.value = [...toasts.value.slice(-2), toast];
  setTimeout(() => hush(toast.id), toast.kind === 'error' ? 9000 : 5000);
}

/** @param {number} id */
export const hush = (id) => { toasts.value = toasts.value.filter((toast) => toast.id !== id); };

/**
 * Do something with the server; say so if it refuses.
 * @template T
 * @param {() => Promise<T>} act
 * @returns {Promise<T | undefined>}
 */
export async function attempt(act) {
  try {
    return await act();
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return undefined;
    if (!(error instanceof ApiError)) throw error;
    // That there is no answer stands above the page for as long as it is so.
    if (error.status !== 401 && !(error.code === 'offline' && error.status === 0)) say(error.message, { kind: 'error' });
    return undefined;
  }
}

// ---------------------------------------------------------------------------------------------------- looks
export const theme = signal(/** @type {Theme} */ (recall('theme', 'auto')));
effect(() => {
  document.documentElement.dataset.theme = theme.value;
  keep('theme', theme.value);
});

// ---------------------------------------------------------------------------------------------------- models
export const models = signal(/** @type {Model[]} */ ([]));
/** Null until it is known. */
export const hasModels = signal(/** @type {boolean | null} */ (null));
export const modelsById = computed(() => new Map(models.value.map((model) => [model.id, model])));

/** @param {string} id What people call the model. */
export const modelName = (id) => modelsById.value.get(id)?.name ?? id;

// ---------------------------------------------------------------------------------------------------- videos
/** Every video that the page has come across, as it was last told about it. */
export const videos = signal(/** @type {ReadonlyMap<string, Video>} */ (new Map()));
export const recent = signal(/** @type {string[] | null} */ (null));
export const queue = signal(/** @type {Queue | null} */ (null));
/** Videos that have been deleted since the page was opened. */
export const gone = signal(/** @type {ReadonlySet<string>} */ (new Set()));
/** Counts up when the list of finished videos has changed. */
export const changes = signal(0);

/** @param {Video[]} news */
export function learn(...news) {
  const known = new Map(videos.value);
  for (const video of news) known.set(video.id, { ...video, previews: known.get(video.id)?.previews ?? 0 });
  videos.value = known;
}

/** @param {string} id @param {Partial<Video>} news */
function amend(id, news) {
  const known = videos.value.get(id);
  if (!known) return;
  // What an event does not tell stays as it was.
  const told = Object.fromEntries(Object.entries(news).filter(([, value]) => value !== undefined));
  videos.value = new Map(videos.value).set(id, { ...known, ...told });
}

/** @param {string} id */
function forget(id) {
  const known = new Map(videos.value);
  known.delete(id);
  batch(() => {
    videos.value = known;
    gone.value = new Set(gone.value).add(id);
    recent.value = recent.value?.filter((one) => one !== id) ?? null;
    changes.value += 1;
  });
}

const of = (/** @type {Video['status']} */ status) => [...videos.value.values()].filter((it) => it.status === status);
export const running = computed(() => of('in_progress').sort((a, b) => a.created_at - b.created_at));
export const waiting = computed(() =>
  of('queued').sort((a, b) => (a.queue_position ?? 1e9) - (b.queue_position ?? 1e9)));

const RECENT = 24;

export async function refresh() {
  await attempt(async () => {
    const [line, queued, latest] = await Promise.all([
      get('/v1/queue'), get('/v1/videos?status=queued&limit=100'), get(`/v1/videos?limit=${RECENT}`)]);
    batch(() => {
      queue.value = line;
      learn(...queued.data, ...latest.data);
      recent.value = latest.data.map((/** @type {Video} */ video) => video.id);
      const waits = new Set(line.waiting.map((/** @type {{id: string}} */ { id }) => id));
      const runs = new Set(line.running.map((/** @type {{id: string}} */ { id }) => id));
      // Who is in the queue no more has ended or gone meanwhile, and an event tells which.
      for (const video of [...running.value, ...waiting.value]) {
        if (!waits.has(video.id) && !runs.has(video.id)) void look(video.id);
      }
    });
  });
}

/** @param {string} id Ask for a video again. @returns {Promise<Video | undefined>} */
export async function look(id) {
  try {
    const video = await get(`/v1/videos/${id}`);
    learn(video);
    return video;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) forget(id);
    return undefined;
  }
}

let isRefreshing = 0;
/** Ask for the queue soon: several events in a row are one question. */
function refreshSoon() {
  clearTimeout(isRefreshing);
  isRefreshing = setTimeout(refresh, 150);
}

/** @param {string} type @param {any} data */
function heard(type, data) {
  const { id } = data;
  if (type === 'video.deleted') forget(id);
  else if (type === 'video.preview') amend(id, { previews: data.preview });
  else if (type === 'video.progress') {
    if (!videos.value.has(id)) refreshSoon();
    const { status, progress, stage, step, total_steps, eta_s } = data;
    amend(id, { status, progress, stage, step, total_steps, eta_s, previews: data.preview });
  } else if (type === 'video.completed' || type === 'video.failed') {
    void look(id).then((video) => {
      changes.value += 1;
      if (video?.status === 'completed') notify(video);
    });
    refreshSoon();
  } else refreshSoon();
}

export async function begin() {
  await attempt(async () => {
    models.value = (await get('/v1/models')).data;
    hasModels.value = models.value.length > 0;
  });
}

let isFollowing = false;
/** Load what is there and follow what happens. */
export function start() {
  void begin();
  void refresh();
  if (!isFollowing) void follow(heard, () => { void refresh(); if (!models.value.length) void begin(); });
  isFollowing = true;
}

// ---------------------------------------------------------------------------------------------------- acts
/** @param {Video} video */
export const cancel = (video) => attempt(async () => learn(await post(`/v1/videos/${video.id}/cancel`)));

/** @param {Video} video @param {object} change */
export const update = (video, change) => attempt(async () => {
  learn(await post(`/v1/videos/${video.id}`, change));
  changes.value += 1;
  refreshSoon();
});

/** @param {Video} video */
export const star = (video) => update(video, { starred: !video.starred });

/** @param {Video[]} gone */
export const erase = (...gone) => attempt(async () => {
  for (const { id } of gone) {
    await remove(`/v1/videos/${id}`);
    forget(id);
  }
});

// ---------------------------------------------------------------------------------------------------- notices
export const notices = signal(recall('notices', false) && globalThis.Notification?.permission === 'granted');

export async function toggleNotices() {
  const wanted = !notices.value && (await globalThis.Notification?.requestPermission()) === 'granted';
  notices.value = wanted;
  keep('notices', wanted);
}

/** @param {Video} video */
function notify(video) {
  if (notices.value && document.hidden) new Notification('Your video is ready', { body: video.prompt ?? '' });
}

effect(() => {
  const now = running.value[0];
  const left = waiting.value.length + running.value.length;
  document.title = now ? `${now.progress} % · Homereel` : left ? `${left} waiting · Homereel` : 'Homereel';
});
