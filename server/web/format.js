// How numbers and times read.

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '';
  if (seconds < 1) return 'under 1 s';
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number | null | undefined} mb */
export function memory(mb) {
  if (mb === null || mb === undefined) return '';
  return mb < 1000 ? `${Math.round(mb)} MB` : `${(mb / 1000).toFixed(1)} GB`;
}

/** @param {number} mb As memory is sold: a card of 24 GB has 24 GiB. */
export function gib(mb) {
  const size = (mb * 1e6) / 2 ** 30;
  return size < 0.95 ? `${Math.round(size * 1024)} MiB` : `${size.toFixed(1)} GiB`;
}

/** @param {number} unix */
export function ago(unix) {
  const seconds = Date.now() / 1000 - unix;
  if (seconds < 60) return 'just now';
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(unix * 1000).toLocaleDateString(undefined, { day: 'numeric', month: 'short' });
}

/** @param {string} size `1280x720` */
export const times = (size) => size.replace('x', '×');

/** @param {string} size @returns {[number, number]} Width and height. */
export const pixels = (size) => /** @type {[number, number]} */ (size.split('x').map(Number));

const RATIOS = [[16, 9], [9, 16], [1, 1], [4, 3], [3, 4], [5, 3], [3, 5], [3, 2], [2, 3], [7, 4], [4, 7], [21, 9]];

/** @param {string} size The nearest ratio that people have a name for. */
export function ratio(size) {
  const [width, height] = pixels(size);
  const off = (/** @type {number[]} */ [a = 1, b = 1]) => Math.abs(Math.log((width * b) / (height * a)));
  return RATIOS.reduce((best, one) => (off(one) < off(best) ? one : best)).join(':');
}

/** @param {number} count @param {string} one */
export const counted = (count, one) => `${count.toLocaleString()} ${one}${count === 1 ? '' : 's'}`;

const STAGES = /** @type {Record<string, string>} */ ({
  load: 'Loading the model', encode: 'Reading the prompt', denoise: 'Imagining', decode: 'Developing', mux: 'Writing the file',
});

/** @param {Video} video What is being done to it, in words. */
export function stageName(video) {
  if (video.status !== 'in_progress') return '';
  const name = STAGES[video.stage ?? ''] ?? 'Starting';
  return video.stage === 'denoise' && video.total_steps ? `${name} · step ${video.step} of ${video.total_steps}` : name;
}
