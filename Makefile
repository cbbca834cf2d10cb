# orders. `make demo` shows it running, `make test` proves it; `make` lists the rest.

export ORDERS_CACHE ?= $(HOME)/.cache/orders
# Outside the checkout, so that a fresh clone finds what was built before.
export CARGO_TARGET_DIR ?= $(ORDERS_CACHE)/target

# Which checkout the project's own crates in there were built from.
BUILT_FROM := $(CARGO_TARGET_DIR)/checkout
PACKAGES    = $(addprefix -p ,$(shell grep -hm1 '^name = ' */Cargo.toml | cut -d'"' -f2))

NAMESPACE ?= shop
CHART     := helm/orders
TESTBED   := $(CARGO_TARGET_DIR)/debug/testbed
FAULTS    := $(CARGO_TARGET_DIR)/debug/orders-faults
PLANTED   := $(CARGO_TARGET_DIR)/debug/planted
BIN       := $(ORDERS_CACHE)/bin/current
PREVIOUS  := $(ORDERS_CACHE)/previous
SERVICES  := api-server operator billing notify archive
say        = @printf '\n\033[1m== %s\033[0m\n'

# `make env` prints these for a shell; make itself needs them, too.
KUBE       = eval "$$($(TESTBED) env)";
# kind's node fetches NATS by itself; the node of the testbed has no registry.
NATS       = $(if $(filter kind,$(CLUSTER)),, --set nats.server.image.repository=localhost/orders-nats --set nats.server.image.tag=testbed)
IMAGES     = $(if $(filter-out ,$(KUBE_CONTEXT)),,--set image.registry=localhost --set image.tag=testbed --set image.pullPolicy=Never$(NATS))
CRDS       := orders.arch.homework customers.arch.homework

.PHONY: help demo down test test-unit test-integration test-scale test-faults test-faults-short test-e2e load-previous dev fault-programs lint lint-idl generate env testbed install newman measure compare bench pictures deny checkout npm

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '%s\n' 'Variables: NAMESPACE=shop, HELM_ARGS, ORDERS_CACHE=~/.cache/orders,' \
	  '  CLUSTER=kind (a node in Docker), KUBE_CONTEXT=NAME (a cluster of your own)'

demo: testbed ## Bring up a real Kubernetes, install the chart, run the Postman scenario, show the orders
	$(say) "1/5 A Kubernetes node on this machine (built from source the first time: about 11 minutes)"
	@$(TESTBED) up node
	$(say) "2/5 Images of this checkout (compiled the first time: about 6 minutes)"
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

install: testbed ## What demo installs; HELM_ARGS='--set …' adds to it
	@$(KUBE) helm upgrade --install orders ./$(CHART) --namespace $(NAMESPACE) --create-namespace $(IMAGES) --wait --timeout 5m --hide-notes $(HELM_ARGS)

newman: npm ## The Postman scenario against http://arch.homework
	@cd postman && { [ -d node_modules/newman ] || npm ci --no-audit --no-fund --loglevel=error; } && npm test --silent

down: testbed ## End everything that demo, dev and the tests started
	@$(TESTBED) down

test: lint test-unit test-integration test-faults-short test-e2e ## Prove all of it (about 45 minutes warm); ends a running demo and its orders
	@$(TESTBED) down
	$(say) "All tests passed"

test-unit: checkout ## Rules, parsers, decisions: no cluster
	$(say) "Unit tests"
	@cargo test --workspace --lib --bins --quiet

test-integration: testbed ## The services as processes on a real API server, with real databases and mail
	$(say) "Integration tests"
	@$(TESTBED) up control-plane
	@cargo build --workspace --quiet
	@cargo test --workspace --exclude orders-testbed --test '*'
	@cargo test -p orders-testbed --test servers --test integration -- --test-threads=3
	$(say) "The same suite with a broker for notifications, and with a broker for everything"
	@INTERACTION=notify-broker cargo test -p orders-testbed --test integration -- --test-threads=3 --skip broker::
	@INTERACTION=broker cargo test -p orders-testbed --test integration -- --test-threads=3 --skip broker::
	@$(MAKE) --no-print-directory test-scale

