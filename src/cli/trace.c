#include "cli/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "base/log.h"
#include "cli/perf_map.h"
#include "jit/disasm.h"

#define GUEST_COLUMN 64 /* columns for the guest's code, left of the host's */

static const struct {
    const char *name;
    unsigned bit;
} kinds[] = {{"blocks", TRACE_BLOCKS}, {"exits", TRACE_EXITS}, {"irq", TRACE_IRQ}};

unsigned trace_parse(const char *text)
{
    unsigned bits = 0;

    for (;;) {
        size_t len = strcspn(text, ","), i = 0;
        while (i < ARRAY_SIZE(kinds) && !(strlen(kinds[i].name) == len && memcmp(kinds[i].name, text, len) == 0))
            i++;
        if (i == ARRAY_SIZE(kinds))
            return 0;
        bits |= kinds[i].bit;
        if (!text[len])
            return bits;
        text += len + 1;
    }
}

static void PRINTF_LIKE(2, 3) line(const struct trace *trace, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(trace->out, fmt, ap);
    va_end(ap);
    fputs(trace->out == stderr && log_is_raw() ? "\r\n" : "\n", trace->out);
}

/* ---- blocks ---- */

/* A column of code: its next instruction as text, "" behind the last. */
static void next_insn(const uint8_t *code, size_t len, uint64_t addr, unsigned size, size_t *at, char *text,
                      size_t room)
{
    char insn[DISASM_LINE];

    *text = '\0';
    if (*at >= len)
        return;
    size_t n = disasm_one(code + *at, len - *at, addr + *at, size, insn);
    snprintf(text, room, "%" PRIx64 "  %s", addr + *at, insn);
    *at += n;
}

static void print_code(const struct trace *trace, const struct engine_code *code)
{
    char guest[DISASM_LINE + 24], host[DISASM_LINE + 24];
    size_t guest_at = 0, host_at = 0;

    if (code->name)
        line(trace, "cpu %u code %s: %zu bytes at %" PRIxPTR, code->vcpu, code->name, code->host_len,
             (uintptr_t)code->host);
    else
        line(trace, "cpu %u block %" PRIx64 " cpl %u %u-bit: %zu bytes, the host's %zu at %" PRIxPTR, code->vcpu,
             code->lin, code->cpl, code->size * 8, code->guest_len, code->host_len, (uintptr_t)code->host);
    while (guest_at < code->guest_len || host_at < code->host_len) {
        next_insn(code->guest, code->guest_len, code->lin, code->size, &guest_at, guest, sizeof(guest));
        next_insn(code->host, code->host_len, (uintptr_t)code->host, 8, &host_at, host, sizeof(host));
        if (*host)
            line(trace, "  %-*s  %s", GUEST_COLUMN, guest, host);
        else
            line(trace, "  %s", guest);
    }
}

static void on_code(void *opaque, const struct engine_code *code)
{
    struct trace *trace = opaque;

    pthread_mutex_lock(&trace->lock);
    if (trace->map)
        perf_map_code(trace->map, code);
    if (trace->out)
        print_code(trace, code);
    pthread_mutex_unlock(&trace->lock);
}

static void on_code_map_only(void *opaque, const struct engine_code *code)
{
    struct trace *trace = opaque;

    pthread_mutex_lock(&trace->lock);
    perf_map_code(trace->map, code);
    pthread_mutex_unlock(&trace->lock);
}

/* ---- exits and interrupts ---- */

static void on_exit(void *opaque, unsigned vcpu, enum engine_exit_reason reason, uint64_t rip, uint64_t detail)
{
    struct trace *trace = opaque;

    pthread_mutex_lock(&trace->lock);
    line(trace, "cpu %u exit %s %#" PRIx64 " at %" PRIx64, vcpu, engine_exit_names[reason], detail, rip);
    pthread_mutex_unlock(&trace->lock);
}

static void on_interrupt(void *opaque, unsigned vcpu, unsigned vector, uint64_t rip, uint64_t handler)
{
    struct trace *trace = opaque;

    pthread_mutex_lock(&trace->lock);
    line(trace, "cpu %u irq vector %#x acknowledged at %" PRIx64 ", delivered to %" PRIx64, vcpu, vector, rip, handler);
    pthread_mutex_unlock(&trace->lock);
}

/* Standard error has it already. */
static void on_failure(void *opaque, const char *lines)
{
    struct trace *trace = opaque;

    pthread_mutex_lock(&trace->lock);
    fputs(lines, trace->out);
    pthread_mutex_unlock(&trace->lock);
}

/* ---- life ---- */

int trace_open(struct trace *trace, unsigned bits, const char *path, bool perf_map, struct err *err)
{
    *trace = (struct trace){.hooks.opaque = trace};
    pthread_mutex_init(&trace->lock, NULL);
    if (bits) {
        trace->out = path ? fopen(path, "we") : stderr;
        if (!trace->out)
            return err_set(err, -errno, "--trace-file '%s': %s", path, strerror(errno));
    }
    if (perf_map) {
        trace->map = perf_map_open(err);
        if (!trace->map) {
            int r = -errno;
            (void)!trace_close(trace);
            return r;
        }
    }
    if (bits & TRACE_BLOCKS)
        trace->hooks.code = on_code;
    else if (perf_map)
        trace->hooks.code = on_code_map_only;
    trace->hooks.exit = bits & TRACE_EXITS ? on_exit : NULL;
    trace->hooks.interrupt = bits & TRACE_IRQ ? on_interrupt : NULL;
    trace->hooks.failure = bits && path ? on_failure : NULL;
    return 0;
}

int trace_close(struct trace *trace)
{
    int r = 0;

    if (trace->out && (fflush(trace->out) != 0 || ferror(trace->out)))
        r = errno ? -errno : -EIO;
    if (trace->out && trace->out != stderr && fclose(trace->out) != 0)
        r = -errno;
    if (trace->map && fclose(trace->map) != 0 && r == 0)
        r = -errno;
    trace->out = trace->map = NULL;
    return r;
}
