# The build of rampool: one non-recursive Makefile. Sources are found by wildcard, so that a new file in a folder is
# built without a change here. Everything lands in $(O)/$(MODE); the source tree is never written to.
#
#   make                  the release build            make MODE=asan|tsan|debug    another build beside it
#   make V=1              print the commands           make O=/tmp/x                another output directory

MODE ?= release
O ?= build
DEPS ?= build/deps
B := $(O)/$(MODE)
PREFIX ?= /usr/local
DESTDIR ?=
V ?= 0
CI ?=
TEST_JOBS ?= 1
VERSION := 0.1.0

ifeq ($(origin CC),default)
CC := gcc
endif
AR ?= ar
INSTALL ?= install

ifeq ($(filter $(MODE),release debug asan tsan),)
$(error MODE=$(MODE) is unknown: release, debug, asan or tsan)
endif

# ---- flags

OPT_release := -O2 -g -fno-omit-frame-pointer
OPT_debug := -Og -g3 -fno-omit-frame-pointer
OPT_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
# Instrumented code looks uninitialized to gcc where it is not.
ifneq ($(if $(findstring clang,$(CC)),,$(filter asan tsan,$(MODE))),)
WARN += -Wno-maybe-uninitialized
endif
ifeq ($(CI),true)
WARN += -Werror
endif

# The empty value of _GNU_SOURCE equals what "#define _GNU_SOURCE" gives: both together warn of nothing.
CPPFLAGS += -Iinclude -I. -D_GNU_SOURCE= -DRP_VERSION='"$(VERSION)"'
CFLAGS ?=
ALL_CFLAGS = -std=gnu11 -fPIC -pthread $(OPT_$(MODE)) $(WARN) $(CFLAGS)
ALL_LDFLAGS = -pthread $(OPT_$(MODE)) -Wl,--as-needed $(LDFLAGS)
LIBS := -lxxhash -lzstd -llz4 -lm

# libfuse is taken from $(DEPS) when scripts/deps had to build it, otherwise from the system. Asked for when a recipe
# runs, because it may have been built by this very make.
PKG_FUSE = PKG_CONFIG_PATH=$(DEPS)/prefix/lib/pkgconfig:$$PKG_CONFIG_PATH pkg-config
FUSE_CFLAGS = $$($(PKG_FUSE) --cflags fuse3)
FUSE_LIBS = $$(scripts/deps --libs $(DEPS))
FUSE_STAMP := $(DEPS)/fuse.stamp

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n'
MAKEFLAGS += --no-print-directory
endif

# ---- sources

