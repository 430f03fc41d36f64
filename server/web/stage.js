// What is being made and what has just been made: the picture first, the queue below it.
import { contentPath, useShown } from './api.js';
import { edit, reuse } from './draft.js';
import { duration, pixels, stageName, times } from './format.js';
import { Icon } from './icons.js';
import { html, signal, useEffect, useSignal } from './lib.js';
import { Player } from './player.js';
import { address, cancel, go, modelName, queue, recent, running, star, update, videos, waiting } from './state.js';
import { Empty, IconButton, Progress } from './ui.js';

/** The video that the stage shows, if one has been chosen. */
export const focus = signal(/** @type {string | null} */ (null));

const IDEAS = [
  'A red ball bounces on a green field. Static shot, overcast light.',
  'A blue cube slides from left to right over yellow sand. Tracking shot, golden hour.',
  'A white circle rises over a dark hill. Slow crane up, moonlight.',
];

/** @param {Video} video */
const leftOf = (video) => (video.eta_s === null ? '' : `${duration(video.eta_s)} left`);

/** @param {{video: Video, label?: string}} props The latest preview, exchanged only once the next one is there. */
export function Preview({ video, label = '' }) {
  const address = useShown(video.previews ? `/v1/videos/${video.id}/preview?n=${video.previews}` : null);
  const there = useSignal(/** @type {string | undefined} */ (undefined));
  useEffect(() => {
    if (!address) return;
    const next = new Image();
    next.onload = () => { there.value = address; };
    next.src = address;
  }, [address]);
  return there.value
    ? html`<img class="preview" src=${there.value} alt=${label} />`
    : html`<span class="preview skeleton" aria-hidden="true"></span>`;
}

/** @param {{video: Video}} props */
function Forming({ video }) {
  const [width, height] = pixels(video.size);
  const isWaiting = video.status === 'queued';
  const starts = queue.value?.waiting.find(({ id }) => id === video.id);
  const place = starts?.queue_position ?? video.queue_position;
  const words = isWaiting ? (place ? `${place === 1 ? 'Next' : `Number ${place}`} in line` : 'In line') : stageName(video);
  const left = isWaiting ? (starts?.starts_in_s ? `starts in ${duration(starts.starts_in_s)}` : '') : leftOf(video);
  return html`
    <div class="forming">
      <div class="screen"><div class="frame-box" style=${{ aspectRatio: `${width} / ${height}`, maxWidth: `calc(var(--room) * ${width / height})` }}>
        <${Preview} video=${video} label="Preview" key=${video.id} /></div></div>
      <${Progress} value=${video.progress} label="Progress" waiting=${isWaiting || video.stage === 'load'} />
      <div class="forming-foot">
        <span><strong>${isWaiting ? '' : `${video.progress} %`}</strong> ${words}</span><span class="note">${left}</span>
        <button type="button" class="button quiet" onClick=${() => cancel(video)}>Cancel</button>
      </div>
    </div>`;
}

/** @param {{video: Video}} props */
function Failed({ video }) {
  const isCancelled = video.error?.code === 'cancelled';
  return html`
    <${Empty} icon=${isCancelled ? 'close' : 'info'} title=${isCancelled ? 'Cancelled' : 'This one failed'}>
      <p>${isCancelled ? 'You stopped this video before it was done.' : video.error?.message}</p>
      <button type="button" class="button" onClick=${() => reuse(video, { seed: 'keep' })}>Use its settings again</button>
    </${Empty}>`;
}

/** @param {{video: Video}} props */
const Made = ({ video }) => html`
  <${Player} video=${video} />
  <div class="made-foot">
    <p class="clamp" title=${video.prompt}>${video.prompt}</p>
    <span class="note">${modelName(video.model)} · ${times(video.size)} · seed ${video.seed}${video.inference_time_s === null ? '' : ` · made in ${duration(video.inference_time_s)}`}</span>
    <div class="row">
      <${IconButton} icon="star" label="Star" pressed=${video.starred} onClick=${() => star(video)} />
      <button type="button" class="button quiet" onClick=${() => reuse(video, { seed: 'keep' })}><${Icon} name="reuse" />Reuse</button>
      <a class="button" href=${address('create', video.id)}><${Icon} name="full" />Open</a>
    </div>
  </div>`;

function Nothing() {
  return html`
    <${Empty} icon="create" title="Your first video starts with a sentence">
      <p>Write what you want to see, or begin with one of these:</p>
      <div class="ideas">${IDEAS.map((idea) => html`
        <button type="button" class="idea" key=${idea} onClick=${() => { edit({ prompt: idea }); document.getElementById('prompt')?.focus(); }}>${idea}</button>`)}</div>
    </${Empty}>`;
}

