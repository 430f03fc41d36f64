// Line icons on a grid of 24, drawn for this page.
import { html } from './lib.js';

const PATHS = /** @type {Record<string, string>} */ ({
  create: 'M12 5v14M5 12h14',
  gallery: 'M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z',
  compare: 'M4 5h16v14H4zM12 3v18',
  library: 'M5 4h5v16H5zM10 4h4v16h-4zM15 5l4-1 3 15-4 1z',
  system: 'M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4M4 12h16',
  play: 'M8 5v14l11-7z', pause: 'M8 5v14M16 5v14', back: 'M18 6l-8 6 8 6zM7 6v12', forward: 'M6 6l8 6-8 6zM17 6v12',
  loop: 'M17 3l3 3-3 3M20 6H8a4 4 0 0 0-4 4v1M7 21l-3-3 3-3M4 18h12a4 4 0 0 0 4-4v-1',
  dice: 'M4 4h16v16H4zM8.5 8.5h.1M15.5 15.5h.1M15.5 8.5h.1M8.5 15.5h.1M12 12h.1', lock: 'M7 11V8a5 5 0 0 1 10 0v3M5 11h14v9H5z',
  unlock: 'M7 11V8a5 5 0 0 1 9.6-2M5 11h14v9H5z', star: 'M12 3.5l2.6 5.4 5.9.8-4.3 4.1 1.1 5.9-5.3-2.9-5.3 2.9 1.1-5.9L3.5 9.7l5.9-.8z',
  trash: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13', download: 'M12 4v11M7 11l5 5 5-5M5 20h14', copy: 'M8 8h11v12H8zM5 16V4h11',
  close: 'M6 6l12 12M18 6L6 18', up: 'M6 14l6-6 6 6', down: 'M6 10l6 6 6-6', left: 'M14 6l-6 6 6 6', right: 'M10 6l6 6-6 6',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M5 19l1.5-1.5M17.5 6.5L19 5',
  moon: 'M20 14.5A8 8 0 1 1 9.5 4a6.5 6.5 0 0 0 10.5 10.5z', search: 'M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20',
  image: 'M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01', remix: 'M4 12a8 8 0 0 1 14-5.3M20 4v4h-4M20 12a8 8 0 0 1-14 5.3M4 20v-4h4',
  extend: 'M4 6h9v12H4zM13 12h8M18 9l3 3-3 3', reuse: 'M9 14l-5-5 5-5M4 9h10a6 6 0 0 1 0 12h-3', check: 'M5 13l4 4L19 7',
  join: 'M3 7h7v10H3zM14 7h7v10h-7zM10 12h4', full: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5', bell: 'M6 16V11a6 6 0 0 1 12 0v5l2 2H4zM10 21h4',
  wand: 'M5 19L16 8M14 4v3M19 5l-2 2M20 10h-3M10 5l1.5 1.5', info: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 11v5M12 8h.01',
});

/** @param {{name: string, size?: number}} props */
export const Icon = ({ name, size = 18 }) => html`
  <svg class=${`icon icon-${name}`} viewBox="0 0 24 24" width=${size} height=${size} aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} />
  </svg>`;
