// All finished videos, however many: only the rows in sight exist, and each plays when it is pointed at.
import { contentPath, get, post, useShown } from './api.js';
import { ago, counted, pixels, times } from './format.js';
import { Icon } from './icons.js';
import { batch, computed, effect, html, signal, useEffect, useLayoutEffect, useMemo, useRef, useSignal, typed } from './lib.js';
import { address, attempt, changes, erase, go, gone, learn, modelName, models, say, star, videos } from './state.js';
import { Dialog, Empty, IconButton, Segments } from './ui.js';

const PAGE = 100, GAP = 8;
/** @type {Filters} */
const ALL = { text: '', model: '', starred: false, group: '', status: 'completed' };
export const filters = signal(ALL);
const listed = signal(/** @type {string[]} */ ([]));
const hasMore = signal(true), isLoading = signal(false), isFirst = signal(true);
/** Clips that something is to be done with together. */
export const picked = signal(/** @type {string[]} */ ([]));
/** The clips of the gallery in their order, as far as they have been loaded. */
export const clips = computed(() => (gone.value.size ? listed.value.filter((id) => !gone.value.has(id)) : listed.value));

/** @param {string} [after] */
function query(after) {
  const { text, model, starred, group, status } = filters.value;
  const wanted = { status, limit: String(PAGE), ...(/[\p{L}\p{N}]/u.test(text) && { q: text }), ...(model && { model }), ...(starred && { starred: 'true' }),
    ...(group && { group }), ...(after && { after }) };
  return `/v1/videos?${new URLSearchParams(wanted)}`;
}

/** Whether somebody rushes by: what is only passed is not worth asking the server for its picture. */
const hurries = signal(false);
let resting = 0, passed = 0;
function noteScroll() {
  if (Math.abs(scrollY - passed) > innerHeight / 3) hurries.value = true;
  passed = scrollY;
  clearTimeout(resting);
  resting = setTimeout(() => { hurries.value = false; }, 120);
}

let querying = new AbortController();
async function load({ anew = false } = {}) {
  if (isLoading.value && !anew) return;
  querying.abort();
  querying = new AbortController();
  isLoading.value = true;
  const { signal: mine } = querying;
  const page = await attempt(() => get(query(anew ? undefined : listed.value.at(-1)), mine));
  if (mine.aborted) return;
  batch(() => {
    isLoading.value = false;
    isFirst.value = false;
    if (!page) { hasMore.value = false; return; }
    learn(...page.data);
    const ids = page.data.map((/** @type {Video} */ { id }) => id);
    listed.value = anew ? ids : [...listed.value, ...ids];
    hasMore.value = page.has_more;
  });
}

/** What has come to be one of these since is put where it belongs; the rest stays where it is. */
async function loadNews() {
  const page = await attempt(() => get(query()));
  if (!page) return;
  learn(...page.data);
  const there = new Set(listed.value);
  const news = page.data.map((/** @type {Video} */ { id }) => id).filter((/** @type {string} */ id) => !there.has(id));
  // Ids sort by creation.
  if (news.length) listed.value = [...news, ...listed.value].sort().reverse();
}

/** @param {Partial<Filters>} news */
export function filter(news) {
  filters.value = { ...filters.value, ...news };
  scrollTo(0, 0);
  void load({ anew: true });
}

/** @param {string[]} ids @param {number} width @param {number} height @returns {Row[]} Rows that fill the width, each clip in its own proportions. */
export function layOut(ids, width, height) {
  /** @type {Row[]} */
  const rows = [];
  let top = 0, /** @type {[string, number, number][]} */ row = [], sum = 0;
  const close = (/** @type {boolean} */ isLast) => {
    const room = width - GAP * (row.length - 1);
    const fitting = isLast ? Math.min(height, room / sum) : room / sum;
    let left = 0;
    const cells = row.map(([id, index, shape]) => {
      const cell = { id, index, left, width: shape * fitting };
      left += cell.width + GAP;
      return cell;
    });
    rows.push({ top, height: fitting, cells });
    top += fitting + GAP;
    row = [];
    sum = 0;
  };
  ids.forEach((id, index) => {
    const [across, down] = pixels(videos.peek().get(id)?.size ?? '16x9');
    row.push([id, index, across / down]);
    sum += across / down;
    if (sum * height + GAP * (row.length - 1) >= width) close(false);
  });
  if (row.length) close(true);
  return rows;
}

/** @param {string} id */
export function pick(id) {
  picked.value = picked.value.includes(id) ? picked.value.filter((one) => one !== id) : [...picked.value, id];
}

