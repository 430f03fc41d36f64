// The page as a whole: its head, the view that the address names, and what lies over it.
import { ApiError, get, locked, online, useKey } from './api.js';
import { Compare } from './compare.js';
import { Compose, usePaste } from './compose.js';
import { Gallery } from './gallery.js';
import { Icon } from './icons.js';
import { Library } from './library.js';
import { html, render, useEffect, useLayoutEffect, useSignal, typed } from './lib.js';
import { Restore, useDrop } from './restore.js';
import { Queue, Stage, Strip } from './stage.js';
import { address, route, running, start, theme, waiting } from './state.js';
import { System } from './system.js';
import { Dialog, IconButton, modals, Toasts } from './ui.js';
import { Viewer } from './viewer.js';

/** @type {[View, string, string][]} */
const TABS = [['create', 'Create', 'create'], ['gallery', 'Gallery', 'gallery'], ['compare', 'Compare', 'compare'], ['library', 'Library', 'library'], ['system', 'Models', 'system']];

const Tabs = () => html`
  <nav class="tabs" aria-label="Views">${TABS.map(([view, label, icon]) => html`
    <a key=${view} href=${address(view)} aria-current=${route.value.view === view ? 'page' : undefined}><${Icon} name=${icon} /><span>${label}</span></a>`)}</nav>`;

/** How the queue is doing, wherever one is on the page. */
function Pill() {
  const now = running.value[0], left = waiting.value.length;
  if (!now && !left) return null;
  return html`<a class="pill" href=${address('create')}><span class="dot busy"></span>${now ? `${now.progress} %` : 'Waiting'}${left > 0 && html`<span class="note">+${left}</span>`}</a>`;
}

function Head() {
  const isDark = theme.value === 'dark' || (theme.value === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches);
  return html`
    <header class="head">
      <a class="brand" href=${address('create')}><svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true"><circle cx="12" cy="12" r="10" /><path d="M10 8v8l6-4z" /></svg>Homereel</a>
      <${Tabs} />
      <div class="head-end"><${Pill} />
        <${IconButton} icon=${isDark ? 'sun' : 'moon'} label=${isDark ? 'Light colours' : 'Dark colours'} onClick=${() => { theme.value = isDark ? 'light' : 'dark'; }} /></div>
    </header>
    ${!online.value && html`<p class="offline" role="status"><span class="dot"></span>The server does not answer. What you write is kept; the page goes on by itself when it is back.</p>`}`;
}

function KeyDialog() {
  const written = useSignal(''), refused = useSignal('');
  const open = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const secret = written.value.trim();
    try {
      await get('/v1/models', undefined, secret);
      useKey(secret);
      start();
    } catch (error) {
      refused.value = error instanceof ApiError ? error.message : String(error);
    }
  };
  return html`
    <${Dialog} title="Key" kind="small" onClose=${() => {}}>
      <form onSubmit=${open}>
        <h2>This server asks for a key</h2>
        <p>Make one where it runs with <code>homereel keys create</code>. It stays in this browser.</p>
        <label class="slot"><span>Key</span><input type="password" autocomplete="current-password" required placeholder="sk-homereel-…" value=${written.value}
          onInput=${typed((it) => { written.value = it; })} /></label>
        ${refused.value && html`<p class="problem" role="alert">${refused.value}</p>`}
        <div class="row end"><button class="button primary">Open</button></div>
      </form>
    </${Dialog}>`;
}

const Create = () => html`
  <main class="create" id="main" tabindex="-1"><h1 class="hidden">Create</h1>
    <${Compose} />
    <div class="create-main"><${Stage} /><${Queue} /><${Strip} /></div></main>`;

const VIEW_OF = { create: Create, gallery: Gallery, compare: Compare, library: Library, system: System };

function App() {
  usePaste();
  const isDropping = useDrop();
  useEffect(start, []);
  // "/" looks for something, wherever that is possible.
  useEffect(() => {
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== '/' || /** @type {HTMLElement} */ (event.target).closest('input, textarea, select, dialog')) return;
      const search = document.getElementById('search');
      if (search) { event.preventDefault(); search.focus(); }
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
  const View = VIEW_OF[route.value.view];
  // Another view begins at its top, as another page would.
  useLayoutEffect(() => scrollTo(0, 0), [route.value.view]);
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to the content</a>
    <${Head} /><${View} key=${route.value.view} /><${Viewer} />
    ${isDropping.value && html`<div class="dropping"><p>Drop an MP4 made here to get its prompt and settings back</p></div>`}
    <${Restore} />
    ${locked.value && html`<${KeyDialog} />`}${!modals.value && html`<${Toasts} />`}`;
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')));
