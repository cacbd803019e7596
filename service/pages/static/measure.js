// Lengths on a film, and the heart-thorax ratio: lines whose ends are dragged, or moved with the arrow keys. Nothing of it
// is kept. Ends are shares of the film's width and height; the size of a pixel is asked for when it is first needed.
'use strict';

(() => {
  const SVG = 'http://www.w3.org/2000/svg';
  const STEP = 0.004;
  const LINES = {
    length: [['length', [0.35, 0.5], [0.65, 0.5]]],
    ratio: [['heart', [0.38, 0.62], [0.68, 0.62]], ['thorax', [0.15, 0.72], [0.85, 0.72]]],
  };
  const clamp = (value) => Math.min(1, Math.max(0, value));
  const percent = (share) => `${100 * share}%`;

  function measures(figure) {
    const read = figure.querySelector('[data-measured]');
    const number = (value, digits) => new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
    const sizes = {};
    let drawn = null;  // { kind, view, svg, lines }

    function forget() {
      if (drawn) drawn.svg.remove();
      drawn = null;
      read.hidden = true;
      for (const button of figure.querySelectorAll('[data-measure]')) button.setAttribute('aria-pressed', false);
    }
    const node = (parent, name, attributes) => {
      const made = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      parent.append(made);
      return made;
    };
    // A film that is turned by a quarter has its heart's width along its rows.
    const isTurned = () => Number(drawn.view.dataset.turns || 0) % 2 === 1;

    function start(kind) {
      const again = drawn && drawn.kind === kind;
      forget();
      if (again) return;
      const view = figure.querySelector('[data-view].is-active') || figure.querySelector('[data-view]');
      const svg = node(view.querySelector('.film-turn'), 'svg', { class: 'film-measure' });
      drawn = { kind, view, svg, lines: [] };
      for (const [name, ...places] of LINES[kind]) {
        const ends = places.map(([x, y]) => (isTurned() && kind === 'ratio' ? [y, x] : [x, y]));
        const line = { name, ends, under: node(svg, 'line', { class: 'under' }), over: node(svg, 'line', { class: name }), grips: [] };
        drawn.lines.push(line);
        ends.forEach((end, index) => line.grips.push(grip(line, index)));
      }
      figure.querySelector(`[data-measure="${kind}"]`).setAttribute('aria-pressed', true);
      read.hidden = false;
      draw();
      drawn.lines[0].grips[0].focus({ preventScroll: true });
      const at = view.dataset.filmAt;
      if (!sizes[at]) fetch(`${at}/film.json`).then((answer) => (answer.ok ? answer.json() : null)).then((size) => { sizes[at] = size; if (drawn) draw(); }, () => {});
    }
    function grip(line, index) {
      const { svg, view } = drawn;
      const made = node(svg, 'circle', { class: `grip ${line.name}`, 'data-grip': '', tabindex: 0, role: 'slider', 'aria-valuemin': 0,
        'aria-valuemax': 100, 'aria-label': figure.dataset.end });
      let held = false;
      made.addEventListener('pointerdown', (event) => { event.preventDefault(); held = true; made.setPointerCapture(event.pointerId); made.focus({ preventScroll: true }); });
      made.addEventListener('pointermove', (event) => {
        if (!held) return;
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        move(line, index, at.x / svg.clientWidth, at.y / svg.clientHeight);
      });
      for (const end of ['pointerup', 'pointercancel']) made.addEventListener(end, () => { held = false; });
      made.addEventListener('keydown', (event) => {
        const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (!way) return;
        event.preventDefault();
        event.stopPropagation();
        const turns = Number(view.dataset.turns || 0), step = event.shiftKey ? STEP / 4 : STEP;
        let [dx, dy] = way;
        for (let turn = 0; turn < turns; turn += 1) [dx, dy] = [dy, -dx];
        move(line, index, line.ends[index][0] + dx * step, line.ends[index][1] + dy * step);
      });
      return made;
    }
    // The two lines of the ratio stay level: their lengths are widths of the body.
    function move(line, index, x, y) {
      line.ends[index] = [clamp(x), clamp(y)];
      const along = isTurned() ? 0 : 1;
      if (drawn.kind === 'ratio') line.ends[1 - index][along] = line.ends[index][along];
      draw();
    }
    function lengthOf({ ends: [[ax, ay], [bx, by]] }) {
      const { view } = drawn, image = view.querySelector('img'), size = sizes[view.dataset.filmAt];
      const [columns, rows] = size ? [size.columns, size.rows] : [image.naturalWidth, image.naturalHeight];
      const [high, wide] = size?.pixel_mm || [1, 1];
      return { value: Math.hypot((ax - bx) * columns * wide, (ay - by) * rows * high), inMm: Boolean(size?.pixel_mm) };
    }
    const said = ({ value, inMm }) => figure.dataset[inMm ? 'mm' : 'px'].replace('{length}', number(value, 0));
    const short = ({ value, inMm }) => `${number(value, 0)}\u00a0${inMm ? 'mm' : 'px'}`;
    function draw() {
      for (const line of drawn.lines) {
        const [[ax, ay], [bx, by]] = line.ends;
        for (const each of [line.under, line.over]) {
          for (const [key, share] of Object.entries({ x1: ax, y1: ay, x2: bx, y2: by })) each.setAttribute(key, percent(share));
        }
        line.grips.forEach((each, index) => {
          each.setAttribute('cx', percent(line.ends[index][0]));
          each.setAttribute('cy', percent(line.ends[index][1]));
          each.setAttribute('aria-valuenow', Math.round(100 * line.ends[index][isTurned() ? 1 : 0]));
          each.setAttribute('aria-valuetext', said(lengthOf(line)));
        });
      }
      const lengths = drawn.lines.map(lengthOf);
      read.textContent = drawn.kind === 'length' ? said(lengths[0]) : figure.dataset.ratio.replace('{heart}', short(lengths[0]))
        .replace('{thorax}', short(lengths[1])).replace('{ratio}', lengths[1].value ? number(lengths[0].value / lengths[1].value, 2) : '—');
    }
    figure.addEventListener('click', (event) => {
      const button = event.target.closest('[data-measure]');
      if (button) start(button.dataset.measure);
    });
    figure.addEventListener('forget', forget);
  }

  const wire = (root) => root.querySelectorAll('[data-film]').forEach((figure) => figure.querySelector('[data-measured]') && measures(figure));
  document.addEventListener('wire', (event) => wire(event.detail));
  wire(document);
})();
