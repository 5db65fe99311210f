# vtgt: `make` lists the targets. GNU make, a POSIX shell; packages: deps.txt.

# make demo SHELL=1 means a console in the guest, not the shell of recipes.
ifeq ($(origin SHELL) $(SHELL),command line 1)
override SHELL := /bin/sh
DEMO     := -shell
else
SHELL    := /bin/sh
DEMO     :=
endif
PREFIX   ?= /usr/local
DESTDIR  ?=
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
FUZZTIME ?= 3s
SECONDS  ?= 60
PEER     ?= vtgt
JOBS     ?=

# Go: yours, unless `make toolchain` has put the pinned one under .cache/.
ifneq ($(wildcard .cache/go/bin/go),)
GO := '$(CURDIR)/.cache/go/bin/go'
export GOTOOLCHAIN := local
export PATH := $(CURDIR)/.cache/go/bin:$(PATH)
else
GO := go
endif

go_line := $(shell sed -n 's/^go //p' go.mod)
version := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
tools   := $(GO) run ./internal/tools
# go test, and at the end what failed.
gotest  := $(tools)/gotest
# What emulated guests do may get a second try; what is about durability gets none.
again := -again='^Test(Linux|BootLinux|SeaBIOS|VHost|VHostPacked|SharedDisk|SG3|ThirdPartyCopy|Takeover.*|Migrate|VIO.*|Xen.*|Attach.*)$$'
TESTPARTS := lint test-full test-one-cpu test-race-short fuzz-short bench-once conformance test-guest test-vio test-attach demo bench-quick
# Of one package's tests: a bound for hangs, which no machine that is merely slow reaches.
testlimit := 30m

.DEFAULT_GOAL := help
.PHONY: help deps toolchain need-go build run demo test test-unit test-full test-one-cpu test-race-short test-guest bench-once race lint fuzz-short soak conformance bench install clean qemu-vio test-vio test-attach

help: ## this list
	@echo 'vtgt $(version): make TARGET'
	@sed -n 's/^\([a-z][a-z-]*\)::*[^#]*## /\1\t/p' Makefile | while IFS='	' read -r t d; do printf '  %-14s %s\n' "$$t" "$$d"; done
	@$(MAKE) --no-print-directory need-go || true

deps: ## print and install the packages of deps.txt (root or sudo)
	@sh internal/tools/deps.sh deps.txt

toolchain: ## fetch the pinned Go from the module proxy into .cache/go
	@sh internal/tools/toolchain/fetch.sh .cache

