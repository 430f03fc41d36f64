// The panel where a video is asked for.
import {
  can, draft, edit, estimate, isGuided, isSending, longest, model, orientation, pictures, preset, problem, rollSeed,
  seconds, size, sizesOf, submit, turn, usePreset,
} from './draft.js';
import { counted, duration, memory, ratio, times } from './format.js';
import { GuideSwitch, hints, Slots, Words } from './guide.js';
import { Icon } from './icons.js';
import { keepPrompt } from './library.js';
import { html, useEffect, useMemo, useRef, typed } from './lib.js';
import { RestoreButton } from './restore.js';
import { focus } from './stage.js';
import { address, hasModels, models } from './state.js';
import { Field, IconButton, Segments } from './ui.js';
import { Changed } from './difference.js';

const isMac = /Mac|iP(hone|ad)/.test(navigator.platform);

async function generate() {
  const [first] = await submit();
  if (!first) return;
  focus.value = first.id;
  document.getElementById('stage')?.scrollIntoView({ behavior: 'smooth' });
}

function Prompt() {
  const box = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useEffect(() => {
    if (!box.current) return;
    box.current.style.height = 'auto';
    box.current.style.height = `${Math.min(box.current.scrollHeight + 2, 360)}px`;
  }, [draft.value.prompt]);
  const told = hints(draft.value.prompt);
  return html`
    <div class="prompt">
      <div class="field-head"><label for="prompt">Prompt</label><span class="row"><${RestoreButton} /><${GuideSwitch} /></span></div>
      <${Slots} />
      <textarea id="prompt" ref=${box} rows="4" maxlength="32000" placeholder="Describe the shot: who or what, where, how the camera moves, the light, what happens."
        value=${draft.value.prompt} onInput=${typed((it) => edit({ prompt: it }))}></textarea>
      ${told.length > 0 && html`<ul class="hints">${told.map((hint) => html`<li key=${hint}>${hint}</li>`)}</ul>`}
      <div class="prompt-foot"><${Words} />${draft.value.prompt.trim() && html`<button type="button" class="link" onClick=${() => keepPrompt(draft.value.prompt.trim(), draft.value.negative)}>Keep</button>`}</div>
    </div>`;
}

/** @param {{which: 'first' | 'last', label: string}} props */
function Picture({ which, label }) {
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const file = pictures.value[which];
  const address = useMemo(() => (file ? URL.createObjectURL(file) : null), [file]);
  useEffect(() => () => { if (address) URL.revokeObjectURL(address); }, [address]);
  const take = (/** @type {File | null | undefined} */ taken) => {
    if (!taken || taken.type.startsWith('image/')) pictures.value = { ...pictures.value, [which]: taken ?? null };
  };
  return html`
    <div class="drop" onDragOver=${(/** @type {DragEvent} */ event) => event.preventDefault()}
      onDrop=${(/** @type {DragEvent} */ event) => {
        const dropped = event.dataTransfer?.files[0];
        // Clips are for the page as a whole, which restores what they were made of.
        if (dropped?.type.startsWith('image/')) { event.preventDefault(); event.stopPropagation(); take(dropped); }
      }}>
      <input type="file" accept="image/png,image/jpeg,image/webp" hidden ref=${input} aria-label=${label}
        onChange=${(/** @type {any} */ event) => { take(event.target.files[0]); event.target.value = ''; }} />
      ${file && address
        ? html`<img src=${address} alt=${`${label}: ${file.name}`} />
            <${IconButton} icon="close" kind="solid" label=${`Remove ${label.toLowerCase()}`} onClick=${() => take(null)} />`
        : html`<button type="button" class="drop-button" onClick=${() => input.current?.click()}>
            <${Icon} name="image" /><span>${label}</span><small>drop, paste or choose</small></button>`}
    </div>`;
}

/** Pictures from the clipboard become the first frame, wherever the cursor is. */
export function usePaste() {
  useEffect(() => {
    const paste = (/** @type {ClipboardEvent} */ event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((it) => it.type.startsWith('image/'));
      if (!file || !can('first_frame')) return;
      event.preventDefault();
      pictures.value = { ...pictures.value, first: file };
    };
    addEventListener('paste', paste);
    return () => removeEventListener('paste', paste);
  }, []);
}

