// One clip, large, with everything that is known of it and everything that can be made of it.
import { contentPath, shown } from './api.js';
import { reuse, usePreset } from './draft.js';
import { SETTINGS } from './difference.js';
import { ago, duration, memory } from './format.js';
import { clips, filter, picked } from './gallery.js';
import { Icon } from './icons.js';
import { Iterate } from './iterate.js';
import { keepPrompt } from './library.js';
import { html, useEffect, useRef, useSignal } from './lib.js';
import { Player } from './player.js';
import { command, curl, python, request } from './snippets.js';
import { focus } from './stage.js';
import { address, attempt, erase, go, look, modelsById, recent, route, say, star, videos } from './state.js';
import { copy, Dialog, Empty, IconButton, Long, Menu, save } from './ui.js';

/** @param {Video} video */
const saveVideo = (video) => attempt(async () => save(await shown(contentPath(video.id)), `${video.id}.mp4`));

/** @param {Video} video The last frame, as it is in the file: what an extension or another tool can start from. */
async function saveLastFrame(video) {
  await attempt(async () => {
    const media = document.createElement('video');
    media.muted = true;
    media.src = await shown(contentPath(video.id));
    await new Promise((done, failed) => {
      media.onloadedmetadata = () => { media.currentTime = (video.num_frames - 0.5) / video.fps; };
      media.onseeked = done;
      media.onerror = failed;
    }).catch(() => say('This browser cannot read the clip.', { kind: 'error' }));
    const canvas = document.createElement('canvas');
    canvas.width = media.videoWidth;
    canvas.height = media.videoHeight;
    canvas.getContext('2d')?.drawImage(media, 0, 0);
    canvas.toBlob((blob) => { if (blob) save(URL.createObjectURL(blob), `${video.id}-last.png`); });
  });
}

/** @param {Video} video */
function saveJson(video) {
  const text = JSON.stringify({ ...request(video), homereel: video }, null, 2);
  save(URL.createObjectURL(new Blob([text], { type: 'application/json' })), `${video.id}.json`);
}

/** @param {{video: Video}} props */
const Menus = ({ video }) => html`
  <${Menu} label="Download" icon="download">
    <button type="button" onClick=${() => saveVideo(video)}>Video <small>MP4, H.264</small></button>
    <button type="button" onClick=${() => saveLastFrame(video)}>Last frame <small>PNG</small></button>
    <button type="button" onClick=${() => saveJson(video)}>Settings <small>JSON</small></button>
  </${Menu}>
  <${Menu} label="Copy as" icon="copy">
    <button type="button" onClick=${() => copy(curl(video), 'curl command')}>curl</button>
    <button type="button" onClick=${() => copy(python(video), 'Python program')}>Python <small>openai</small></button>
    <button type="button" onClick=${() => copy(command(video), 'Command')}>Command line <small>homereel</small></button>
  </${Menu}>`;

/** @param {{video: Video}} props */
function About({ video }) {
  /** @type {[string, unknown][]} */
  const facts = [
    ...SETTINGS.filter(([name]) => name !== 'Prompt').map(([name, of]) => /** @type {[string, unknown]} */ ([name, of(video)])),
    ['Time taken', duration(video.inference_time_s)], ['Peak memory', memory(video.peak_memory_mb)], ['Created', ago(video.created_at)]];
  const from = video.remixed_from_video_id;
  return html`
    <section class="about" aria-label="About this video">
      <${Long} kind="about-prompt" text=${video.prompt ?? ''} />
      <div class="row"><button type="button" class="link" onClick=${() => copy(video.prompt ?? '', 'Prompt')}>Copy the prompt</button>
        <button type="button" class="link" onClick=${() => keepPrompt(video.prompt ?? '', video.negative_prompt)}>Keep it</button></div>
      <dl>${facts.filter(([, value]) => value).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
        ${from && html`<div><dt>From</dt><dd><a href=${address(route.value.view, from)}>an earlier video</a></dd></div>`}
        ${video.group && html`<div><dt>Group</dt><dd><button type="button" class="link" onClick=${() => { filter({ group: video.group ?? '' }); go('gallery'); }}>its variations</button></dd></div>`}
      </dl>
      ${video.warnings.map((one) => html`<p class="warning" key=${one}><${Icon} name="info" size=${15} />${one}</p>`)}
    </section>`;
}