POOL_SRC := $(wildcard pool/*.c)
FS_SRC := $(wildcard ramfs/namespace/*.c)
CONTROL_SRC := $(wildcard ramfs/control/*.c)
SERVER_SRC := $(wildcard ramfs/server/*.c)
COMMAND_SRC := $(wildcard ramfs/command/*.c)
NBD_SRC := $(wildcard nbd-plugin/*.c)
MKFS_MAINS := $(wildcard mkfs/mkfs.c mkfs/fsck.c mkfs/dump.c)
MKFS_SRC := $(filter-out $(MKFS_MAINS),$(wildcard mkfs/*.c))
TESTLIB_SRC := $(wildcard tests/lib/*.c)
MANUALS := $(wildcard ramfs/*.[158] ramfs/*/*.[158] nbd-plugin/*.[158] mkfs/*.[158] pool/*.[158])

obj = $(patsubst %.c,$(B)/obj/%.o,$(1))

POOL_LIB := $(if $(POOL_SRC),$(B)/librppool.a)
FS_LIB := $(if $(FS_SRC),$(B)/librpfs.a)
CONTROL_LIB := $(if $(CONTROL_SRC),$(B)/librpcontrol.a)
MKFS_LIB := $(if $(MKFS_SRC),$(B)/librpmkfs.a)
TEST_LIB := $(if $(TESTLIB_SRC),$(B)/librptest.a)
CORE_LIBS := $(CONTROL_LIB) $(FS_LIB) $(POOL_LIB)
STATIC_LIBS := $(CORE_LIBS) $(MKFS_LIB) $(TEST_LIB)

RAMPOOL := $(if $(COMMAND_SRC),$(B)/rampool)
PLUGIN := $(if $(NBD_SRC),$(B)/nbdkit-rampool-plugin.so)
MKFS_PROGS := $(patsubst mkfs/%.c,$(B)/%.rampool,$(MKFS_MAINS))
PROGRAMS := $(RAMPOOL) $(PLUGIN) $(MKFS_PROGS)

# A test is each C file with a main; the others of its folder are an archive that the tests of that folder take from. A
# folder below that with C files is one more program, of the folder's name.
TEST_KINDS := unit model crash fuzz fuse nbd
TEST_ALL_SRC := $(wildcard $(addsuffix /*.c,$(addprefix tests/,$(TEST_KINDS))))
TEST_MAINS := $(if $(TEST_ALL_SRC),$(shell grep -lE '^(int[[:space:]])?main\>' $(TEST_ALL_SRC) /dev/null))
TEST_PARTS := $(filter-out $(TEST_MAINS),$(TEST_ALL_SRC))
TEST_DIR_SRC := $(wildcard $(addsuffix /*/*.c,$(addprefix tests/,$(TEST_KINDS))))
TEST_DIRS := $(sort $(patsubst %/,%,$(dir $(TEST_DIR_SRC))))
TEST_PROGS := $(patsubst %.c,$(B)/%,$(TEST_MAINS)) $(addprefix $(B)/,$(TEST_DIRS))

