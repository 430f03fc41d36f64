// Prompts that are worth having again: templates to fill in, the ones that were starred, and all that was ever asked.
import { ApiError, contentPath, get, post, remove, useShown } from './api.js';
import { TextDiff } from './difference.js';
import { edit } from './draft.js';
import { ago, counted } from './format.js';
import { Icon } from './icons.js';
import { html, recall, keep, signal, typed, useEffect, useRef, useSignal } from './lib.js';
import { address, attempt, go, learn, say } from './state.js';
import { Empty, Field, IconButton, Long, Segments } from './ui.js';

const part = signal(/** @type {'templates' | 'starred' | 'log'} */ (recall('library', 'templates')));
const templates = signal(/** @type {Template[] | null} */ (null));
/** One template or two that follow each other, and what has been written into their slots. */
const beats = signal(/** @type {{template: string, slots: Record<string, string>}[]} */ ([]));
/** The template that is being changed, or the one that a new one begins as. */
const written = signal(/** @type {Template | null} */ (null));
/** @type {Template} */
const UNWRITTEN = { id: '', name: '', description: '', text: '', slots: [], shipped: true, revision: null };

/** @param {string} template */
function choose(template) {
  written.value = null;
  beats.value = [{ template, slots: {} }];
}

/** @param {string} prompt @param {string} [negative] */
function use(prompt, negative = '') {
  edit({ prompt, ...(negative && { negative }), from: null });
  go('create');
}

/** @param {string} prompt @param {string} [negative] */
export const keepPrompt = (prompt, negative = '') => attempt(async () => {
  await post('/v1/prompts/starred', { prompt, negative_prompt: negative });
  say('Kept in the library.', { act: { label: 'Show', run: () => { part.value = 'starred'; go('library'); } } });
});

/** @param {{beat: {template: string, slots: Record<string, string>}, index: number}} props */
function Beat({ beat, index }) {
  const template = templates.value?.find(({ id }) => id === beat.template);
  if (!template) return null;
  const set = (/** @type {string} */ name, /** @type {string} */ value) => {
    beats.value = beats.value.map((it, at) => (at === index ? { ...it, slots: { ...it.slots, [name]: value } } : it));
  };
  return html`
    <fieldset class="beat"><legend>${beats.value.length > 1 ? `${index + 1}. ` : ''}${template.name}</legend>
      ${template.slots.map(({ name, label, required, suggestions }) => html`
        <div class="field" key=${name}><label class="field-head" for=${`slot-${index}-${name}`}><span>${label}</span><span class="note">${required ? '' : 'if you like'}</span></label>
          <input id=${`slot-${index}-${name}`} value=${beat.slots[name] ?? ''} onInput=${typed((it) => set(name, it))} />
          <div class="chips">${suggestions.map((one) => html`
            <button type="button" class="chip" key=${one} aria-pressed=${beat.slots[name] === one} onClick=${() => set(name, beat.slots[name] === one ? '' : one)}>${one}</button>`)}</div></div>`)}
    </fieldset>`;
}

/** @param {unknown} work On a phone, what is worked on stands below all templates: go there when it is another. */
function useReached(work) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => { if (matchMedia('(max-width: 900px)').matches) place.current?.scrollIntoView({ block: 'nearest' }); }, [work]);
  return place;
}

function Composer() {
  const prompt = useSignal(''), missing = useSignal('');
  const now = beats.value;
  const first = templates.value?.find(({ id }) => id === now[0]?.template);
  const place = useReached(first);
  useEffect(() => {
    if (!now.length) return undefined;
    const asking = new AbortController();
    const filled = now.map(({ template, slots }) => ({ template, slots: Object.fromEntries(Object.entries(slots).filter(([, value]) => value.trim())) }));
    const lacks = now.flatMap(({ template }, index) => templates.value?.find(({ id }) => id === template)?.slots
      .filter(({ name, required }) => required && !filled[index]?.slots[name]).map(({ label }) => label) ?? []);
    missing.value = lacks.length ? `Still to fill in: ${lacks.join(', ')}.` : '';
    prompt.value = '';
    const soon = lacks.length ? 0 : setTimeout(() => attempt(async () => {
      prompt.value = (await post('/v1/prompts/compose', { beats: filled }, asking.signal)).prompt;
    }), 150);
    return () => { clearTimeout(soon); asking.abort(); };
  }, [now]);
  if (!now.length) return html`<div class="composer"><${Empty} icon="library" title="Choose a pattern"><p>Each is a shot that works. Fill in what yours is about, and take the sentence along.</p></${Empty}></div>`;
  return html`
    <section class="composer" aria-label="Fill in" ref=${place}>
      ${now.map((beat, index) => html`<${Beat} key=${`${index}${beat.template}`} beat=${beat} index=${index} />`)}
      ${now.length < 2 && html`<label class="slot"><span>And then</span><select value="" onChange=${typed((it) => { beats.value = [...beats.value, { template: it, slots: {} }]; })}>
        <option value="">nothing more</option>${templates.value?.map(({ id, name }) => html`<option key=${id} value=${id}>${name}</option>`)}</select></label>`}
      <p class="composed" aria-live="polite">${prompt.value || html`<span class="note">${missing.value}</span>`}</p>
      <div class="row"><button type="button" class="button primary" disabled=${!prompt.value} onClick=${() => use(prompt.value)}>Use this prompt</button>
        <button type="button" class="button" disabled=${!prompt.value} onClick=${() => keepPrompt(prompt.value)}><${Icon} name="star" />Keep</button>
        <button type="button" class="button quiet" onClick=${() => { beats.value = []; }}>Clear</button>
        ${first && html`<button type="button" class="button quiet" onClick=${() => { written.value = first; }}>${first.shipped ? 'Change a copy' : 'Edit'}</button>`}</div>
    </section>`;
}

