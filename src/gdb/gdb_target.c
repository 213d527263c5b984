/* See gdb_target.h. */
#include "gdb/gdb_target.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "x86/state.h"

/* ---- types: for each feature those that its registers have ---- */

struct flag {
    const char *name;
    uint32_t bit;
};

struct flags {
    const char *feature, *id;
    unsigned bytes;
    struct flag flag[24]; /* up to the first without a name */
};

static const struct flags flag_types[] = {
    {"org.gnu.gdb.i386.core",
     "i386_eflags",
     4,
     {{"CF", X86_FLAG_CF},
      {"", X86_FLAG_FIXED},
      {"PF", X86_FLAG_PF},
      {"AF", X86_FLAG_AF},
      {"ZF", X86_FLAG_ZF},
      {"SF", X86_FLAG_SF},
      {"TF", X86_FLAG_TF},
      {"IF", X86_FLAG_IF},
      {"DF", X86_FLAG_DF},
      {"OF", X86_FLAG_OF},
      {"NT", X86_FLAG_NT},
      {"RF", X86_FLAG_RF},
      {"VM", X86_FLAG_VM},
      {"AC", X86_FLAG_AC},
      {"VIF", X86_FLAG_VIF},
      {"VIP", X86_FLAG_VIP},
      {"ID", X86_FLAG_ID}}},
    {"org.gnu.gdb.i386.sse",
     "i386_mxcsr",
     4,
     /* SDM Vol. 1 10.2.3 */
     {{"IE", 1u << 0},
      {"DE", 1u << 1},
      {"ZE", 1u << 2},
      {"OE", 1u << 3},
      {"UE", 1u << 4},
      {"PE", 1u << 5},
      {"DAZ", 1u << 6},
      {"IM", 1u << 7},
      {"DM", 1u << 8},
      {"ZM", 1u << 9},
      {"OM", 1u << 10},
      {"UM", 1u << 11},
      {"PM", 1u << 12},
      {"FZ", 1u << 15}}},
    {"org.vireo.system",
     "cr0_flags",
     8,
     {{"PE", X86_CR0_PE},
      {"MP", X86_CR0_MP},
      {"EM", X86_CR0_EM},
      {"TS", X86_CR0_TS},
      {"ET", X86_CR0_ET},
      {"NE", X86_CR0_NE},
      {"WP", X86_CR0_WP},
      {"AM", X86_CR0_AM},
      {"NW", X86_CR0_NW},
      {"CD", X86_CR0_CD},
      {"PG", X86_CR0_PG}}},
    {"org.vireo.system",
     "cr4_flags",
     8,
     {{"VME", X86_CR4_VME},
      {"PVI", X86_CR4_PVI},
      {"TSD", X86_CR4_TSD},
      {"DE", X86_CR4_DE},
      {"PSE", X86_CR4_PSE},
      {"PAE", X86_CR4_PAE},
      {"MCE", X86_CR4_MCE},
      {"PGE", X86_CR4_PGE},
      {"PCE", X86_CR4_PCE},
      {"OSFXSR", X86_CR4_OSFXSR},
      {"OSXMMEXCPT", X86_CR4_OSXMMEXCPT},
      {"UMIP", X86_CR4_UMIP},
      {"FSGSBASE", X86_CR4_FSGSBASE},
      {"PCIDE", X86_CR4_PCIDE},
      {"OSXSAVE", X86_CR4_OSXSAVE},
      {"SMEP", X86_CR4_SMEP},
      {"SMAP", X86_CR4_SMAP}}},
    {"org.vireo.system",
     "efer_flags",
     8,
     {{"SCE", X86_EFER_SCE}, {"LME", X86_EFER_LME}, {"LMA", X86_EFER_LMA}, {"NXE", X86_EFER_NX}}},
};

/* How gdb prints an XMM register: each way one can look at it. */
static const char vec128[] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
                             "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
                             "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
                             "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
                             "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
                             "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
                             "<union id=\"vec128\">"
                             "<field name=\"v4_float\" type=\"v4f\"/>"
                             "<field name=\"v2_double\" type=\"v2d\"/>"
                             "<field name=\"v16_int8\" type=\"v16i8\"/>"
                             "<field name=\"v8_int16\" type=\"v8i16\"/>"
                             "<field name=\"v4_int32\" type=\"v4i32\"/>"
                             "<field name=\"v2_int64\" type=\"v2i64\"/>"
                             "<field name=\"uint128\" type=\"uint128\"/>"
                             "</union>\n";

/* ---- text ---- */

struct text {
    char *buf;
    size_t size, len;
};

PRINTF_LIKE(2, 3) static void add(struct text *t, const char *fmt, ...)
{
    size_t at = t->len < t->size ? t->len : t->size;
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(t->buf + at, t->size - at, fmt, ap);
    va_end(ap);
    t->len += n > 0 ? (size_t)n : 0;
}

static void add_flags(struct text *t, const struct flags *type)
{
    add(t, "<flags id=\"%s\" size=\"%u\">", type->id, type->bytes);
    for (const struct flag *f = type->flag; f->name; f++) {
        int bit = __builtin_ctz(f->bit);
        add(t, "<field name=\"%s\" start=\"%d\" end=\"%d\"/>", f->name, bit, bit);
    }
    add(t, "</flags>\n");
}

static void add_types(struct text *t, const char *feature)
{
    for (size_t i = 0; i < ARRAY_SIZE(flag_types); i++)
        if (strcmp(flag_types[i].feature, feature) == 0)
            add_flags(t, &flag_types[i]);
    if (strcmp(feature, "org.gnu.gdb.i386.sse") == 0)
        add(t, "%s", vec128);
}

static void begin_feature(struct text *t, const char *name, bool *open)
{
    add(t, "%s<feature name=\"%s\">\n", *open ? "</feature>\n" : "", name);
    add_types(t, name);
    *open = true;
}

size_t gdb_target_xml(char *buf, size_t size)
{
    struct text t = {.buf = buf, .size = size};
    unsigned n = 0;
    bool open = false;

    add(&t, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n"
            "<architecture>i386:x86-64</architecture>\n");
#define FEATURE(name) begin_feature(&t, name, &open);
#define REG(name, bits, type, kind, index) \
    add(&t, "<reg name=\"%s\" bitsize=\"%d\" type=\"%s\" regnum=\"%u\"/>\n", name, bits, type, n++);
#include "gdb/gdb_regs.def"
#undef REG
#undef FEATURE
    add(&t, "</feature>\n</target>\n");
    return t.len;
}
