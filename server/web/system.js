// Which models there are and may be used for what, and how the machine is doing.
import { ask, get, key, post, remove, useKey } from './api.js';
import { counted, duration, memory, times } from './format.js';
import { Icon } from './icons.js';
import { html, useEffect, useSignal } from './lib.js';
import { attempt, begin, notices, queue, toggleNotices } from './state.js';
import { Empty, Progress } from './ui.js';

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

/** @param {{model: Model, done: () => void}} props How a model comes here, while it does and before. */
function Pull({ model, done }) {
  const state = useSignal(model.pull), agreed = useSignal(false), busy = useSignal(false);
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
      onClick=${() => act(() => post(path, asks ? { accept_licence: model.licence } : {}))}><${Icon} name="download" size=${16} /> ${busy.value ? 'Asking the hub …' : `${it ? 'Go on' : 'Get it'} (${memory(model.parameters / 5e5)} or more)`}</button></div>`;
}

/** @param {{model: Model, names: string[], done: () => void}} props */
const Card = ({ model, names, done }) => html`
  <article class=${`card ${model.installed ? '' : 'is-absent'}`}>
    <header><h3>${model.name}</h3><span class=${`badge ${model.installed ? 'good' : ''}`}>${model.installed ? 'installed' : 'not here'}</span></header>
    <p>${model.description}</p>
    <dl>
      <div><dt>Sizes</dt><dd>${model.sizes.slice(0, 4).map(times).join(', ')}${model.sizes.length > 4 ? ' …' : ''}</dd></div>
      <div><dt>Length</dt><dd>up to ${model.max_seconds} s at ${model.fps} fps</dd></div>
      <div><dt>Can</dt><dd>${Object.keys(ABLE).filter((one) => model.capabilities.includes(one)).map((one) => ABLE[one]).join(', ')}</dd></div>
      ${model.installed && html`<${Fit} model=${model} />`}
      <div><dt>Licence</dt><dd><a href=${model.licence_url} target="_blank" rel="noreferrer">${model.licence}</a>${model.gated ? ' (asks before the download)' : ''}</dd></div>
      ${names.length > 0 && html`<div><dt>Also</dt><dd>${names.join(', ')}</dd></div>`}
    </dl>
    ${[model.licence_note, model.licence_limit, model.licence_excludes.length && `No rights in ${model.licence_excludes.join(', ')}`].filter(Boolean).map((note) => html`<p class="note" key=${note}>${note}</p>`)}
    ${!model.installed && html`<${Pull} model=${model} done=${done} />`}
  </article>`;

function Machine() {
  const ready = useSignal(/** @type {Ready | null} */ (null)), version = useSignal(''), free = useSignal('');
  useEffect(() => {
    const look = () => void get('/ready').then((it) => { ready.value = it; }, () => { ready.value = null; });
    look();
    void ask('/metrics').then(async (answer) => {
      const bytes = /^homereel_disk_free_bytes (\S+)/m.exec(await answer.text())?.[1];
      free.value = bytes ? `, ${memory(Number(bytes) / 1e6)} of disk free` : '';
    }, () => {});
    void get('/health').then((it) => { version.value = it.version; }, () => {});
    const again = setInterval(look, 5000);
    return () => clearInterval(again);
  }, []);
  const seen = ready.value;
  return html`
    <section class="machine" aria-label="Machine">
      <div class="section-head"><h2>Machine</h2><span class="note">Homereel ${version.value}</span></div>
      ${!seen ? html`<p class="note">No worker has announced itself yet.</p>` : html`
        ${seen.reason && html`<p class="problem">${seen.reason}</p>`}
        <ul class="workers">${seen.workers.map((worker, index) => html`
          <li key=${index}><span class=${`dot ${worker.busy ? 'busy' : 'good'}`}></span><strong>${worker.device}</strong> <span>${worker.busy ? 'making a video' : 'free'}</span>
            ${worker.models.map((loaded) => html`<p class="note" key=${loaded.model}>${loaded.model} · ${memory(loaded.memory_mb)} · ${loaded.plan}</p>`)}</li>`)}</ul>`}
      <p class="note">${queue.value ? `${counted(queue.value.workers, 'worker')}, ${counted(queue.value.waiting.length, 'video')} waiting${free.value}` : ''}</p>
    </section>`;
}

const Preferences = () => html`
  <section class="machine" aria-label="Preferences">
    <div class="section-head"><h2>This browser</h2></div>
    <label class="check"><input type="checkbox" checked=${notices.value} onChange=${toggleNotices} /> <${Icon} name="bell" size=${16} /> Tell me when a video is ready and I am elsewhere</label>
    ${key.value && html`<p>A key is kept in this browser. <button type="button" class="link" onClick=${() => { useKey(''); location.reload(); }}>Forget it</button></p>`}
  </section>`;

export function System() {
  const all = useSignal(/** @type {Model[] | null} */ (null));
  const look = () => void attempt(async () => { all.value = (await get('/v1/models?all=true')).data; });
  useEffect(look, []);
  const done = () => { look(); void begin(); };
  const cards = (all.value ?? []).filter((model) => model.id === model.card || !all.value?.some((it) => it.id === model.card));
  const names = (/** @type {string} */ card) => (all.value ?? []).filter((it) => it.card === card && it.id !== card).map(({ id }) => id);
  const sorted = [...cards].sort((a, b) => Number(b.installed) - Number(a.installed));
  return html`
    <main class="system" id="main" tabindex="-1"><h1>Models and machine</h1>
      <div class="system-top"><${Machine} /><${Preferences} /></div>
      <div class="section-head"><h2>Models</h2></div>
      ${all.value === null ? html`<div class="cards">${[0, 1, 2].map((index) => html`<div class="card skeleton tall" key=${index}></div>`)}</div>`
        : sorted.length ? html`<div class="cards">${sorted.map((model) => html`<${Card} key=${model.id} model=${model} names=${names(model.card)} done=${done} />`)}</div>`
        : html`<${Empty} icon="system" title="No models" />`}
    </main>`;
}