function shownVideo() {
  const chosen = focus.value ? videos.value.get(focus.value) : undefined;
  if (chosen) return chosen;
  const latest = (recent.value ?? []).map((id) => videos.value.get(id)).find((it) => it?.status === 'completed');
  return running.value[0] ?? waiting.value[0] ?? latest;
}

export function Stage() {
  const video = shownVideo();
  return html`
    <section class="stage" id="stage" aria-label="Stage">
      ${recent.value === null && !video ? html`<div class="screen skeleton tall"></div>`
        : !video ? html`<${Nothing} />`
        : video.status === 'completed' ? html`<${Made} video=${video} key=${video.id} />`
        : video.status === 'failed' ? html`<${Failed} video=${video} />`
        : html`<${Forming} video=${video} key=${video.id} />`}
    </section>`;
}

/** @param {{video: Video, place: number}} props */
function QueueRow({ video, place }) {
  const isRunning = video.status === 'in_progress';
  const seen = queue.value?.waiting.find(({ id }) => id === video.id);
  const when = isRunning ? leftOf(video) : seen?.starts_in_s ? `starts in ${duration(seen.starts_in_s)}` : '';
  return html`
    <li class=${`queue-row ${isRunning ? 'is-running' : ''}`} data-id=${video.id}>
      <button type="button" class="queue-pick" aria-label=${`Show: ${video.prompt}`} onClick=${() => { focus.value = video.id; }}>
        ${isRunning ? html`<${Preview} video=${video} />` : html`<span class="place">${place}</span>`}</button>
      <div class="queue-text"><span class="clamp">${video.prompt}</span>
        ${isRunning && html`<${Progress} value=${video.progress} label=${`Progress of ${video.prompt}`} waiting=${video.stage === 'load'} />`}
        <span class="note">${[isRunning ? stageName(video) : `${modelName(video.model)} · ${times(video.size)}`, when, video.priority ? `priority ${video.priority > 0 ? '+' : ''}${video.priority}` : ''].filter(Boolean).join(' · ')}</span></div>
      <div class="queue-acts">
        ${!isRunning && html`
          <${IconButton} icon="up" label="Sooner" disabled=${video.priority >= 10} onClick=${() => update(video, { priority: video.priority + 1 })} />
          <${IconButton} icon="down" label="Later" disabled=${video.priority <= -10} onClick=${() => update(video, { priority: video.priority - 1 })} />`}
        <${IconButton} icon="close" label=${`Cancel: ${video.prompt}`} onClick=${() => cancel(video)} />
      </div>
    </li>`;
}

export function Queue() {
  const line = [...running.value, ...waiting.value];
  const others = queue.value?.others;
  const ahead = others ? others.running + others.waiting : 0;
  if (!line.length && !queue.value?.paused && !ahead) return null;
  return html`
    <section class="queue" aria-label="Queue">
      <div class="section-head"><h2>Queue</h2><span class="note">${running.value.length} running, ${waiting.value.length} waiting${ahead ? `; ${ahead} of others` : ''}</span></div>
      ${queue.value?.paused && html`<p class="problem">${queue.value.paused}</p>`}
      <ol>${line.map((video) => html`<${QueueRow} key=${video.id} video=${video}
        place=${video.queue_position ?? 0} />`)}</ol>
    </section>`;
}

/** @param {{video: Video}} props */
function Still({ video }) {
  const poster = useShown(video.status === 'completed' ? contentPath(video.id, 'thumbnail') : null);
  const isNow = shownVideo()?.id === video.id;
  return html`
    <button type="button" class="still" aria-current=${isNow} title=${video.prompt} aria-label=${`Show: ${video.prompt}`}
      onClick=${() => { focus.value = video.id; }} onDblClick=${() => go('create', video.id)}>
      ${video.status === 'completed' ? html`<img src=${poster} alt="" loading="lazy" />`
        : video.status === 'in_progress' ? html`<${Preview} video=${video} />`
        : html`<span class="place"><${Icon} name=${video.status === 'failed' ? 'close' : 'loop'} /></span>`}
    </button>`;
}

/** The latest videos, one click away from the stage. */
export function Strip() {
  const latest = (recent.value ?? []).flatMap((id) => videos.value.get(id) ?? []).filter((it) => it.error?.code !== 'cancelled');
  if (latest.length < 2) return null;
  return html`
    <section class="strip" aria-label="Latest">
      <div class="section-head"><h2>Latest</h2><a class="link" href=${address('gallery')}>All in the gallery</a></div>
      <div class="stills">${latest.map((video) => html`<${Still} key=${video.id} video=${video} />`)}</div>
    </section>`;
}