/** @param {{video: Video, onClose: () => void}} props */
function Acts({ video, onClose }) {
  const isAsked = useSignal(false);
  const gone = () => { onClose(); void erase(video); };
  const again = (/** @type {'keep' | 'new'} */ seed) => { reuse(video, { seed }); go('create'); };
  const isDraft = video.num_inference_steps < (modelsById.value.get(video.model)?.num_inference_steps ?? 0);
  const compare = () => {
    if (!picked.value.includes(video.id)) picked.value = [...picked.value, video.id];
    if (picked.value.length > 1) go('compare', ...picked.value.slice(-4));
    else { say('Now pick the clip to compare it with.'); go('gallery'); }
  };
  return html`
    <div class="acts">
      <${Menu} label="Reuse settings" icon="reuse">
        <button type="button" onClick=${() => again('keep')}>Same seed <small>change one thing and compare</small></button>
        ${isDraft && html`<button type="button" onClick=${() => { again('keep'); usePreset('final'); }}>Final quality <small>same seed, all steps</small></button>`}
        <button type="button" onClick=${() => again('new')}>New seed <small>another take</small></button>
      </${Menu}>
      ${video.status === 'completed' && html`
        <button type="button" class="button quiet" onClick=${compare}><${Icon} name="compare" />Compare</button>
        <${Menus} video=${video} />`}
      <${IconButton} icon="star" label="Star" pressed=${video.starred} onClick=${() => star(video)} />
      <${IconButton} icon="trash" label="Delete" onClick=${() => { isAsked.value = true; }} />
      ${isAsked.value && html`<div class="asked" role="alertdialog" aria-label="Delete this video?"><span>Delete this video and its files?</span>
        <button type="button" class="button quiet" onClick=${() => { isAsked.value = false; }}>Keep</button>
        <button type="button" class="button danger" onClick=${gone}>Delete</button></div>`}
    </div>`;
}

/** The video that the address names, over whichever view is open. */
export function Viewer() {
  const { view, ids } = route.value;
  const id = view === 'compare' ? undefined : ids[0];
  return id ? html`<${Open} id=${id} key="viewer" />` : null;
}

/** @param {{id: string}} props */
function Open({ id }) {
  const { view } = route.value;
  const video = videos.value.get(id);
  const isMissing = useSignal(false);
  const control = useRef(/** @type {Controls | null} */ (null));
  const order = view === 'gallery' ? clips.value : (recent.value ?? []).filter((it) => videos.value.get(it)?.status === 'completed');
  const at = order.indexOf(id);
  const close = () => go(view);
  const turn = (/** @type {number} */ by) => { const next = order[at + by]; if (at >= 0 && next) go(view, next); };
  useEffect(() => {
    isMissing.value = false;
    if (!videos.peek().has(id)) void look(id).then((found) => { isMissing.value = !found; });
  }, [id]);
  useEffect(() => {
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      const target = /** @type {HTMLElement} */ (event.target);
      if (target.closest('input:not([type=range]), textarea, select') || event.ctrlKey || event.metaKey || event.altKey) return;
      const isOnButton = target.closest('button, a, summary');
      const now = videos.peek().get(id);
      const acts = /** @type {Record<string, () => void>} */ ({
        ' ': () => control.current?.toggle(), ',': () => control.current?.step(-1), '.': () => control.current?.step(1),
        l: () => control.current?.loop(), z: () => control.current?.zoom(), 1: () => control.current?.part('first'),
        2: () => control.current?.part('last'), 0: () => control.current?.part('all'), j: () => turn(1), k: () => turn(-1),
        s: () => now && void star(now),
      });
      const act = acts[event.key];
      if (!act || (event.key === ' ' && isOnButton)) return;
      event.preventDefault();
      act();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  });
  return html`
    <${Dialog} title="Video" kind="viewer" onClose=${close}>
      <header class="viewer-head">
        <${IconButton} icon="left" label="Newer (K)" disabled=${at <= 0} onClick=${() => turn(-1)} />
        <${IconButton} icon="right" label="Older (J)" disabled=${at < 0 || at >= order.length - 1} onClick=${() => turn(1)} />
        ${video && html`<${Acts} video=${video} onClose=${close} />`}
        <${IconButton} icon="close" label="Close" onClick=${close} />
      </header>
      ${!video ? (isMissing.value ? html`<${Empty} icon="search" title="There is no such video"><p>It may have been deleted.</p></${Empty}>` : html`<div class="screen skeleton tall"></div>`)
        : video.status === 'completed' ? html`
          <div class="viewer-body">
            <${Player} video=${video} full control=${control} />
            <aside><${About} video=${video} /><${Iterate} video=${video} control=${control} key=${video.id} onMade=${(/** @type {Video} */ made) => { focus.value = made.id; go('create'); }} /></aside>
          </div>`
        : html`<${Empty} icon="info" title=${video.status === 'failed' ? 'This video failed' : 'This video is being made'}>
            <p>${video.error?.message ?? video.prompt}</p>
            <button type="button" class="button" onClick=${() => { focus.value = video.id; go('create'); }}>Show it in the studio</button></${Empty}>`}
    </${Dialog}>`;
}
