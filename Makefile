# facenetd: one Makefile, objects in build/<variant>/ so that variants coexist.
#   make            build/facenetd and build/facenetctl
#   make help       what else there is
V ?= release
comma := ,
ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
B := build/$(V)
PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
# systemd reads /usr/lib and /usr/local/lib; elsewhere set UNITDIR.
UNITDIR ?= $(PREFIX)/lib/systemd/system
MANDIR ?= $(PREFIX)/share/man
# Photos and weights for tests and figures; absent: those tests are skipped.
DATA ?= $(or $(FACENETD_DATA),../shared/data)

VERSION := $(shell cat VERSION)
PKGS := libmicrohttpd jansson libjpeg libpng libwebp sqlite3 \
        libprotobuf-c gnutls openblas
CFLAGS_WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes \
        -Wmissing-prototypes -Wvla
CFLAGS_HARD := -fPIE -fstack-protector-strong -fstack-clash-protection \
        -fcf-protection
CFLAGS_release := -O2 -g -D_FORTIFY_SOURCE=2
CFLAGS_check := -O2 -Werror -D_FORTIFY_SOURCE=2
CFLAGS_asan := -O1 -g -fPIC -fno-omit-frame-pointer \
        -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_tsan := -O1 -g -fsanitize=thread
CFLAGS_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=fuzzer,address,undefined
DEFS := -D_GNU_SOURCE -DFACENETD_VERSION='"$(VERSION)"' -DPREFIX='"$(PREFIX)"'

# Asked once, and only when something is built: `make deps run` on a bare
# machine starts without pkg-config.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS)))$(PKG_LIBS)
# oneDNN 3.x from elsewhere: make DNNL_CFLAGS=-I… DNNL_LIBS='-L… -ldnnl'
DNNL_CFLAGS ?=
DNNL_LIBS ?= -ldnnl
ALL_CFLAGS = -std=c11 -I. -I$(B)/gen $(DEFS) $(CFLAGS_WARN) $(CFLAGS_HARD) \
        $(CFLAGS_$(V)) $(DNNL_CFLAGS) $(PKG_CFLAGS) $(CFLAGS)
LIBS = $(DNNL_LIBS) $(PKG_LIBS) -lgomp -lm -lpthread -ldl
ALL_LDFLAGS := -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS_$(V)) $(LDFLAGS)

# The card's plugin, all of it but what runs on a card: see gpu/README.md.
CUDA ?= /usr/local/cuda
NVCC ?= $(CUDA)/bin/nvcc
CUDNN_H := $(firstword $(wildcard $(CUDA)/include/cudnn.h /usr/include/cudnn.h \
        /usr/include/x86_64-linux-gnu/cudnn.h))
