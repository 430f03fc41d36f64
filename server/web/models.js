// Which models there are: those on this machine first, then those that it could have, and whether they fit it.
import { get, post, remove } from './api.js';
import { counted, duration, gib, memory, times } from './format.js';
import { Icon } from './icons.js';
import { html, signal, typed, useEffect, useSignal } from './lib.js';
import { attempt, begin } from './state.js';
import { Empty, Progress, Segments } from './ui.js';

const ABLE = /** @type {Record<string, string>} */ ({
  text: 'text', first_frame: 'first frame', last_frame: 'last frame', references: 'characters', audio: 'sound', edit: 'remix', extend: 'extend', lora: 'LoRA', negative_prompt: 'negative prompt',
});

/** @param {{model: Model}} props What a clip of the model's own kind takes here, as the server foresees it. */
function Fit({ model }) {
  const seen = useSignal(/** @type {Estimate | null} */ (null));
  useEffect(() => {
    void post('/v1/videos/estimate', { model: model.id, prompt: 'a film' }).then((it) => { seen.value = it; }, () => {});
  }, []);
  const it = seen.value;
  if (!it) return null;
  const takes = [memory(it.predicted_memory_mb), it.predicted_time_s === null ? '' : `about ${duration(it.predicted_time_s)} for ${it.seconds} s`];
  return html`<div><dt>Takes</dt><dd>${takes.filter(Boolean).join(', ') || 'not known yet'}</dd></div>
    ${it.warnings.length > 0 && html`<div><dt>But</dt><dd>${it.warnings.join('; ')}</dd></div>`}`;
}

/** @param {{model: Model, state: import('@preact/signals').Signal<ModelPull | null>, done: () => void}} props How a model comes here, while it does and before. */
function Pull({ model, state, done }) {
  const agreed = useSignal(false), busy = useSignal(false);
  const path = `/v1/models/${model.card}/pull`, it = state.value, comes = it?.status === 'in_progress';
  const asks = model.gated || model.licence_limit || model.licence_excludes.length > 0;
  useEffect(() => {
    if (it?.status === 'completed') done();
    if (!comes) return undefined;
    const again = setInterval(() => void get(path).then((now) => { state.value = now; }, () => {}), 1000);
    return () => clearInterval(again);
  }, [it?.status]);
  const act = async (/** @type {() => Promise<ModelPull>} */ how) => {
    busy.value = true;
    state.value = await attempt(how) ?? state.value;
    busy.value = false;
  };
  if (comes) return html`<div class="pull">
    <${Progress} value=${Math.round(100 * it.bytes_done / (it.bytes_total || 1))} label=${`${model.name} on its way`} waiting=${!it.bytes_total} />
    <p class="note">${memory(it.bytes_done / 1e6)} of ${memory(it.bytes_total / 1e6)} <button type="button" class="link" onClick=${() => act(() => remove(path))}>Cancel</button></p></div>`;
  return html`<div class="pull">
    ${it?.error && html`<p class="problem">${it.error.message}</p>`}
    ${asks && html`<label class="check"><input type="checkbox" checked=${agreed.value} onChange=${() => { agreed.value = !agreed.value; }} /> I have read and accept its licence</label>`}
    <button type="button" class="button" disabled=${busy.value || (asks && !agreed.value)}
      onClick=${() => act(() => post(path, asks ? { accept_licence: model.licence } : {}))}><${Icon} name="download" size=${16} /> ${busy.value ? 'Asking the hub …' : `${it ? 'Go on' : 'Get it'} (${memory(model.files_mb)} or more)`}</button></div>`;
}

/** @param {Model} model What its licence asks of those who use it, in a sentence each. */
const conditions = (model) => [
  model.licence_limit, model.licence_excludes.length ? `No rights in ${model.licence_excludes.join(', ')}` : '',
  model.gated ? 'Asks before the download' : ''].filter(Boolean);

/** @param {{model: Model}} props */
const Vram = ({ model }) => {
  if (model.min_vram_mb === null) return html`<span class="model-vram">unknown</span>`;
  const is = model.fits_device;
  return html`<span class=${`model-vram ${is === false ? 'lacks' : ''}`}>
    ${is !== null && html`<${Icon} name=${is ? 'check' : 'close'} size=${15} />`}from ${gib(model.min_vram_mb)}<span class="hidden">${is === null ? '' : is ? ', fits this machine' : ', more than this machine has'}</span></span>`;
};

