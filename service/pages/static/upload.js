// Sends a file over a bad connection by the tus protocol (1.0.0), in pieces of a megabyte. An upload that was cut off is
// resumed, also after the page was closed.
'use strict';

const uploads = (() => {
  const PIECE = 1_000_000, START = 65_536, STALLED_MS = 40_000, LONGEST_PAUSE_MS = 30_000;
  const TUS = { 'Tus-Resumable': '1.0.0' };
  const wait = (ms) => new Promise((resolve) => {
    const done = () => { clearTimeout(timer); removeEventListener('online', done); resolve(); };
    const timer = setTimeout(done, ms);
    addEventListener('online', done);
  });
  const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

  // Unfinished uploads, by what identifies a file; its name is not stored, because the machine may be shared. Its first
  // bytes count too: files of two persons may have the same name, size and time, and must never be taken for each other.
  async function keyOf(file, field) {
    let hash = 2166136261;
    const mix = (unit) => { hash = Math.imul(hash ^ unit, 16777619); };
    for (const unit of `${field}/${file.name}`) mix(unit.codePointAt(0));
    for (const byte of new Uint8Array(await file.slice(0, START).arrayBuffer())) mix(byte);
    return `upload ${(hash >>> 0).toString(36)} ${file.size} ${file.lastModified}`;
  }
  const underWay = new Set();
  const remembered = (key, value) => {
    if (key === null) return null;
    try {
      if (value === undefined) return localStorage.getItem(key);
      if (value === null) localStorage.removeItem(key); else localStorage.setItem(key, value);
    } catch { /* a browser that keeps nothing resumes within the page only */ }
    return null;
  };

  class Refused extends Error {}

  // One request. Rejects with Refused if another attempt would not help, else with the error.
  function ask(method, url, headers, body, progress, sending) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      let stalled;
      const alive = () => { clearTimeout(stalled); stalled = setTimeout(() => request.abort(), STALLED_MS); };
      request.open(method, url);
      request.setRequestHeader('Accept-Language', document.documentElement.lang);
      for (const [name, value] of Object.entries({ ...TUS, ...headers })) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => { alive(); if (progress) progress(event.loaded); };
      request.onload = () => {
        if (request.status < 300) { resolve(request); return; }
        const passing = request.status >= 500 || [408, 409, 423, 429].includes(request.status);
        let reason = '';
        try { reason = JSON.parse(request.responseText).detail; } catch { /* not one of ours */ }
        const error = passing || [404, 410].includes(request.status) ? new Error(reason) : new Refused(reason);
        reject(Object.assign(error, { status: request.status }));
      };
      request.onerror = () => reject(new Error());
      request.onabort = request.onerror;
      request.onloadend = () => { clearTimeout(stalled); if (sending) sending.request = null; };
      if (sending) sending.request = request;
      alive();
      request.send(body);
    });
  }

  // Send one file; resolves to its id, or null if it was removed. `show` gets the progress or the problem.
  async function send(file, field, sending, show, words) {
    const key = await keyOf(file, field);
    if (underWay.has(key)) return sendAs(null, file, field, sending, show, words);  // the same file twice
    underWay.add(key);
    try { return await sendAs(key, file, field, sending, show, words); } finally { underWay.delete(key); }
  }

  // `key` is null for an upload that is not remembered.
  async function sendAs(key, file, field, sending, show, words) {
    let url = remembered(key), offset = url ? null : 0, pause = 1000;
    while (!sending.removed) {
      try {
        if (!url) {
          const metadata = `filename ${base64(file.name)},field ${base64(field)}`;
          const made = await ask('POST', '/v1/uploads', { 'Upload-Length': file.size, 'Upload-Metadata': metadata });
          url = made.getResponseHeader('Location');
          remembered(key, url);
          offset = 0;
        } else if (offset === null) {
          const state = await ask('HEAD', url, {});
          offset = Number(state.getResponseHeader('Upload-Offset'));
          if (offset) show(offset, words.known);
        }
        sending.url = url;
        while (offset < file.size && !sending.removed) {
          const piece = file.slice(offset, offset + PIECE);
          const headers = { 'Content-Type': 'application/offset+octet-stream', 'Upload-Offset': offset };
          const taken = await ask('PATCH', url, headers, piece, (loaded) => show(offset + loaded), sending);
          offset = Number(taken.getResponseHeader('Upload-Offset'));
          show(offset);
          pause = 1000;
        }
        if (sending.removed) break;
        remembered(key, null);
        return url.split('/').pop();
      } catch (error) {
        if (sending.removed) break;
        if (error instanceof Refused) { remembered(key, null); throw error; }
        if ([404, 410].includes(error.status)) { remembered(key, null); url = null; }
        offset = null;
        if (error.status !== 409) {
          show(null, error.message || words.lost);
          await wait(pause * (0.75 + Math.random() / 2));
          pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
        }
      }
    }
    remembered(key, null);
    if (url) ask('DELETE', url, {}).catch(() => { /* it expires by itself */ });
    return null;
  }

  return { ask, send, wait, LONGEST_PAUSE_MS };
})();
