// The twelve-lead: evidence shading, zoom, and calipers over the paper. The drawing is in millimetres
// (inference/render/paper.py); its width, and how many of them are a second and a millivolt, stand in the page.
'use strict';

(() => {
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  function trace(figure) {
    const [choose, page, sheet, read] = ['choose', 'page', 'sheet', 'read'].map((name) => figure.querySelector(`[data-${name}]`));
    if (!sheet) return;  // a recording of which nothing can be drawn
    const paper = figure.querySelector('.paper');
    const PAGE_MM = Number(figure.dataset.pageMm), MS_PER_MM = 1000 / Number(figure.dataset.speed), MV_PER_MM = 1 / Number(figure.dataset.gain);
    const STEP = { x: [1, 5 / MS_PER_MM], y: [1, 0.01 / MV_PER_MM] };  // an arrow key: 1 mm; with Shift: 5 ms, 0.01 mV
    const number = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
    const calipers = {};
    let zoom = 1;
    if (choose) choose.addEventListener('change', () => { page.src = choose.value; });

    const sizeMm = (axis) => (axis === 'x' ? PAGE_MM : PAGE_MM * sheet.clientHeight / sheet.clientWidth);
    const reading = (axis) => {
      const [a, b] = calipers[axis].legs;
      const mm = Math.abs(a - b);
      if (axis === 'y') return figure.dataset.mv.replace('{mv}', number.format(mm * MV_PER_MM));
      const ms = Math.round(mm * MS_PER_MM);
      return figure.dataset.ms.replace('{ms}', ms).replace('{rate}', ms ? Math.round(60000 / ms) : '—');
    };

    for (const box of figure.querySelectorAll('[data-caliper]')) {
      const axis = box.dataset.caliper;
      const legs = [...box.querySelectorAll('[data-leg]')];
      calipers[axis] = { box, legs: [0, 0] };
      const across = (event) => {
        const bounds = sheet.getBoundingClientRect();
        return axis === 'x' ? (event.clientX - bounds.left) / bounds.width * PAGE_MM
          : (event.clientY - bounds.top) / bounds.width * PAGE_MM;
      };
      const drag = (handle, move) => {
        let last = null;
        handle.addEventListener('pointerdown', (event) => {
          if (event.button) return;
          event.preventDefault();
          handle.setPointerCapture(event.pointerId);
          if (handle.tabIndex >= 0) handle.focus({ preventScroll: true });
          last = across(event);
        });
        handle.addEventListener('pointermove', (event) => {
          if (last === null) return;
          const now = across(event);
          move(now - last);
          last = now;
        });
        for (const end of ['pointerup', 'pointercancel']) handle.addEventListener(end, () => { last = null; });
      };
      legs.forEach((leg, index) => {
        drag(leg, (mm) => shift(axis, mm, [index]));
        leg.addEventListener('keydown', (event) => {
          const forth = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
          const along = (axis === 'x') === ['ArrowLeft', 'ArrowRight'].includes(event.key);
          if (!forth || !along) return;
          event.preventDefault();
          shift(axis, forth * STEP[axis][event.shiftKey ? 1 : 0], [index]);
        });
      });
      drag(box.querySelector('[data-span]'), (mm) => shift(axis, mm, [0, 1]));
    }

    function shift(axis, mm, which) {
      const { legs } = calipers[axis];
      const most = sizeMm(axis);
      const least = Math.min(...which.map((index) => legs[index])), greatest = Math.max(...which.map((index) => legs[index]));
      const step = clamp(mm, -least, most - greatest);
      for (const index of which) legs[index] = Math.round((legs[index] + step) * 1000) / 1000;
      draw(axis);
    }
    function draw(axis) {
      const { box, legs } = calipers[axis];
      const most = sizeMm(axis), [start, size] = axis === 'x' ? ['left', 'width'] : ['top', 'height'];
      const said = reading(axis);
      const percent = (mm) => `${100 * mm / most}%`;
      box.querySelectorAll('[data-leg]').forEach((leg, index) => {
        leg.style[start] = percent(legs[index]);
        const unit = axis === 'x' ? MS_PER_MM : MV_PER_MM;
        leg.setAttribute('aria-valuemax', Math.round(most * unit));
        leg.setAttribute('aria-valuenow', Math.round(legs[index] * unit * 100) / 100);
        leg.setAttribute('aria-valuetext', said);
      });
      const span = box.querySelector('[data-span]');
      span.style[start] = percent(Math.min(...legs));
      span.style[size] = percent(Math.abs(legs[0] - legs[1]));
      span.dataset.said = said;
      read.textContent = Object.keys(calipers).filter((each) => !calipers[each].box.hidden).map(reading).join('  ·  ');
    }
    // The calipers open in the visible part of the paper, on whole centimetres: 1 s wide, 1 mV high.
    function caliper(axis) {
      const { box, legs } = calipers[axis];
      box.hidden = !box.hidden;
      if (!box.hidden && legs[0] === legs[1]) {
        const mm = sheet.clientWidth / PAGE_MM, gap = axis === 'x' ? 25 : 10;
        const middle = axis === 'x' ? (paper.scrollLeft + paper.clientWidth / 2) / mm : sizeMm(axis) / 2;
        legs[0] = clamp(Math.round((middle - gap / 2) / 5) * 5, 0, sizeMm(axis) - gap);
        legs[1] = legs[0] + gap;
      }
      figure.querySelector(`[data-do="${axis === 'x' ? 'c' : 'v'}"]`).setAttribute('aria-pressed', !box.hidden);
      draw(axis);
      if (!box.hidden) box.querySelector('[data-leg]').focus({ preventScroll: true });
    }
    function zoomTo(wanted) {
      const at = (paper.scrollLeft + paper.clientWidth / 2) / sheet.clientWidth;
      zoom = clamp(wanted, 0.5, 4);
      sheet.style.width = zoom === 1 ? '' : `${PAGE_MM * zoom}mm`;
      paper.scrollLeft = at * sheet.clientWidth - paper.clientWidth / 2;
    }

    const does = {
      c: () => caliper('x'), v: () => calipers.y && caliper('y'),
      '+': () => zoomTo(zoom * 1.25), '=': () => zoomTo(zoom * 1.25), '-': () => zoomTo(zoom / 1.25), 0: () => zoomTo(1),
    };
    figure.addEventListener('keydown', (event) => {
      if (event.target.matches('select') || event.ctrlKey || event.altKey || event.metaKey) return;
      const act = event.key.length === 1 && does[event.key.toLowerCase()];
      if (!act) return;
      event.preventDefault();
      act();
    });
    figure.addEventListener('click', (event) => {
      const button = event.target.closest('[data-do]');
      if (button) does[button.dataset.do]();
    });
  }

  const wire = (root) => root.querySelectorAll('[data-trace]').forEach(trace);
  document.addEventListener('wire', (event) => wire(event.detail));
  wire(document);
})();