CUDA_CFLAGS := -isystem $(CUDA)/include -isystem $(dir $(CUDNN_H))
CUDA_LDFLAGS := -L$(CUDA)/lib64 $(addprefix -Wl$(comma)-rpath$(comma),$(GPU_RPATH))
PIC := $(B)/pic
GPU_OBJ := $(patsubst %.c,$(PIC)/%.o,$(filter-out gpu/card.c gpu/dnn.c,\
        $(sort $(wildcard gpu/*.c))) core/base/error.c core/base/file.c \
        $(addprefix core/engine/,backend.c graph.c graph_fuse.c learn_steps.c op.c \
        op_run.c slots.c tensor.c))

SRC := $(sort $(wildcard core/*/*.c store/*.c config/*.c daemon/*.c))
SRC := $(filter-out daemon/main.c,$(SRC))
SCHEMA := $(B)/gen/schema.h $(B)/gen/schema_2.h
GEN := $(B)/gen/onnx.pb-c.c $(B)/gen/onnx.pb-c.h $(SCHEMA) \
        $(B)/gen/openapi.h
OBJ := $(SRC:%.c=$(B)/%.o) $(B)/gen/onnx.pb-c.o
LIB := $(B)/libfacenetd.a
UNIT := $(sort $(wildcard tests/unit/test_*.c))
OPTEST := $(sort $(wildcard tests/op/*.c))
EMULATED := $(B)/tests/gpu/emulated.so
EMULATED_OBJ := $(patsubst %.c,$(PIC)/%.o,$(sort \
        $(wildcard tests/gpu/emulated*.c)))
# The same with the kernels of gpu/*.cu, not loops; ThreadSanitizer does not
# know its fibers.
EMULATED_KERNELS := $(B)/tests/gpu/emulated_kernels.so
HOST := $(B)/host
HOST_OBJ := $(patsubst %.cu,$(PIC)/host/%.o,$(sort $(wildcard gpu/*.cu))) \
        $(PIC)/tests/gpu/host_cuda.o
KERNEL_TESTS := $(EMULATED_KERNELS) $(addprefix $(B)/tests/gpu/,\
        test_conv_kernels test_host_cuda test_learn_op_kernels \
        test_update_kernels)
TESTS := $(UNIT:%.c=$(B)/%) $(if $(OPTEST),$(B)/tests/op/test_op) \
        $(EMULATED) $(addprefix $(B)/tests/gpu/,test_card test_conv \
        test_detection test_learn test_learn_op test_plan test_search test_train \
        test_triplets \
        test_update) \
        $(if $(filter tsan,$(V)),,$(KERNEL_TESTS)) \
        $(if $(CUDNN_H),$(B)/tests/gpu/test_engines)
BENCH := $(patsubst %.c,$(B)/%,$(sort $(wildcard bench/bench_*.c)))
FUZZ := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
REPLAY := $(FUZZ:$(B)/tests/fuzz/fuzz_%=$(B)/tests/fuzz/replay_%)
CTL_OBJ := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tools/*.c)))

.DEFAULT_GOAL := all
.SECONDARY: # keep objects of tests
# make Q= shows the commands.
Q ?= @
.PHONY: all
all: build/facenetd build/facenetctl ## build the daemon and the command line

build/facenetd: $(B)/facenetd
build/facenetctl: $(B)/facenetctl
build/facenetd build/facenetctl:
	$(Q)ln -sfn $(V)/$(@F) $@

$(B)/facenetd: $(B)/daemon/main.o $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(B)/facenetctl: $(CTL_OBJ) $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) $(shell pkg-config --libs libcurl)
$(LIB): $(OBJ)
	@rm -f $@
	@echo "  AR $@"
	$(Q)ar rcs $@ $^

# Generated: ONNX messages from Debian's onnx.proto, the schema as a string.
PROTO_DIR ?= /usr/include/onnx
$(B)/gen/onnx.pb-c.h $(B)/gen/onnx.pb-c.c &: $(PROTO_DIR)/onnx.proto
	@mkdir -p $(B)/gen
	@echo "  GEN $@"
	$(Q)protoc-c --proto_path=$(PROTO_DIR) --c_out=$(B)/gen onnx.proto
$(SCHEMA): $(B)/gen/%.h: store/%.sql
	@mkdir -p $(B)/gen
	$(Q)sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $< > $@
$(B)/gen/openapi.h: daemon/openapi.json
	@mkdir -p $(B)/gen
	$(Q)sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $< > $@
$(B)/gen/onnx.pb-c.o: $(B)/gen/onnx.pb-c.c
	@echo "  CC $@"
	$(Q)$(CC) $(filter-out -W%,$(ALL_CFLAGS)) -c -o $@ $<

# Loops of training run on OpenMP's threads, oneDNN's own; under clang and
# ThreadSanitizer, which do not know this runtime, on one. Neither floating
# point's traps nor errno is looked at, and both keep loops from vectors.
OPENMP := $(if $(filter tsan,$(V))$(findstring clang,$(CC)),-Wno-unknown-pragmas,-fopenmp)
LOOPS := -O3 -fno-trapping-math -fno-math-errno
$(B)/core/engine/op_%.o $(B)/core/engine/learn.o: OPT := $(LOOPS)
$(B)/core/engine/op_train.o $(B)/core/engine/op_train_%.o: OPT := $(LOOPS) $(OPENMP)
$(B)/core/engine/cpu_learn.o: OPT := -O3 $(OPENMP)
$(B)/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	@echo "  CC $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(OPT) -MMD -MP -c -o $@ $<

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
$(B)/tests/op/test_op: $(OPTEST:%.c=$(B)/%.o) $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
$(B)/tests/http/%: $(B)/tests/http/%.o $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
# A card that is none, as a plugin: the archive's names stay its own.
$(B)/tests/fake_gpu.so: tests/fake_gpu.c $(LIB)
	@mkdir -p $(@D)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -fvisibility=hidden -shared \
	    -Wl,--exclude-libs,ALL -Wl,--as-needed $(LDFLAGS_$(V)) $(LDFLAGS) \
	    -o $@ $^ $(LIBS)
# The plugin with this processor instead of a card, and what tests it.
$(PIC)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $@"
	$(Q)$(CC) $(filter-out -fPIE,$(ALL_CFLAGS)) -fPIC -fvisibility=hidden \
	    $(OPT) -MMD -MP -c -o $@ $<
$(EMULATED_OBJ): OPT := -O3 -fno-trapping-math -fno-math-errno
$(PIC)/gpu/card.o $(PIC)/gpu/dnn.o $(B)/tests/gpu/test_engines.o: \
        ALL_CFLAGS += $(CUDA_CFLAGS)
$(EMULATED): $(GPU_OBJ) $(EMULATED_OBJ)
	@echo "  LD $@"
	@mkdir -p $(@D)
	$(Q)$(CC) -shared $(LDFLAGS_$(V)) -o $@ $^ -lm -lpthread
# The card's own kernels, for this processor. Sums as they are written: none
# of them fused.
HOST_CFLAGS = -std=c++17 -I$(HOST) -I. $(DEFS) -DMAX_BLOCKS=3 -Wall -Wextra -fPIC \
        -fvisibility=hidden -fno-exceptions -fno-rtti -fno-strict-aliasing \
        -ffp-contract=off -fno-math-errno -fno-trapping-math \
        $(CFLAGS_$(V)) -O2 -U_FORTIFY_SOURCE -MMD -MP
$(HOST)/%: % tests/gpu/host_cuda.py
	@mkdir -p $(@D)
	@echo "  GEN $@"
	$(Q)python3 tests/gpu/host_cuda.py $< $@
$(PIC)/host/%.o: $(HOST)/%.cu $(HOST)/gpu/launch.cuh
	@mkdir -p $(@D)
	@echo "  CXX $@"
	$(Q)$(CXX) $(HOST_CFLAGS) -x c++ -c -o $@ $<
$(B)/tests/gpu/test_host_cuda: $(PIC)/host/tests/gpu/test_host_cuda.o \
        $(PIC)/tests/gpu/host_cuda.o
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lm -lpthread -lcmocka
$(PIC)/tests/gpu/host_cuda.o: tests/gpu/host_cuda.cc
	@mkdir -p $(@D)
	@echo "  CXX $@"
	$(Q)$(CXX) $(HOST_CFLAGS) -c -o $@ $<
$(EMULATED_KERNELS): $(GPU_OBJ) $(PIC)/tests/gpu/emulated.o $(HOST_OBJ)
	@echo "  LD $@"
	@mkdir -p $(@D)
	$(Q)$(CC) -shared $(LDFLAGS_$(V)) -o $@ $^ -lm -lpthread
$(addprefix $(B)/tests/gpu/,test_conv_kernels test_learn_op_kernels \
        test_update_kernels): %_kernels: %.o $(GPU_OBJ) \
        $(PIC)/tests/gpu/emulated.o $(HOST_OBJ) $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
$(B)/tests/gpu/test_update: $(B)/core/engine/learn.o
$(addprefix $(B)/tests/gpu/,test_conv test_plan test_update): %: %.o $(GPU_OBJ) \
        $(EMULATED_OBJ)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ -lm -lpthread -lcmocka
$(addprefix $(B)/tests/gpu/,test_card test_detection test_learn test_search \
        test_train test_triplets): %: %.o $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
$(addprefix $(B)/tests/gpu/,test_learn_op bench_steps): %: %.o $(GPU_OBJ) \
        $(EMULATED_OBJ) $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
# cuDNN itself, asked about cards that are not there: nothing runs.
$(B)/tests/gpu/test_engines: $(B)/tests/gpu/test_engines.o $(GPU_OBJ) \
        $(PIC)/gpu/dnn.o $(filter-out %/emulated.o %/emulated_conv.o %/emulated_ops.o,\
        $(EMULATED_OBJ)) $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -Wl,--wrap=dnn_open,--wrap=dnn_conv_run \
	    -Wl,--wrap=weights_get -o $@ $^ $(LIBS) $(CUDA_LDFLAGS) -lcudnn -lcmocka
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
# A target without libFuzzer, for its corpus in `make test`.
$(B)/tests/fuzz/replay_%: $(B)/tests/fuzz/replay.o $(B)/tests/fuzz/fuzz_%.o \
        $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(B)/bench/bench_detect: ALL_LDFLAGS += -Wl,--wrap=graph_forward
$(B)/bench/%: $(B)/bench/%.o $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) $(shell pkg-config --libs libcurl)

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- the plugin of a card --------------------------------------------------
NVCC_THREADS ?= 4
GPU_ARCHS ?= 75 80 86 89 90 100 120
GPU_CODE = $(foreach a,$(GPU_ARCHS),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) \
        -gencode arch=compute_$(lastword $(GPU_ARCHS))$(comma)code=compute_$(lastword $(GPU_ARCHS))
# cuDNN brings the C++ library along, which nvcc's launchers use a little.
GPU_LIBS := -lcudart_static -lcudnn -lstdc++ -lrt -ldl -lm -lpthread
.PHONY: gpu gpu-plans gpu-pack test-gpu bench-gpu
gpu-plans: $(GPU_OBJ) $(EMULATED_OBJ)
gpu: build/facenetd-cuda.so ## the plugin for NVIDIA cards, build/facenetd-cuda.so
KERNELS := $(patsubst %.cu,$(PIC)/%.o,$(sort $(wildcard gpu/*.cu)))
$(KERNELS): $(PIC)/gpu/%.o: gpu/%.cu $(wildcard gpu/*.h gpu/*.cuh) \
        core/engine/learn_rule.h
	@mkdir -p $(@D)
	@echo "  NVCC $@ ($(GPU_ARCHS))"
	$(Q)$(NVCC) -std=c++17 -O3 --threads $(NVCC_THREADS) -I. $(GPU_CODE) -Xcompiler \
	    -Wall$(comma)-Wextra$(comma)-fPIC$(comma)-fvisibility=hidden -c -o $@ $<
# Nothing is exported but the one function, nothing left open but the driver.
build/facenetd-cuda.so: $(GPU_OBJ) $(PIC)/gpu/card.o $(PIC)/gpu/dnn.o \
        $(KERNELS)
	@echo "  LD $@"
	$(Q)$(CC) -shared -Wl,-soname,facenetd-cuda.so -Wl,-z,defs,-z,relro,-z,now \
	    -Wl,--exclude-libs,ALL -Wl,--as-needed -o $@ $^ $(CUDA_LDFLAGS) $(GPU_LIBS)
	$(Q)sh tests/gpu/check_plugin.sh

# Not through the plugin, but of its parts.
$(addprefix $(B)/tests/gpu/,test_conv_card test_learn_op_card \
        test_update_card bench_steps_card): %_card: %.o $(GPU_OBJ) \
        $(PIC)/gpu/card.o $(PIC)/gpu/dnn.o $(KERNELS) $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) $(CUDA_LDFLAGS) $(GPU_LIBS) \
	    -lcmocka
GPU_TESTS := $(B)/tests/op/test_op $(addprefix $(B)/tests/gpu/,test_card \
        test_conv_card test_detection test_learn test_learn_op_card \
        test_search test_train test_triplets test_update_card bench_card \
        bench_detection bench_search bench_steps_card) all \
        $(B)/tests/unit/test_golden $(B)/bench/bench_http $(B)/bench/bench_train \
        $(B)/tests/http/photo
$(addprefix $(B)/tests/gpu/,bench_card bench_detection bench_search): %: \
        %.o $(LIB)
	@echo "  LD $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
test-gpu: gpu $(GPU_TESTS) ## the plugin's tests on this machine's card
	@FACENETD_DATA="$(abspath $(DATA))" tests/gpu/run test $(PARTS)
bench-gpu: gpu $(GPU_TESTS) ## its speed, beside PyTorch's where that is installed
	@FACENETD_DATA="$(abspath $(DATA))" tests/gpu/run bench $(PARTS)
gpu-pack: gpu $(GPU_TESTS) ## build/gpu-pack.tar.gz: test-gpu and bench-gpu for another machine
	@FACENETD_DATA="$(abspath $(DATA))" tests/gpu/pack

# ---- set-up -------------------------------------------------------------
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
DEBS := gcc g++ libc6-dev make pkg-config python3 ca-certificates curl libdnnl-dev \
        libopenblas-dev libonnx-dev protobuf-c-compiler libprotobuf-c-dev \
        libmicrohttpd-dev libgnutls28-dev libjansson-dev \
        libjpeg62-turbo-dev libpng-dev libwebp-dev libsqlite3-dev \
        libcurl4-gnutls-dev libcmocka-dev
DEBS_CHECK := clang clang-format systemd libclang-rt-14-dev

.PHONY: deps deps-check
deps: ## install the Debian packages that building and testing need
	@dpkg-query -W -f='$${Status}\n' $(DEBS) 2>/dev/null | \
	    grep -c '^install ok installed' | grep -qx $(words $(DEBS)) || { \
	    $(SUDO) apt-get update && DEBIAN_FRONTEND=noninteractive \
	    $(SUDO) apt-get install -y --no-install-recommends $(DEBS); }
deps-check: deps ## and those of make check and make fuzz
	DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y \
	    --no-install-recommends $(DEBS_CHECK)

# ---- models, and the main job -------------------------------------------
NAMES := embedder detector_pnet detector_rnet detector_onet
MODELS := $(NAMES:%=build/models/%.onnx)
.PHONY: models run reference train-models
models: $(MODELS) ## fill build/models from models/; what is there already stays
build/models/%.onnx: | models/%.onnx
	@mkdir -p build/models
	cp $(firstword $|) $@

# The test data's weights with contracts, to compare with and learn from.
IMPORT = ./build/facenetctl model import
MTCNN = --scale fixed:127.5,128 --licence MIT \
        --source "timesler/facenet-pytorch, MTCNN"
reference: $(NAMES:%=build/reference/%.onnx)
build/reference/embedder.onnx: | build/facenetctl
	@mkdir -p build/reference
	$(IMPORT) $(DATA)/weights/mobilefacenet_arcface_112.onnx \
	    --crop arcface-112 --scale none \
	    --source "liguiyuan/mobilefacenet-ncnn, MobileFaceNet with ArcFace" \
	    --threshold 0.1:1.7376:3000:300 --threshold 0.01:1.5186:3000:30 \
	    --threshold 0.001:1.4124:3000:3 -o $@
build/reference/detector_%net.onnx: | build/facenetctl
	@mkdir -p build/reference
	$(IMPORT) $(DATA)/weights/mtcnn_$*net.onnx --kind mtcnn-$*net $(MTCNN) \
	    -o $@
train-models: all ## train the models of models/ anew into build/trained: hours
	FACENETD_DATA="$(abspath $(DATA))" models/train.sh

run: all models ## build, and serve on 127.0.0.1:8080 with data in build/data
	@mkdir -p build/data
	build/facenetd --listen 127.0.0.1:8080 --data-dir build/data \
	    --models build/models

# ---- tests ----------------------------------------------------------------
HTTPTEST := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/http/*.c)))
.PHONY: test test-build asan tsan fuzz bench check format install \
        uninstall help clean
test-build: $(B)/facenetd $(B)/facenetctl $(TESTS) $(REPLAY) $(HTTPTEST) \
        $(B)/tests/fake_gpu.so
# The card's plugin too where it can be built; checked as it was linked.
CAN_GPU := $(and $(CUDNN_H),$(wildcard $(NVCC)))
test: all test-build models $(if $(CAN_GPU),gpu) ## build and run every test
	@V=$(V) FACENETD_DATA="$(abspath $(DATA))" tests/run

asan: ## the tests under AddressSanitizer and UBSan
	$(MAKE) models
	$(MAKE) V=asan test-build
	ASAN_OPTIONS=detect_leaks=1 V=asan FACENETD_DATA="$(abspath $(DATA))" tests/run
tsan: ## the tests under ThreadSanitizer
	$(MAKE) models
	$(MAKE) V=tsan test-build
	TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=0" \
	    OPENBLAS_NUM_THREADS=1 V=tsan FACENETD_DATA="$(abspath $(DATA))" tests/run

# oneDNN 3.x, as in Debian 13, from PyPI: the engine's tests against it.
ONEDNN3 := build/onednn3
.PHONY: test-onednn3
test-onednn3: ## the engine's tests against oneDNN 3.x from PyPI
	@test -d $(ONEDNN3)/devel || { mkdir -p $(ONEDNN3) && cd $(ONEDNN3) && \
	    python3 -m pip download -q --no-deps onednn-cpu-gomp==2023.2.0 \
	        onednn-devel-cpu-gomp==2023.2.0 && \
	    python3 -m zipfile -e onednn_cpu_gomp-*.whl lib && \
	    python3 -m zipfile -e onednn_devel_cpu_gomp-*.whl devel; }
	$(MAKE) B=build/onednn3/out \
	    DNNL_CFLAGS="-I$$(echo $(ONEDNN3)/devel/*.data/data/include)" \
	    DNNL_LIBS="-L$$(echo $(ONEDNN3)/lib/*.data/data/lib) \
	        -Wl,-rpath,$$(echo $(CURDIR)/$(ONEDNN3)/lib/*.data/data/lib) \
	        -l:libdnnl.so.3" \
	    build/onednn3/out/tests/op/test_op \
	    build/onednn3/out/tests/unit/test_graph_learn \
	    build/onednn3/out/tests/unit/test_golden
	build/onednn3/out/tests/op/test_op
	build/onednn3/out/tests/unit/test_graph_learn
	FACENETD_DATA="$(abspath $(DATA))" build/onednn3/out/tests/unit/test_golden

FUZZ_SECONDS ?= 30
fuzz: ## every fuzz target for FUZZ_SECONDS (30)
	$(MAKE) V=fuzz CC=clang fuzz-build
	@for f in $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c)); do \
	    mkdir -p build/corpus/$$f; echo "$$f"; \
	    build/fuzz/tests/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) \
	        -timeout=20 -rss_limit_mb=4096 -verbosity=0 \
	        -print_final_stats=1 build/corpus/$$f \
	        tests/fuzz/corpus/$${f#fuzz_} || exit 1; done
.PHONY: fuzz-build
fuzz-build: $(FUZZ)

bench: all models $(BENCH) ## every figure of the README, as CSV
	@FACENETD_DATA="$(abspath $(DATA))" bench/run $(V)

.PHONY: figures
figures: all ## train as for README's figures of training, about two hours
	@! test -d $(DATA)/weights || $(MAKE) -s --no-print-directory reference
	@FACENETD_DATA="$(abspath $(DATA))" python3 bench/figures_train.py

# ---- the tree itself --------------------------------------------------------
SOURCES := $(wildcard core/*/*.[ch] store/*.[ch] config/*.[ch] daemon/*.[ch] \
        tools/*.[ch] gpu/*.[ch] tests/*.[ch] tests/*/*.[ch] bench/*.[ch])
format: ## lay the sources out by .clang-format
	@clang-format -i $(SOURCES)
check: ## formatting, warnings as errors, includes, prefixes, headers
	@clang-format --dry-run --Werror $(SOURCES)
	$(MAKE) V=check build/check/facenetd build/check/facenetctl
	$(MAKE) V=check B=build/check-clang CC=clang \
	    build/check-clang/libfacenetd.a
	$(MAKE) V=check gpu-plans
	CC="$(CC)" tests/check_tree.py
	tests/check_units.sh

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | \
	    sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
clean: ## remove what was built (build/data and build/models stay)
	rm -rf build/release build/asan build/tsan build/fuzz build/check \
	    build/check-clang build/facenetd build/facenetctl \
	    build/facenetd-cuda.so build/gpu-pack.tar.gz

SUBST := sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' \
        -e 's|@VERSION@|$(VERSION)|g'
D := $(DESTDIR)

install: all models ## install under DESTDIR and PREFIX; keeps an edited facenetd.conf
	install -d $(D)$(PREFIX)/bin $(D)$(UNITDIR) $(D)$(SYSCONFDIR)/facenetd \
	    $(D)$(MANDIR)/man1 $(D)$(MANDIR)/man5 $(D)$(MANDIR)/man8 \
	    $(D)$(PREFIX)/share/facenetd/models $(D)$(PREFIX)/share/doc/facenetd
	install -m 755 $(B)/facenetd $(B)/facenetctl $(D)$(PREFIX)/bin
	for u in facenetd.service facenetd.socket; do \
	    $(SUBST) systemd/$$u > $(D)$(UNITDIR)/$$u && \
	    chmod 644 $(D)$(UNITDIR)/$$u || exit 1; done
	install -m 644 systemd/gpu.conf $(D)$(PREFIX)/share/doc/facenetd
	! test -e build/facenetd-cuda.so || install -D -m 755 \
	    build/facenetd-cuda.so $(D)$(PREFIX)/lib/facenetd/facenetd-cuda.so
	for m in man1/facenetctl.1 man5/facenetd.conf.5 man8/facenetd.8; do \
	    $(SUBST) man/$${m#*/} > $(D)$(MANDIR)/$$m && \
	    chmod 644 $(D)$(MANDIR)/$$m || exit 1; done
	@# models is written out: PREFIX may differ from the one that was compiled in.
	test -e $(D)$(SYSCONFDIR)/facenetd/facenetd.conf || { \
	    $(SUBST) -e 's|^#models = |models = |' config/facenetd.conf \
	        > $(D)$(SYSCONFDIR)/facenetd/facenetd.conf && \
	    chmod 644 $(D)$(SYSCONFDIR)/facenetd/facenetd.conf; }
	for m in build/models/*.onnx; do \
	    ! test -e "$$m" || install -m 644 "$$m" \
	        $(D)$(PREFIX)/share/facenetd/models || exit 1; done
	@test -n "$(D)" || echo "next: systemctl daemon-reload &&" \
	    "systemctl enable --now facenetd.socket facenetd.service"

uninstall: ## remove what install put there; settings, models and data stay
	rm -f $(D)$(PREFIX)/bin/facenetd $(D)$(PREFIX)/bin/facenetctl \
	    $(D)$(UNITDIR)/facenetd.service $(D)$(UNITDIR)/facenetd.socket \
	    $(D)$(MANDIR)/man1/facenetctl.1 $(D)$(MANDIR)/man5/facenetd.conf.5 \
	    $(D)$(MANDIR)/man8/facenetd.8 \
	    $(D)$(PREFIX)/share/doc/facenetd/gpu.conf \
	    $(D)$(PREFIX)/lib/facenetd/facenetd-cuda.so
	-rmdir $(D)$(PREFIX)/lib/facenetd $(D)$(PREFIX)/share/doc/facenetd \
	    $(D)$(PREFIX)/share/facenetd/models \
	    $(D)$(PREFIX)/share/facenetd 2>/dev/null
