// How the machine is doing, and what this browser is to do; below them, the models.
import { ask, get, key, useKey } from './api.js';
import { counted, gib, memory } from './format.js';
import { Icon } from './icons.js';
import { html, useEffect, useSignal } from './lib.js';
import { Models } from './models.js';
import { notices, queue, toggleNotices } from './state.js';

/** @param {{worker: Ready['workers'][number]}} props What the device has, and who holds how much of it. */
function Memory({ worker }) {
  const { memory_total_mb: total, memory_free_mb: free } = worker;
  if (total === null || free === null) return null;
  const held = Math.min(worker.models.reduce((sum, one) => sum + one.memory_mb, 0), total - free);
  const parts = [['held', held, 'models'], ['others', total - free - held, 'all else']].filter(([, mb]) => Number(mb) >= 1);
  const words = `${gib(free)} free of ${gib(total)}`;
  return html`
    <div class="meter" role="img" aria-label=${`Memory: ${words}; ${gib(held)} held by models`}>
      ${parts.map(([kind, mb]) => html`<span class=${kind} key=${kind} style=${{ width: `${(100 * Number(mb)) / total}%` }}></span>`)}</div>
    <p class="note meter-words"><strong>${words}</strong>${parts.map(([kind, mb, name]) => html`<span key=${kind}><i class=${kind}></i>${name} ${gib(Number(mb))}</span>`)}</p>`;
}

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
          <li key=${index}><span class=${`dot ${worker.busy ? 'busy' : 'good'}`}></span><strong>${worker.name ?? worker.device}</strong> <span class="note">${worker.name ? `${worker.device} · ` : ''}${worker.busy ? 'making a video' : 'idle'}</span>
            <${Memory} worker=${worker} />
            ${worker.models.map((loaded) => html`<p class="note" key=${loaded.model}>${loaded.model} · ${gib(loaded.memory_mb)} · ${loaded.plan}</p>`)}</li>`)}</ul>`}
      ${seen?.workers.every(({ device }) => device === 'cpu') && html`<p class="note">There is no GPU here: models run in the machine's memory, and large ones take hours.</p>`}
      <p class="note">${seen ? counted(seen.workers.length, 'worker') : ''}${queue.value ? `, ${counted(queue.value.waiting.length, 'video')} waiting` : ''}${free.value}</p>
    </section>`;
}

const Preferences = () => html`
  <section class="machine" aria-label="Preferences">
    <div class="section-head"><h2>This browser</h2></div>
    <label class="check"><input type="checkbox" checked=${notices.value} onChange=${toggleNotices} /> <${Icon} name="bell" size=${16} /> Tell me when a video is ready and I am elsewhere</label>
    ${key.value && html`<p>A key is kept in this browser. <button type="button" class="link" onClick=${() => { useKey(''); location.reload(); }}>Forget it</button></p>`}
  </section>`;

export const System = () => html`
  <main class="system" id="main" tabindex="-1"><h1>Models and machine</h1>
    <div class="system-top"><${Machine} /><${Preferences} /></div>
    <${Models} />
  </main>`;
