# Targets for building, running and testing orders. `make` lists them all.

SHELL := /bin/bash
export ORDERS_CACHE ?= $(HOME)/.cache/orders
# The target directory is outside the checkout, so that a fresh clone reuses earlier builds.
export CARGO_TARGET_DIR ?= $(ORDERS_CACHE)/target

# This file names the checkout from which the project's own crates in the target directory were built.
BUILT_FROM := $(CARGO_TARGET_DIR)/checkout
PACKAGES   = $(addprefix -p ,$(shell grep -hm1 '^name = ' */Cargo.toml testing/*/Cargo.toml | cut -d'"' -f2))

NAMESPACE ?= shop
CHART     := helm/orders
PROGRAMS  := $(CARGO_TARGET_DIR)/debug
TESTBED   := $(PROGRAMS)/testbed
FAULTS    := $(PROGRAMS)/orders-faults
# Builds and tests always select the whole workspace. The selection determines the features of shared crates, so cargo
# would compile those crates once more for every other selection.
BUILD     := cargo build --workspace --locked --quiet
TEST      := cargo test --workspace --locked
SUITE     := $(TEST) --test integration -- --test-threads=3 --skip scale::
PREVIOUS  := $(ORDERS_CACHE)/previous
SERVICES  := api-server operator billing notify archive
say       = @printf '\n\033[1m== %s\033[0m\n'

# Sets the variables that `make env` prints. Recipes need them, too.
KUBE       = eval "$$($(TESTBED) env)";
# A kind node pulls the NATS image from its registry. The testbed's node has no registry.
NATS       = $(if $(filter kind,$(CLUSTER)),, --set nats.server.image.repository=localhost/orders-nats --set nats.server.image.tag=testbed)
IMAGES     = $(if $(filter-out ,$(KUBE_CONTEXT)),,--set image.registry=localhost --set image.tag=testbed --set image.pullPolicy=Never$(NATS))
CRDS       := orders.arch.homework customers.arch.homework

.PHONY: help demo down dev build build-cluster test test-all test-unit test-services test-integration test-styles test-faults \
  test-faults-quick test-sweep test-scale test-e2e test-upgrade test-mutants lint lint-idl lint-features node load-previous \
  generate env testbed install newman measure compare bench pictures deny checkout npm

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '%s\n' 'Variables: NAMESPACE=shop, HELM_ARGS, ORDERS_CACHE=~/.cache/orders,' \
	  '  CLUSTER=kind (a node in Docker), KUBE_CONTEXT=NAME (a cluster of your own)'

demo: testbed ## Start a real Kubernetes, install the chart, run the Postman scenario, show the orders
	$(say) "1/5 A Kubernetes node on this machine (built from source the first time: about 11 minutes)"
	@$(TESTBED) up node
	$(say) "2/5 Images of this checkout (compiled the first time: about 4 minutes)"
	@$(TESTBED) load
	$(say) "3/5 helm install orders ./$(CHART) --namespace $(NAMESPACE)"
	@$(MAKE) --no-print-directory install
	@$(TESTBED) expose --namespace $(NAMESPACE)
	$(say) "4/5 The Postman scenario by newman, through http://arch.homework"
	@$(MAKE) --no-print-directory newman
	$(say) "5/5 What Kubernetes says"
	@$(KUBE) kubectl get orders -n $(NAMESPACE) --sort-by=.metadata.creationTimestamp | { IFS= read -r head; echo "$$head"; tail -n 10; }
	@$(KUBE) kubectl describe orders -n $(NAMESPACE) "$$(kubectl get orders -n $(NAMESPACE) --sort-by=.metadata.creationTimestamp -o name | tail -n 1 | cut -d/ -f2)"
	$(say) "It runs at http://arch.homework (docs: http://arch.homework/docs/)"
	@printf '%s\n' 'To look around:      eval "$$(make -s env)"; kubectl get orders -n $(NAMESPACE)' \
	  'To read the mail:    kubectl port-forward -n $(NAMESPACE) service/orders-inbox 1080:1080, then http://localhost:1080/' \
	  'Report of newman:    postman/report/index.html' 'To end it:           make down'

install: testbed ## Install or upgrade the chart as demo does; HELM_ARGS='--set …' adds arguments
	@$(KUBE) helm upgrade --install orders ./$(CHART) --namespace $(NAMESPACE) --create-namespace $(IMAGES) --wait --timeout 5m --hide-notes $(HELM_ARGS)

newman: npm ## Run the Postman scenario against http://arch.homework; NEWMAN_ARGS='--env-var …' adds arguments
	@cd postman && { [ -d node_modules/newman ] || npm ci --no-audit --no-fund --loglevel=error; } && npm test --silent -- $(NEWMAN_ARGS)

down: testbed ## Stop everything that demo, dev and the tests started
	@$(TESTBED) down

test: ## Run the tests for a commit, as CI does; stops a running demo and deletes its orders
	@testing/steps.sh test lint=30 build=60 build-cluster=5 test-unit=20 test-services=40 test-integration=240 test-faults-quick=180 test-e2e=240
	@$(TESTBED) down

test-all: ## Run the tests for a release: all of `make test`, and the long tests
	@testing/steps.sh test-all lint=30 build=60 build-cluster=5 test-unit=20 test-services=40 test-integration=240 test-e2e=240 \
	  test-styles=420 test-upgrade=500 test-faults=900 test-scale=500
	@$(TESTBED) down

build: checkout ## Compile all programs and tests
	@[ -n "$$BUILT" ] || $(BUILD) --all-targets

build-cluster: build ## Compile Kubernetes, etcd, NATS, containerd and Helm, once on a machine, and install packages
	@$(TESTBED) build node

test-unit: build ## Unit tests of rules, parsers and decisions, without a cluster
	@$(TEST) --lib --bins --quiet

test-services: build ## Tests of each service alone: generated files, exhaustive decisions, SQLite and PostgreSQL, mail
	@$(TEST) --test suite --quiet

# Most behavior does not depend on the style of interaction. For the styles with a broker, this target runs only the tests
# whose behavior differs.
test-integration: build ## All services on a real API server, over HTTP, on both databases; tests that differ with a broker
	@$(TESTBED) up control-plane
	@DATABASE=sqlite $(SUITE) --skip broker::
	@DATABASE=postgres $(SUITE) --skip servers::
	@for style in notify-broker broker; do INTERACTION=$$style DATABASE=postgres $(SUITE) \
	    contract:: while_billing_is_down while_notify_is_down suite_runs_in_the_style concurrency:: cancelled_ten_times_concurrently_is_refunded_once || exit 1; done

test-styles: node ## The whole suite in both styles with a broker, and upgrades between the styles on the node
	@$(TESTBED) up control-plane
	@INTERACTION=notify-broker $(SUITE) --skip broker:: --skip servers::
	@INTERACTION=broker $(SUITE) --skip broker:: --skip servers::
	@$(TEST) --test end_to_end -- --test-threads=1 --nocapture each_style_of_interaction

test-faults-quick: build ## Inject each fault once on a channel to each server: about sixty cases
	@$(TESTBED) up control-plane
	@$(FAULTS) quick

test-faults: build ## Inject each fault on each channel in each style, run all scenarios and seeded bugs; CASE=… or SCENARIO=… runs one
	@$(TESTBED) up control-plane
	@$(FAULTS) $(if $(CASE),case $(CASE),$(if $(SCENARIO),scenario $(SCENARIO),selection) $(if $(SEED),--seed $(SEED)) $(if $(INTERACTION),--interaction $(INTERACTION)))
	$(if $(CASE)$(SCENARIO),,@$(FAULTS) seeded-bugs)
	$(if $(CASE)$(SCENARIO),,@DATABASE=postgres $(SUITE) settlement::)

test-sweep: build ## Inject every fault at every effect in each style (about 75 minutes); SEED=… sets the order of the cases
	@$(TESTBED) up control-plane
	@$(FAULTS) full $(if $(SEED),--seed $(SEED)) $(if $(INTERACTION),--interaction $(INTERACTION))

# The services are release builds: otherwise their missing optimization would dominate the results.
test-scale: build ## Process 20,000 orders, and replace leaders under load; ORDERS=2000 for a short run
	@$(TESTBED) up control-plane
	@$(BUILD) --release $(addprefix --bin=orders-,$(SERVICES))
	@PROGRAMS=$(CARGO_TARGET_DIR)/release $(TEST) --test integration -- --test-threads=1 --nocapture scale::

test-e2e: build ## Test the chart on a new node: install, helm test, newman, columns, events, a pod killed under load, uninstall
	@$(TESTBED) down node
	@$(MAKE) --no-print-directory node
	@$(TEST) --test end_to_end -- --test-threads=1 --nocapture --skip each_style_of_interaction --skip upgrade::

test-upgrade: node load-previous ## Upgrade from the previous commit's chart and images to this one, with orders in each state
	@$(TEST) --test end_to_end -- --test-threads=1 --nocapture upgrade::

node: build ## Start a node and load the images of this checkout
	@$(TESTBED) up node
	@$(TESTBED) load

# Provides the previous commit's chart, and its images with the tag "previous". It has its own target directory, since
# cargo does not distinguish two checkouts of one workspace.
load-previous: node
	@commit=$$(git rev-parse --verify --quiet HEAD^); \
	if [ -z "$$commit" ]; then rm -rf $(PREVIOUS)/checkout $(PREVIOUS)/commit; \
	  echo "this clone has no previous commit: the upgrade test is skipped" >&2; exit 0; fi; \
	if [ "$$(cat $(PREVIOUS)/commit 2>/dev/null)" != "$$commit" ]; then \
	  rm -rf $(PREVIOUS)/checkout $(PREVIOUS)/commit && mkdir -p $(PREVIOUS)/checkout && \
	  git archive "$$commit" | tar -xm -C $(PREVIOUS)/checkout && echo "$$commit" > $(PREVIOUS)/commit || exit 1; fi; \
	CARGO_TARGET_DIR=$(PREVIOUS)/target $(TESTBED) load --repository $(PREVIOUS)/checkout --tag previous \
	  --only "$$(sed -n 's/^FROM runtime AS //p' $(PREVIOUS)/checkout/Dockerfile | paste -sd,)"

test-mutants: build ## Mutation tests of the code that decides about money: unit and database tests must kill every mutant (docs/explanation/reliability.md)
	@PATH="$(ORDERS_CACHE)/cargo/bin:$$PATH"; export PATH; \
	for tool in cargo-mutants cargo-nextest; do \
	  command -v $$tool >/dev/null || env -u CARGO_TARGET_DIR cargo install $$tool --locked --quiet --root $(ORDERS_CACHE)/cargo || exit 1; \
	done; \
	testing/mutants.sh $(MUTANTS)

dev: testbed ## Run the services on this machine with a control plane, until Ctrl-C; INTERACTION=broker for another style
	@$(TESTBED) up control-plane
	@$(BUILD) --bins
	@$(PROGRAMS)/orders-dev

measure: testbed ## Measure the running demo: time from POST to response, memory
	@$(PROGRAMS)/orders-bench demo

compare: testbed ## Measure the three styles of interaction and print a table (about 10 minutes); COMPARE='--rounds 1' sets options
	@$(TESTBED) up control-plane
	@$(BUILD) --release --bins
	@$(CARGO_TARGET_DIR)/release/orders-bench compare $(COMPARE)

bench: testbed ## Measure orders in comparison to the bare API server and to goals (about an hour); BENCH='--quick' sets options
	@$(BUILD) --release --bins
	@$(CARGO_TARGET_DIR)/release/orders-bench $(if $(SECTION),$(SECTION),all) --json $(CARGO_TARGET_DIR)/bench.json --plot $(CARGO_TARGET_DIR)/bench.svg $(BENCH)

pictures: npm ## Render docs/explanation/interaction/*.mmd as SVG and in docs/explanation/interaction.md; needs chromium
	@docs/explanation/interaction/pictures.sh

lint: checkout lint-features lint-idl ## Check formatting and clippy; run lint-features and lint-idl
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	@docs/explanation/interaction/pictures.sh --check

# If a dev-dependency enables a feature of a shared crate, cargo compiles every dependent of that crate twice.
lint-features: checkout ## Check that programs and tests share one build of their dependencies
	@tree() { cargo tree --workspace --locked --prefix none --format '{p} {f}' --edges "$$1" | sed 's/ (\*)$$//' | sort -u; }; \
	differs=$$(comm -23 <(tree no-dev) <(tree normal,build,dev)); \
	if [ -n "$$differs" ]; then printf 'dev-dependencies change the features of:\n%s\n' "$$differs" >&2; exit 1; fi

lint-idl: idl/node_modules/.package-lock.json ## Check the OpenAPI and AsyncAPI documents with Spectral; warnings are errors
	$(say) "OpenAPI and AsyncAPI documents"
	@cd idl && npm run --silent lint

# npm writes this file after all packages are installed. No package needs its install scripts.
idl/node_modules/.package-lock.json: idl/package-lock.json | npm
	@cd idl && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error

deny: ## Check the licenses, sources and bans of dependencies with cargo-deny
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install cargo-deny --locked" >&2; exit 1; }
	@cargo deny check licenses bans sources

generate: checkout ## Write the generated files that are committed: the CRDs, the OpenAPI and AsyncAPI documents
	@$(BUILD) --bins
	@write() { "$${@:2}" > "$$1.new" && mv "$$1.new" "$$1"; }; set -e; \
	for crd in $(CRDS); do write $(CHART)/crds-generated/$$crd.yaml $(PROGRAMS)/crdgen $$crd; done; \
	for service in api-server billing notify archive; do write $$service/openapi.json $(PROGRAMS)/$$service-openapi; done; \
	for style in notify-broker broker; do write contracts/asyncapi/$$style.json $(PROGRAMS)/asyncapi $$style; done

env: testbed ## Print exports of KUBECONFIG and PATH: eval "$(make -s env)"
	@$(TESTBED) env

testbed: checkout
	@[ -x $(TESTBED) ] || echo "compiling the programs of this checkout (about 4 minutes the first time)"
	@$(BUILD) --bins

npm:
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 18 or newer (Debian: apt-get install npm)" >&2; exit 1; }

# Checkouts share the builds of dependencies, but not of the project's own crates. cargo compares the modification times of
# sources and not their content, so an older checkout would get the programs of a newer one.
checkout:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer, https://rustup.rs" >&2; exit 1; }
	@[ "$$(cat $(BUILT_FROM) 2>/dev/null)" = "$(CURDIR)" ] || { mkdir -p $(CARGO_TARGET_DIR) && \
	  cargo clean --quiet $(PACKAGES) && cargo clean --quiet --release $(PACKAGES) && echo "$(CURDIR)" > $(BUILT_FROM); }
