"""Reads the files of a pickle after everything is loaded, and prints what is imported meanwhile."""

import pickle
import sys
from pathlib import Path

from inference.readers.loading import JOBS, load

names = set()


class Recorded:
    """An importer that finds nothing, and remembers what was looked for."""

    def find_spec(self, name, path=None, target=None):
        names.add(name)
        raise ModuleNotFoundError(name)


def main(path):
    films, recordings = pickle.loads(Path(path).read_bytes())
    load(JOBS)
    from data_specs.bundle import EcgInput
    from data_specs.ecg.recording import LEADS
    from data_specs.problems import Refused
    from data_specs.visit.assessment import EvidenceMap
    from inference.cxr.reading import read_film
    from inference.ecg.picture import draw_beats
    from inference.ecg.reading import read_recordings
    from inference.render.reading import draw_film, draw_outlined, draw_trace, film_size

    a_map = EvidenceMap(kind="heatmap", input=0, values=[[0, 255], [128, 0]])

    sys.meta_path.insert(0, Recorded())
    for content in films:
        try:
            read_film([content], (224,))
            film_size([content])
            for window in ("as_sent", "lungs"):
                draw_film([content], 100, window, "jpeg")
                draw_film([content], 100, window)
            for kind in ("png", "jpeg"):
                draw_outlined([content], [a_map], 300, kind)
        except Refused:
            continue
    takes = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=6)
    for files in recordings:
        numbered = tuple(enumerate(files))
        read_recordings(list(files.values()), numbered, "mV", takes)
        for kind in ("png", "print", "svg"):
            draw_trace(list(files.values()), numbered, 0, "mV", None, kind)
        draw_beats(list(files.values()), numbered, 0, "mV")
    print(*sorted(names))


if __name__ == "__main__":
    main(sys.argv[1])
