/* The decoder and the binding of its result: any bytes, in every mode. First byte: the mode. */
#include <stdlib.h>

#include "engine/interp/bind.h"
#include "fuzz.h"

static struct bind_map map;
static struct x86_cpuid cpuid;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const struct x86_cpuid_conf conf = {.n_cpus = 1, .tsc_hz = 1000000000, .crystal_hz = 25000000, .phys_bits = 40};

    bind_map_init(&map);
    x86_cpuid_init(&cpuid, &conf);
    return 0;
}

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* What makes an address are offsets into the vCPU; none may point elsewhere. */
static void check_operands(const struct insn *in)
{
    const uint16_t offsets[] = {in->base, in->index, in->seg_base};

    require(in->fn);
    for (size_t i = 0; i < ARRAY_SIZE(offsets); i++)
        require(offsets[i] < offsetof(struct interp, tlb));
    require(in->scale <= 3);
    require(in->addr == 2 || in->addr == 4 || in->addr == 8);
    require(in->seg < X86_N_SEG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t code_sizes[] = {2, 4, 8, 2};
    struct x86_insn xi;

    if (!size)
        return 0;
    unsigned mode = data[0] & 3;
    data++;
    size--;
    while (size) {
        enum x86_decode r = x86_decode(&xi, code_sizes[mode], mode == 3, data, size);
        if (r == X86_DECODE_MORE) {
            require(size < X86_INSN_MAX);
            break;
        }
        unsigned len = 1;
        if (r == X86_DECODE_OK) {
            struct insn in = {0};
            require(xi.insn.length >= 1 && xi.insn.length <= X86_INSN_MAX && xi.insn.length <= size);
            bind_insn(&map, &in, &xi, &cpuid);
            check_operands(&in);
            (void)bind_end(&xi);
            len = xi.insn.length;
        }
        data += len;
        size -= len;
    }
    return 0;
}