# Go must be there and no older than go.mod's go line (a newer one is downloaded by
# go itself where its GOTOOLCHAIN setting allows that).
need-go:
	@command -v $(GO) >/dev/null 2>&1 || { \
	  echo 'Go is missing: install Go $(go_line) or newer, or run: make toolchain' >&2; exit 1; }
	@v=$$($(GO) env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//'); \
	first=$$(printf '%s\n%s\n' '$(go_line)' "$$v" | sort -V | head -n 1); \
	[ -n "$$v" ] && [ "$$first" = '$(go_line)' ] || { \
	  echo "Go is too old here ($$($(GO) version 2>&1 | head -n 1)): go.mod wants $(go_line); run: make toolchain" >&2; exit 1; }

# $(call need,COMMAND,PACKAGE)
need = command -v $(1) >/dev/null 2>&1 || [ -x /usr/sbin/$(1) ] || { echo '$(1) is missing (package $(2)): run make deps' >&2; exit 1; }

build: need-go ## bin/vtgt: one static binary, version stamped
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(version)' -o bin/vtgt ./cmd/vtgt

run: build ## build, then serve a 1 GiB sparse disk under .vtgt/ on 127.0.0.1 (no root)
	bin/vtgt run

demo: build guest-tools ## a Linux guest in QEMU (TCG, no KVM, no root) with a vtgt disk; SHELL=1: with a console
	@$(tools)/demo -vtgt bin/vtgt $(DEMO)

test: ## everything once: lint, unit, clients, race, fuzz, conformance, benchmarks (23 min on 2 cores)
	@failed=; for part in $(TESTPARTS); do \
	  echo "--- make $$part"; $(MAKE) --no-print-directory $$part || failed="$$failed $$part"; \
	done; \
	if [ -n "$$failed" ]; then echo "make test: these parts failed:$$failed" >&2; exit 1; fi; \
	echo 'make test: all parts passed'

test-unit: need-go ## go test -short (Go only, < 60 s)
	$(gotest) -short -timeout $(testlimit) ./...

# Some faults show only where loops, workers and tests take turns on one processor.
# The programs under test get it, not the compiler.
test-one-cpu: need-go ## the same with GOMAXPROCS=1
	$(gotest) -short -timeout $(testlimit) -exec 'env GOMAXPROCS=1' ./...

test-full: need-go ## every test, also those that drive qemu-img and libiscsi's programs
	@$(call need,qemu-img,qemu-utils)
	@$(call need,iscsi-ls,libiscsi-bin)
	@$(call need,iscsi-test-cu,libiscsi-bin)
	$(gotest) -timeout $(testlimit) ./...
	VTGT_PACKED=1 $(gotest) -short -timeout $(testlimit) -run '^TestClient|^TestHandOver' ./vhost

test-race-short: need-go
	@$(call need,gcc,gcc)
	CGO_ENABLED=1 $(gotest) -race -short -timeout $(testlimit) ./...

test-lag: need-go ## the short tests with loops that come late, under the race detector (10 min)
	@$(call need,gcc,gcc)
	CGO_ENABLED=1 $(gotest) -race -short -tags lag -p 2 -timeout $(testlimit) ./...

# Emulated guests (TCG): one at a time.
test-guest: need-go guest-tools ## Linux in QEMU: open-iscsi and virtio-scsi against vtgt; vtgt that loses power or is killed (5 to 8 min)
	VTGT_GUEST=1 $(gotest) $(again) -count=1 -v -p 1 -timeout $(testlimit) ./internal/guest/...

.PHONY: guest-tools test-lag
guest-tools:
	@$(call need,qemu-system-x86_64,qemu-system-x86)
	@$(call need,xz,xz-utils)
	@$(call need,mkfs.ext4,e2fsprogs)
	@$(call need,apt-get,apt: guests are made of Debian packages)

race: need-go ## every test, full length, under the race detector
	@$(call need,gcc,gcc)
	CGO_ENABLED=1 $(gotest) -race -timeout 3600s -count=1 ./...

lint: need-go ## gofmt, go vet and the house rules (floors, unsafe, docs, ...)
	$(GO) vet ./...
	$(tools)/lint .

fuzz-short: need-go ## every fuzz target for FUZZTIME (3s) each
	$(tools)/fuzz -time $(FUZZTIME) ./...

bench-once: need-go
	$(gotest) -short -run '^$$' -bench . -benchtime 1x -timeout $(testlimit) ./...

soak: need-go guest-tools ## the long counts: soak tests for SECONDS (60), -race, GOMAXPROCS 4 and 1; fuzz targets for 60 s each; crashes
	@$(call need,gcc,gcc)
	CGO_ENABLED=1 GOMAXPROCS=4 VTGT_SCSITEST_SECONDS=$(SECONDS) $(gotest) -race -count=1 -timeout 3600s ./...
	CGO_ENABLED=1 GOMAXPROCS=1 VTGT_SCSITEST_SECONDS=$(SECONDS) $(gotest) -race -count=1 -timeout 3600s ./...
	$(MAKE) test-lag
	VTGT_SCSITEST_SECONDS=$(SECONDS) $(gotest) -count=1 -timeout 600s -run TestSessionsComeAndGo ./cmd/vtgt
	$(MAKE) bench BENCHFLAGS='-soak 10m'
	CGO_ENABLED=1 VTGT_PROP_SECONDS=300 $(gotest) -race -count=1 -timeout 1200s ./scsi/scsiprop
	VTGT_RING_ITEMS=100000000 $(gotest) -count=1 -timeout 3600s -run TestLitmus ./vhost/vring
	VTGT_CRASH_ROUNDS=1000 $(gotest) -count=1 -timeout 1800s -run TestClientCrash ./vhost
	VTGT_PACKED=1 VTGT_CRASH_ROUNDS=1000 $(gotest) -count=1 -timeout 1800s -skip '^TestClientCrashPacked$$' ./vhost
	VTGT_XEN_ROUNDS=2000 $(gotest) -count=1 -timeout 1800s -run 'TestDeath|TestRestart' ./xen
	$(MAKE) fuzz-short FUZZTIME=60s
	VTGT_GUEST=1 VTGT_POWER_ROUNDS=20 VTGT_KILL_ROUNDS=50 VTGT_RECONNECT_ROUNDS=20 VTGT_TAKEOVER_ROUNDS=20 VTGT_MIGRATE_ROUNDS=10 VTGT_PARK_ROUNDS=10 VTGT_PACKED=1 VTGT_HOLD_SECONDS=300 $(gotest) -count=1 -v -timeout 5400s -run 'TestPowerLoss|TestKilled|TestMediaKilled|TestReconnect|TestTakeover|TestMigrate|TestParked|TestVHost' ./internal/guest/guesttest
	VTGT_STOP_SECONDS=30 VTGT_ABORTS=1 $(MAKE) test-vio
	VTGT_XEN_KILLS=10 $(MAKE) test-xen
	VTGT_ATTACH_POINTS=1 $(MAKE) test-attach

conformance: build ## iscsi-test-cu against bin/vtgt, one process per test (PEER=tgtd: against tgtd)
	@$(call need,iscsi-test-cu,libiscsi-bin)
	$(tools)/conformance -peer $(PEER) -vtgt bin/vtgt $(if $(JOBS),-jobs $(JOBS))

bench: build ## vtgt beside tgtd, gotgt and the machine's own limits (10 min); BENCHFLAGS='-parts vhost', '-rounds 9' or '-quick'
	@$(call need,qemu-img,qemu-utils)
	$(tools)/bench -vtgt bin/vtgt $(BENCHFLAGS)

.PHONY: bench-quick
bench-quick:
	@$(MAKE) --no-print-directory bench BENCHFLAGS=-quick

qemu-vio: ## QEMU's device for pSeries guests, for the qemu-system-ppc64 that is installed: .cache/qemu-vio/VERSION/vtgt-vscsi.so
	@sh ibmvio/qemu/build.sh .cache/qemu-vio

test-vio: need-go qemu-vio ## pSeries guests (TCG): the device with all that a client and a server may do; Linux's ibmvscsi and SLOF against vtgt (1 to 2 min)
	@$(call need,qemu-system-ppc64,qemu-system-ppc)
	@$(call need,mkfs.ext4,e2fsprogs)
	VTGT_VIO=1 $(gotest) -count=1 -p 1 -timeout $(testlimit) ./ibmvio/...
	VTGT_VIO=1 $(gotest) $(again) -count=1 -v -timeout $(testlimit) -run TestVIO ./internal/guest/guesttest

test-attach: need-go guest-tools ## a session libvirtd, and domains (TCG) into and out of which vtgt attach puts targets (1 to 2 min)
	@$(call need,libvirtd,libvirt-daemon)
	@$(call need,virsh,libvirt-clients)
	VTGT_ATTACH=1 $(gotest) $(again) -count=1 -v -timeout $(testlimit) -run TestAttach ./internal/guest/guesttest

test-xen: need-go guest-tools ## Xen, its first domain and paravirtual domains in QEMU (TCG): Linux's xen-scsifront against vtgt (2 to 5 min)
	VTGT_XEN=1 $(gotest) -count=1 -v -timeout $(testlimit) -run TestXen ./internal/guest/guesttest

install: build ## the binary, completions, man pages and systemd units below DESTDIR/PREFIX; /etc/vtgt/vtgt.yaml if there is none
	install -D -m 0755 bin/vtgt '$(DESTDIR)$(PREFIX)/bin/vtgt'
	install -d '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' \
	  '$(DESTDIR)$(PREFIX)/share/zsh/site-functions' '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	bin/vtgt completion bash >'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/vtgt'
	bin/vtgt completion zsh >'$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vtgt'
	bin/vtgt completion fish >'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vtgt.fish'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1'
	bin/vtgt docs man '$(DESTDIR)$(PREFIX)/share/man/man1'
	install -d '$(DESTDIR)$(UNITDIR)'
	sed -e 's|@BINDIR@|$(PREFIX)/bin|; s|@SYSCONFDIR@|$(SYSCONFDIR)|' dist/systemd/vtgt.service >'$(DESTDIR)$(UNITDIR)/vtgt.service'
	chmod 0644 '$(DESTDIR)$(UNITDIR)/vtgt.service'
	install -m 0644 dist/systemd/vtgt.socket '$(DESTDIR)$(UNITDIR)/vtgt.socket'
	sed -e 's|@BINDIR@|$(PREFIX)/bin|' dist/systemd/vtgt-watch.service >'$(DESTDIR)$(UNITDIR)/vtgt-watch.service'
	chmod 0644 '$(DESTDIR)$(UNITDIR)/vtgt-watch.service'
	install -D -m 0644 dist/apparmor/libvirt-qemu '$(DESTDIR)$(PREFIX)/share/vtgt/apparmor/libvirt-qemu'
	install -D -m 0644 dist/selinux/vtgt-libvirt.te '$(DESTDIR)$(PREFIX)/share/vtgt/selinux/vtgt-libvirt.te'
	install -D -m 0644 dist/sysusers.d/vtgt.conf '$(DESTDIR)$(PREFIX)/lib/sysusers.d/vtgt.conf'
	install -D -m 0644 dist/tmpfiles.d/vtgt.conf '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/vtgt.conf'
	@if [ -e '$(DESTDIR)$(SYSCONFDIR)/vtgt/vtgt.yaml' ]; then \
	  echo 'kept $(DESTDIR)$(SYSCONFDIR)/vtgt/vtgt.yaml'; \
	else \
	  install -D -m 0600 dist/etc/vtgt.yaml '$(DESTDIR)$(SYSCONFDIR)/vtgt/vtgt.yaml'; fi
	@[ -n '$(DESTDIR)' ] || echo 'to run it as a service: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl enable --now vtgt'

clean: ## bin/ and test caches (not .cache/go, not .vtgt/: those disks are yours)
	rm -rf bin .cache/test
	$(GO) clean -testcache
