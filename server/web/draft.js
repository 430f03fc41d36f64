// The video that is being thought of: what has been written and chosen so far, kept across visits; what the server
// would make of it; and the request.
import { ApiError, post } from './api.js';
import { pixels } from './format.js';
import { computed, effect, keep, recall, signal } from './lib.js';
import { changes, learn, models, modelsById, refresh } from './state.js';

/** @type {Draft} */
const BLANK = {
  prompt: '', negative: '', model: '', size: '', seconds: 0, seed: '', locked: false, count: 1, steps: '', guidance: '',
  sound: true, from: null,
};
const COMMON_SIZES = ['1280x720', '720x1280', '1792x1024', '1024x1792', '1920x1080', '1080x1920', '1024x1024'];
const MAX_CROP = 0.25;
const MAX_SEED = 2 ** 32 - 1;

export const draft = signal({ ...BLANK, .../** @type {Partial<Draft>} */ (recall('draft', {})) });
/** Pictures are not kept: a browser has no good place for them. */
export const pictures = signal(/** @type {{first: File | null, last: File | null}} */ ({ first: null, last: null }));

let saving = 0;
effect(() => {
  const now = draft.value;
  clearTimeout(saving);
  saving = setTimeout(() => keep('draft', now), 250);
});
addEventListener('pagehide', () => keep('draft', draft.value));

/** @param {Partial<Draft>} news */
export const edit = (news) => { draft.value = { ...draft.value, ...news }; };

export const model = computed(() =>
  modelsById.value.get(draft.value.model) ?? modelsById.value.get('sora-2') ?? models.value[0]);

/** @param {string} capability */
export const can = (capability) => model.value?.capabilities.includes(capability) ?? false;
/** Models that were distilled do without guidance, and then without what is not to be seen, too. */
export const isGuided = computed(() => (model.value?.guidance_scale ?? 0) > 1);

/** @param {string} size */
export const orientation = (size) => {
  const [width, height] = pixels(size);
  return width > height ? 'landscape' : width < height ? 'portrait' : 'square';
};

/** @param {Model} chosen @returns {{size: string, native: boolean}[]} The sizes that the model makes, or nearly. */
export function sizesOf(chosen) {
  const fits = (/** @type {string} */ size) => chosen.sizes.some((native) => {
    const [width, height] = pixels(size), [across, down] = pixels(native);
    const off = (across * height) / (down * width);
    return 1 - Math.min(off, 1 / off) <= MAX_CROP;
  });
  const native = chosen.sizes.map((size) => ({ size, native: true }));
  const others = COMMON_SIZES.filter((size) => !chosen.sizes.includes(size) && fits(size));
  return [...native, ...others.map((size) => ({ size, native: false }))];
}

/** The size that the draft would have with this model: the one chosen if the model can, else its own. */
export const size = computed(() => {
  const chosen = model.value;
  if (!chosen) return '';
  const wanted = draft.value.size;
  return sizesOf(chosen).some((one) => one.size === wanted) ? wanted : chosen.sizes[0] ?? '';
});

/** @param {string} wanted Turn the picture, as near to the present size as there is. */
export function turn(wanted) {
  const there = model.value ? sizesOf(model.value).filter((one) => orientation(one.size) === wanted) : [];
  const [width, height] = pixels(size.value);
  const turned = there.find((one) => one.size === `${height}x${width}`) ?? there[0];
  if (turned) edit({ size: turned.size });
}

export const longest = computed(() => Math.max(1, model.value?.max_seconds ?? 4));
export const seconds = computed(() => Math.min(draft.value.seconds || 4, longest.value));

/** @param {'draft' | 'final'} kind Small and quick, or as good as the model makes it. */
export function usePreset(kind) {
  const chosen = model.value;
  if (!chosen) return;
  const turnedAlike = chosen.sizes.filter((one) => orientation(one) === orientation(size.value));
  const bySize = (turnedAlike.length ? turnedAlike : [...chosen.sizes]).sort((a, b) => area(a) - area(b));
  const quick = Math.max(Math.min(4, chosen.num_inference_steps), Math.round(chosen.num_inference_steps * 0.4));
  edit(kind === 'draft'
    ? { size: bySize[0], steps: quick < chosen.num_inference_steps ? String(quick) : '' }
    : { size: bySize.at(-1), steps: '' });
}
const area = (/** @type {string} */ one) => pixels(one)[0] * pixels(one)[1];
export const preset = computed(() => {
  const standard = model.value?.num_inference_steps ?? 0;
  return Number(draft.value.steps || standard) < standard * 0.6 ? 'draft' : 'final';
});