# As the images have them, which `make test` builds anyway: unoptimized, the services would be what is measured.
test-scale: testbed ## 20,000 orders passing through, and lost leaders under load (about 6 minutes); ORDERS=2000 for a try
	$(say) "At scale, alone on the machine"
	@cargo build --release --workspace --locked --quiet $(addprefix --bin=orders-,$(SERVICES))
	@cargo build --quiet -p orders-audit
	@PROGRAMS=$(CARGO_TARGET_DIR)/release cargo test -p orders-testbed --test scale -- --test-threads=1 --nocapture

test-faults: fault-programs ## Every fault at every effect, in each style (about 75 minutes); CASE=… or SCENARIO=… repeats one, SEED=… shuffles
	$(say) "Faults"
	@$(FAULTS) $(if $(CASE),case $(CASE),$(if $(SCENARIO),scenario $(SCENARIO),all) $(if $(SEED),--seed $(SEED)) $(if $(INTERACTION),--interaction $(INTERACTION)))
	$(if $(CASE)$(SCENARIO),,@$(FAULTS) planted --programs $(PLANTED))

test-faults-short: fault-programs
	$(say) "Faults: a selection, and planted bugs that it has to find (about 15 minutes)"
	@$(FAULTS) short
	@$(FAULTS) planted --programs $(PLANTED)

# The services twice: as they are, and with deliberate faults, set aside before the others take their place.
fault-programs: testbed
	@$(TESTBED) up control-plane
	@cargo build --workspace --quiet --features orders-operator/planted-bugs,orders-billing/planted-bugs,orders-notify/planted-bugs
	@mkdir -p $(PLANTED) && cp $(addprefix $(CARGO_TARGET_DIR)/debug/orders-,$(SERVICES)) $(PLANTED)
	@cargo build --workspace --quiet

test-e2e: testbed ## The chart on a real node: install, upgrade, kill, uninstall
	$(say) "End-to-end tests"
	@$(TESTBED) down node
	@$(TESTBED) up node
	@$(TESTBED) load
	@$(MAKE) --no-print-directory load-previous
	@cargo build --quiet -p kubectl-orders
	@cargo test -p orders-testbed --test end_to_end -- --test-threads=1 --nocapture

# The commit before this one, for the upgrade from it: its chart, and its images with the tag "previous". Compiled in a place
# of its own, since cargo takes two checkouts of one workspace for the same.
load-previous: testbed
	$(say) "Images of the commit before this one"
	@commit=$$(git rev-parse --verify --quiet HEAD^); \
	if [ -z "$$commit" ]; then rm -rf $(PREVIOUS)/checkout $(PREVIOUS)/commit; \
	  echo "this clone has no commit before this one: the upgrade from it is not tried" >&2; exit 0; fi; \
	if [ "$$(cat $(PREVIOUS)/commit 2>/dev/null)" != "$$commit" ]; then \
	  rm -rf $(PREVIOUS)/checkout $(PREVIOUS)/commit && mkdir -p $(PREVIOUS)/checkout && \
	  git archive "$$commit" | tar -xm -C $(PREVIOUS)/checkout && echo "$$commit" > $(PREVIOUS)/commit || exit 1; fi; \
	CARGO_TARGET_DIR=$(PREVIOUS)/target $(TESTBED) load --repository $(PREVIOUS)/checkout --tag previous \
	  --only "$$(sed -n 's/^FROM runtime AS //p' $(PREVIOUS)/checkout/Dockerfile | paste -sd,)"

dev: testbed ## The services on this machine against a bare control plane, until Ctrl-C; INTERACTION=broker for another style
	@$(TESTBED) up control-plane
	@cargo build --workspace
	@$(TESTBED) dev

