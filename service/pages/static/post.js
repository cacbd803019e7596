// Several persons on one page: a form for each, and each file stands in the form of its person. Files are uploaded as
// soon as they are chosen or dropped; the form then posts the ids of its uploads, and what could not be used is said
// while one still stands there. Without this file the page posts one visit with everything at once.
'use strict';

(() => {
  const page = document.querySelector('[data-posting]');
  if (!page) return;
  const AT_ONCE = 2, LOOK_EVERY_MS = 1000, LOOK_FOR_MS = 20_000;
  const words = page.dataset, said = page.querySelector('[data-said]'), blank = page.querySelector('[data-blank]').content;
  const entries = new WeakMap();  // of a file's row: how its upload stands
  const queue = [];
  let running = 0;

  const forms = () => [...page.querySelectorAll('form[data-post]')].filter((form) => !form.hidden);
  const rowsOf = (form) => [...form.querySelectorAll('[data-list] > li')];
  const nameOf = (form) => words.person.replace('{n}', form.dataset.number);
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // ---------------------------------------------------------------- files
  const next = () => {
    while (running < AT_ONCE && queue.length) {
      running += 1;
      queue.shift()().finally(() => { running -= 1; next(); });
    }
  };

  function add(form, file, field, folder = '') {
    const bar = element('progress', { max: file.size || 1, value: 0 });
    const how = element('span', { className: 'how', textContent: words.waiting });
    const remove = element('button', { className: 'plain', type: 'button', textContent: '×' });
    remove.setAttribute('aria-label', words.remove.replace('{filename}', file.name));
    bar.setAttribute('aria-label', file.name);
    const row = element('li', {}, element('span', { className: 'name', textContent: file.name }), remove, chooser(file), bar, how);
    const sending = { removed: false, url: null, request: null };
    const entry = { sending, refused: false, id: null, stem: `${folder}/${file.name.replace(/\.[^.]*$/, '')}` };
    entries.set(row, entry);
    form.querySelector('[data-list]').append(row);
    const show = (at, telling) => {
      if (at !== null) bar.value = at;
      how.textContent = telling || words.sending.replace('{percent}', Math.floor(100 * (at || 0) / (file.size || 1)));
      total(row.closest('form'));
    };
    const refuse = (reason) => {
      entry.refused = true;
      row.classList.add('is-refused');
      how.textContent = reason;
      said.textContent = `${file.name}: ${reason}`;
    };
    remove.addEventListener('click', () => {
      const whose = row.closest('form');
      drop(row);
      arrange();
      whose.querySelector('[data-files]').focus();
    });
    if (file.size > Number(words.maxBytes)) { refuse(words.large); entry.done = Promise.resolve(); return; }
    entry.done = new Promise((resolve) => {
      queue.push(async () => {
        try {
          entry.id = await uploads.send(file, field, sending, show, words);
          if (entry.id) { show(file.size, words.sent); said.textContent = `${file.name}: ${words.sent}`; }
        } catch (error) {
          refuse(error.message || words.refused);
        }
        resolve();
      });
    });
    next();
  }

  function drop(row) {
    const { sending, id } = entries.get(row);
    sending.removed = true;
    if (sending.request) sending.request.abort();
    if (id) uploads.ask('DELETE', `/v1/uploads/${id}`, {}).catch(() => { /* it expires by itself */ });
    row.remove();
  }

  // Whose file it is: one of the persons on the page, or another one. The choices are made when they are looked at.
  function chooser(file) {
    const select = element('select');
    select.setAttribute('aria-label', words.whose.replace('{filename}', file.name));
    const fill = () => {
      const own = select.closest('form');
      const known = forms().map((form) => new Option(nameOf(form), form.dataset.number, form === own, form === own));
      select.replaceChildren(...known, new Option(words.personNew, 'new'));
    };
    select.addEventListener('focus', fill);
    select.addEventListener('pointerdown', fill);
    select.addEventListener('change', () => {
      const chosen = forms().find((form) => form.dataset.number === select.value) || another();
      chosen.querySelector('[data-list]').append(select.closest('li'));
      arrange();
      select.focus();
    });
    return select;
  }

  function total(form) {
    const bars = form ? [...form.querySelectorAll('[data-list] progress')] : [];
    const whole = form && form.querySelector('[data-whose-form] progress');
    if (!whole) return;
    whole.hidden = !bars.length;
    whole.max = bars.reduce((sum, bar) => sum + bar.max, 0) || 1;
    whole.value = bars.reduce((sum, bar) => sum + bar.value, 0);
  }

  // What depends on how many persons and files there are.
  function arrange() {
    const shown = forms(), several = shown.length > 1;
    for (const form of shown) {
      const rows = rowsOf(form);
      form.querySelector('[data-whose-form]').hidden = !several;
      form.querySelector('[data-drop-person]').hidden = !several;
      form.querySelector('[data-split]').hidden = new Set(rows.map((row) => entries.get(row).stem)).size < 2;
      for (const row of rows) {
        const select = row.querySelector('select');
        if (document.activeElement !== select) select.replaceChildren(new Option(nameOf(form), form.dataset.number));
      }
      total(form);
    }
    page.querySelector('[data-send-all]').hidden = !several;
  }

  // ---------------------------------------------------------------- persons
  function another() {
    const form = blank.firstElementChild.cloneNode(true);
    const taken = [...page.querySelectorAll('form[data-post]')].map((each) => Number(each.dataset.number));
    const number = Math.max(0, ...taken) + 1;
    for (const name of ['id', 'for', 'aria-describedby']) {
      for (const each of form.querySelectorAll(`[${name}*="p0-"]`)) {
        each.setAttribute(name, each.getAttribute(name).replaceAll('p0-', `p${number}-`));
      }
    }
    form.dataset.number = number;
    form.elements.form.value = number;
    form.querySelector('[data-whose-form] span').textContent = nameOf(form);
    form.querySelector('[data-whose-form] progress').setAttribute('aria-label', nameOf(form));
    renew(form);
    page.querySelector('.more-persons').before(form);
    wire(form);
    return form;
  }

  // The next post of this form is another request.
  function renew(form) {
    const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
    form.elements.token.value = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  }

  // Each file to a person of its own. Files with one stem are one recording, as in a posted visit.
  function split(form) {
    const stems = new Map();
    for (const row of rowsOf(form)) {
      const { stem } = entries.get(row);
      stems.set(stem, [...(stems.get(stem) || []), row]);
    }
    for (const rows of [...stems.values()].slice(1)) another().querySelector('[data-list]').append(...rows);
    arrange();
    form.querySelector('input:not([type=hidden], [type=file])').focus();
  }

  // ---------------------------------------------------------------- sending
  async function post(form) {
    const button = form.querySelector('[data-send]');
    if (button.getAttribute('aria-disabled') === 'true') return false;
    const label = button.textContent;
    const ready = () => { button.removeAttribute('aria-disabled'); button.textContent = label; };
    button.setAttribute('aria-disabled', 'true');
    button.textContent = words.postingNow;
    await Promise.all(rowsOf(form).map((row) => entries.get(row).done));
    if (rowsOf(form).some((row) => entries.get(row).refused)) {
      ready();
      form.querySelector('.is-refused button').focus();
      return false;
    }
    const body = new FormData(form);
    for (const name of ['image', 'ecg']) body.delete(name);
    for (const row of rowsOf(form)) body.append('upload', entries.get(row).id);
    for (let pause = 1000; ; pause = Math.min(2 * pause, uploads.LONGEST_PAUSE_MS)) {
      try {
        const answer = await fetch(form.action, { method: 'POST', body });
        const visit = answer.redirected && new URL(answer.url).pathname.match(/^\/visits\/([0-9a-f-]+)$/);
        if (visit) { ready(); receipt(form, visit[1]); return true; }
        if (answer.redirected) { ready(); alertIn(form, words.signedOut, element('a', { href: '/login', target: '_blank', textContent: words.signIn })); return false; }
        if (answer.status < 500 && ![408, 429].includes(answer.status)) { ready(); await refused(form, answer); return false; }
      } catch { /* the link is away; the token in the form keeps a repetition from being a second visit */ }
      said.textContent = words.lost;
      button.textContent = words.lost;
      await uploads.wait(pause);
    }
  }

  function alertIn(form, sentence, ...more) {
    form.querySelectorAll('[data-alert]').forEach((each) => each.remove());
    const alert = element('p', { className: 'error', tabIndex: -1 }, element('span', {}, sentence, ' ', ...more));
    alert.setAttribute('role', 'alert');
    alert.dataset.alert = '';
    form.querySelector('[data-whose-form]').after(alert);
    alert.focus();
  }

  // The form again, as the server gives it: what was typed, and the problem next to each field. Its files stay.
  async function refused(form, answer) {
    const written = await answer.text();
    const fresh = new DOMParser().parseFromString(written, 'text/html').querySelector('form[data-post]');
    if (!fresh) {
      let reason = words.refused;
      try { reason = JSON.parse(written).detail; } catch { /* not one of ours */ }
      alertIn(form, reason);
      return;
    }
    const rows = rowsOf(form), sent = new Set(rows.map((row) => entries.get(row).id));
    const kept = [...fresh.querySelectorAll('input[data-kept]')];
    const here = new Set(kept.map((input) => input.value));
    fresh.querySelector('[data-list]').append(...rows.filter((row) => here.has(entries.get(row).id)));
    kept.filter((input) => sent.has(input.value)).forEach((input) => input.remove());
    if (!fresh.querySelector('input[data-kept]')) fresh.querySelectorAll('[data-kept]').forEach((each) => each.remove());
    form.replaceWith(fresh);
    wire(fresh);
    arrange();
    fresh.querySelector('[data-alert]').focus();
  }

  // ---------------------------------------------------------------- what became of it
  async function assessed(id) {
    const until = Date.now() + LOOK_FOR_MS, headers = { 'Accept-Language': document.documentElement.lang };
    while (Date.now() < until) {
      try {
        const answer = await fetch(`/v1/visits/${id}`, { headers });
        const visit = answer.ok ? await answer.json() : null;
        if (visit && visit.status !== 'accepted') return visit;
      } catch { /* looked for again */ }
      await uploads.wait(LOOK_EVERY_MS);
    }
    return null;
  }

  // In the place of a posted form: the way to its visit, and which files could not be used.
  async function receipt(form, id) {
    const alone = forms().length === 1 && !page.querySelector('.receipt');
    const whose = form.elements.person_id.value || form.elements.person_name.value || nameOf(form);
    const state = element('p', { textContent: words.assessing });
    const link = element('p', { className: 'to-visit' }, element('a', { href: `/visits/${id}`, textContent: words.toVisit }));
    const card = element('section', { className: 'card receipt', tabIndex: -1 }, element('h2', { textContent: whose }), element('p', { textContent: words.taken }), state, link);
    form.before(card);
    form.hidden = true;
    arrange();
    card.focus();
    said.textContent = words.taken;
    const visit = await assessed(id);
    const unusable = visit ? visit.inputs.filter((input) => !input.accepted) : [];
    if (alone && !unusable.length && !forms().length) { location.assign(`/visits/${id}`); return; }
    state.textContent = unusable.length ? words.notTaken : (visit ? words.assessed : words.unfinished);
    said.textContent = state.textContent;
    if (!unusable.length) return;
    state.className = 'problems';
    state.setAttribute('role', 'alert');
    const reasons = unusable.map((input) => element('li', {}, element('b', { textContent: input.filename }), ` ${input.problems.map((problem) => problem.message).join(' ')}`));
    const again = element('button', { className: 'plain', type: 'button', textContent: words.again });
    again.addEventListener('click', () => {
      again.remove();
      rowsOf(form).forEach((row) => row.remove());
      form.querySelectorAll('[data-kept]').forEach((each) => each.remove());
      renew(form);
      form.hidden = false;
      arrange();
      form.querySelector('[data-files]').focus();
    });
    state.after(element('ul', {}, ...reasons));
    card.append(again);
  }

  // ---------------------------------------------------------------- dropping
  addEventListener('dragover', (event) => {
    if (!dropped.hasFiles(event)) return;
    event.preventDefault();
    page.classList.add('is-over');
  });
  addEventListener('dragleave', (event) => { if (!event.relatedTarget) page.classList.remove('is-over'); });
  addEventListener('drop', async (event) => {
    if (!dropped.hasFiles(event)) return;
    event.preventDefault();
    page.classList.remove('is-over');
    const under = event.target instanceof Element ? event.target.closest('form[data-post]') : null;
    const found = await dropped.filesOf(event.dataTransfer);
    const form = under || forms().at(-1) || another();
    for (const { file, folder } of found) add(form, file, '', folder);  // what it is, its content says
    arrange();
  });

  // ---------------------------------------------------------------- the page
  function wire(form) {
    form.querySelectorAll('[data-scripted]').forEach((each) => { each.hidden = false; });
    for (const input of form.querySelectorAll('[data-files]')) {
      input.addEventListener('change', () => {
        for (const file of input.files) add(form, file, input.name);
        input.value = '';
        arrange();
      });
    }
    form.addEventListener('submit', (event) => { event.preventDefault(); post(form); });
    form.querySelector('[data-split] button').addEventListener('click', () => split(form));
    form.querySelector('[data-drop-person]').addEventListener('click', () => {
      rowsOf(form).forEach(drop);
      form.remove();
      arrange();
      page.querySelector('[data-add-person]').focus();
    });
  }
  page.querySelectorAll('[data-scripted]').forEach((each) => { each.hidden = false; });
  page.querySelectorAll('form[data-post]').forEach(wire);
  page.querySelector('[data-add-person]').addEventListener('click', () => {
    const form = another();
    arrange();
    form.querySelector('[data-files]').focus();
  });
  page.querySelector('[data-send-all]').addEventListener('click', async () => {
    for (const form of forms()) await post(form);
  });
  addEventListener('beforeunload', (event) => { if (forms().length > 1) event.preventDefault(); });
  arrange();
})();