export const rollSeed = () => String(Math.floor(Math.random() * MAX_SEED));

/** @param {Draft} now @returns {Record<string, string | number | boolean>} The request, with nothing that the model does not honour. */
export function parameters(now) {
  const chosen = model.value;
  /** @type {Record<string, string | number | boolean>} */
  const body = { prompt: now.prompt.trim(), model: chosen?.id ?? now.model };
  if (size.value) body.size = size.value;
  body.seconds = String(seconds.value);
  if (now.seed !== '') body.seed = Number(now.seed);
  if (now.negative.trim() && can('negative_prompt') && isGuided.value) body.negative_prompt = now.negative.trim();
  if (now.steps !== '' && Number(now.steps) !== chosen?.num_inference_steps) body.num_inference_steps = Number(now.steps);
  if (now.guidance !== '' && isGuided.value) body.guidance_scale = Number(now.guidance);
  if (can('audio') && !now.sound) body.generate_sound = false;
  return body;
}

/** @param {Record<string, string | number | boolean>} body @returns {object | FormData} */
function withPictures(body) {
  const first = can('first_frame') ? pictures.value.first : null;
  const last = can('last_frame') ? pictures.value.last : null;
  if (!first && !last) return body;
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) form.append(name, String(value));
  if (first) form.append('input_reference', first);
  if (last) form.append('last_frame', last);
  return form;
}

export const problem = signal(/** @type {ApiError | null} */ (null));
export const estimate = signal(/** @type {Estimate | null} */ (null));
export const isSending = signal(false);

let asking = new AbortController();
let soon = 0, asked = '';
effect(() => {
  // The words do not change what it takes, and every question may count against the key's limit.
  const wanted = { ...parameters(draft.value), prompt: 'a film' };
  const { first, last } = pictures.value;
  // What has just been made tells how long the next one takes.
  const question = JSON.stringify([wanted, first?.name, first?.size, last?.name, last?.size, changes.value]);
  if (!model.value || question === asked) return;
  asked = question;
  clearTimeout(soon);
  soon = setTimeout(() => void foresee(withPictures(wanted)), 200);
});

/** @param {object | FormData} body */
async function foresee(body) {
  asking.abort();
  asking = new AbortController();
  try {
    estimate.value = await post('/v1/videos/estimate', body, asking.signal);
    problem.value = null;
  } catch (error) {
    if (!(error instanceof ApiError) || error.status === 401 || error.code === 'offline') return;
    estimate.value = null;
    problem.value = error;
  }
}

/** @returns {Promise<Video[]>} What has been accepted; empty if it was refused, which `problem` then says. */
export async function submit() {
  const now = draft.value;
  if (!now.prompt.trim() || isSending.value) return [];
  isSending.value = true;
  try {
    const body = parameters(now);
    const made = now.count > 1
      ? (await post('/v1/videos/variations', withPictures({ ...body, n: now.count }))).data
      : [await post('/v1/videos', withPictures(body))];
    learn(...made);
    void refresh();
    problem.value = null;
    edit({ from: null, ...(now.locked ? { seed: String(made[0].seed) } : { seed: '' }) });
    return made;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    problem.value = error;
    return [];
  } finally {
    isSending.value = false;
  }
}

/** @param {Video} video @param {{seed: 'keep' | 'new'}} how Make a draft of what a video was made of. */
export function reuse(video, { seed }) {
  const chosen = modelsById.value.get(video.model);
  edit({
    prompt: video.prompt ?? '', negative: video.negative_prompt, model: video.model, size: video.size,
    seconds: Number(video.seconds), count: 1,
    seed: seed === 'keep' ? String(video.seed) : '', locked: seed === 'keep',
    steps: video.num_inference_steps === chosen?.num_inference_steps ? '' : String(video.num_inference_steps),
    guidance: video.guidance_scale === chosen?.guidance_scale ? '' : String(video.guidance_scale),
    from: video,
  });
}
