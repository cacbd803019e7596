// Keeps a doctor's opinion on this device while it is typed, until the server has it; it is sent nowhere else.
// A draft belongs to a visit and to the key that the reader signed in with. The page works without this file.
'use strict';

{
  const PREFIX = 'opinion:';
  const KEPT_MS = 14 * 24 * 3600 * 1000;
  const MOST = 20;  // drafts on one device; the oldest go first

  const typedIn = (form) => [...new FormData(form)].filter(([name, value]) => name !== 'version' && value.trim());
  const plain = (typed) => typed.filter(([name]) => name !== 'signer' && name !== 'referral')
    .map(([name, value]) => `${name}=${value.replaceAll('\r\n', '\n').trim()}`).sort().join('\n');

  function drafts() {
    const found = [];
    for (let i = 0; i < localStorage.length; i += 1) {
      const name = localStorage.key(i);
      if (!name.startsWith(PREFIX)) continue;
      let at = 0;
      try { at = JSON.parse(localStorage.getItem(name)).at; } catch { /* nothing that this file wrote */ }
      found.push({ name, at: Number(at) || 0 });
    }
    return found.sort((one, other) => other.at - one.at);
  }

  function prune(most) {
    drafts().forEach(({ name, at }, i) => { if (i >= most || at < Date.now() - KEPT_MS) localStorage.removeItem(name); });
  }

  const forget = (draft) => { try { localStorage.removeItem(PREFIX + draft); } catch { /* no storage: nothing is kept */ } };

  function keep(form) {
    const typed = typedIn(form);
    if (!typed.length) { forget(form.dataset.draft); return; }
    const written = JSON.stringify({ at: Date.now(), version: Number(form.elements.version.value), typed });
    try {
      prune(MOST - 1);
      localStorage.setItem(PREFIX + form.dataset.draft, written);
    } catch { /* full or not allowed: the form still holds it */ }
  }

  function kept(form) {
    try {
      prune(MOST);
      return JSON.parse(localStorage.getItem(PREFIX + form.dataset.draft));
    } catch { return null; }
  }

  function fill(form, typed) {
    for (const [name, value] of typed) {
      const fields = [...form.querySelectorAll('[name]')].filter((field) => field.name === name);
      const choice = fields.find((field) => field.value === value && 'checked' in field && field.type !== 'text');
      if (choice) {
        choice.checked = true;
        choice.closest('details')?.setAttribute('open', '');
      } else if (name === 'add') {  // what was ticked without the machine's findings, which are in view now
        const verdicts = [...form.querySelectorAll('[type=radio]')].filter((field) => field.name === `verdict:${value}`);
        const word = verdicts[0]?.closest('fieldset').dataset.machine;
        verdicts.forEach((field) => { field.checked = field.value === word; });
      } else if (fields[0] && fields[0].type !== 'radio') {
        fields[0].value = value;
      }
    }
  }

  function restore(form) {
    const draft = kept(form);
    if (!draft) return;
    const signed = [...document.querySelectorAll('.opinions > li')].map((li) => ({ li, number: Number(li.dataset.number) }));
    const since = signed.filter(({ number }) => number >= draft.version);
    const arrived = since.some(({ li }) => li.dataset.own?.replaceAll('\r\n', '\n') === plain(draft.typed));
    if (arrived) { forget(form.dataset.draft); return; }
    const before = plain(typedIn(form));
    fill(form, draft.typed);
    since.forEach(({ li }) => { li.querySelector('[data-since]').hidden = false; });
    const note = form.querySelector('[data-restored]');
    const when = note.querySelector('[data-when]');
    when.dateTime = new Date(draft.at).toISOString();
    when.textContent = momentForm.format(draft.at);
    note.querySelector('[data-changed]').hidden = Number(form.elements.version.value) <= draft.version;
    note.hidden = before === plain(draft.typed);  // the server gave the form back as it was typed
  }

  function wireForm(form) {
    if (!form.elements.version || form.classList.contains('review')) return;
    form.addEventListener('input', () => keep(form));
    form.addEventListener('submit', () => keep(form));
    form.querySelector('[data-discard]').addEventListener('click', () => {
      forget(form.dataset.draft);
      form.querySelectorAll('[type=radio]').forEach((field) => { field.checked = field.value === ''; });
      form.querySelectorAll('[type=checkbox]').forEach((field) => { field.checked = false; });
      form.querySelectorAll('textarea, #signer').forEach((field) => { field.value = ''; });
      form.querySelector('[data-restored]').hidden = true;
    });
    restore(form);
  }

  const sender = (event) => {
    const element = event.detail.elt;
    return element instanceof Element && element.matches('form[data-draft]') ? element : null;
  };
  const notSent = (form, is) => { if (form) form.querySelector('[data-not-sent]').hidden = !is; };

  document.addEventListener('htmx:beforeRequest', (event) => notSent(sender(event), false));
  for (const failure of ['htmx:sendError', 'htmx:timeout']) {
    document.addEventListener(failure, (event) => notSent(sender(event), true));
  }
  document.addEventListener('htmx:beforeOnLoad', (event) => {
    const form = sender(event);
    const [, visit] = form?.dataset.draft.split(':') ?? [];
    const onward = event.detail.xhr.getResponseHeader('HX-Redirect') ?? '';
    if (form && onward.startsWith(`/visits/${visit}/report`)) forget(form.dataset.draft);
  });
  // an answer that is not this page's (a proxy's, a refusal) does not take the place of what was typed
  document.addEventListener('htmx:beforeSwap', (event) => {
    const form = event.detail.requestConfig?.elt;
    if (!(form instanceof Element) || !form.matches('form[data-draft]')) return;
    const answer = new DOMParser().parseFromString(event.detail.serverResponse, 'text/html');
    if (answer.querySelector('#loop, .refused')) return;
    event.detail.shouldSwap = false;
    notSent(form, true);
  });

  const wireAll = (root) => root.querySelectorAll('form.sign[data-draft]').forEach(wireForm);
  document.addEventListener('wire', (event) => wireAll(event.detail));
  wireAll(document);
}