ALL_SRC := $(POOL_SRC) $(FS_SRC) $(CONTROL_SRC) $(SERVER_SRC) $(COMMAND_SRC) $(NBD_SRC) $(MKFS_MAINS) $(MKFS_SRC) \
	$(TESTLIB_SRC) $(TEST_ALL_SRC) $(TEST_DIR_SRC) $(wildcard tests/bench/*.c)
ALL_OBJ := $(call obj,$(ALL_SRC))

.PHONY: all programs tests deps run stop check test bench bench-quick check-asan check-tsan check-vm lint install uninstall clean
.PHONY: help FORCE
.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := all

all: $(STATIC_LIBS) $(PROGRAMS) $(TEST_PROGS)  ## build everything: programs, plugin, tests (the default)
programs: $(PROGRAMS)                          ## build only what gets installed
tests: $(TEST_PROGS)                           ## build the test programs

# ---- rules

# Rewritten only when the flags differ from those of the last run: then everything is built again.
FLAGS_NOW = $(CC) $(ALL_CFLAGS) $(CPPFLAGS) $(LDFLAGS)
quote = '$(subst ','\'',$(1))'
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo $(call quote,$(FLAGS_NOW)) | cmp -s - $@ || echo $(call quote,$(FLAGS_NOW)) >$@

$(ALL_OBJ): $(B)/obj/%.o: %.c $(B)/flags
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(EXTRA_CFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(call obj,$(SERVER_SRC) $(COMMAND_SRC)): EXTRA_CFLAGS = $(FUSE_CFLAGS)
$(call obj,$(SERVER_SRC) $(COMMAND_SRC)): | $(FUSE_STAMP)

$(FUSE_STAMP): scripts/deps
	$(Q)scripts/deps --fuse $(DEPS)

define archive
$(say) AR $@
@mkdir -p $(@D)
$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)
endef

$(B)/librppool.a: $(call obj,$(POOL_SRC))
	$(archive)
$(B)/librpfs.a: $(call obj,$(FS_SRC))
	$(archive)
$(B)/librpcontrol.a: $(call obj,$(CONTROL_SRC))
	$(archive)
$(B)/librpmkfs.a: $(call obj,$(MKFS_SRC))
	$(archive)
$(B)/librptest.a: $(call obj,$(TESTLIB_SRC))
	$(archive)

link = $(Q)$(CC) $(ALL_LDFLAGS) $(1) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(2)

$(B)/rampool: $(call obj,$(COMMAND_SRC) $(SERVER_SRC)) $(MKFS_LIB) $(CORE_LIBS) | $(FUSE_STAMP)
	$(say) LINK $@
	$(call link,,$(FUSE_LIBS) $(LIBS))

$(B)/nbdkit-rampool-plugin.so: $(call obj,$(NBD_SRC)) $(CORE_LIBS)
	$(say) LINK $@
	$(call link,-shared -Wl$(comma)--exclude-libs$(comma)ALL,$(LIBS))
comma := ,

$(MKFS_PROGS): $(B)/%.rampool: $(B)/obj/mkfs/%.o $(MKFS_LIB) $(CORE_LIBS)
	$(say) LINK $@
	$(call link,,-larchive $(LIBS))

# Clients of a mount need none of the libraries under test; the other kinds call them directly.
TEST_LIBS_fuse := -lacl
TEST_LIBS_nbd := -lnbd
# $(1) is the kind, $(2) the program's path without the build folder, $(3) its sources, $(4) an archive of its folder.
define test_program
$(B)/$(2): $(call obj,$(3)) $(4) $(TEST_LIB) $(if $(filter fuse,$(1)),,$(MKFS_LIB) $(CORE_LIBS))
	$$(say) LINK $$@
	@mkdir -p $$(@D)
	$$(call link,,$(TEST_LIBS_$(1)) $(if $(filter fuse,$(1)),,-larchive) $(LIBS))

endef
define test_archive
$(B)/tests/lib$(1).a: $(call obj,$(filter tests/$(1)/%,$(TEST_PARTS)))
	$$(archive)

endef
test_parts = $(if $(filter tests/$(1)/%,$(TEST_PARTS)),$(B)/tests/lib$(1).a)
test_kind = $(if $(call test_parts,$(1)),$(call test_archive,$(1))) $(foreach t,$(filter tests/$(1)/%,$(TEST_MAINS)), \
	$(call test_program,$(1),$(t:.c=),$(t),$(call test_parts,$(1))))
test_folders = $(foreach d,$(filter tests/$(1)/%,$(TEST_DIRS)),$(call test_program,$(1),$(d),$(wildcard $(d)/*.c)))
$(foreach k,$(TEST_KINDS),$(eval $(call test_kind,$(k)))$(eval $(call test_folders,$(k))))

# The benchmark's programs are no tests: only "make bench" builds them.
BENCH_SRC := $(wildcard tests/bench/*.c)
BENCH_PROGS := $(patsubst %.c,$(B)/%,$(BENCH_SRC))
BENCH = tests/bench/bench --build $(B) --deps $(DEPS)

$(BENCH_PROGS): $(B)/%: $(B)/obj/%.o $(CORE_LIBS)
	$(say) LINK $@
	@mkdir -p $(@D)
	$(call link,,-lnbd $(LIBS))

# ---- what people type

deps:  ## install what the build and the tests need (as root, through the package manager)
	$(Q)scripts/deps $(DEPS)

run:  ## install what is missing, build, mount a RAM disk and start an NBD export of another
	$(Q)scripts/deps $(DEPS)
	$(Q)$(MAKE) programs
	$(Q)scripts/demo start $(B)

stop:  ## take down what "make run" started
	$(Q)scripts/demo stop $(B)

check:  ## install what is missing, build, run every test
	$(Q)scripts/deps $(DEPS)
	$(Q)$(MAKE) all
	$(Q)O=$(O) tests/run --mode $(MODE) -j $(TEST_JOBS)

test: all  ## run tests: make test T="unit model" or T=tests/unit/test_map (all without T)
	$(Q)O=$(O) tests/run --mode $(MODE) -j $(TEST_JOBS) $(T)

bench: programs $(BENCH_PROGS)  ## measure against tmpfs, zram, libfuse's examples, nbdkit's plugins: half an hour
	$(Q)$(BENCH)

bench-quick: programs $(BENCH_PROGS)  ## the same in under three minutes
	$(Q)$(BENCH) --quick

check-vm: programs  ## boot the distribution's kernel in qemu: its NBD client, ext4 and xfs on the plugin (minutes)
	$(Q)tests/vm/run $(O)/vm $(B)

lint: all  ## run the checks of layers, style, warnings, manuals, scripts, installation
	$(Q)O=$(O) tests/run --mode $(MODE) lint

check-asan:  ## unit and model tests under the address and undefined behaviour sanitizers
	$(Q)$(MAKE) MODE=asan tests
	$(Q)O=$(O) tests/run --mode asan unit model

check-tsan:  ## unit and model tests under the thread sanitizer
	$(Q)$(MAKE) MODE=tsan tests
	$(Q)O=$(O) tests/run --mode tsan unit model

# nbdkit finds a plugin by its short name in its own directory only, and mount(8) its helpers in /sbin.
ifneq ($(filter /usr /usr/local,$(PREFIX)),)
PLUGINDIR ?= $(or $(shell pkg-config --variable=plugindir nbdkit 2>/dev/null),$(PREFIX)/lib/nbdkit/plugins)
HELPERDIR ?= /usr/sbin
else
PLUGINDIR ?= $(PREFIX)/lib/nbdkit/plugins
HELPERDIR ?= $(SBINDIR)
endif
BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MANDIR ?= $(PREFIX)/share/man

define newline


endef
installed_manual = $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(1)))/$(notdir $(1))

install: programs  ## install programs, plugin and manual pages (DESTDIR, PREFIX, PLUGINDIR)
	$(if $(RAMPOOL),$(Q)$(INSTALL) -D -m 755 $(RAMPOOL) $(DESTDIR)$(BINDIR)/rampool)
	$(if $(RAMPOOL),$(Q)mkdir -p $(DESTDIR)$(HELPERDIR))
	$(if $(RAMPOOL),$(Q)ln -sfn $(BINDIR)/rampool $(DESTDIR)$(HELPERDIR)/mount.rampool)
	$(foreach p,$(MKFS_PROGS),$(Q)$(INSTALL) -D -m 755 $(p) $(DESTDIR)$(SBINDIR)/$(notdir $(p))$(newline))
	$(if $(PLUGIN),$(Q)$(INSTALL) -D -m 644 $(PLUGIN) $(DESTDIR)$(PLUGINDIR)/$(notdir $(PLUGIN)))
	$(foreach m,$(MANUALS),$(Q)$(INSTALL) -D -m 644 $(m) $(call installed_manual,$(m))$(newline))

uninstall:  ## remove what "make install" put there
	$(Q)rm -f $(DESTDIR)$(BINDIR)/rampool $(DESTDIR)$(HELPERDIR)/mount.rampool
	$(Q)rm -f $(DESTDIR)$(PLUGINDIR)/nbdkit-rampool-plugin.so
	$(Q)rm -f $(addprefix $(DESTDIR)$(SBINDIR)/,mkfs.rampool fsck.rampool dump.rampool)
	$(Q)rm -f $(foreach m,$(MANUALS),$(call installed_manual,$(m)))

clean:  ## remove the builds (what "make deps" built stays)
	$(Q)rm -rf $(addprefix $(O)/,release debug asan tsan)

help:  ## this text
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):[^#]*## *\(.*\)/  \1\t\2/p' Makefile | expand -t 16
	@echo 'Variables: MODE=release|debug|asan|tsan  O=build  CC  CFLAGS  PREFIX  DESTDIR  V=1'
	@echo '  T="KIND|TEST ..."  TEST_JOBS=1'

FORCE:

-include $(ALL_OBJ:.o=.d)
