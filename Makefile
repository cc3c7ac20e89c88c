# Builds with cargo and installs what `cargo install` leaves out: the library that is preloaded, the
# allocator for C programs, the manual pages and the shell completions. docs/packaging.md explains the variables.

PREFIX ?= /usr/local
DESTDIR ?=
BINDIR ?= $(PREFIX)/bin
# `rmtrace` looks for its library beside itself, in ../lib/rmtrace and in ../lib: keep the two together.
PKGLIBDIR ?= $(PREFIX)/lib/rmtrace
# The allocator, which programs link with: a multi-arch directory is fine here.
LIBDIR ?= $(PREFIX)/lib
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/rmtrace
LICENSEDIR ?= $(DOCDIR)
BASHCOMPDIR ?= $(DATADIR)/bash-completion/completions
ZSHCOMPDIR ?= $(DATADIR)/zsh/site-functions
FISHCOMPDIR ?= $(DATADIR)/fish/vendor_completions.d

CARGO ?= cargo
# For an offline build from vendored sources: CARGOFLAGS="--frozen"
CARGOFLAGS ?= --locked
CARGO_TARGET_DIR ?= target
INSTALL ?= install
# The program that writes manual pages and completions; another one when building for another machine.
RMTRACE_FOR_BUILD ?= $(BUILT)/rmtrace

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

export CARGO_TARGET_DIR
# With CARGO_BUILD_TARGET set, cargo adds a directory of that name.
BUILT = $(CARGO_TARGET_DIR)$(if $(CARGO_BUILD_TARGET),/$(CARGO_BUILD_TARGET))/release

.PHONY: all build install install-strip uninstall check demo clean

all: build

build:
	$(CARGO) build --release $(CARGOFLAGS) -p rmtrace -p rmtrace-interpose -p rmalloc-c

# Builds only what is not there, so that `sudo make install` after `make` needs no cargo. Paths are
# quoted and no target bears one, because make itself can't handle spaces.
install:
	test -x "$(BUILT)/rmtrace" && test -f "$(BUILT)/librmtrace.so" && test -f "$(BUILT)/librmalloc.so" \
	  && test -f "$(BUILT)/librmalloc.a" || $(MAKE) build
	set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	mkdir "$$made/man"; \
	"$(RMTRACE_FOR_BUILD)" man "$$made/man"; \
	for shell in bash zsh fish; do "$(RMTRACE_FOR_BUILD)" completions $$shell >"$$made/$$shell"; done; \
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|; s|@VERSION@|$(VERSION)|' \
	  rmalloc/rmalloc.pc.in >"$$made/rmalloc.pc"; \
	$(INSTALL) -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(PKGLIBDIR)" "$(DESTDIR)$(MANDIR)/man1" \
	  "$(DESTDIR)$(LIBDIR)" "$(DESTDIR)$(PKGCONFIGDIR)" "$(DESTDIR)$(MANDIR)/man3" \
	  "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(DOCDIR)" "$(DESTDIR)$(LICENSEDIR)" \
	  "$(DESTDIR)$(BASHCOMPDIR)" "$(DESTDIR)$(ZSHCOMPDIR)" "$(DESTDIR)$(FISHCOMPDIR)"; \
	$(INSTALL) $(STRIP_FLAG) -m 755 "$(BUILT)/rmtrace" "$(DESTDIR)$(BINDIR)/rmtrace"; \
	$(INSTALL) $(STRIP_FLAG) -m 644 "$(BUILT)/librmtrace.so" "$(DESTDIR)$(PKGLIBDIR)/librmtrace.so"; \
	$(INSTALL) -m 644 interpose/include/rmtrace.h "$(DESTDIR)$(INCLUDEDIR)/rmtrace.h"; \
	$(INSTALL) $(STRIP_FLAG) -m 644 "$(BUILT)/librmalloc.so" "$(DESTDIR)$(LIBDIR)/librmalloc.so.$(VERSION)"; \
	ln -sf librmalloc.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/librmalloc.so.0"; \
	ln -sf librmalloc.so.0 "$(DESTDIR)$(LIBDIR)/librmalloc.so"; \
	$(INSTALL) -m 644 "$(BUILT)/librmalloc.a" "$(DESTDIR)$(LIBDIR)/librmalloc.a"; \
	$(INSTALL) -m 644 "$$made/rmalloc.pc" "$(DESTDIR)$(PKGCONFIGDIR)/rmalloc.pc"; \
	$(INSTALL) -m 644 rmalloc/include/rmalloc.h "$(DESTDIR)$(INCLUDEDIR)/rmalloc.h"; \
	$(INSTALL) -m 644 rmalloc/man/rmalloc.3 "$(DESTDIR)$(MANDIR)/man3/rmalloc.3"; \
	$(INSTALL) -m 644 "$$made"/man/*.1 "$(DESTDIR)$(MANDIR)/man1/"; \
	$(INSTALL) -m 644 "$$made/bash" "$(DESTDIR)$(BASHCOMPDIR)/rmtrace"; \
	$(INSTALL) -m 644 "$$made/zsh" "$(DESTDIR)$(ZSHCOMPDIR)/_rmtrace"; \
	$(INSTALL) -m 644 "$$made/fish" "$(DESTDIR)$(FISHCOMPDIR)/rmtrace.fish"; \
	$(INSTALL) -m 644 README.md CHANGELOG.md "$(DESTDIR)$(DOCDIR)/"; \
	$(INSTALL) -m 644 LICENSE-MIT LICENSE-APACHE "$(DESTDIR)$(LICENSEDIR)/"

install-strip:
	$(MAKE) install STRIP_FLAG=-s

# Directories shared with other packages stay.
uninstall:
	rm -f "$(DESTDIR)$(BINDIR)/rmtrace" "$(DESTDIR)$(PKGLIBDIR)/librmtrace.so" \
	  "$(DESTDIR)$(INCLUDEDIR)/rmtrace.h" "$(DESTDIR)$(INCLUDEDIR)/rmalloc.h" \
	  "$(DESTDIR)$(LIBDIR)/"librmalloc.so* "$(DESTDIR)$(LIBDIR)/librmalloc.a" "$(DESTDIR)$(PKGCONFIGDIR)/rmalloc.pc" \
	  "$(DESTDIR)$(MANDIR)/man3/rmalloc.3" \
	  "$(DESTDIR)$(MANDIR)/man1/rmtrace.1" "$(DESTDIR)$(MANDIR)/man1/"rmtrace-*.1 \
	  "$(DESTDIR)$(BASHCOMPDIR)/rmtrace" "$(DESTDIR)$(ZSHCOMPDIR)/_rmtrace" "$(DESTDIR)$(FISHCOMPDIR)/rmtrace.fish" \
	  "$(DESTDIR)$(DOCDIR)/README.md" "$(DESTDIR)$(DOCDIR)/CHANGELOG.md" \
	  "$(DESTDIR)$(LICENSEDIR)/LICENSE-MIT" "$(DESTDIR)$(LICENSEDIR)/LICENSE-APACHE"
	-rmdir "$(DESTDIR)$(PKGLIBDIR)" "$(DESTDIR)$(DOCDIR)" 2>/dev/null

check:
	scripts/test

demo:
	scripts/demo

clean:
	$(CARGO) clean
