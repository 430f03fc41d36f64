// From one video to the next: the same again with other words, or what comes after it.
import { post } from './api.js';
import { TextDiff } from './difference.js';
import { Icon } from './icons.js';
import { html, useSignal, typed } from './lib.js';
import { attempt, learn, modelsById, refresh, say } from './state.js';
import { Field, Segments } from './ui.js';

/**
 * @param {{video: Video, control: {current: Controls | null}, onMade: (made: Video) => void}} props
 */
function Trim({ video, control, onMade }) {
  const from = useSignal(0), to = useSignal(video.num_frames);
  const isWhole = from.value === 0 && to.value === video.num_frames;
  const here = () => control.current?.frame() ?? 0;
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const part = { id: video.id, start_frame: from.value, end_frame: to.value };
    const made = await attempt(() => post('/v1/videos/join', { videos: [part] }));
    if (!made) return;
    learn(made);
    void refresh();
    onMade(made);
  };
  return html`
    <form class="trim" aria-label="Trim" onSubmit=${send}>
      <p class="note">Frames ${from.value + 1} to ${to.value}, ${((to.value - from.value) / video.fps).toFixed(2)} s. The rest stays in this video.</p>
      <div class="grid-2">
        <button type="button" class="button" onClick=${() => { from.value = Math.min(here(), to.value - 1); }}>Start here</button>
        <button type="button" class="button" onClick=${() => { to.value = Math.max(here() + 1, from.value + 1); }}>End here</button>
      </div>
      <button class="button primary" disabled=${isWhole}>Trim</button>
    </form>`;
}

/** @param {{video: Video, control: {current: Controls | null}, onMade: (made: Video) => void}} props */
export function Iterate({ video, control, onMade }) {
  const able = modelsById.value.get(video.model)?.capabilities ?? [];
  const kind = useSignal(/** @type {'remix' | 'extend' | 'trim'} */ (able.includes('edit') ? 'remix' : able.includes('extend') ? 'extend' : 'trim'));
  const prompt = useSignal(video.prompt ?? ''), strength = useSignal(0), seconds = useSignal(Math.min(4, Math.floor(modelsById.value.get(video.model)?.max_seconds ?? 4)));
  const seed = useSignal(/** @type {'keep' | 'new'} */ ('keep')), isSending = useSignal(false);
  const isRemix = kind.value === 'remix';
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    isSending.value = true;
    const usual = modelsById.value.get(video.model)?.num_inference_steps;
    const own = { prompt: prompt.value.trim(), ...(seed.value === 'keep' && { seed: video.seed }),
      ...(usual !== video.num_inference_steps && { num_inference_steps: video.num_inference_steps }) };
    const made = await attempt(() => (isRemix
      ? post(`/v1/videos/${video.id}/remix`, { ...own, ...(strength.value && { strength: strength.value }) })
      : post('/v1/videos/extensions', { ...own, video: { id: video.id }, seconds: String(seconds.value) })));
    isSending.value = false;
    if (!made) return;
    learn(made);
    void refresh();
    say(isRemix ? 'The remix is on its way.' : 'What comes next is on its way.');
    onMade(made);
  };
  const kinds = html`
      <${Segments} label="Kind" value=${kind.value} onChange=${(/** @type {'remix' | 'extend' | 'trim'} */ it) => { kind.value = it; }} options=${[
        { value: 'remix', label: html`<${Icon} name="remix" size=${15} />Remix`, hint: 'The same clip, changed as the prompt says', disabled: !able.includes('edit') },
        { value: 'extend', label: html`<${Icon} name="extend" size=${15} />Extend`, hint: 'Go on where it ends', disabled: !able.includes('extend') },
        { value: 'trim', label: 'Trim', hint: 'Only a part of it' }]} />`;
  if (kind.value === 'trim') return html`<section class="iterate">${kinds}<${Trim} video=${video} control=${control} onMade=${onMade} /></section>`;
  return html`
    <form class="iterate" aria-label="Make another from this" onSubmit=${send}>${kinds}
      <textarea rows="3" aria-label=${isRemix ? 'What it should show instead' : 'What happens next'} value=${prompt.value}
        onInput=${typed((it) => { prompt.value = it; })}></textarea>
      ${isRemix && prompt.value !== video.prompt && html`<${TextDiff} before=${video.prompt ?? ''} after=${prompt.value} />`}
      <div class="grid-2">
        ${isRemix
          ? html`<${Field} label="Strength" for="strength" note=${strength.value ? `${Math.round(strength.value * 100)} %` : 'as usual'}>
              <input type="range" id="strength" min="0" max="1" step="0.05" value=${strength.value} onInput=${typed((it) => { strength.value = Number(it); })} /></${Field}>`
          : html`<${Field} label="Add" for="added" note=${`${seconds.value} s`}>
              <input type="range" id="added" min="1" max=${Math.floor(modelsById.value.get(video.model)?.max_seconds ?? 4)} value=${seconds.value} onInput=${typed((it) => { seconds.value = Number(it); })} /></${Field}>`}
        <${Field} label="Seed" note=${seed.value === 'keep' ? String(video.seed) : 'drawn anew'}>
          <${Segments} label="Seed" value=${seed.value} onChange=${(/** @type {'keep' | 'new'} */ it) => { seed.value = it; }}
            options=${[{ value: 'keep', label: 'Keep' }, { value: 'new', label: 'New' }]} /></${Field}>
      </div>
      <button class="button primary" disabled=${isSending.value || !prompt.value.trim()}>${isRemix ? 'Remix' : 'Extend'}</button>
    </form>`;
}
