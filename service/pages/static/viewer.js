// The films of a visit: window and level, zoom, turning, evidence, an earlier film beside one of today's. The tools are
// those of the film in focus. Without this file each film, its full resolution and its heatmaps are links.
'use strict';

(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const WINDOW = 255, LEVEL = 128, MOST_ZOOM = 8, PREVIEW_PX = 768;
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  let filters = 0;

  function make(parent, name, attributes) {
    const made = parent.ownerDocument.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  }

  // out = (in - (level - window / 2)) / window, as DICOM's linear window does (PS3.3, C.11.2.1.2), here by the filter.
  function tone(view) {
    const id = `tone-${filters += 1}`;
    const filter = make(make(view, 'svg', { width: 0, height: 0, class: 'sprite', 'aria-hidden': 'true' }), 'filter',
      { id, 'color-interpolation-filters': 'sRGB', x: 0, y: 0, width: 1, height: 1 });
    const transfer = make(filter, 'feComponentTransfer', {});
    const lines = ['R', 'G', 'B'].map((channel) => make(transfer, `feFunc${channel}`, { type: 'linear' }));
    return (image, width, level, inverted) => {
      const slope = (inverted ? -255 : 255) / width;
      const intercept = inverted ? 1 + (level - width / 2) / width : -(level - width / 2) / width;
      for (const line of lines) { line.setAttribute('slope', slope); line.setAttribute('intercept', intercept); }
      image.style.filter = width === WINDOW && level === LEVEL && !inverted ? '' : `url(#${id})`;
    };
  }

  const fresh = () => ({ window: WINDOW, level: LEVEL, zoom: 1, x: 0, y: 0, inverted: false, turns: 0, preset: 'as_sent',
    whole: false, heat: false, outline: false });

  function film(figure) {
    const find = (name) => figure.querySelector(`[data-${name}]`);
    const panes = [...figure.querySelectorAll('[data-view]')].map((view) => {
      const part = (name) => view.querySelector(`[data-${name}]`);
      const choose = [...figure.querySelectorAll('[data-choose]')].find((each) => each.dataset.choose === view.dataset.filmAt);
      return { view, stack: view.querySelector('.film-stack'), turn: view.querySelector('.film-turn'), image: view.querySelector('img'),
        overlay: part('overlay'), outlined: part('outlined'), mark: part('mark'), choose, paint: tone(view), ...fresh() };
    });
    if (!panes.length) return;
    const prior = panes.find((pane) => pane.view.hasAttribute('data-prior'));
    const [toggle, edge, opacity, preset, priors, said, help, grow] =
      ['toggle', 'toggle-outline', 'opacity', 'preset', 'priors', 'said', 'help', 'fullscreen'].map(find);
    const sliders = { window: find('window'), level: find('level') };
    let main = panes[0], active = main, saying;
    const isBeside = () => Boolean(prior) && !prior.view.hidden;
    const linked = () => (isBeside() ? [main, prior] : [active]);

    function say(words) {
      clearTimeout(saying);
      saying = setTimeout(() => {
        said.textContent = words || figure.dataset.state.replace('{window}', Math.round(active.window))
          .replace('{level}', Math.round(active.level)).replace('{zoom}', Math.round(100 * active.zoom));
      }, 150);
    }
    function show(image, source) { if (image.getAttribute('src') !== source) image.src = source; }
    function draw(words) {
      for (const pane of linked()) {
        pane.x = clamp(pane.x, 1 - pane.zoom, 0);
        pane.y = clamp(pane.y, 1 - pane.zoom, 0);
        const { clientWidth, clientHeight } = pane.view;
        pane.stack.style.transform = pane.zoom === 1 ? '' : `translate(${pane.x * clientWidth}px, ${pane.y * clientHeight}px) scale(${pane.zoom})`;
        const narrow = Math.min(clientWidth, clientHeight) / Math.max(clientWidth, clientHeight, 1);
        pane.turn.style.transform = pane.turns ? `rotate(${90 * pane.turns}deg) scale(${pane.turns % 2 ? narrow : 1})` : '';
        pane.stack.style.setProperty('--zoom', pane.zoom * (pane.turns % 2 ? narrow : 1));
        pane.view.dataset.turns = pane.turns;
        pane.view.style.touchAction = pane.zoom === 1 ? 'pan-y' : 'none';
        pane.view.classList.toggle('is-zoomed', pane.zoom > 1);
        pane.view.classList.toggle('is-full', pane.whole);
        pane.paint(pane.image, pane.window, pane.level, pane.inverted);
        if (pane.image.hasAttribute('src')) show(pane.image, address(pane));
        if (pane.overlay) evidence(pane);
      }
      for (const pane of panes) pane.view.classList.toggle('is-active', pane === active && isBeside());
      for (const pane of panes) if (pane.choose) pane.choose.parentElement.hidden = pane !== main;
      sliders.window.value = active.window;
      sliders.level.value = active.level;
      preset.value = active.preset;
      if (toggle) {
        [toggle.checked, edge.checked] = [main.heat, main.outline];
        for (const control of [toggle, edge, opacity]) control.disabled = !main.overlay;
      }
      press('i', active.inverted);
      press('f', active.whole);
      say(words);
    }
    function address({ view, preset: chosen, whole }) {
      const asked = [whole ? '' : `max_px=${PREVIEW_PX}`, chosen === 'as_sent' ? '' : `window=${chosen}`].filter(Boolean).join('&');
      return `${view.dataset.filmAt}/film.${whole ? 'png' : 'jpg'}${asked && `?${asked}`}`;
    }
    function evidence(pane) {
      const option = pane.choose.selectedOptions[0];
      if (pane.heat) show(pane.overlay, pane.choose.value);
      if (pane.outline) show(pane.outlined, option.dataset.outline);
      pane.overlay.style.opacity = opacity.value / 100;
      [pane.overlay.hidden, pane.outlined.hidden] = [!pane.heat, !pane.outline];
      pane.mark.hidden = !pane.heat && !pane.outline;
      pane.mark.textContent = option.dataset.words;
    }
    function press(key, on) {
      const button = figure.querySelector(`[data-do="${key}"]`);
      if (button) button.setAttribute('aria-pressed', on);
    }
    const others = find('others');
    const isAside = (pane) => Boolean(others) && others.contains(pane.view);
    function focus(pane) {
      if (isAside(pane)) return;
      active = pane;
      if (pane !== prior) main = pane;
      draw();
    }
    // A small film below becomes the large one that the tools are for; that one takes its place below.
    function promote(pane) {
      const [row, last] = [pane.view, main.view].map((view) => view.closest('[data-row]'));
      last.before(row);
      others.prepend(last);
      [main, active] = [pane, pane];
      if (isBeside()) main.view.after(prior.view);
      place();
      draw();
      main.view.focus({ preventScroll: true });
      row.scrollIntoView({ block: 'nearest' });
    }
    // The earlier film stands beside the film in focus, and moves with it.
    function place() {
      for (const row of figure.querySelectorAll('[data-row]')) row.classList.toggle('is-beside', isBeside() && row.contains(main.view));
      figure.classList.toggle('is-beside', isBeside());
    }
    function beside(at) {
      if (!prior) return;
      prior.view.hidden = !at;
      if (at) {
        const option = [...priors.options].find((each) => each.value === at);
        main.view.after(prior.view);
        prior.view.dataset.filmAt = at;
        prior.view.setAttribute('aria-label', option.dataset.alt);
        prior.image.alt = option.dataset.alt;
        prior.mark.textContent = option.textContent;
        Object.assign(prior, { zoom: main.zoom, x: main.x, y: main.y });
        prior.image.src = address(prior);
      } else active = main;
      priors.value = at;
      place();
      draw();
    }
    // Zoom about a point of the view, given in shares of its width and height.
    function zoomTo(wanted, atX = 0.5, atY = 0.5) {
      for (const pane of linked()) {
        const next = clamp(wanted, 1, MOST_ZOOM);
        pane.x = atX - (atX - pane.x) * next / pane.zoom;
        pane.y = atY - (atY - pane.y) * next / pane.zoom;
        pane.zoom = next;
      }
      draw();
    }
    function pan(dx, dy) { for (const pane of linked()) { pane.x += dx; pane.y += dy; } draw(); }
    function tune(dWindow, dLevel) {
      active.window = clamp(active.window + dWindow, 5, 510);
      active.level = clamp(active.level + dLevel, 0, 255);
      draw();
    }
    function full() {
      const wanted = !active.whole, pane = active;
      for (const each of linked()) each.whole = wanted;
      if (!wanted) { zoomTo(1); return; }
      draw(figure.dataset.loading);
      pane.image.decode().then(() => zoomTo(pane.image.naturalWidth / pane.view.clientWidth), () => {
        for (const each of linked()) each.whole = false;
        draw(figure.dataset.failed);
      });
    }
    function next() { preset.selectedIndex = (preset.selectedIndex + 1) % preset.options.length; active.preset = preset.value; draw(); }
    function grown() { if (document.fullscreenElement === figure) document.exitFullscreen(); else figure.requestFullscreen?.(); }
    function reset() {
      for (const pane of linked()) Object.assign(pane, fresh());
      if (opacity) opacity.value = 60;
      figure.dispatchEvent(new Event('forget'));  // measure.js listens
      draw();
    }

    const does = {
      '+': () => zoomTo(active.zoom * 1.25), '=': () => zoomTo(active.zoom * 1.25), '-': () => zoomTo(active.zoom / 1.25), 0: () => zoomTo(1),
      w: () => tune(-15, 0), W: () => tune(15, 0), l: () => tune(0, 8), L: () => tune(0, -8), p: next,
      i: () => { active.inverted = !active.inverted; draw(); }, r: reset, f: full, x: grown, d: () => darken(!isDark()),
      t: () => { active.turns = (active.turns + 1) % 4; draw(); }, s: () => priors && beside(isBeside() ? '' : priors.options[1].value),
      h: () => { if (main.overlay) { main.heat = !main.heat; draw(); } },
      o: () => { if (main.overlay) { main.outline = !main.outline; draw(); } },
      m: () => figure.querySelector('[data-measure="length"]').click(), c: () => figure.querySelector('[data-measure="ratio"]').click(),
      '[': () => { if (opacity) { opacity.stepDown(10); draw(); } }, ']': () => { if (opacity) { opacity.stepUp(10); draw(); } },
      '?': () => { help.open = !help.open; },
    };
    const moves = { ArrowLeft: [0.08, 0], ArrowRight: [-0.08, 0], ArrowUp: [0, 0.08], ArrowDown: [0, -0.08] };
    figure.addEventListener('keydown', (event) => {
      const typed = event.getModifierState('AltGraph');
      if (event.target.matches('select') || ((event.ctrlKey || event.altKey || event.metaKey) && !typed)) return;
      const act = does[event.key] || (event.key.length === 1 && does[event.key.toLowerCase()]);
      if (act) act();
      else if (moves[event.key] && event.target.matches('[data-view]') && active.zoom > 1) pan(...moves[event.key]);
      else return;
      event.preventDefault();
    });
    figure.addEventListener('click', (event) => {
      const button = event.target.closest('[data-do]');
      if (button) does[button.dataset.do]();
    });
    for (const name of ['window', 'level']) {
      sliders[name].addEventListener('input', () => { active[name] = Number(sliders[name].value); draw(); });
    }
    preset.addEventListener('change', () => { active.preset = preset.value; draw(); });
    if (priors) priors.addEventListener('change', () => beside(priors.value));
    if (toggle) {
      toggle.addEventListener('change', () => { main.heat = toggle.checked; draw(); });
      edge.addEventListener('change', () => { main.outline = edge.checked; draw(); });
      opacity.addEventListener('input', () => draw());
    }
    if (grow && !document.fullscreenEnabled) grow.remove();
    figure.addEventListener('fullscreenchange', () => { press('x', document.fullscreenElement === figure); draw(); });

    for (const pane of panes) {
      const touching = new Map();
      const share = (event) => {
        const box = pane.view.getBoundingClientRect();
        return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      };
      const spread = () => {
        const [[ax, ay], [bx, by]] = [...touching.values()];
        return [Math.hypot(ax - bx, ay - by), (ax + bx) / 2, (ay + by) / 2];
      };
      const shaped = () => pane.view.style.setProperty('--aspect', pane.image.naturalWidth / Math.max(pane.image.naturalHeight, 1));
      pane.image.addEventListener('load', shaped);
      if (pane.image.complete && pane.image.naturalWidth) shaped();
      if (pane.choose) {
        pane.choose.addEventListener('change', () => { pane.heat = pane.heat || !pane.outline; draw(); });
        for (const image of [pane.overlay, pane.outlined]) image.addEventListener('error', () => say(figure.dataset.failed));
      }
      pane.view.addEventListener('focus', () => focus(pane));
      pane.view.addEventListener('click', () => { if (isAside(pane)) promote(pane); });
      pane.view.addEventListener('keydown', (event) => { if (event.key === 'Enter' && isAside(pane)) promote(pane); });
      pane.view.addEventListener('wheel', (event) => {
        if (isAside(pane) || (!event.ctrlKey && document.activeElement !== pane.view)) return;  // else the page could not be scrolled past
        event.preventDefault();
        zoomTo(pane.zoom * 1.002 ** -event.deltaY, ...share(event));
      }, { passive: false });
      pane.view.addEventListener('pointerdown', (event) => {
        if (event.button || event.target.closest('[data-grip]') || isAside(pane)) return;
        if (active !== pane) focus(pane);
        touching.set(event.pointerId, share(event));
        pane.view.setPointerCapture(event.pointerId);
        if (event.pointerType === 'mouse') { event.preventDefault(); pane.view.focus({ preventScroll: true }); }
      });
      pane.view.addEventListener('pointermove', (event) => {
        const last = touching.get(event.pointerId);
        if (!last) return;
        const now = share(event);
        if (touching.size === 2) {
          const [before] = spread();
          touching.set(event.pointerId, now);
          const [after, middleX, middleY] = spread();
          zoomTo(pane.zoom * after / Math.max(before, 0.01), middleX, middleY);
          return;
        }
        touching.set(event.pointerId, now);
        const [dx, dy] = [now[0] - last[0], now[1] - last[1]];
        if (pane.zoom > 1 && !event.shiftKey) pan(dx, dy);
        else if (event.pointerType !== 'touch') tune(dx * 255, dy * 255);
      });
      for (const end of ['pointerup', 'pointercancel']) {
        pane.view.addEventListener(end, (event) => touching.delete(event.pointerId));
      }
    }
    draw();
  }

  // A dark page for a dark room; the choice is kept.
  const isDark = () => document.documentElement.classList.contains('reading');
  function darken(on) {
    document.documentElement.classList.toggle('reading', on);
    try { localStorage.setItem('reading', on ? '1' : ''); } catch { /* not kept, where the browser keeps nothing */ }
    showDark(document);
  }
  function showDark(root) {
    root.querySelectorAll('[data-do="d"]').forEach((button) => button.setAttribute('aria-pressed', isDark()));
  }
  try { document.documentElement.classList.toggle('reading', localStorage.getItem('reading') === '1'); } catch { /* as above */ }

  function wire(root) {
    root.querySelectorAll('[data-film]').forEach(film);
    showDark(root);
  }
  document.addEventListener('wire', (event) => wire(event.detail));
  wire(document);
})();