measure: testbed ## Figures of the running demo: time from POST to answer, memory
	@$(TESTBED) measure

compare: testbed ## The three styles of interaction side by side, as a table (about 10 minutes); COMPARE='--rounds 1' changes it
	@$(TESTBED) up control-plane
	@cargo build --release --quiet -p orders-testbed $(addprefix -p orders-,$(SERVICES))
	@$(CARGO_TARGET_DIR)/release/testbed compare --programs $(CARGO_TARGET_DIR)/release $(COMPARE)

bench: testbed ## Orders measured against the API server itself, against goals (about an hour); BENCH='--quick' changes it
	@cargo build --release --quiet -p orders-bench -p orders-testbed $(addprefix -p orders-,$(SERVICES))
	@$(CARGO_TARGET_DIR)/release/orders-bench $(if $(SECTION),$(SECTION),all) --json $(CARGO_TARGET_DIR)/bench.json --plot $(CARGO_TARGET_DIR)/bench.svg $(BENCH)

pictures: npm ## Draw docs/interaction/*.mmd anew, as SVG and in docs/interaction.md; needs chromium
	@docs/interaction/pictures.sh

lint: checkout lint-idl ## Formatting, clippy, and lint-idl (that generated files are those of the code, the tests check)
	$(say) "Lint"
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@docs/interaction/pictures.sh --check

lint-idl: idl/node_modules/.package-lock.json ## The OpenAPI and AsyncAPI documents, by Spectral; warnings are errors
	$(say) "OpenAPI and AsyncAPI documents"
	@cd idl && npm run --silent lint

# npm writes it when all else is installed. Scripts of packages have nothing to do here.
idl/node_modules/.package-lock.json: idl/package-lock.json | npm
	@cd idl && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error

deny: ## Licences, sources and bans of dependencies, by cargo-deny
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install cargo-deny --locked" >&2; exit 1; }
	@cargo deny check licenses bans sources

generate: checkout ## Write the files that are generated and committed: the CRDs, the OpenAPI and AsyncAPI documents
	@for crd in $(CRDS); do \
	  file=$(CHART)/crds-generated/$$crd.yaml; \
	  cargo run --quiet -p orders-crds --bin crdgen -- $$crd > $$file.new || exit 1; \
	  mv $$file.new $$file; done
	@for service in api-server billing notify archive; do \
	  cargo run --quiet -p orders-$$service --bin $$service-openapi > $$service/openapi.json.new || exit 1; \
	  mv $$service/openapi.json.new $$service/openapi.json; done
	@for style in notify-broker broker; do \
	  cargo run --quiet -p orders-broker --bin broker-asyncapi $$style > broker/asyncapi/$$style.json.new || exit 1; \
	  mv broker/asyncapi/$$style.json.new broker/asyncapi/$$style.json; done

env: testbed ## Print exports of KUBECONFIG and PATH: eval "$(make -s env)"
	@$(TESTBED) env

testbed: checkout
	@[ -x $(TESTBED) ] || echo "building the testbed's own tool (about 3 minutes the first time)"
	@cargo build --quiet -p orders-testbed

npm:
	@command -v npm >/dev/null || { echo "npm is missing: install Node.js 18 or newer (Debian: apt-get install npm)" >&2; exit 1; }

# Checkouts share what was built of the dependencies, never of the project: cargo
# tells by time and not by content whether a source was built, so that an older
# checkout would be given a newer one's programs.
checkout:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer, https://rustup.rs" >&2; exit 1; }
	@[ "$$(cat $(BUILT_FROM) 2>/dev/null)" = "$(CURDIR)" ] || { mkdir -p $(CARGO_TARGET_DIR) && \
	  cargo clean --quiet $(PACKAGES) && cargo clean --quiet --release $(PACKAGES) && echo "$(CURDIR)" > $(BUILT_FROM); }
