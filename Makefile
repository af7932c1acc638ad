# Two commands need nothing else on a fresh Debian 13 or Ubuntu, as root: `make demo` and `make test`.

SHELL = /bin/sh
PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export PATH
PYTHON = .venv/bin/python
SANDBOX = exec $(PYTHON) -m harness.sandbox --
# Images are built in it, of packages.
NETWORKED_SANDBOX = exec $(PYTHON) -m harness.sandbox --network --

.PHONY: help secrets demo test bench lint
.DEFAULT_GOAL = help

help:
	@echo 'make demo    run the whole circle on this machine: run a thin image, commit it, run the result elsewhere'
	@echo '             IMAGE=FILE|REFERENCE starts from a docker archive or from an image of a registry instead of Debian'
	@echo 'make test    lint, then every test, with real daemons (needs root)'
	@echo '             TESTS="tests/common -k sidecar" runs some of them'
	@echo 'make bench   compare with overlay2 and write bench.json; ONLY=load,commit,... runs some rows'
	@echo 'make lint    ruff and mypy'
	@echo 'make secrets generate the secrets that docker-compose.yml mounts; none is overwritten'
	@echo
	@echo 'Each but the last installs what it needs and is missing (apt packages, a .venv from uv.lock), and says so.'

secrets:
	@docker/make-secrets

# A file is a docker archive; anything else is fetched first, since there is no network in the sandbox.
IMAGE_ARCHIVE = $(if $(wildcard $(IMAGE)),$(IMAGE),.cache/image.tar)

demo:
	@harness/bootstrap.sh demo
	$(if $(IMAGE),$(if $(wildcard $(IMAGE)),,@harness/bootstrap.sh fetch '$(IMAGE)' $(IMAGE_ARCHIVE)))
	@$(SANDBOX) $(PYTHON) -m harness.demo $(if $(IMAGE),--image '$(IMAGE_ARCHIVE)')

test: lint
	@harness/bootstrap.sh test
	@$(NETWORKED_SANDBOX) $(PYTHON) -m pytest $(TESTS)

bench:
	@harness/bootstrap.sh bench
	@$(SANDBOX) $(PYTHON) -m harness.bench $(if $(ONLY),--only '$(ONLY)')

lint:
	@harness/bootstrap.sh lint
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
