# Two commands need nothing else on a fresh Debian 13 or Ubuntu, as root: `make demo` and `make test`.

SHELL = /bin/sh
PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export PATH
PYTHON = .venv/bin/python
SANDBOX = exec $(PYTHON) -m harness.sandbox --
# Images are built in it, of packages.
NETWORKED_SANDBOX = exec $(PYTHON) -m harness.sandbox --network --

# How the plugin is built, such as --secret id=ca_bundle,src=... or --build-arg CVMFS_SOURCE=..., see Dockerfile.
BUILD_OPTIONS =
PLUGIN = cvmfs/graphdriver
PLUGIN_DIRECTORY = .cache/plugin
# What `docker plugin inspect` says that it was built from.
REVISION = $(or $(shell git rev-parse HEAD 2>/dev/null),unknown)

.PHONY: help secrets demo plugin plugin-push test soak bench lint docs dist
.PHONY: test-machine compiled built-dist
.DEFAULT_GOAL = help

help:
	@echo 'make demo    run the whole circle on this machine, once under each front end: run a thin image, commit it,'
	@echo '             run the result elsewhere, compare everything'
	@echo '             IMAGE=FILE|REFERENCE starts from a docker archive or from an image of a registry instead of Debian'
	@echo 'make test    lint, then every test, with real daemons (needs root)'
	@echo '             TESTS="tests/common -k sidecar" runs some of them'
	@echo 'make soak    kills, power cuts, faults of the network, load and hostile input for at most 20 minutes, and write'
	@echo '             docs/reliability.md from what came out; TESTS="tests/soak/..." runs some of them; SEED=N draws others'
	@echo 'make bench   compare with overlay2 and containerd's overlayfs, and write bench.json; ONLY=load,commit,... runs some rows'
	@echo 'make lint    ruff and mypy'
	@echo 'make docs    build the documentation as a site, in site/'
	@echo 'make dist    build what a release consists of, in dist/: wheel, source archive, and which packages they run with (SBOM)'
	@echo
	@echo 'Each installs what it needs and is missing (apt packages, a .venv from uv.lock), and says so.'
	@echo
	@echo 'To set a site up, with Docker:'
	@echo 'make secrets generate the secrets of docker-compose.yml as files in secrets/; none is overwritten'
	@echo 'make plugin  build the plugin of worker nodes and create it in the Docker of this machine, as $(PLUGIN)'
	@echo 'make plugin-push REGISTRY=HOST[:PORT]'
	@echo '             build it and push it to a registry, from which worker nodes install it'

secrets:
	@docker/make-secrets

# A file is a docker archive; anything else is fetched first, since there is no network in the sandbox.
IMAGE_ARCHIVE = $(if $(wildcard $(IMAGE)),$(IMAGE),.cache/image.tar)

demo:
	@harness/bootstrap.sh demo
	$(if $(IMAGE),$(if $(wildcard $(IMAGE)),,@harness/bootstrap.sh fetch '$(IMAGE)' $(IMAGE_ARCHIVE)))
	@$(SANDBOX) $(PYTHON) -m harness.demo $(if $(IMAGE),--image '$(IMAGE_ARCHIVE)')

plugin: build-plugin
	docker plugin create '$(PLUGIN)' $(PLUGIN_DIRECTORY)

# The engine gives no plugin a second name, and makes no two of the same content.
plugin-push: named-registry build-plugin
	@echo '$(REGISTRY)/$(PLUGIN)' >$(PLUGIN_DIRECTORY)/rootfs/etc/plugin-name
	docker plugin create '$(REGISTRY)/$(PLUGIN)' $(PLUGIN_DIRECTORY)
	docker plugin push '$(REGISTRY)/$(PLUGIN)'; status=$$?; docker plugin rm '$(REGISTRY)/$(PLUGIN)' && exit $$status

named-registry:
	@test -n '$(REGISTRY)' || { echo 'usage: make plugin-push REGISTRY=HOST[:PORT]' >&2; exit 2; }

build-plugin:
	@rm -rf $(PLUGIN_DIRECTORY)
	docker build --target plugin --output type=local,dest=$(PLUGIN_DIRECTORY) --build-arg 'REVISION=$(REVISION)' $(BUILD_OPTIONS) .

# Each worker has daemons of its own, which takes a while to start: for some tests it is not worth it.
WORKERS = $(call workers,3)
# Figures of load are no figures where three others work.
SOAK_WORKERS = $(call workers,2)
workers = --tx '$(1)*popen//python=harness/sandboxed-python' --dist loadscope --no-loadscope-reorder --max-worker-restart 0

test:
	@harness/bootstrap.sh lint
	@$(MAKE) --no-print-directory -j 3 lint compiled test-machine
	@$(if $(TESTS),$(NETWORKED_SANDBOX) $(PYTHON) -m pytest $(TESTS),exec $(PYTHON) -m pytest $(WORKERS))

# Beside the linters, since packages come slowly and one at a time.
test-machine:
	@harness/bootstrap.sh test

# Beside them too: tests start hundreds of processes, and pytest rewrites assertions,
# and where PYTHONDONTWRITEBYTECODE is set each process, and each worker, would compile anew what it imports.
compiled:
	@$(PYTHON) -m compileall -q -j 0 services harness tests
	@$(if $(TESTS),,said=$$(env -u PYTHONDONTWRITEBYTECODE $(PYTHON) -m pytest --collect-only -qq -p no:cacheprovider 2>&1) \
		|| { printf '%s\n' "$$said"; exit 1; })

SOAK_DIRECTORY = .cache/soak
SOAK_SECONDS = 1200
SEED = 0

# Where the time is up, the run has failed: what was found out by then is no whole.
soak:
	@harness/bootstrap.sh test
	@rm -rf $(SOAK_DIRECTORY) && mkdir -p $(SOAK_DIRECTORY) && date +%s >$(SOAK_DIRECTORY)/begun
	@timeout --signal INT --kill-after 60 $(SOAK_SECONDS) $(PYTHON) -m pytest $(SOAK_WORKERS) $(or $(TESTS),tests/soak) \
		--soak --seed $(SEED) --figures '$(CURDIR)/$(SOAK_DIRECTORY)'
	@$(if $(TESTS),,$(PYTHON) -m harness.reliability $(SOAK_DIRECTORY) --seed $(SEED) --begun "$$(cat $(SOAK_DIRECTORY)/begun)")

bench:
	@harness/bootstrap.sh bench
	@$(SANDBOX) $(PYTHON) -m harness.bench $(if $(ONLY),--only '$(ONLY)')

lint:
	@harness/bootstrap.sh lint
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

docs:
	@harness/bootstrap.sh docs
	@$(PYTHON) -m harness.site collect .cache/site
	@NO_MKDOCS_2_WARNING=1 .cache/docs-environment/bin/mkdocs build --quiet
	@$(PYTHON) -m harness.site check site
	@echo 'docs: site/index.html'

DIST = dist

dist:
	@harness/bootstrap.sh lint
	@rm -rf '$(DIST)'
	@$(MAKE) --no-print-directory built-dist
	@ls '$(DIST)'

# uv.lock decides what builds, too: hence no isolation. The wheel is made of the source archive.
built-dist:
	@.venv/bin/uv build --quiet --no-cache --offline --no-build-isolation --python $(PYTHON) --out-dir '$(DIST)'
	@.venv/bin/uv export --quiet --no-cache --offline --frozen --no-default-groups --all-extras \
		--preview-features sbom-export --format cyclonedx1.5 --output-file "$$(ls '$(DIST)'/*.tar.gz | sed 's/tar.gz$$/cdx.json/')"
