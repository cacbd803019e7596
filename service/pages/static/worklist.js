// The worklist works without this file. It announces new urgent visits as the server tells them, and loads the list
// again then; where the server cannot tell them, htmx loads the list every 20 s, as without this file.
'use strict';

const TOLD_EVERY_MS = 60000;  // how often the list is loaded again while urgent visits are told
let told = false;
let loaded = Date.now();

function announce(visit) {
  let place = document.querySelector('.announced');
  if (!place) {
    place = document.createElement('div');
    place.className = 'announced';
    place.setAttribute('role', 'status');
    document.body.append(place);
  }
  const line = document.createElement('p');
  const link = document.createElement('a');
  link.href = `/visits/${visit.id}`;
  link.textContent = visit.text;
  line.append(link);
  place.prepend(line);
  while (place.children.length > 3) place.lastElementChild.remove();
}

function listen() {
  const address = document.querySelector('#list')?.dataset.events;
  if (!address || !window.EventSource) return;
  const events = new EventSource(address);
  events.addEventListener('open', () => { told = true; });
  events.addEventListener('error', () => { told = false; });  // the browser tries again, unless it was told not to
  events.addEventListener('urgent', (event) => {
    announce(JSON.parse(event.data));
    loaded = 0;
    htmx.trigger('#list', 'refresh');
  });
  window.addEventListener('pagehide', () => events.close());
}

// What is open stays open when the list is loaded again, and nothing is loaded while something in it has the focus.
document.addEventListener('htmx:beforeRequest', (event) => {
  if (event.target.id !== 'list') return;
  const isSoon = told && Date.now() - loaded < TOLD_EVERY_MS;
  if (isSoon || event.target.contains(document.activeElement)) event.preventDefault();
});
document.addEventListener('htmx:beforeSwap', (event) => {
  if (event.target.id !== 'list') return;
  loaded = Date.now();
  const open = [...event.target.querySelectorAll('details[open]')].map((each) => each.id);
  document.addEventListener('htmx:afterSwap', () => {
    open.forEach((id) => document.getElementById(id)?.setAttribute('open', ''));
  }, { once: true });
});

// An address without empty members, and days of the reader's own time zone.
const form = document.querySelector('.find');
form?.querySelectorAll('[data-offset]').forEach((field) => { field.value = -new Date().getTimezoneOffset(); });
form?.addEventListener('submit', () => {
  const [from, to, offset] = ['from', 'to', 'offset'].map((name) => form.elements[name]);
  if (!from.value && !to.value) offset.disabled = true;
  for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
});
window.addEventListener('pageshow', () => { for (const field of form?.elements ?? []) field.disabled = false; });

listen();
