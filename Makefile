PYTHON ?= python3
PEERS_PYTHON ?= /usr/bin/python3
BIN := .venv/bin

.PHONY: demo serve test check mutants bench bench-short bench-peers chaos sbom base image lock lock-base lock-peers clean

demo: .venv/serve.done
	$(BIN)/python -m samples.demo

# For looking: nobody starts it again when it ends. For a clinic: deploy/ and docs/how-to/run-a-server.md.
serve: .venv/serve.done
	$(BIN)/python server.py

# Three processes of one thread each, since a third of the time they wait; a file of tests at a time. What needs the
# machine for itself runs at the end.
test: .venv/test.done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "not alone and not image"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m alone

check: .venv/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Changes one module (MODULE=data_specs/labs.py), or each of tests/mutants/modules.toml, in hundreds of ways, and prints
# the changes that no test notices.
mutants: .venv/test.done
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(MODULE)

# What was to be reached, misses included: half an hour, two thirds of it beside the peers. They need 800 MB of packages
# and, for Triton's worker, the distribution's own Python (a shared libpython); where that fails the table says so.
bench: .venv/test.done
	-$(MAKE) bench-peers
	$(BIN)/python -m benchmarks table

# The same table without the peers, measured once and shortly: whether it runs, not what to quote.
bench-short: .venv/test.done
	$(BIN)/python -m benchmarks table --seconds 1 --rounds 1

bench-peers: .venv/test.done .venv-peers/done
	$(BIN)/python -m benchmarks peers

# An hour and twenty minutes of kills, damaged files, slow clients, outages, a full disk, thin links, and of all that for
# several processes: docs/reference/reliability.md.
chaos: .venv/test.done
	$(BIN)/python -m benchmarks chaos

# What the image is made of, as CycloneDX in var/sbom.cdx.json, and a table of licences.
sbom: .venv/test.done
	$(BIN)/python deploy/sbom.py

# The image that containers run (needs mmdebstrap and podman), and its tests: docs/how-to/deploy.md. BUILD: options that
# podman needs here to reach an index of packages.
image: var/base.id sbom
	podman build $(BUILD) --build-arg BASE=$$(cat var/base.id) --tag sangloc --file deploy/Containerfile .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m image tests/deploy

var/base.id: deploy/base.lock
	$(MAKE) base
	diff deploy/base.lock var/base.versions
	podman import --quiet var/base.tar > $@

# A Debian for the image. MIRROR: a dated archive, where today's has newer versions than deploy/base.lock.
base:
	mkdir -p var
	SOURCE_DATE_EPOCH=0 mmdebstrap --variant=minbase --include=ca-certificates,python3-venv,tini,tzdata,usr-is-merged \
	  --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
	  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	  --customize-hook='chroot "$$1" dpkg-query --show --showformat="\$${Package}=\$${Version}\n" > $(CURDIR)/var/base.versions' \
	  bookworm var/base.tar $(MIRROR)

.venv-peers/done: requirements/peers.lock
	test -x .venv-peers/bin/python || $(PEERS_PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/peers.lock
	touch $@

# Serving needs no torch; deploy.lock adds PostgreSQL and S3, test.lock those and the tools of training and tests, at the same
# versions.
.venv/serve.done: requirements/serve.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/serve.lock
	touch $@

.venv/deploy.done: .venv/serve.done requirements/deploy.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/deploy.lock
	touch $@

.venv/test.done: .venv/serve.done requirements/test.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.lock
	touch $@

# Pin again what pyproject.toml declares (needs uv).
lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header -o requirements/serve.lock
	uv pip compile pyproject.toml --extra postgres --extra s3 --extra health-book \
	  -c requirements/serve.lock --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/deploy.lock
	uv pip compile pyproject.toml --extra train --extra test --extra postgres --extra s3 --extra health-book \
	  -c requirements/serve.lock \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  -o requirements/test.lock

lock-base: base
	cp var/base.versions deploy/base.lock

# requirements/peers.in says what; numpy stays under 2 for nvidia-pytriton.
lock-peers:
	uv pip compile requirements/peers.in --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header -o requirements/peers.lock

clean:
	rm -rf .venv runs .mypy_cache .ruff_cache .pytest_cache
