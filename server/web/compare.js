// Two to four clips at the same moment: side by side, or one over the other with a border to move.
import { contentPath, useShown } from './api.js';
import { SETTINGS, TextDiff } from './difference.js';
import { pixels } from './format.js';
import { Icon } from './icons.js';
import { html, useEffect, useRef, useSignal, typed } from './lib.js';
import { address, go, look, modelName, route, videos } from './state.js';
import { Empty, IconButton, Segments } from './ui.js';

/** @param {{video: Video, refer: (media: HTMLVideoElement | null) => void, shape: string}} props */
function Screen({ video, refer, shape }) {
  const source = useShown(contentPath(video.id));
  return html`<video ref=${refer} src=${source} muted playsinline preload="auto" style=${{ aspectRatio: shape }} aria-label=${video.prompt ?? 'Video'}></video>`;
}

/**
 * Keeps clips at the same moment: the longest one's clock counts, the others follow it.
 * @param {{current: Map<string, HTMLVideoElement>}} media
 * @param {Video[]} shown
 */
function useClock(media, shown) {
  const at = useSignal(0), isPlaying = useSignal(false);
  const lengthOf = (/** @type {Video} */ video) => video.num_frames / video.fps;
  const longest = shown.reduce((best, video) => (lengthOf(video) > lengthOf(best) ? video : best));
  const length = lengthOf(longest);
  const put = (/** @type {number} */ time) => {
    at.value = Math.max(0, Math.min(length, time));
    for (const video of shown) {
      const it = media.current.get(video.id);
      // A shorter clip waits at its last frame.
      const own = Math.min(at.value, (video.num_frames - 0.5) / video.fps);
      if (it && Math.abs(it.currentTime - own) > 0.5 / video.fps) it.currentTime = own;
    }
  };
  useEffect(() => {
    if (!isPlaying.value) return undefined;
    const all = () => shown.flatMap((video) => media.current.get(video.id) ?? []);
    const begin = () => { for (const it of all()) it.play().catch(() => { isPlaying.value = false; }); };
    let frame = 0;
    const tick = () => {
      const leader = media.current.get(longest.id);
      if (leader?.ended) { put(0); begin(); }
      at.value = leader?.currentTime ?? 0;
      for (const video of shown) {
        const it = media.current.get(video.id);
        // Seeking costs more than it gains until clips are visibly apart.
        if (it && !it.ended && Math.abs(it.currentTime - at.value) > 0.12) it.currentTime = at.value;
      }
      frame = requestAnimationFrame(tick);
    };
    begin();
    frame = requestAnimationFrame(tick);
    return () => { cancelAnimationFrame(frame); for (const it of all()) it.pause(); };
  }, [isPlaying.value]);
  return { at, isPlaying, length, put };
}

