# keytrail. 'make' alone lists what there is.

GO ?= go
BIN := bin/keytrail
DATA ?= data
LISTEN ?= 127.0.0.1:8080
LINT_VERSION := v2.15.0

.DEFAULT_GOAL := help
.PHONY: help build run test short clientsuite ibmsuite mutants lint fmt bench torture fuzz web clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/keytrail
	@mkdir -p bin
	$(GO) build -trimpath -o $(BIN) ./cmd/keytrail

run: build ## build, fetch the engine, start on embedded stores with a demonstration (DATA=data LISTEN=127.0.0.1:8080)
	$(BIN) serve --data $(DATA) --listen $(LISTEN) --demo

test: build ## all tests with the race detector
	$(BIN) dev engine
	cd web && npm ci --silent && npm test --silent
	$(GO) vet ./...
	$(GO) test -race -timeout 20m ./...
	$(GO) run ./scripts/clientsuite
	$(GO) run ./scripts/ibmsuite -binary $(BIN)

short: build ## the tests without the race detector and without the long ones
	$(GO) test -short ./...

clientsuite: ## Kurrent's own client suite, unmodified, on the embedded event store (ports 2111 to 2115)
	$(GO) run ./scripts/clientsuite

ibmsuite: build ## IBM's SDKs: the integration tests of the Go SDK for IAM Identity, unmodified, and a key's life through the Node SDK (needs npm)
	$(BIN) dev engine
	$(GO) run ./scripts/ibmsuite -binary $(BIN)

mutants: ## put faults into the event store, one at a time, and demand that the tests see each (RUN=expression)
	$(GO) run ./scripts/mutants $(if $(RUN),-run '$(RUN)')

lint: ## the linters of .golangci.yml
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) run ./...

fmt: ## format the code
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) fmt ./...

bench: build ## measure: the log, commands, usage until queryable, search, replay, disk, memory, start-up; says which goals are reached
	$(BIN) dev engine
	$(GO) run ./scripts/bench -binary $(BIN)

torture: build ## make every fault while writing, then count (KILLS=500 SEED=… EPISODE=…)
	$(BIN) dev engine
	$(if $(SEED),KEYTRAIL_TORTURE_SEED=$(SEED)) $(if $(EPISODE),KEYTRAIL_TORTURE_EPISODE=$(EPISODE)) KEYTRAIL_TORTURE_KILLS=$(or $(KILLS),500) \
		$(GO) test -v -count=1 -timeout 6h -run 'UnderFaults|EachAppend' ./internal/torture

fuzz: ## every fuzz target for FUZZTIME (30s)
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(or $(FUZZTIME),30s) $$pkg || exit 1; \
		done; \
	done

web: ## build the console's files into web/dist (needs npm)
	cd web && npm ci && npm run build

clean: ## remove what was built; the data folder stays
	rm -rf bin