function Shape() {
  const chosen = model.value;
  if (!chosen) return null;
  const all = sizesOf(chosen);
  const turns = [...new Set(all.map((one) => orientation(one.size)))];
  const now = orientation(size.value);
  const nameOf = /** @type {Record<string, string>} */ ({ landscape: 'Wide', portrait: 'Tall', square: 'Square' });
  return html`
    <${Field} label="Size" for="size" note=${ratio(size.value)} wide>
      <div class="row">
        <${Segments} label="Orientation" value=${now} onChange=${turn}
          options=${turns.map((value) => ({ value, label: html`<span class=${`shape ${value}`}></span>${nameOf[value]}` }))} />
        <select id="size" value=${size.value} onChange=${typed((it) => edit({ size: it }))}>
          ${all.filter((one) => orientation(one.size) === now).map((one) => html`
            <option key=${one.size} value=${one.size}>${times(one.size)}${one.native ? '' : ' (scaled)'}</option>`)}
        </select>
      </div>
    </${Field}>`;
}

/** @param {{label: string, models: Model[]}} props */
const Choices = ({ label, models: some }) => some.length > 0 && html`
  <optgroup label=${label}>${some.map((one) => html`<option key=${one.id} value=${one.id}>
    ${one.id === one.card ? one.name : `${one.id} · ${one.name}`}${one.fits_device === false ? ' (too large for this machine)' : ''}</option>`)}</optgroup>`;

/** @param {{id: string, label: string, value: number, min: number, max: number, step?: number, unit?: string, onChange: (value: number) => void}} props */
const Slider = ({ id, label, value, min, max, step = 1, unit = '', onChange }) => html`
  <${Field} label=${label} for=${id} note=${`${value}${unit}`}>
    <input type="range" id=${id} min=${min} max=${max} step=${step} value=${value}
      onInput=${typed((it) => onChange(Number(it)))} />
  </${Field}>`;

const Seed = () => html`
  <${Field} label="Seed" for="seed" note=${draft.value.locked ? 'stays for the next' : draft.value.seed ? 'for one video' : 'drawn anew'} wide>
    <div class="joined">
      <input id="seed" inputmode="numeric" pattern="[0-9]*" placeholder="random" value=${draft.value.seed}
        onInput=${typed((it) => edit({ seed: it.replace(/\D/g, '').slice(0, 10) }))} />
      <${IconButton} icon="dice" label="Draw a seed" onClick=${() => edit({ seed: rollSeed() })} />
      <${IconButton} icon=${draft.value.locked ? 'lock' : 'unlock'} label="Keep the seed for the next video"
        pressed=${draft.value.locked} onClick=${() => edit({ locked: !draft.value.locked, seed: draft.value.seed || rollSeed() })} />
    </div>
  </${Field}>`;

function Advanced() {
  const chosen = model.value;
  if (!chosen) return null;
  const { negative, steps, guidance, sound } = draft.value;
  return html`
    <details class="advanced"><summary>Advanced</summary>
      ${can('negative_prompt') && isGuided.value && html`
        <${Field} label="Negative prompt" for="negative" wide>
          <input id="negative" placeholder="camera shake, text, blur" value=${negative}
            onInput=${typed((it) => edit({ negative: it }))} />
        </${Field}>`}
      <div class="grid-2">
        <${Slider} id="steps" label="Steps" min=${1} max=${Math.min(100, chosen.num_inference_steps * 2)}
          value=${Number(steps || chosen.num_inference_steps)} onChange=${(/** @type {number} */ it) => edit({ steps: String(it) })} />
        ${isGuided.value && html`
          <${Slider} id="guidance" label="Guidance" min=${1} max=${12} step=${0.1} value=${Number(guidance || chosen.guidance_scale)}
            onChange=${(/** @type {number} */ it) => edit({ guidance: String(it) })} />`}
      </div>
      ${can('audio') && html`<label class="check"><input type="checkbox" checked=${sound}
        onChange=${(/** @type {any} */ event) => edit({ sound: event.target.checked })} /> With sound</label>`}
    </details>`;
}