/** @param {{shown: Video[]}} props */
function Together({ shown }) {
  const media = useRef(/** @type {Map<string, HTMLVideoElement>} */ (new Map()));
  const way = useSignal(/** @type {'beside' | 'wipe'} */ ('beside')), border = useSignal(50);
  const { at, isPlaying, length, put } = useClock(media, shown);
  const refer = (/** @type {string} */ id) => (/** @type {HTMLVideoElement | null} */ it) => {
    if (it) media.current.set(id, it);
    else media.current.delete(id);
  };
  const [width, height] = pixels(shown[0]?.size ?? '16x9');
  const shape = `${width} / ${height}`;
  const canWipe = shown.length === 2;
  const isWipe = canWipe && way.value === 'wipe';
  const step = 1 / Math.max(...shown.map((video) => video.fps));
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (/** @type {HTMLElement} */ (event.target).closest('input, button, a')) return;
    if (event.key === ' ') { event.preventDefault(); isPlaying.value = !isPlaying.value; }
    if (event.key === ',' || event.key === '.') put(at.value + (event.key === '.' ? step : -step));
  };
  useEffect(() => { addEventListener('keydown', onKey); return () => removeEventListener('keydown', onKey); });
  const [left, right] = shown;
  return html`
    <div class=${`together ${isWipe ? 'is-wipe' : `of-${shown.length}`}`}>
      ${isWipe && left && right ? html`
        <div class="wipe" style=${{ aspectRatio: shape, maxWidth: `calc(62vh * ${width / height})` }}>
          <${Screen} key=${left.id} video=${left} refer=${refer(left.id)} shape=${shape} />
          <div class="wipe-top" style=${{ clipPath: `inset(0 0 0 ${border.value}%)` }}><${Screen} key=${right.id} video=${right} refer=${refer(right.id)} shape=${shape} /></div>
          <span class="wipe-line" style=${{ left: `${border.value}%` }}></span>
          <input type="range" class="wipe-range" min="0" max="100" step="0.5" value=${border.value} aria-label="Border between the two" onInput=${typed((it) => { border.value = Number(it); })} />
          <span class="tag left">A</span><span class="tag right">B</span>
        </div>`
      : shown.map((video, index) => html`
        <figure key=${video.id}><div class="compare-screen"><${Screen} video=${video} refer=${refer(video.id)} shape=${pixels(video.size).join(' / ')} /><span class="tag left">${'ABCD'[index]}</span></div>
          <figcaption><a href=${address('gallery', video.id)} class="clamp">${modelName(video.model)} · seed ${video.seed}</a>
            <${IconButton} icon="close" label="Take out" onClick=${() => go('compare', ...shown.filter((one) => one !== video).map(({ id }) => id))} /></figcaption></figure>`)}
    </div>
    <div class="transport">
      <${IconButton} icon=${isPlaying.value ? 'pause' : 'play'} label=${isPlaying.value ? 'Pause' : 'Play'} onClick=${() => { isPlaying.value = !isPlaying.value; }} />
      <${IconButton} icon="back" label="One frame back" onClick=${() => put(at.value - step)} />
      <${IconButton} icon="forward" label="One frame on" onClick=${() => put(at.value + step)} />
      <input type="range" class="scrub" aria-label="Time of all clips" min="0" max=${length} step="0.01" value=${at.value}
        onInput=${(/** @type {any} */ event) => { isPlaying.value = false; put(Number(event.target.value)); }} />
      <output class="frame" aria-hidden="true">${at.value.toFixed(2)}<span> / ${length.toFixed(2)} s</span></output>
      ${canWipe && html`<${Segments} label="View" value=${way.value} onChange=${(/** @type {'beside' | 'wipe'} */ it) => { way.value = it; }}
        options=${[{ value: 'beside', label: 'Side by side' }, { value: 'wipe', label: 'Wipe' }]} />`}
    </div>`;
}

/** @param {{shown: Video[]}} props Settings in rows; the ones that differ stand out. */
const Table = ({ shown }) => html`
  <div class="table-scroll" tabindex="0" role="region" aria-label="Settings"><table class="settings-table">
    <thead><tr><th scope="col">Setting</th>${shown.map((video, index) => html`<th scope="col" key=${video.id}>${'ABCD'[index]}</th>`)}</tr></thead>
    <tbody>${SETTINGS.map(([name, of]) => {
      const values = shown.map(of);
      const differs = new Set(values).size > 1;
      if (values.every((value) => !value)) return null;
      return html`<tr key=${name} class=${differs ? 'differs' : ''}><th scope="row">${name}</th>
        ${values.map((value, index) => html`<td key=${shown[index]?.id}>${name === 'Prompt' && differs && index ? html`<${TextDiff} before=${values[0] ?? ''} after=${value} />` : value}</td>`)}</tr>`;
    })}</tbody></table></div>`;

export function Compare() {
  const { ids } = route.value;
  const wanted = [...new Set(ids)].slice(0, 4);
  useEffect(() => { for (const id of wanted) if (!videos.peek().has(id)) void look(id); }, [wanted.join()]);
  const shown = wanted.map((id) => videos.value.get(id)).filter((it) => it?.status === 'completed');
  return html`
    <main class="compare" id="main" tabindex="-1">
      <div class="section-head"><h1>Compare</h1>${shown.length < 4 && shown.length > 0 && html`<a class="link" href=${address('gallery')}><${Icon} name="create" size=${15} /> Add from the gallery</a>`}</div>
      ${shown.length ? html`<${Together} shown=${shown} key=${wanted.join()} /><${Table} shown=${shown} />`
        : html`<${Empty} icon="compare" title="Put clips side by side"><p>Select two to four clips in the gallery, then choose Compare.</p><a class="button primary" href=${address('gallery')}>Choose clips</a></${Empty}>`}
    </main>`;
}