const loadTemplates = () => attempt(async () => { templates.value = (await get('/v1/prompts/templates')).data; });

/** @param {string} text @param {Template['slots']} known Those that keep their labels and suggestions. */
function slotsOf(text, known) {
  const outside = text.replace(/\[[^\]]*\]/g, '');
  return [...new Set(text.match(/(?<=\{)\w+(?=\})/g))].map((name) => ({
    label: name.replaceAll('_', ' '), ...known.find((it) => it.name === name), name, required: outside.includes(`{${name}}`),
  }));
}

/**
 * Writes a template of one's own: a sentence in which {words_like_this} are filled in, and what is in [brackets] can
 * stay out. What ships stays as it is: a change of it is a copy.
 * @param {{template: Template}} props
 */
function Editor({ template }) {
  const name = useSignal(template.name), text = useSignal(template.text), place = useReached(template);
  const theirs = useSignal(/** @type {Template | null} */ (null));
  const path = `/v1/prompts/templates${template.shipped ? '' : `/${template.id}`}`;
  /** @param {number | null} seen Changed only if it is the one that was seen; null for whatever it has become. */
  const save = (seen) => attempt(async () => {
    const body = { name: name.value, text: text.value, slots: slotsOf(text.value, template.slots), ...(seen && { revision: seen }) };
    try {
      const { id } = await post(path, body);
      await loadTemplates();
      choose(id);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'template_changed') throw error;
      theirs.value = await get(path);
    }
  });
  return html`
    <section class="composer" aria-label="Template" ref=${place}>
      <${Field} label="Name" for="template-name"><input id="template-name" value=${name.value} onInput=${typed((it) => { name.value = it; })} /></${Field}>
      <${Field} label="Sentence" for="template-text">
        <textarea id="template-text" rows="4" placeholder="A {subject} crosses {place}. [{light}.]" value=${text.value} onInput=${typed((it) => { text.value = it; })}></textarea>
        <p class="note">What is in {braces} is filled in later; what is in [brackets] goes if it stays empty.</p></${Field}>
      ${theirs.value && html`<div class="problem" role="alert"><p>It has been changed elsewhere meanwhile: “${theirs.value.name}”, ${theirs.value.text}</p>
        <div class="row"><button type="button" class="button" onClick=${() => save(null)}>Save mine over it</button>
          <button type="button" class="button quiet" onClick=${() => { written.value = theirs.value; }}>Take that one</button></div></div>`}
      <div class="row"><button type="button" class="button primary" disabled=${!name.value.trim() || !text.value.trim()} onClick=${() => save(template.revision)}>Save</button>
        <button type="button" class="button quiet" onClick=${() => { written.value = null; }}>Cancel</button></div>
    </section>`;
}

function Templates() {
  useEffect(() => { if (!templates.value) void loadTemplates(); }, []);
  const chosen = beats.value[0]?.template;
  return html`
    <div class="templates">
      <ul>${(templates.value ?? []).map(({ id, name, description, text, shipped }) => html`
        <li key=${id}><button type="button" class="template" aria-pressed=${id === chosen} onClick=${() => choose(id)}>
          <strong>${name}</strong><span>${description || text}</span></button>
          ${!shipped && html`<${IconButton} icon="trash" label=${`Delete ${name}`} onClick=${() => attempt(async () => { await remove(`/v1/prompts/templates/${id}`); beats.value = []; await loadTemplates(); })} />`}</li>`)}
        ${templates.value === null && [0, 1, 2, 3].map((index) => html`<li key=${index} class="skeleton template"></li>`)}
        <li><button type="button" class="button" onClick=${() => { written.value = UNWRITTEN; }}><${Icon} name="create" />Your own</button></li></ul>
      ${written.value ? html`<${Editor} key=${`${written.value.id}${written.value.revision}`} template=${written.value} />` : html`<${Composer} />`}
    </div>`;
}

