// Helps to write a prompt: slots that make up its text, words of the trade to pick from, and a hint if something is
// missing that good prompts have.
import { draft, edit, can, isGuided } from './draft.js';
import { html, keep, recall, signal, typed } from './lib.js';
import { Segments } from './ui.js';

/** @type {Record<'four' | 'five', {label: string, slots: Slot[]}>} */
const SCHEMES = {
  four: { label: '4 slots', slots: [
    { id: 'subject', label: 'Subject', ask: 'An old fisherman mends a net' },
    { id: 'place', label: 'Environment', ask: 'on a foggy pier at dawn' },
    { id: 'camera', label: 'Camera', ask: 'slow dolly-in at eye level, 50 mm' },
    { id: 'mood', label: 'Mood', ask: 'quiet, melancholic, muted blues' }] },
  five: { label: '5 layers', slots: [
    { id: 'subject', label: 'Subject', ask: 'A dancer in a red coat' },
    { id: 'place', label: 'Setting', ask: 'on a wet rooftop above a city' },
    { id: 'camera', label: 'Camera', ask: 'low-angle tracking shot, 35 mm' },
    { id: 'light', label: 'Lighting', ask: 'neon rim light from the left' },
    { id: 'motion', label: 'Motion', ask: 'slow turns, coat flowing' }] },
};
/** Words by the slot that they belong to. */
const WORDS = {
  Camera: ['static shot', 'slow dolly-in', 'tracking shot', 'crane up', 'aerial descent', 'handheld', 'orbit', 'pan left', 'low angle', 'close-up'],
  Lens: ['24 mm wide', '35 mm', '50 mm', '85 mm portrait', 'macro', 'shallow depth of field', 'deep focus', 'anamorphic'],
  Light: ['golden hour', 'overcast', 'hard side light', 'soft window light', 'neon', 'backlit silhouette', 'candlelight', 'moonlight'],
};
const SLOT_OF = /** @type {Record<string, string>} */ ({ Camera: 'camera', Lens: 'camera', Light: 'light' });

/** @type {{scheme: 'four' | 'five', slots: Record<string, string>}} */
const FIRST = { scheme: 'five', slots: {} };
export const guide = signal(recall('guide', FIRST));
export const isGuiding = signal(recall('guiding', false));

/** @param {Partial<typeof FIRST>} news */
function change(news) {
  guide.value = { ...guide.value, ...news };
  keep('guide', guide.value);
  edit({ prompt: composed() });
}

/** What the slots say, as a sentence each, in the order of the scheme. */
function composed() {
  const { scheme, slots } = guide.value;
  const parts = SCHEMES[scheme].slots.map(({ id }) => (slots[id] ?? '').trim().replace(/[.,;]+$/, '')).filter(Boolean);
  const [subject, place, ...others] = parts;
  const first = [subject, place].filter(Boolean).join(' ');
  return [first, ...others].filter(Boolean).map((part) => part.charAt(0).toUpperCase() + part.slice(1) + '.').join(' ');
}

/** @param {string} text @param {string} word */
const added = (text, word) => (text.trim() ? `${text.trim().replace(/[.,;]+$/, '')}, ${word}` : word);

/** @param {string} kind @param {string} word */
function add(kind, word) {
  const slot = SLOT_OF[kind] ?? '';
  if (isGuiding.value) {
    const there = SCHEMES[guide.value.scheme].slots.some(({ id }) => id === slot) ? slot : 'camera';
    change({ slots: { ...guide.value.slots, [there]: added(guide.value.slots[there] ?? '', word) } });
  } else edit({ prompt: added(draft.value.prompt, word) });
}

const toggle = () => {
  isGuiding.value = !isGuiding.value;
  keep('guiding', isGuiding.value);
};

export const GuideSwitch = () => html`
  <button type="button" class="link" aria-expanded=${isGuiding.value} onClick=${toggle}>
    ${isGuiding.value ? 'Write freely' : 'Guide me'}</button>`;

export function Slots() {
  if (!isGuiding.value) return null;
  const { scheme, slots } = guide.value;
  return html`
    <div class="slots">
      <${Segments} label="Scheme" value=${scheme} onChange=${(/** @type {'four' | 'five'} */ it) => change({ scheme: it })}
        options=${Object.entries(SCHEMES).map(([value, { label }]) => ({ value, label }))} />
      ${SCHEMES[scheme].slots.map(({ id, label, ask }) => html`
        <label class="slot" key=${id}><span>${label}</span>
          <input value=${slots[id] ?? ''} placeholder=${ask}
            onInput=${typed((it) => change({ slots: { ...slots, [id]: it } }))} /></label>`)}
    </div>`;
}

export const Words = () => html`
  <details class="words"><summary>Camera, lens and light</summary>
    ${Object.entries(WORDS).map(([kind, words]) => html`
      <div class="words-row" key=${kind}><span class="note">${kind}</span>
        <div class="chips">${words.map((word) => html`
          <button type="button" class="chip" key=${word} onClick=${() => add(kind, word)}>${word}</button>`)}</div></div>`)}
  </details>`;

/** @type {[RegExp, string][]} What a prompt should name, and what to say if it does not. */
const MISSING = [
  [/\b(shot|dolly|pan|pans|tilt|zoom|track|tracking|crane|orbit|handheld|aerial|drone|close-?up|camera|static|angle|pull-?back|steadicam|\d+ ?mm)\b/i,
    'No camera named: try “slow dolly-in” or “static shot”.'],
  [/\b(light|lit|sun|sunny|sunset|sunrise|dawn|dusk|noon|night|golden hour|neon|shadow|overcast|candle|moon|backlit|glow|bright|dark|fog|foggy|haze)\b/i,
    'No light named: try “golden hour” or “overcast”.'],
  [/\b\w+(s|ing)\b/i, 'Nothing moves yet: say what happens.'],
];

/** @param {string} prompt @returns {string[]} At most two hints; none before there is something to say about. */
export function hints(prompt) {
  const words = prompt.trim().split(/\s+/).filter(Boolean).length;
  if (words < 3) return [];
  const found = MISSING.filter(([there]) => !there.test(prompt)).map(([, hint]) => hint);
  if (/\b(no|without|not|never)\b/i.test(prompt) && can('negative_prompt') && isGuided.value) {
    found.unshift('What should not be seen works better below, as negative prompt.');
  }
  if (/["“][^"”]+["”]/.test(prompt)) found.push('Written words in a video rarely come out right.');
  return found.slice(0, 2);
}
