// From one video to the next: the same again with other words, or what comes after it.
import { post } from './api.js';
import { TextDiff } from './difference.js';
import { Icon } from './icons.js';
import { html, useSignal, typed } from './lib.js';
import { attempt, learn, modelsById, refresh, say } from './state.js';
import { Field, Segments } from './ui.js';

/** @param {{video: Video, onMade: (made: Video) => void}} props */
export function Iterate({ video, onMade }) {
  const able = modelsById.value.get(video.model)?.capabilities ?? [];
  const kind = useSignal(/** @type {'remix' | 'extend'} */ (able.includes('edit') ? 'remix' : 'extend'));
  const prompt = useSignal(video.prompt ?? ''), strength = useSignal(0), seconds = useSignal(Math.min(4, Math.floor(modelsById.value.get(video.model)?.max_seconds ?? 4)));
  const seed = useSignal(/** @type {'keep' | 'new'} */ ('keep')), isSending = useSignal(false);
  if (!able.includes('edit') && !able.includes('extend')) return null;
  const isRemix = kind.value === 'remix';
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    isSending.value = true;
    const own = { prompt: prompt.value.trim(), ...(seed.value === 'keep' && { seed: video.seed }) };
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
  return html`
    <form class="iterate" aria-label="Make another from this" onSubmit=${send}>
      <${Segments} label="Kind" value=${kind.value} onChange=${(/** @type {'remix' | 'extend'} */ it) => { kind.value = it; }} options=${[
        { value: 'remix', label: html`<${Icon} name="remix" size=${15} />Remix`, hint: 'The same clip, changed as the prompt says', disabled: !able.includes('edit') },
        { value: 'extend', label: html`<${Icon} name="extend" size=${15} />Extend`, hint: 'Go on where it ends', disabled: !able.includes('extend') }]} />
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
