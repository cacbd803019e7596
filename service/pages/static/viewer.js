// The film: window and level, zoom, heatmap, an earlier film next to it. All of it changes the 8-bit picture that the
// service renders. Without this file the film, its full resolution and its heatmaps are links.
'use strict';

(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const WINDOW = 255, LEVEL = 128, MOST_ZOOM = 8;
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

  function film(figure) {
    const find = (name) => figure.querySelector(`[data-${name}]`);
    const panes = [...figure.querySelectorAll('[data-view]')].map((view) => ({
      view, stack: view.querySelector('.film-stack'), image: view.querySelector('img'), paint: tone(view),
      window: WINDOW, level: LEVEL,
    }));
    const [main, prior] = panes;
    const [overlay, toggle, choose, opacity] = ['overlay', 'toggle', 'choose', 'opacity'].map(find);
    const [said, help, enlarge] = ['said', 'help', 'enlarge'].map(find);
    const sliders = { window: find('window'), level: find('level') };
    let zoom = 1, x = 0, y = 0, inverted = false, active = main, saying;

    function say(words) {
      clearTimeout(saying);
      saying = setTimeout(() => {
        said.textContent = words || figure.dataset.state.replace('{window}', Math.round(active.window))
          .replace('{level}', Math.round(active.level)).replace('{zoom}', Math.round(100 * zoom));
      }, 150);
    }
    function draw(words) {
      x = clamp(x, 1 - zoom, 0);
      y = clamp(y, 1 - zoom, 0);
      for (const pane of panes) {
        const { clientWidth, clientHeight } = pane.view;
        pane.stack.style.transform = zoom === 1 ? '' : `translate(${x * clientWidth}px, ${y * clientHeight}px) scale(${zoom})`;
        pane.view.style.touchAction = zoom === 1 ? 'pan-y' : 'none';
        pane.view.classList.toggle('is-zoomed', zoom > 1);
        pane.paint(pane.image, pane.window, pane.level, inverted);
      }
      sliders.window.value = active.window;
      sliders.level.value = active.level;
      if (overlay) {
        if (toggle.checked && overlay.getAttribute('src') !== choose.value) overlay.src = choose.value;
        overlay.style.opacity = opacity.value / 100;
        overlay.hidden = !toggle.checked;
      }
      press('i', inverted);
      say(words);
    }
    function press(key, on) {
      const button = figure.querySelector(`[data-do="${key}"]`);
      if (button) button.setAttribute('aria-pressed', on);
    }
    // Zoom about a point of the view, given in shares of its width and height.
    function zoomTo(wanted, atX = 0.5, atY = 0.5) {
      const next = clamp(wanted, 1, MOST_ZOOM);
      x = atX - (atX - x) * next / zoom;
      y = atY - (atY - y) * next / zoom;
      zoom = next;
      draw();
    }
    function tune(dWindow, dLevel) {
      active.window = clamp(active.window + dWindow, 5, 510);
      active.level = clamp(active.level + dLevel, 0, 255);
      draw();
    }
    function pan(dx, dy) { x += dx; y += dy; draw(); }

    function full() {
      const wanted = !main.view.classList.contains('is-full');
      for (const pane of panes) {
        pane.view.classList.toggle('is-full', wanted);
        if (pane.image.src) pane.image.src = wanted ? pane.image.dataset.full : pane.image.dataset.preview;
      }
      [enlarge.textContent, enlarge.dataset.other] = [enlarge.dataset.other, enlarge.textContent];
      if (!wanted) { zoom = 1; draw(); return; }
      draw(figure.dataset.loading);
      main.image.decode().then(() => zoomTo(main.image.naturalWidth / main.view.clientWidth), () => {
        if (main.view.classList.contains('is-full')) { full(); draw(figure.dataset.failed); }
      });
    }
    function beside() {
      if (!prior) return;
      const { preview, full: whole } = prior.image.dataset;
      prior.view.hidden = !prior.view.hidden;
      if (!prior.image.src) prior.image.src = main.view.classList.contains('is-full') ? whole : preview;
      figure.classList.toggle('is-beside', !prior.view.hidden);
      press('s', !prior.view.hidden);
      if (prior.view.hidden) active = main;
      draw();
    }
    function reset() {
      for (const pane of panes) { pane.window = WINDOW; pane.level = LEVEL; }
      [zoom, inverted] = [1, false];
      if (overlay) [toggle.checked, opacity.value] = [false, 60];
      draw();
    }

    const does = {
      '+': () => zoomTo(zoom * 1.25), '=': () => zoomTo(zoom * 1.25), '-': () => zoomTo(zoom / 1.25), 0: () => zoomTo(1),
      w: () => tune(-15, 0), W: () => tune(15, 0), l: () => tune(0, 8), L: () => tune(0, -8),
      i: () => { inverted = !inverted; draw(); }, s: beside, r: reset, f: full, d: () => darken(!isDark()),
      h: () => { if (toggle) { toggle.checked = !toggle.checked; draw(); } },
      '[': () => { if (opacity) { opacity.stepDown(10); draw(); } }, ']': () => { if (opacity) { opacity.stepUp(10); draw(); } },
      '?': () => { help.open = !help.open; },
    };
    const moves = { ArrowLeft: [0.08, 0], ArrowRight: [-0.08, 0], ArrowUp: [0, 0.08], ArrowDown: [0, -0.08] };
    figure.addEventListener('keydown', (event) => {
      const typed = event.getModifierState('AltGraph');
      if (event.target.matches('select') || ((event.ctrlKey || event.altKey || event.metaKey) && !typed)) return;
      const act = does[event.key] || (event.key.length === 1 && does[event.key.toLowerCase()]);
      if (act) act();
      else if (moves[event.key] && event.target.matches('[data-view]') && zoom > 1) pan(...moves[event.key]);
      else return;
      event.preventDefault();
    });
    figure.addEventListener('click', (event) => {
      const button = event.target.closest('[data-do]');
      if (button) does[button.dataset.do]();
    });
    enlarge.addEventListener('click', (event) => { event.preventDefault(); full(); });
    for (const name of ['window', 'level']) {
      sliders[name].addEventListener('input', () => { active[name] = Number(sliders[name].value); draw(); });
    }
    if (overlay) {
      toggle.addEventListener('change', () => draw());
      opacity.addEventListener('input', () => draw());
      choose.addEventListener('change', () => { toggle.checked = true; draw(); });
      overlay.addEventListener('error', () => say(figure.dataset.failed));
    }

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
      pane.view.addEventListener('focus', () => { active = pane; draw(); });
      pane.view.addEventListener('wheel', (event) => {
        if (!event.ctrlKey && document.activeElement !== pane.view) return;  // else the page could not be scrolled past
        event.preventDefault();
        zoomTo(zoom * 1.002 ** -event.deltaY, ...share(event));
      }, { passive: false });
      pane.view.addEventListener('pointerdown', (event) => {
        if (event.button) return;
        active = pane;
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
          zoomTo(zoom * after / Math.max(before, 0.01), middleX, middleY);
          return;
        }
        touching.set(event.pointerId, now);
        const [dx, dy] = [now[0] - last[0], now[1] - last[1]];
        if (zoom > 1 && !event.shiftKey) pan(dx, dy);
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
