// The small parts that every view uses.
import { Icon } from './icons.js';
import { html, signal, useEffect, useRef, useSignal } from './lib.js';
import { hush, say, toasts } from './state.js';

/** @param {{icon: string, label: string, onClick: (event: MouseEvent) => void, pressed?: boolean, disabled?: boolean, kind?: string, id?: string}} props */
export const IconButton = ({ icon, label, onClick, pressed, disabled, kind = '', id }) => html`
  <button type="button" class=${`icon-button ${kind}`} title=${label} aria-label=${label} aria-pressed=${pressed}
    disabled=${disabled} onClick=${onClick} id=${id}><${Icon} name=${icon} /></button>`;

/**
 * @template T
 * @param {{label: string, value: T, options: {value: T, label: Children, hint?: string, disabled?: boolean}[], onChange: (value: T) => void}} props
 */
export const Segments = ({ label, value, options, onChange }) => html`
  <div class="segments" role="group" aria-label=${label}>
    ${options.map((one) => html`
      <button type="button" key=${String(one.value)} aria-pressed=${one.value === value} title=${one.hint}
        disabled=${one.disabled} onClick=${() => onChange(one.value)}>${one.label}</button>`)}
  </div>`;

/** @param {{label: string, note?: Children, for?: string, children?: Children, wide?: boolean}} props */
export const Field = ({ label, note, for: target, children, wide }) => html`
  <div class=${`field ${wide ? 'wide' : ''}`}>
    <div class="field-head"><label for=${target}>${label}</label><span class="note">${note}</span></div>
    ${children}
  </div>`;

/** @param {{label: string, icon?: string, kind?: string, children?: Children, up?: boolean}} props A button that opens a list. */
export function Menu({ label, icon, kind = '', children, up }) {
  const place = useRef(/** @type {HTMLDetailsElement | null} */ (null));
  useEffect(() => {
    const close = (/** @type {Event} */ event) => {
      const details = place.current;
      if (!details?.open) return;
      if (event instanceof KeyboardEvent ? event.key === 'Escape' : !details.contains(/** @type {Node} */ (event.target))) {
        // The dialog that it is in would close with it.
        if (event instanceof KeyboardEvent) { event.stopPropagation(); event.preventDefault(); details.querySelector('summary')?.focus(); }
        details.open = false;
      }
    };
    addEventListener('pointerdown', close);
    addEventListener('keydown', close, true);
    return () => { removeEventListener('pointerdown', close); removeEventListener('keydown', close, true); };
  }, []);
  const shut = () => { if (place.current) place.current.open = false; };
  return html`
    <details class=${`menu ${kind}`} ref=${place}>
      <summary class="button quiet">${icon && html`<${Icon} name=${icon} />`}<span>${label}</span></summary>
      <div class=${`menu-list ${up ? 'up' : ''}`} onClick=${shut}>${children}</div>
    </details>`;
}

/** How many dialogs are open: what lies behind one cannot be reached, so each shows the messages itself. */
export const modals = signal(0);

/** @param {{title: string, children?: Children, onClose: () => void, kind?: string}} props */
export function Dialog({ title, children, onClose, kind = '' }) {
  const place = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const dialog = place.current;
    if (dialog && !dialog.open) {
      dialog.showModal();
      // Keys are for what the dialog shows, unless somebody goes to a button.
      if (kind === 'viewer') dialog.focus();
    }
    modals.value += 1;
    return () => { dialog?.close(); modals.value -= 1; };
  }, []);
  return html`
    <dialog ref=${place} class=${`dialog ${kind}`} aria-label=${title} tabindex="-1"
      onCancel=${(/** @type {Event} */ event) => { if (event.target === place.current) { event.preventDefault(); onClose(); } }}
      onClick=${(/** @type {Event} */ event) => { if (event.target === place.current) onClose(); }}>
      ${children}<${Toasts} />
    </dialog>`;
}

export const Toasts = () => html`
  <div class="toasts" role="status" aria-live="polite">
    ${toasts.value.map((toast) => html`
      <div class=${`toast ${toast.kind}`} key=${toast.id}>
        <span>${toast.text}</span>
        ${toast.act && html`<button type="button" class="link" onClick=${() => { toast.act?.run(); hush(toast.id); }}>${toast.act.label}</button>`}
        <${IconButton} icon="close" label="Dismiss" onClick=${() => hush(toast.id)} />
      </div>`)}
  </div>`;

/** @param {{icon: string, title: string, children?: Children}} props */
export const Empty = ({ icon, title, children }) => html`
  <div class="empty"><span class="empty-icon"><${Icon} name=${icon} size=${28} /></span><h2>${title}</h2>${children}</div>`;

/** @param {{text: string, kind?: string}} props Of a long text, its beginning; all of it for whoever wants it. */
export function Long({ text, kind = '' }) {
  const isWhole = useSignal(false), isLong = text.length > 360 || text.split('\n').length > 6;
  return html`<p class=${`${kind} ${isLong && !isWhole.value ? 'long' : ''}`}>${text}</p>
    ${isLong && html`<button type="button" class="link" aria-expanded=${isWhole.value} onClick=${() => { isWhole.value = !isWhole.value; }}>${isWhole.value ? 'Show less' : 'Show all'}</button>`}`;
}

/** @param {{value: number, label: string, waiting?: boolean}} props Percent of something; waiting shows that it goes on. */
export const Progress = ({ value, label, waiting }) => html`
  <div class=${`progress ${waiting ? 'waiting' : ''}`} role="progressbar" aria-label=${label} aria-valuemin="0"
    aria-valuemax="100" aria-valuenow=${value}><span style=${{ width: `${waiting ? 100 : value}%` }}></span></div>`;

/** @param {string} text @param {string} what */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain HTTP from another machine there is no clipboard but the old way.
    const box = document.createElement('textarea');
    box.value = text;
    (document.querySelector('dialog[open]') ?? document.body).append(box);
    box.select();
    const isDone = document.execCommand('copy');
    box.remove();
    if (!isDone) return say('This browser lets pages copy only over HTTPS.', { kind: 'error' });
  }
  return say(`${what} copied`);
}

/** @param {string} address @param {string} name */
export function save(address, name) {
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
}
