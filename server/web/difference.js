// What is different between two texts, and between the settings of videos.
import { draft, edit, model, seconds, size } from './draft.js';
import { html } from './lib.js';
import { modelName } from './state.js';
import { times } from './format.js';

/** @param {string} before @param {string} after @returns {Piece[]} By words, by their longest common sequence. */
export function wordDiff(before, after) {
  const a = before.split(/\s+/).filter(Boolean).slice(0, 400), b = after.split(/\s+/).filter(Boolean).slice(0, 400);
  const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  const at = (/** @type {number} */ i, /** @type {number} */ j) => longest[i]?.[j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      /** @type {Uint16Array} */ (longest[i])[j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  /** @type {Piece[]} */
  const pieces = [];
  const put = (/** @type {Piece['kind']} */ kind, /** @type {string} */ text) => {
    const last = pieces.at(-1);
    if (last?.kind === kind) last.text += ` ${text}`;
    else pieces.push({ kind, text });
  };
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    const [old = '', now = ''] = [a[i], b[j]];
    if (i < a.length && j < b.length && old === now) { put('same', old); i++; j++; }
    else if (i < a.length && (j >= b.length || at(i + 1, j) >= at(i, j + 1))) { put('gone', old); i++; }
    else { put('new', now); j++; }
  }
  return pieces;
}

/** @param {{before: string, after: string}} props */
export const TextDiff = ({ before, after }) => html`
  <p class="diff">${wordDiff(before, after).map(({ kind, text }) =>
    kind === 'same' ? `${text} ` : kind === 'gone' ? html`<del>${text}</del> ` : html`<ins>${text}</ins> `)}</p>`;

/** @type {[string, (video: Video) => string][]} What makes a video what it is, in the order in which people ask. */
export const SETTINGS = [
  ['Model', (video) => modelName(video.model)],
  ['Prompt', (video) => video.prompt ?? ''],
  ['Negative prompt', (video) => video.negative_prompt],
  ['Seed', (video) => String(video.seed)],
  ['Size', (video) => times(video.size)],
  ['Native size', (video) => (video.native_size === video.size ? '' : times(video.native_size))],
  ['Length', (video) => `${video.seconds} s, ${video.num_frames} frames at ${video.fps} fps`],
  ['Steps', (video) => String(video.num_inference_steps)],
  ['Guidance', (video) => String(video.guidance_scale)],
];

/** What the draft changes of the video that it came from. */
export function Changed() {
  const { from, prompt, seed, negative, steps } = draft.value;
  if (!from) return null;
  /** @type {[string, string, string][]} */
  const rows = [
    ['Model', modelName(from.model), modelName(model.value?.id ?? '')],
    ['Size', times(from.size), times(size.value)],
    ['Length', `${from.seconds} s`, `${seconds.value} s`],
    ['Seed', String(from.seed), seed || 'new'],
    ['Negative prompt', from.negative_prompt || 'nothing', negative || 'nothing'],
    ['Steps', String(from.num_inference_steps), steps || String(model.value?.num_inference_steps ?? '')],
  ];
  const changed = rows.filter(([, before, after]) => before !== after);
  return html`
    <section class="changed" aria-label="Changes">
      <div class="field-head"><span>Based on an earlier video</span>
        <button type="button" class="link" onClick=${() => edit({ from: null })}>Forget</button></div>
      ${from.prompt === prompt ? html`<p class="note">Same prompt.</p>` : html`<${TextDiff} before=${from.prompt ?? ''} after=${prompt} />`}
      ${changed.map(([name, before, after]) => html`
        <p class="diff" key=${name}><span class="note">${name}</span> <del>${before}</del> <ins>${after}</ins></p>`)}
    </section>`;
}