/** @param {{model: Model, names: string[], done: () => void}} props */
function Entry({ model, names, done }) {
  const isOpen = useSignal(model.pull?.status === 'in_progress' || model.pull?.status === 'failed');
  const asks = conditions(model), state = useSignal(model.pull);
  const place = model.installed ? 'installed' : state.value?.status === 'in_progress' ? 'on its way' : 'not here';
  return html`
    <article class="model"><details open=${isOpen.value} onToggle=${(/** @type {any} */ event) => { isOpen.value = event.currentTarget.open; }}>
      <summary>
        <span class="model-name"><h3>${model.name}</h3><span class="clamp">${model.description}</span></span>
        <span class="model-size">${times(model.sizes[0] ?? '')}${model.sizes.length > 1 ? ' …' : ''}</span>
        <${Vram} model=${model} />
        <span class="model-licence">${asks.length > 0 && html`<${Icon} name=${model.gated ? 'lock' : 'info'} size=${15} />`}<span title=${model.licence}>${model.licence}</span>${asks.length > 0 && html`<span class="hidden"> with conditions</span>`}</span>
        <span class=${`badge ${model.installed ? 'good' : ''}`}>${place}</span>
      </summary>
      ${isOpen.value && html`<div class="model-more">
        <p>${model.description}</p>
        <dl>
          <div><dt>Sizes</dt><dd>${model.sizes.map(times).join(', ')}</dd></div>
          <div><dt>Length</dt><dd>up to ${model.max_seconds} s at ${model.fps} fps</dd></div>
          <div><dt>Can</dt><dd>${Object.keys(ABLE).filter((one) => model.capabilities.includes(one)).map((one) => ABLE[one]).join(', ')}</dd></div>
          ${model.installed && html`<${Fit} model=${model} />`}
          ${model.fits_device === false && html`<div><dt>But</dt><dd>It needs more than this machine has; homereel plan ${model.card} says what.</dd></div>`}
          <div><dt>Licence</dt><dd><a href=${model.licence_url} target="_blank" rel="noreferrer">${model.licence}</a></dd></div>
          <div><dt>Name</dt><dd>${[model.card, ...names].join(', ')}</dd></div>
        </dl>
        ${[model.licence_note, ...asks].filter(Boolean).map((note) => html`<p class="note" key=${note}>${note}</p>`)}
        ${!model.installed && html`<${Pull} model=${model} state=${state} done=${done} />`}</div>`}
    </details></article>`;
}

/** @typedef {{text: string, where: 'all' | 'here' | 'fits', can: string, open: boolean}} Wanted */
/** @type {Wanted} */
const ANY = { text: '', where: 'all', can: '', open: false };
const wanted = signal(ANY);

/** @param {Model} model @param {string[]} names @param {Wanted} by */
function matches(model, names, by) {
  const said = [model.name, model.description, model.card, model.licence, ...names].join(' ').toLowerCase();
  return by.text.toLowerCase().split(/\s+/).every((word) => said.includes(word))
    && (by.where === 'all' || (by.where === 'here' ? model.installed : model.fits_device !== false))
    && (!by.can || model.capabilities.includes(by.can)) && (!by.open || conditions(model).length === 0);
}

/** @param {{shown: number, all: number}} props */
function ModelFilters({ shown, all }) {
  const by = wanted.value;
  const set = (/** @type {Partial<Wanted>} */ news) => { wanted.value = { ...by, ...news }; };
  return html`
    <div class="filters">
      <label class="search"><${Icon} name="search" /><span class="hidden">Search models</span>
        <input type="search" id="search" placeholder="Search models" value=${by.text} onInput=${typed((it) => set({ text: it }))} /></label>
      <${Segments} label="Where" value=${by.where} onChange=${(/** @type {Wanted['where']} */ it) => set({ where: it })}
        options=${[{ value: 'all', label: 'All' }, { value: 'here', label: 'Installed' }, { value: 'fits', label: 'Fits here' }]} />
      <select aria-label="Can" value=${by.can} onChange=${typed((it) => set({ can: it }))}>
        <option value="">Can anything</option>${Object.entries(ABLE).map(([one, name]) => html`<option key=${one} value=${one}>${name}</option>`)}</select>
      <label class="check"><input type="checkbox" checked=${by.open} onChange=${() => set({ open: !by.open })} /> Open licence</label>
      <span class="note" role="status">${shown === all ? counted(all, 'model') : `${shown} of ${all}`}</span>
    </div>`;
}

/** @param {{title: string, models: Model[], names: (card: string) => string[], done: () => void}} props */
const Group = ({ title, models, names, done }) => models.length > 0 && html`
  <section class="models" aria-label=${title}>
    <div class="models-head" aria-hidden="true"><span>${title}</span><span>Size</span><span>GPU memory</span><span>Licence</span><span></span></div>
    ${models.map((model) => html`<${Entry} key=${model.card} model=${model} names=${names(model.card)} done=${done} />`)}
  </section>`;

export function Models() {
  const all = useSignal(/** @type {Model[] | null} */ (null));
  const look = () => void attempt(async () => { all.value = (await get('/v1/models?all=true')).data; });
  useEffect(look, []);
  const done = () => { look(); void begin(); };
  const told = all.value ?? [];
  const cards = told.filter((model) => model.id === model.card || !told.some((it) => it.id === model.card));
  const names = (/** @type {string} */ card) => told.filter((it) => it.card === card && it.id !== card).map(({ id }) => id);
  const shown = cards.filter((model) => matches(model, names(model.card), wanted.value));
  const others = shown.filter(({ installed }) => !installed);
  return html`
    <div class="section-head"><h2>Models</h2></div>
    ${all.value === null ? html`<div class="models">${[0, 1, 2, 3].map((index) => html`<div class="skeleton model-row" key=${index}></div>`)}</div>` : html`
      <${ModelFilters} shown=${shown.length} all=${cards.length} />
      <${Group} title="On this machine" models=${shown.filter(({ installed }) => installed)} names=${names} done=${done} />
      <${Group} title="To fetch" models=${[...others].sort((a, b) => Number(a.fits_device === false) - Number(b.fits_device === false))} names=${names} done=${done} />
      ${shown.length === 0 && html`<${Empty} icon="search" title="No model is like that"><button type="button" class="button" onClick=${() => { wanted.value = ANY; }}>Show all</button></${Empty}>`}`}`;
}