/** @param {{cell: Cell, row: Row, isCurrent: boolean}} props */
function Clip({ cell, row, isCurrent }) {
  const video = /** @type {Video} */ (videos.value.get(cell.id));
  const isHovered = useSignal(false), isPlaying = useSignal(false), isWanted = useSignal(!hurries.peek());
  const picture = useRef(/** @type {HTMLImageElement | null} */ (null));
  const poster = useShown(isWanted.value && video.status === 'completed' ? contentPath(video.id, 'thumbnail') : null);
  useEffect(() => effect(() => { if (!hurries.value) isWanted.value = true; }), []);
  // A browser goes on loading what has left the page.
  useEffect(() => () => picture.current?.removeAttribute('src'), []);
  const moving = useShown(isHovered.value && video.status === 'completed' ? contentPath(video.id) : null);
  const isPicked = picked.value.includes(video.id);
  const point = (/** @type {boolean} */ there) => () => { isHovered.value = there; if (!there) isPlaying.value = false; };
  return html`
    <div class=${`clip ${isPicked ? 'is-picked' : ''} ${video.starred ? 'is-starred' : ''}`} role="listitem"
      style=${{ transform: `translate(${cell.left}px, ${row.top}px)`, width: `${cell.width}px`, height: `${row.height}px` }}
      onMouseEnter=${point(true)} onMouseLeave=${point(false)}>
      <a href=${address('gallery', video.id)} tabindex=${isCurrent ? 0 : -1} data-index=${cell.index}
        aria-label=${`${video.prompt}, ${times(video.size)}, ${ago(video.created_at)}`} onFocus=${point(true)} onBlur=${point(false)}>
        ${video.status === 'completed' ? html`<img ref=${picture} src=${poster} alt="" decoding="async" />`
          : html`<span class="place"><span class="clamp">${video.prompt}</span><small class="clamp">${video.error?.message}</small></span>`}
        ${moving && html`<video src=${moving} muted loop autoplay playsinline class=${isPlaying.value ? 'is-playing' : ''}
          onPlaying=${() => { isPlaying.value = true; }} tabindex="-1" aria-hidden="true"></video>`}
        ${video.status === 'completed' && html`<span class="caption"><span class="clamp">${video.prompt}</span><small>${modelName(video.model)} · ${video.seconds} s</small></span>`}
      </a>
      <${IconButton} icon="check" kind="pick" label=${`Select: ${video.prompt}`} pressed=${isPicked} onClick=${() => pick(video.id)} />
      <${IconButton} icon="star" kind="star" label=${video.starred ? 'Remove the star' : 'Star'} pressed=${video.starred} onClick=${() => star(video)} />
    </div>`;
}

function Filters() {
  const { text, model, starred, group, status } = filters.value;
  const written = useSignal(text);
  useEffect(() => {
    const soon = setTimeout(() => { if (written.value !== filters.value.text) filter({ text: written.value }); }, 250);
    return () => clearTimeout(soon);
  }, [written.value]);
  return html`
    <div class="filters" role="search">
      <label class="search"><${Icon} name="search" /><span class="hidden">Search prompts</span>
        <input type="search" id="search" placeholder="Search prompts" value=${written.value}
          onInput=${typed((it) => { written.value = it; })} /></label>
      <select aria-label="Model" value=${model} onChange=${typed((it) => filter({ model: it }))}>
        <option value="">All models</option>
        ${models.value.map((one) => html`<option key=${one.id} value=${one.id}>${one.id === one.card ? one.name : one.id}</option>`)}
      </select>
      <${Segments} label="State" value=${status} onChange=${(/** @type {Filters['status']} */ it) => filter({ status: it })}
        options=${[{ value: 'completed', label: 'Made' }, { value: 'failed', label: 'Failed' }]} />
      <button type="button" class="button quiet" aria-pressed=${starred} onClick=${() => filter({ starred: !starred })}><${Icon} name="star" />Starred</button>
      ${group && html`<button type="button" class="chip" onClick=${() => filter({ group: '' })}>One group<${Icon} name="close" size=${14} /></button>`}
    </div>`;
}

/** @param {{onJoin: (ids: string[]) => void}} props */
function Picked({ onJoin }) {
  const isAsked = useSignal(false);
  const ids = picked.value.filter((id) => videos.value.has(id));
  if (!ids.length) return null;
  const gone = () => { isAsked.value = false; picked.value = []; void erase(...ids.map((id) => /** @type {Video} */ (videos.value.get(id)))); };
  return html`
    <div class="picked" role="toolbar" aria-label="Selection">
      <strong>${counted(ids.length, 'clip')}</strong>
      <button type="button" class="button" disabled=${ids.length < 2 || ids.length > 4} onClick=${() => go('compare', ...ids)}><${Icon} name="compare" />Compare</button>
      <button type="button" class="button" disabled=${ids.length < 2} onClick=${() => onJoin(ids)}><${Icon} name="join" />Join</button>
      <button type="button" class="button" onClick=${() => { isAsked.value = true; }}><${Icon} name="trash" />Delete</button>
      <${IconButton} icon="close" label="Select none" onClick=${() => { picked.value = []; }} />
      ${isAsked.value && html`<${Dialog} title="Delete" kind="small" onClose=${() => { isAsked.value = false; }}>
        <h2>Delete ${counted(ids.length, 'clip')}?</h2><p>Their files go, and cannot be brought back.</p>
        <div class="row end"><button type="button" class="button quiet" onClick=${() => { isAsked.value = false; }}>Keep</button>
          <button type="button" class="button danger" onClick=${gone}>Delete</button></div></${Dialog}>`}
    </div>`;
}

