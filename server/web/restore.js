// A clip that was made here, dropped on the page, brings its prompt and settings back.
import { ApiError, post } from './api.js';
import { edit } from './draft.js';
import { html, signal, useEffect, useRef, useSignal } from './lib.js';
import { go, modelsById, say } from './state.js';

const isReading = signal(false);

/** @param {File} file */
async function restore(file) {
  isReading.value = true;
  const form = new FormData();
  form.append('video', file);
  try {
    const found = await post('/v1/videos/restore', form);
    apply(found.parameters);
    go('create');
    say(`Prompt and settings of ${file.name} are back.${found.warnings.length ? ` But ${found.warnings.join('; ')}.` : ''}`);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say(error.message, { kind: 'error' });
  } finally {
    isReading.value = false;
  }
}

/** @param {Record<string, any>} told The parameters of a request. */
function apply(told) {
  const model = modelsById.value.get(told.model);
  const text = (/** @type {unknown} */ value, /** @type {unknown} */ usual) => (value === undefined || value === null || value === usual ? '' : String(value));
  edit({
    prompt: told.prompt ?? '', negative: told.negative_prompt ?? '', model: model?.id ?? '', size: told.size ?? '', seconds: Number(told.seconds ?? told.num_frames / told.fps),
    seed: text(told.seed, undefined), locked: told.seed !== undefined, count: 1, from: null,
    steps: text(told.num_inference_steps, model?.num_inference_steps), guidance: text(told.guidance_scale, model?.guidance_scale),
  });
}

/** Take clips that are dropped anywhere on the page. */
export function useDrop() {
  const isOver = useSignal(false);
  useEffect(() => {
    const has = (/** @type {DragEvent} */ event) => [...(event.dataTransfer?.items ?? [])].some((it) => it.kind === 'file' && !it.type.startsWith('image/'));
    const over = (/** @type {DragEvent} */ event) => { if (has(event)) { event.preventDefault(); isOver.value = true; } };
    const leave = (/** @type {DragEvent} */ event) => { if (!event.relatedTarget) isOver.value = false; };
    const drop = (/** @type {DragEvent} */ event) => {
      isOver.value = false;
      const file = event.dataTransfer?.files[0];
      if (!file || event.defaultPrevented || file.type.startsWith('image/')) return;
      event.preventDefault();
      void restore(file);
    };
    addEventListener('dragover', over);
    addEventListener('dragleave', leave);
    addEventListener('drop', drop);
    return () => { removeEventListener('dragover', over); removeEventListener('dragleave', leave); removeEventListener('drop', drop); };
  }, []);
  return isOver;
}

/** The same for whoever does not drag. */
export function RestoreButton() {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  return html`<button type="button" class="link" onClick=${() => input.current?.click()}>Restore from an MP4</button>
    <input type="file" accept="video/mp4,.mp4" hidden ref=${input} aria-label="MP4 to restore"
      onChange=${(/** @type {any} */ event) => { if (event.target.files[0]) void restore(event.target.files[0]); event.target.value = ''; }} />`;
}

export const Restore = () => isReading.value && html`<div class="dropping"><p>Reading…</p></div>`;
