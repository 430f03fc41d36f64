// Plays one clip: every frame can be looked at, and both ends of it, where faults show first.
import { contentPath, useShown } from './api.js';
import { pixels } from './format.js';
import { html, useEffect, useRef, useSignal } from './lib.js';
import { modelsById } from './state.js';
import { IconButton, Segments } from './ui.js';

/** @type {Record<Part, [number, number]>} */
const PARTS = { all: [0, 1], first: [0, 0.2], last: [0.8, 1] };

/** @param {HTMLVideoElement} media @param {() => void} seen Call for every frame that is shown; returns how to stop. */
export function watch(media, seen) {
  let isWanted = true;
  const again = () => {
    if (!isWanted) return;
    seen();
    if (media.requestVideoFrameCallback) media.requestVideoFrameCallback(again);
    else requestAnimationFrame(again);
  };
  media.requestVideoFrameCallback ? media.requestVideoFrameCallback(again) : requestAnimationFrame(again);
  media.addEventListener('seeked', seen);
  return () => { isWanted = false; media.removeEventListener('seeked', seen); };
}

/** @param {{video: Video, full?: boolean, control?: {current: Controls | null}}} props */
export function Player({ video, full = false, control }) {
  const media = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const address = useShown(contentPath(video.id));
  const poster = useShown(contentPath(video.id, 'thumbnail'));
  const frame = useSignal(0), isPlaying = useSignal(false), loops = useSignal(true), isMuted = useSignal(true);
  const part = useSignal(/** @type {Part} */ ('all')), isActual = useSignal(false), isBroken = useSignal(false);
  const [width, height] = pixels(video.size);
  const last = video.num_frames - 1;

  const seek = (/** @type {number} */ to) => {
    const it = media.current;
    if (!it) return;
    frame.value = Math.max(0, Math.min(last, to));
    // The middle of the frame: a player may round either way at its borders.
    it.currentTime = (frame.value + 0.5) / video.fps;
  };
  const play = () => { media.current?.play().catch(() => { isPlaying.value = false; }); };
  /** @type {Controls} */
  const controls = {
    frame: () => frame.value,
    toggle: () => {
      if (isPlaying.value) { media.current?.pause(); return; }
      if (media.current?.ended) seek(Math.ceil(PARTS[part.value][0] * last));
      play();
    },
    step: (frames) => { media.current?.pause(); seek(frame.value + frames); },
    loop: () => { loops.value = !loops.value; },
    part: (it) => { part.value = it; seek(Math.ceil(PARTS[it][0] * last)); play(); },
    zoom: () => { isActual.value = !isActual.value; },
  };
  if (control) control.current = controls;

  useEffect(() => {
    const it = media.current;
    if (!it) return undefined;
    return watch(it, () => {
      if (!it.seeking) frame.value = Math.min(last, Math.floor(it.currentTime * video.fps + 0.001));
      const [from, to] = PARTS[part.value];
      if (part.value === 'all' || it.paused || frame.value < Math.floor(to * last)) return;
      if (loops.value) seek(Math.ceil(from * last));
      else it.pause();
    });
  }, [video.id, address]);
  useEffect(() => { part.value = 'all'; isBroken.value = false; frame.value = 0; }, [video.id]);

  // Fitted into the room that there is, without a jump when the file arrives; or a pixel of it for one of the screen.
  const shape = isActual.value
    ? { width: `${width / devicePixelRatio}px`, aspectRatio: `${width} / ${height}`, maxWidth: 'none' }
    : { aspectRatio: `${width} / ${height}`, maxWidth: `calc(var(--room) * ${width / height})`, width: '100%' };
  return html`
    <div class=${`player ${full ? 'full' : ''}`}>
      <div class=${`screen ${isActual.value ? 'actual' : ''}`}>
        <video ref=${media} key=${video.id} src=${address} poster=${poster} style=${shape}
          autoplay muted=${isMuted.value} loop=${loops.value && part.value === 'all'} playsinline preload="auto"
          aria-label=${video.prompt ?? 'Video'} onClick=${controls.toggle} onError=${() => { isBroken.value = Boolean(address); }}
          onPlay=${() => { isPlaying.value = true; }} onPause=${() => { isPlaying.value = false; }}></video>
        ${isBroken.value && html`<p class="broken" role="alert">This clip cannot be shown: its file is gone, or this browser plays no H.264.</p>`}
      </div>
      <div class="transport">
        <${IconButton} icon=${isPlaying.value ? 'pause' : 'play'} label=${isPlaying.value ? 'Pause' : 'Play'} onClick=${controls.toggle} />
        <${IconButton} icon="back" label="One frame back" onClick=${() => controls.step(-1)} />
        <${IconButton} icon="forward" label="One frame on" onClick=${() => controls.step(1)} />
        <input type="range" class="scrub" aria-label="Frame" min="0" max=${last} value=${frame.value}
          aria-valuetext=${`Frame ${frame.value + 1} of ${video.num_frames}`}
          onInput=${(/** @type {any} */ event) => { media.current?.pause(); seek(Number(event.target.value)); }} />
        <output class="frame" aria-hidden="true">${frame.value + 1}<span> / ${video.num_frames}</span></output>
        <${IconButton} icon="loop" label="Loop" pressed=${loops.value} onClick=${controls.loop} />
        ${full && html`
          <${Segments} label="Part" value=${part.value} onChange=${controls.part} options=${[
            { value: 'all', label: 'All' }, { value: 'first', label: 'First 20 %' }, { value: 'last', label: 'Last 20 %' }]} />
          <button type="button" class="button quiet" aria-pressed=${isActual.value} onClick=${controls.zoom}>100 %</button>`}
        ${modelsById.value.get(video.model)?.capabilities.includes('audio') && html`
          <button type="button" class="button quiet" aria-pressed=${!isMuted.value} onClick=${() => { isMuted.value = !isMuted.value; }}>Sound</button>`}
        <${IconButton} icon="full" label="Full screen" onClick=${() => media.current?.requestFullscreen?.()} />
      </div>
    </div>`;
}