/** What is to come: before anything is sent, and whether it can be. */
function Foresight() {
  const seen = estimate.value, refused = problem.value;
  if (hasModels.value === false) return html`<p class="problem" role="alert">No model is on this machine yet. <a href=${address('system')}>Get one</a></p>`;
  if (refused) return html`<p class="problem" role="alert">${refused.message}</p>`;
  if (!seen) return html`<p class="foresight"><span class="skeleton line"></span></p>`;
  const many = draft.value.count;
  const takes = seen.predicted_time_s === null ? 'time unknown yet' : `about ${duration(seen.predicted_time_s * many)}`;
  const facts = [
    takes, `${seen.num_frames} frames at ${seen.fps} fps`,
    seen.native_size === seen.size ? times(seen.size) : `${times(seen.native_size)} scaled to ${times(seen.size)}`,
    seen.predicted_memory_mb === null ? '' : memory(seen.predicted_memory_mb),
    seen.queue_wait_s ? `starts in ${duration(seen.queue_wait_s)}` : ''];
  // That it is scaled has been said.
  const warnings = seen.warnings.filter((one) => !/^generated at/.test(one));
  return html`
    <div class="foresight" aria-live="polite"><p>${facts.filter(Boolean).map((fact) => html`<span key=${fact}>${fact}</span>`)}</p>
      ${warnings.map((one) => html`<p class="warning" key=${one}><${Icon} name="info" size=${15} />${one}</p>`)}</div>`;
}

export function Compose() {
  const { count, prompt } = draft.value;
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); void generate(); }
  };
  return html`
    <form class="compose" aria-label="New video" onKeyDown=${onKey} onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); void generate(); }}>
      <div class="compose-body">
        <${Prompt} />
        <${Changed} />
        ${(can('first_frame') || can('last_frame')) && html`<div class="drops">
          ${can('first_frame') && html`<${Picture} which="first" label="First frame" />`}
          ${can('last_frame') && html`<${Picture} which="last" label="Last frame" />`}</div>`}
        <div class="settings">
          <${Field} label="Model" for="model" wide>
            <div class="row">
              <select id="model" value=${model.value?.id} onChange=${typed((it) => edit({ model: it, steps: '', guidance: '' }))}>
                <${Choices} label="Names that clients use" models=${models.value.filter(({ id, card }) => id !== card)} />
                <${Choices} label="Models" models=${models.value.filter(({ id, card }) => id === card)} />
              </select>
              <${Segments} label="Quality" value=${preset.value} onChange=${usePreset} options=${[
                { value: 'draft', label: 'Draft', hint: 'Small and few steps: a quick look' },
                { value: 'final', label: 'Final', hint: 'As good as the model makes it' }]} />
            </div>
          </${Field}>
          <${Shape} />
          <${Slider} id="seconds" label="Length" unit=" s" min=${1} max=${Math.floor(longest.value)} value=${seconds.value}
            onChange=${(/** @type {number} */ it) => edit({ seconds: it })} />
          <${Field} label="Variations" note=${count > 1 ? 'a seed each' : ''}>
            <${Segments} label="Variations" value=${count} onChange=${(/** @type {number} */ it) => edit({ count: it })}
              options=${[1, 2, 3, 4].map((value) => ({ value, label: `×${value}` }))} />
          </${Field}>
          <${Seed} />
        </div>
        <${Advanced} />
      </div>
      <div class="compose-foot">
        <${Foresight} />
        <button class="button primary" id="generate" disabled=${!prompt.trim() || isSending.value || !model.value}>
          ${isSending.value ? 'Sending…' : count > 1 ? `Generate ${counted(count, 'video')}` : 'Generate'}
          <kbd>${isMac ? '⌘' : 'Ctrl'} ↵</kbd></button>
      </div>
    </form>`;
}
