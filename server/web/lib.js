// What every part of the page is made of: components, templates that need no compiler, and values that tell who reads
// them when they change.
import { h } from './vendor/preact.js';
import htm from './vendor/htm.js';

export { Fragment, render } from './vendor/preact.js';
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from './vendor/hooks.js';
export { batch, computed, effect, signal, untracked, useComputed, useSignal } from './vendor/signals.js';
/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = htm.bind(h);

/** @param {(value: string, event: any) => void} then @returns {(event: any) => void} For what is typed or chosen. */
export const typed = (then) => (event) => then(event.target.value, event);

/**
 * Remember a value across visits.
 * @template T
 * @param {string} name
 * @param {T} otherwise What it is on the first visit, or where nothing may be stored.
 * @returns {T}
 */
export function recall(name, otherwise) {
  try {
    const kept = localStorage.getItem(`homereel.${name}`);
    return kept === null ? otherwise : JSON.parse(kept);
  } catch {
    return otherwise;
  }
}

/** @param {string} name @param {unknown} value */
export function keep(name, value) {
  try {
    if (value === undefined || value === null || value === '') localStorage.removeItem(`homereel.${name}`);
    else localStorage.setItem(`homereel.${name}`, JSON.stringify(value));
  } catch {
    // A browser that stores nothing still shows the page.
  }
}