/** @param {string[]} ids */
async function join(ids) {
  const made = await attempt(() => post('/v1/videos/join', { videos: ids.map((id) => ({ id })) }));
  if (!made) return;
  learn(made);
  picked.value = [];
  say('Joining the clips, in the order in which you chose them.', { act: { label: 'Show', run: () => go('gallery', made.id) } });
}

export function Gallery() {
  const place = useRef(/** @type {HTMLDivElement | null} */ (null));
  const width = useSignal(0), from = useSignal(0), to = useSignal(0), cursor = useSignal(0);
  const all = useMemo(() => (width.value ? layOut(clips.value, width.value, width.value < 600 ? 130 : 208) : []), [clips.value, width.value]);
  const bottom = all.at(-1);
  const height = bottom ? bottom.top + bottom.height : 0;

  useLayoutEffect(() => {
    const it = /** @type {HTMLDivElement} */ (place.current);
    const look = () => batch(() => {
      noteScroll();
      width.value = it.clientWidth;
      // Half a screen more on both sides, so that scrolling finds pictures there; in steps, so that not every pixel
      // is a change.
      const above = Math.floor(-it.getBoundingClientRect().top / 160) * 160;
      from.value = above - innerHeight / 2;
      to.value = above + innerHeight * 1.5;
    });
    const sized = new ResizeObserver(look);
    sized.observe(it);
    addEventListener('scroll', look, { passive: true });
    look();
    return () => { sized.disconnect(); removeEventListener('scroll', look); };
  }, []);
  useEffect(() => effect(() => { if (changes.value && !isFirst.peek()) void loadNews(); }), []);
  useEffect(() => { if (isFirst.value) void load({ anew: true }); }, []);
  useEffect(() => { if (hasMore.value && !isLoading.value && !isFirst.value && to.value > height - 2 * innerHeight) void load(); });

  const visible = all.filter((row) => row.top + row.height > from.value && row.top < to.value);
  const move = (/** @type {number} */ index) => {
    cursor.value = Math.max(0, Math.min(clips.value.length - 1, index));
    const row = all.find(({ cells }) => cells.some((cell) => cell.index === cursor.value));
    const it = place.current;
    if (!row || !it) return;
    const top = it.getBoundingClientRect().top + row.top;
    if (top < 80 || top + row.height > innerHeight - 80) scrollBy(0, top - innerHeight / 3);
    requestAnimationFrame(() => requestAnimationFrame(() =>
      /** @type {HTMLElement | null} */ (it.querySelector(`[data-index="${cursor.value}"]`))?.focus({ preventScroll: true })));
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const at = all.findIndex(({ cells }) => cells.some((cell) => cell.index === cursor.value));
    const cell = all[at]?.cells.find((it) => it.index === cursor.value);
    const video = cell && videos.value.get(cell.id);
    if (!cell || !video || event.ctrlKey || event.metaKey || event.altKey) return;
    const beside = (/** @type {number} */ row) => {
      const middle = cell.left + cell.width / 2;
      const near = (/** @type {Cell} */ it) => Math.abs(it.left + it.width / 2 - middle);
      return all[row]?.cells.reduce((best, it) => (near(it) < near(best) ? it : best)).index ?? cursor.value;
    };
    const acts = /** @type {Record<string, () => void>} */ ({
      ArrowRight: () => move(cursor.value + 1), ArrowLeft: () => move(cursor.value - 1),
      ArrowDown: () => move(beside(at + 1)), ArrowUp: () => move(beside(at - 1)),
      Home: () => move(0), End: () => move(clips.value.length - 1), s: () => star(video), x: () => pick(video.id),
    });
    const act = acts[event.key];
    if (act) { event.preventDefault(); act(); }
  };
  const { text, model, starred, group } = filters.value;
  const isFiltered = text || model || starred || group;
  return html`
    <main class="gallery" id="main" tabindex="-1">
      <h1 class="hidden">Gallery</h1>
      <${Filters} />
      <div ref=${place} class="clips" role="list" aria-label="Videos" aria-busy=${isLoading.value} style=${{ height: `${height}px` }} onKeyDown=${onKey}
        onFocusIn=${(/** @type {any} */ event) => { const index = event.target.dataset?.index; if (index) cursor.value = Number(index); }}>
        ${visible.flatMap((row) => row.cells.map((cell) => html`<${Clip} key=${cell.id} cell=${cell} row=${row} isCurrent=${cell.index === cursor.value} />`))}
      </div>
      ${isLoading.value && html`<div class="loading-row" aria-hidden="true">${[5, 3, 5, 4].map((grow, index) => html`<span key=${index} class=${`skeleton grow-${grow}`}></span>`)}</div>`}
      ${!isLoading.value && !isFirst.value && !clips.value.length && (isFiltered
        ? html`<${Empty} icon="search" title="Nothing matches"><button type="button" class="button" onClick=${() => filter(ALL)}>Clear the filters</button></${Empty}>`
        : html`<${Empty} icon="gallery" title=${filters.value.status === 'failed' ? 'Nothing has failed' : 'No videos yet'}><a class="button" href=${address('create')}>Make one</a></${Empty}>`)}
      <${Picked} onJoin=${join} />
    </main>`;
}
