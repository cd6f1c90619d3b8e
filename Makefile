# The versions of the tools stand in .ci/tools, those of the libraries in each module's go.mod.
pinned = $(shell awk '$$1 == "$(1)" { print $$2 }' .ci/tools)
tool = go run $(call pinned,$(1))

# The modules in go.work are used together: `work` stands for the packages of all of them. APART has
# the other modules, each of which is used on its own; go.work says why.
APART = internal/chaos rpc/internal/compare
each-apart = @for module in $(APART); do \
		echo "$$module: $(1)"; (cd $$module && GOWORK=off $(1)) || exit 1; \
	done

GENERATED = gen rpc/rpcvalidate/internal/gen

FUZZTIME ?= 10s
FUZZ ?= .
BENCH ?= .
CHAOS ?=
OBSERVE ?= 10s
OVERLOAD ?=
VERSION ?=
RELEASE ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run order and inventory on an embedded NATS server, and place orders
	go run ./examples/shop

.PHONY: demo-observe
demo-observe: ## Put them under load (OBSERVE=10s) beside a Prometheus, and print a trace, rates and logs
	go run ./examples/shop -observe $(OBSERVE) -prometheus $(call pinned,prometheus)

.PHONY: test
test: ## Run the tests of all modules with the race detector, all benchmarks once, and show the times
	.ci/test $(APART)

.PHONY: soak
soak: ## Repeat the tests of streams as often as they are meant to hold
	NATSCALL_SOAK=1 go test -race -timeout 30m -run 'Stream|Faults|Lost|Killed|Cut|Hostile' -count 5 ./rpc

.PHONY: generate
generate: ## Write gen/ from proto/, and the same in rpc/rpcvalidate
	$(call tool,buf) generate
	.ci/buf-rules $(call tool,buf) generate --template rpc/rpcvalidate/buf.gen.yaml

.PHONY: lint
lint: ## Check formatting, Go code and .proto files
	@unformatted=$$(gofmt -l */); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	go vet work
	go vet -tags release ./internal/release
	GOARCH=386 go vet ./rpc/... # where an int has 32 bits
	$(call tool,staticcheck) work
	$(call tool,staticcheck) -tags release ./internal/release
	$(call each-apart,go vet ./...)
	$(call each-apart,$(call tool,staticcheck) ./...)
	$(call tool,buf) lint
	.ci/buf-rules $(call tool,buf) lint
	$(call tool,buf) breaking --against .ci/baseline.binpb

# Vet reads the tests too; build compiles what nothing imports.
.PHONY: cross
cross: ## Vet and build all modules for macOS and Windows
	@for os in darwin windows; do \
		export GOOS=$$os CGO_ENABLED=0; \
		echo "$$os: go vet work, go build work"; \
		go vet work && go build -o /dev/null work || exit 1; \
		for module in $(APART); do \
			echo "$$os: $$module"; \
			(cd $$module && GOWORK=off go vet ./... && GOWORK=off go build -o /dev/null ./...) || exit 1; \
		done; \
	done

.PHONY: house
house: ## Count what makes the packages hard to read, and check the limits
	go run ./internal/house

.PHONY: tidy
tidy: ## Run go mod tidy in every module
	.ci/tidy
	$(call each-apart,go mod tidy)
	rm -f go.work.sum
	go list -m all > /dev/null # writes go.work.sum

.PHONY: fresh
fresh: generate ## Check that generated code, go.mod and go.sum are what the sources say
	.ci/tidy -diff
	$(call each-apart,go mod tidy -diff)
	go list -m all > /dev/null # adds to go.work.sum what it lacks
	git add --intent-to-add $(GENERATED) go.work.sum
	git diff --exit-code -- $(GENERATED) go.work.sum

.PHONY: baseline
baseline: ## Make the .proto files of now what `make lint` compares later ones with
	$(call tool,buf) build -o .ci/baseline.binpb

.PHONY: bench
bench: ## Measure, each benchmark beside plain nats.go (BENCH=regexp)
	go test -run '^$$' -bench '$(BENCH)' -benchtime 1s -count 3 ./rpc/...

.PHONY: compare
compare: ## Measure natscall beside raw NATS and other frameworks, in processes of their own
	cd rpc/internal/compare && GOWORK=off go run . -short

.PHONY: compare-test
compare-test: ## Test the comparison, which is a module of its own
	cd rpc/internal/compare && GOWORK=off go test ./...

.PHONY: chaos-short
chaos-short: ## Check the promises under all kinds of faults, in two minutes (CHAOS='-seed 7 -scenarios kill')
	cd internal/chaos && GOWORK=off go run . $(CHAOS)

.PHONY: chaos
chaos: ## The same with more restarts and ten minutes of torture (CHAOS='-scenarios torture -duration 1h -faults 900')
	cd internal/chaos && GOWORK=off go run . -long $(CHAOS)

.PHONY: chaos-soak
chaos-soak: ## Check that an hour of mixed load leaves nothing behind (CHAOS='-duration 10m')
	cd internal/chaos && GOWORK=off go run . -scenarios soak $(CHAOS)

.PHONY: overload
overload: ## Measure goodput under overload (OVERLOAD='-rows 500ms')
	cd internal/chaos && GOWORK=off go run . overload $(OVERLOAD)

.PHONY: chaos-test
chaos-test: ## Test the checker of chaos, which is a module of its own
	cd internal/chaos && GOWORK=off go test ./...

.PHONY: fuzz
fuzz: ## Run each fuzzer for FUZZTIME (10s, or 100000x for so many inputs; FUZZ=regexp)
	@.ci/fuzz $(FUZZTIME) '$(FUZZ)'

.PHONY: release
release: ## Commit and tag a version of all modules (VERSION=v0.2.0; with RELEASE=-dry-run only show it)
	@go run ./internal/release $(RELEASE) $(VERSION)

.PHONY: release-test
release-test: ## Make a release of the commit in a clone, and use it as users do, beside earlier ones
	go test -tags release -run 'TestUsers|TestLastOfMinors' -count 1 -timeout 40m ./internal/release

.PHONY: clean
clean: ## Remove what tests and tools left
	go clean -testcache -fuzzcache
	rm -f *.test *.out *.prof
