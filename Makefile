# Kvorum needs Go, git and, for race tests only, a C compiler.
# `make run` and `make test` are all that a newcomer needs.

GO      ?= go
BIN     := bin
# A profile by which the compiler chooses what to inline; scripts/profile makes one.
PGO     ?= off

.PHONY: build run test check soak bench release clean

build: ## the programs, in ./bin, without cgo
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -pgo=$(PGO) -o $(BIN)/ ./cmd/...

run: build ## one member on 2379/2380, its store in ./default.etcd
	@echo "etcd listens for clients on http://localhost:2379 and for peers on http://localhost:2380; data in ./default.etcd."
	@echo "Try, in another terminal:  bin/etcdctl put greeting \"Hello, etcd\"  and  bin/etcdctl get greeting"
	@echo "Ctrl-C stops it."
	@exec $(BIN)/etcd

test: ## everything that CI runs
	@sh scripts/test

soak: build ## 2,000 seeds of each world, 50 rounds of kill -9, a minute of fuzz for each decoder
	@sh scripts/soak

bench: build ## puts against a real etcd where one is installed
	@sh scripts/bench

release: ## static programs for amd64 and arm64 with checksums, in ./dist, the same bytes from the same commit
	@PGO=$(PGO) sh scripts/release

clean:
	rm -rf $(BIN) dist
