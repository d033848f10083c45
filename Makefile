# The extension is built here with PGXS:       make && make install     (PG_CONFIG=… to choose)
# The notifier is built with CMake:            make notifier
# Everything else forwards to a script that installs what is missing on Debian first:
#   run [ONCE=1]   the demonstration        test [PG=15]   all tests        bench   the figures
#   lint           all checks               format         clang-format in place

.DEFAULT_GOAL := all
PG_CONFIG ?= $(if $(PG),/usr/lib/postgresql/$(PG)/bin/pg_config,pg_config)
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

VERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" extension/pg_herald.control)
SCRIPT := .build/pg_herald--$(VERSION).sql
CHAPTERS := $(sort $(wildcard sql/[0-9][0-9]_*.sql))
# A line "-- chapter: NN_name.sql" in an upgrade script stands for a whole chapter that is new with it.
UPGRADES := $(patsubst sql/%,.build/%,$(wildcard sql/pg_herald--*--*.sql))

MODULE_big = pg_herald
EXTENSION = extension/pg_herald
DATA_built = $(SCRIPT) $(UPGRADES)
SOURCES := $(sort $(wildcard extension/*.cpp extension/core/*.cpp))
OBJS = $(SOURCES:extension/%.cpp=.build/pgxs/%.o)
SHLIB_LINK = -lstdc++ -lzstd -Wl,--version-script=$(EXPORTS)
EXTRA_CLEAN = .build

# Plain flags for C++; PostgreSQL's own CFLAGS are for C.
HERALD_CXXFLAGS = -std=c++20 -fno-exceptions -fno-rtti -O2 -g -fPIC -fno-semantic-interposition \
	-fno-omit-frame-pointer -fstack-protector-strong -fwrapv -fno-strict-aliasing \
	-Wall -Wextra -Wshadow -Werror
HERALD_CPPFLAGS = -D_GNU_SOURCE -Iextension -isystem '$(shell $(PG_CONFIG) --includedir-server 2>/dev/null)'

ifneq ($(PGXS),)
# clang 14 cannot make bitcode of C++20 with libstdc++ 12.
override with_llvm = no
include $(PGXS)

# Changes when the server version, the compiler or a flag does: then everything is built anew.
BUILT_FOR := .build/pgxs/built_for
$(shell mkdir -p .build/pgxs; printf '%s\n' "$$($(PG_CONFIG) --version) $$($(CXX) --version | head -n 1)" \
	'$(HERALD_CXXFLAGS)' > $(BUILT_FOR).new; \
	cmp -s $(BUILT_FOR).new $(BUILT_FOR) || cp $(BUILT_FOR).new $(BUILT_FOR); rm $(BUILT_FOR).new)

# The module exports what PostgreSQL calls by name and nothing else.
EXPORTS := .build/pgxs/exports.map
pg_herald.so: $(EXPORTS)
$(EXPORTS): Makefile
	@mkdir -p $(@D)
	printf '{ global: Pg_magic_func; _PG_init; pg_finfo_*; herald_*; local: *; };\n' > $@

$(OBJS): .build/pgxs/%.o: extension/%.cpp $(BUILT_FOR)
	@mkdir -p $(@D)
	$(CXX) $(HERALD_CXXFLAGS) $(HERALD_CPPFLAGS) -MMD -MP -c $< -o $@

-include $(OBJS:.o=.d)
else
all install uninstall:
	@echo "error: $(PG_CONFIG) is missing; install PostgreSQL's server headers" \
		"(Debian: postgresql-server-dev-15) or set PG_CONFIG" >&2; exit 1
clean:
	rm -rf .build pg_herald.so
endif

$(SCRIPT): $(CHAPTERS) extension/pg_herald.control Makefile
	@mkdir -p $(@D)
	cat $(CHAPTERS) > $@.new && mv $@.new $@

$(UPGRADES): .build/%.sql: sql/%.sql $(CHAPTERS) Makefile
	@mkdir -p $(@D)
	awk '/^-- chapter: / { while ((getline line < ("sql/" $$3)) > 0) print line; next } { print }' \
		$< > $@.new && mv $@.new $@

# The flags, for clang-tidy.
print-flags:
	@printf '%s\n' $(HERALD_CXXFLAGS) $(HERALD_CPPFLAGS)

notifier:
	test/support/build notifier

run:
	@test/demo/run $(if $(filter 1,$(ONCE)),--once)
test:
	@test/run
bench:
	@test/support/bench
lint:
	@test/support/lint
format:
	@test/support/format

.PHONY: run test bench lint format notifier print-flags
