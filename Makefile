# A thin layer: what happens is in meson.build and in tools/. Each target needs nothing before it; what is done is not done again.
# make run ARGS="--cpus 4"    make oracle N=1000000 SEED=7    make stress MINUTES=5 ENGINE=bt    make install PREFIX=/usr
ARGS   ?=
ENGINE ?= auto
MINUTES ?= 60
N      ?= 1000000
SEED   ?= 1
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: run test test-long stress bench fuzz oracle check install clean build guest debian

run: guest
	@exec build/src/cli/vireo run $(ARGS)

test: guest
	@tools/deps test debian
	@exec tools/test

test-long: guest
	@tools/deps test debian
	@exec tools/test long

stress: guest
	@tools/deps test
	@exec tests/guest/stress.py build/src/cli/vireo --minutes $(MINUTES) --engine $(ENGINE) $(ARGS)

bench: guest
	@tools/deps bench debian
	@exec bench/run $(ARGS)

fuzz:
	@tools/deps build ci
	@exec tests/fuzz/run $(ARGS)

oracle: build
	@exec build/tests/oracle/oracle --count $(N) --seed $(SEED)

# What CI checks beside the tests: format, include directions, headers that compile alone, both compilers.
check:
	@tools/deps build ci
	@exec tools/check

build:
	@tools/deps build
	@exec tools/build

guest: build
	@tools/deps guest
	@exec tools/guest-prepare

# A whole Debian on a disk image: build/debian/disk.qcow2, vmlinuz, initrd.img, id_ed25519. tools/debian-prepare says what is in it.
debian:
	@tools/deps debian
	@exec tools/debian-prepare

# With the default guest, so that the installed vireo needs nothing of this tree.
install: guest
	@meson configure build -Dprefix="$(abspath $(PREFIX))"
	@DESTDIR="$(DESTDIR)" meson install -C build --quiet
	@install -D -m 644 -t "$(DESTDIR)$(abspath $(PREFIX))/share/vireo/guest" guest/vmlinux guest/initrd.img

clean:
	rm -rf build build-* guest guest-* .guest.*
