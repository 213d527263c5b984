#include "engine/listing.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "jit/disasm.h"
#include "x86/paging.h"

void listing_put(struct listing *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(t->buf + t->len, t->room - t->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->len = t->len + (size_t)n < t->room ? t->len + (size_t)n : t->room - 1;
}

void listing_put_code(struct listing *t, const uint8_t *code, size_t len, uint64_t addr, unsigned code_size,
                      uint64_t most, uint64_t mark)
{
    char line[DISASM_LINE];
    uint64_t n = 0;

    for (size_t at = 0; at < len && n < most; n++) {
        size_t step = disasm_one(code + at, len - at, addr + at, code_size, line);
        listing_put(t, "%s %16" PRIx64 "  %s\n", mark && addr + at == mark ? "=>" : "  ", addr + at, line);
        at += step;
    }
}

void listing_put_registers(struct listing *t, const struct x86_state *st)
{
    char registers[4096];

    x86_state_print(st, registers, sizeof(registers));
    listing_put(t, "%s\n", registers);
}

unsigned listing_code_size(const struct x86_state *st)
{
    return x86_code64(st) ? 8 : st->seg[X86_CS].attr & X86_SEG_DB ? 4 : 2;
}

uint64_t listing_linear_rip(const struct x86_state *st)
{
    return x86_code64(st) ? st->rip : (uint32_t)(st->seg[X86_CS].base + st->rip);
}

size_t listing_read(struct ram *ram, const struct x86_state *st, uint64_t lin, uint8_t *buf, size_t len)
{
    const struct paging paging = {.ram = ram,
                                  .cr0 = st->cr0,
                                  .cr3 = st->cr3,
                                  .cr4 = st->cr4,
                                  .efer = st->efer,
                                  .pdpte = {st->pdpte[0], st->pdpte[1], st->pdpte[2], st->pdpte[3]},
                                  .phys_bits = 52};
    size_t done = 0;

    while (done < len) {
        struct paging_result to = {.gpa = lin + done};
        size_t part = RAM_PAGE_SIZE - ((lin + done) & (RAM_PAGE_SIZE - 1));
        if ((st->cr0 & X86_CR0_PG) && paging_walk(&paging, lin + done, PAGING_PEEK, &to) < 0)
            break;
        part = part < len - done ? part : len - done;
        if (ram_read(ram, to.gpa, buf + done, part) < 0)
            break;
        done += part;
    }
    return done;
}
