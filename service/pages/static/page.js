// The pages work without this file. It shows local times, and decides when htmx may load a part of the page again.
'use strict';

const language = document.documentElement.lang;

const momentForm = language === 'vi'  // as a Vietnamese form has it: 22/11/2026, not '22 thg 11, 2026'
  ? new Intl.DateTimeFormat('vi', { day: '2-digit', month: '2-digit', year: 'numeric', hour: '2-digit', minute: '2-digit' })
  : new Intl.DateTimeFormat(language === 'en' ? 'en-GB' : language, { dateStyle: 'medium', timeStyle: 'short' });

function localTimes(root) {
  for (const time of root.querySelectorAll('time[data-moment]')) {
    time.title = time.textContent;
    time.textContent = momentForm.format(new Date(time.dateTime));
  }
}

function wire(root) {
  localTimes(root);
  root.querySelectorAll('[data-scripted]').forEach((control) => { control.hidden = false; });
  document.dispatchEvent(new CustomEvent('wire', { detail: root }));  // viewer.js and trace.js listen
}

// A part that is loaded again (htmx, hx-trigger="every …") waits while the page is hidden or text is selected.
document.addEventListener('htmx:beforeRequest', (event) => {
  const byClock = event.target.matches('[hx-trigger^="every"]');
  if (byClock && (document.hidden || !document.getSelection().isCollapsed)) event.preventDefault();
});
document.addEventListener('htmx:load', (event) => { if (event.detail.elt !== document.body) wire(event.detail.elt); });

wire(document);
