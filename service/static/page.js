// The pages work without this file; it adds local times and a gentle refresh.
'use strict';

const language = document.documentElement.lang;

function localTimes(root) {
  const form = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'short' });
  for (const time of root.querySelectorAll('time[data-moment]')) {
    time.title = time.textContent;
    time.textContent = form.format(new Date(time.dateTime));
  }
}

function wire(root) {
  localTimes(root);
  root.querySelectorAll('[data-scripted]').forEach((control) => { control.hidden = false; });
  document.dispatchEvent(new CustomEvent('wire', { detail: root }));  // viewer.js and trace.js listen
}

// Fetch the same address again and put its content in place, unless the reader is elsewhere or selecting text.
async function refresh() {
  const main = document.getElementById('content');
  const seconds = Number(main.dataset.refresh);
  if (!seconds) return;
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  if (!document.hidden && document.getSelection().isCollapsed) {
    try {
      const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
      if (answer.redirected) { location.reload(); return; }
      if (answer.ok) {
        const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html').getElementById('content');
        const focused = document.activeElement && document.activeElement.getAttribute('href');
        const within = main.contains(document.activeElement);
        wire(fresh);
        main.replaceWith(fresh);
        if (within && focused) {
          const again = [...fresh.querySelectorAll('a')].find((link) => link.getAttribute('href') === focused);
          if (again) again.focus({ preventScroll: true });
        }
      }
    } catch {
      // The network is away; the next turn tries again.
    }
  }
  refresh();
}

wire(document);
refresh();
