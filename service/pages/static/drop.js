// The files of what was dropped on a page: those of folders too, each with the folder that it stood in.
'use strict';

const dropped = (() => {
  const inFolder = async (entry) => {
    const reader = entry.createReader(), found = [];
    for (;;) {  // a browser gives at most 100 at a time
      const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
      if (!some.length) return found;
      for (const each of some) found.push(...await inEntry(each, entry.fullPath));
    }
  };
  const inEntry = async (entry, folder) => {
    if (!entry.isFile) return inFolder(entry);
    if (entry.name.startsWith('.')) return [];  // what a system hides, no person has chosen
    return [{ file: await new Promise((resolve, reject) => { entry.file(resolve, reject); }), folder }];
  };

  return {
    hasFiles: (event) => Boolean(event.dataTransfer) && [...event.dataTransfer.types].includes('Files'),
    async filesOf(transfer) {
      const plain = [...transfer.files];  // a transfer is empty after the first pause
      const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
      if (!entries.length) return plain.map((file) => ({ file, folder: '' }));
      const found = [];
      for (const entry of entries) found.push(...await inEntry(entry, ''));
      return found;
    },
  };
})();