function Starred() {
  const all = useSignal(/** @type {{id: string, prompt: string, negative_prompt: string, note: string, created_at: number}[] | null} */ (null));
  const load = () => attempt(async () => { all.value = (await get('/v1/prompts/starred?limit=100')).data; });
  useEffect(() => { void load(); }, []);
  if (all.value && !all.value.length) return html`<${Empty} icon="star" title="Nothing kept yet"><p>“Keep” puts a prompt here, from the studio or beside a video.</p></${Empty}>`;
  return html`<ul class="prompts">${(all.value ?? []).map((one) => html`
    <li key=${one.id}><${Long} text=${one.prompt} />${one.negative_prompt && html`<p class="note">Negative prompt: ${one.negative_prompt}</p>`}
      <div class="row"><span class="note">${ago(one.created_at)}</span><button type="button" class="button" onClick=${() => use(one.prompt, one.negative_prompt)}>Use</button>
        <${IconButton} icon="trash" label="Forget" onClick=${() => attempt(async () => { await remove(`/v1/prompts/starred/${one.id}`); await load(); })} /></div></li>`)}</ul>`;
}

/** @param {{video: Video}} props */
function Result({ video }) {
  const poster = useShown(video.status === 'completed' ? contentPath(video.id, 'thumbnail') : null);
  return html`<a class="still" href=${address('library', video.id)} aria-label=${`Open the video with seed ${video.seed}`}>
    ${poster ? html`<img src=${poster} alt="" loading="lazy" />` : html`<span class="place"><${Icon} name=${video.status === 'failed' ? 'close' : 'loop'} /></span>`}</a>`;
}

/** @param {{entry: Entry, before: Entry | undefined}} props */
function Logged({ entry, before }) {
  const isOpen = useSignal(false);
  return html`
    <li>${isOpen.value && before ? html`<p><${TextDiff} before=${before.prompt} after=${entry.prompt} /></p>` : html`<${Long} text=${entry.prompt} />`}
      <div class="stills">${entry.videos.slice(0, 12).map((video) => html`<${Result} key=${video.id} video=${video} />`)}</div>
      <div class="row"><span class="note">${counted(entry.videos.length, 'video')}, ${ago(entry.created_at)}</span>
        ${before && html`<button type="button" class="button quiet" aria-pressed=${isOpen.value} onClick=${() => { isOpen.value = !isOpen.value; }}>What changed</button>`}
        <button type="button" class="button" onClick=${() => use(entry.prompt, entry.videos[0]?.negative_prompt)}>Use</button>
        <${IconButton} icon="star" label="Keep the prompt" onClick=${() => keepPrompt(entry.prompt)} /></div></li>`;
}

function Log() {
  const words = useSignal(''), entries = useSignal(/** @type {Entry[] | null} */ (null)), last = useSignal(''), hasMore = useSignal(false);
  const load = (/** @type {boolean} */ more) => attempt(async () => {
    const asked = new URLSearchParams({ limit: '50', ...(/[\p{L}\p{N}]/u.test(words.value) && { q: words.value }), ...(more && { after: last.value }) });
    const page = await get(`/v1/prompts/log?${asked}`);
    learn(...page.data.flatMap((/** @type {Entry} */ entry) => entry.videos));
    entries.value = more ? [...(entries.value ?? []), ...page.data] : page.data;
    last.value = page.last_id ?? '';
    hasMore.value = page.has_more;
  });
  useEffect(() => { const soon = setTimeout(() => load(false), 200); return () => clearTimeout(soon); }, [words.value]);
  return html`
    <label class="search"><${Icon} name="search" /><span class="hidden">Search all prompts</span>
      <input type="search" id="search" placeholder="Search all prompts" value=${words.value} onInput=${typed((it) => { words.value = it; })} /></label>
    ${entries.value && !entries.value.length ? html`<${Empty} icon="search" title=${words.value ? 'No prompt has these words' : 'Nothing has been asked yet'}><p>${words.value ? 'Beginnings of words count, too.' : 'What is asked for here or by programs is listed with what became of it.'}</p></${Empty}>`
      : html`<ul class="prompts">${(entries.value ?? []).map((entry, index) => html`<${Logged} key=${entry.videos[0]?.id} entry=${entry} before=${entries.value?.[index + 1]} />`)}</ul>`}
    ${hasMore.value && html`<button type="button" class="button" onClick=${() => load(true)}>Show earlier ones</button>`}`;
}

export function Library() {
  const View = { templates: Templates, starred: Starred, log: Log }[part.value];
  return html`
    <main class="library" id="main" tabindex="-1">
      <div class="section-head"><h1>Library</h1><${Segments} label="Part" value=${part.value} onChange=${(/** @type {'templates' | 'starred' | 'log'} */ it) => { part.value = it; keep('library', it); }}
        options=${[{ value: 'templates', label: 'Templates' }, { value: 'starred', label: 'Starred' }, { value: 'log', label: 'Log' }]} /></div>
      <${View} />
    </main>`;
}
