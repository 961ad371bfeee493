# facenetd: one Makefile, objects in build/<variant>/ so that variants coexist.
#   make            build/facenetd and build/facenetctl
#   make help       what else there is
V ?= release
CC ?= gcc
B := build/$(V)
PREFIX ?= /usr/local
DESTDIR ?=

VERSION := $(shell cat VERSION)
PKGS := libmicrohttpd jansson libjpeg libpng libwebp libwebpdemux sqlite3 \
        libprotobuf-c gnutls openblas
CFLAGS_WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes \
        -Wmissing-prototypes -Wvla
CFLAGS_HARD := -fPIE -fstack-protector-strong -fstack-clash-protection \
        -fcf-protection
CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2
CFLAGS_asan := -O1 -g -fno-omit-frame-pointer \
        -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_tsan := -O1 -g -fsanitize=thread
CFLAGS_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=fuzzer,address,undefined
DEFS := -D_GNU_SOURCE -DFACENETD_VERSION='"$(VERSION)"' -DPREFIX='"$(PREFIX)"'

ALL_CFLAGS := -std=c11 -I. -I$(B)/gen $(DEFS) $(CFLAGS_WARN) $(CFLAGS_HARD) \
        $(CFLAGS_$(V)) $(shell pkg-config --cflags $(PKGS)) $(CFLAGS)
LIBS := $(shell pkg-config --libs $(PKGS)) -ldnnl -lgomp -lm -lpthread
ALL_LDFLAGS := -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS_$(V)) $(LDFLAGS)

SRC := $(sort $(wildcard core/*/*.c store/*.c config/*.c daemon/*.c))
SRC := $(filter-out daemon/main.c,$(SRC))
GEN := $(B)/gen/onnx.pb-c.c $(B)/gen/onnx.pb-c.h $(B)/gen/schema.h \
        $(B)/gen/openapi.h
OBJ := $(SRC:%.c=$(B)/%.o) $(B)/gen/onnx.pb-c.o
LIB := $(B)/libfacenetd.a
UNIT := $(sort $(wildcard tests/unit/test_*.c))
OPTEST := $(sort $(wildcard tests/op/*.c))
TESTS := $(UNIT:%.c=$(B)/%) $(if $(OPTEST),$(B)/tests/op/test_op)
BENCH := $(patsubst %.c,$(B)/%,$(sort $(wildcard bench/bench_*.c)))
FUZZ := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
CTL_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tools/*.c)))

.DEFAULT_GOAL := all
.PHONY: all
all: build/facenetd build/facenetctl ## build the daemon and the command line

build/facenetd: $(B)/facenetd
build/facenetctl: $(B)/facenetctl
build/facenetd build/facenetctl:
	ln -sfn $(V)/$(@F) $@

$(B)/facenetd: $(B)/daemon/main.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(B)/facenetctl: $(CTL_OBJ) $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) $(shell pkg-config --libs libcurl)
$(LIB): $(OBJ)
	@rm -f $@
	ar rcs $@ $^

# Generated: ONNX messages from Debian's onnx.proto, the schema as a string.
PROTO_DIR ?= /usr/include/onnx
$(B)/gen/onnx.pb-c.h $(B)/gen/onnx.pb-c.c &: $(PROTO_DIR)/onnx.proto
	@mkdir -p $(B)/gen
	protoc-c --proto_path=$(PROTO_DIR) --c_out=$(B)/gen onnx.proto
$(B)/gen/schema.h: store/schema.sql
	@mkdir -p $(B)/gen
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $< > $@
$(B)/gen/openapi.h: daemon/openapi.json
	@mkdir -p $(B)/gen
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $< > $@
$(B)/gen/onnx.pb-c.o: $(B)/gen/onnx.pb-c.c
	$(CC) $(filter-out -W%,$(ALL_CFLAGS)) -c -o $@ $<

$(B)/core/engine/op_%.o: OPT := -O3
$(B)/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(OPT) -MMD -MP -c -o $@ $<

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
$(B)/tests/op/test_op: $(OPTEST:%.c=$(B)/%.o) $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
$(B)/tests/http/%: $(B)/tests/http/%.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(B)/bench/%: $(B)/bench/%.o $(LIB)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
