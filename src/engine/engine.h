/*
 * What an engine is: something that runs a vCPU. It knows no device: it reaches the machine through the vCPU's buses and port alone.
 *
 * Threads: run() is called by one thread, the vCPU's own; kick() by any. get and set are for a vCPU that is not in run(), from
 * any thread that has made sure of that.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/err.h"
#include "core/bus.h"
#include "core/clock.h"
#include "core/doorbell.h"
#include "core/irqchip.h"
#include "core/ram.h"
#include "core/vcpu_port.h"
#include "x86/cpuid.h"
#include "x86/state.h"

/* Why run() returned. */
enum engine_exit {
    ENGINE_HALT,     /* HLT with nothing to wake it: wait for a pin */
    ENGINE_KICKED,   /* a pin that the vCPU's thread handles is up (INIT, SIPI, KICK) */
    ENGINE_RESET,    /* the guest asked the CPU for a reset */
    ENGINE_SHUTDOWN, /* triple fault */
    ENGINE_DEBUG,    /* an instruction limit set by the caller was reached, or what engine_debug asks for */
    ENGINE_FAIL,     /* the engine itself failed; it has logged why */
};

/* Every way out of the guest's instruction stream, counted on every engine; those behind KICK, but for SHUTDOWN, are KVM's alone. */
#define ENGINE_EXIT_REASONS(X)    \
    X(PIO_IN, "pio_in")           \
    X(PIO_OUT, "pio_out")         \
    X(MMIO_READ, "mmio_read")     \
    X(MMIO_WRITE, "mmio_write")   \
    X(CPUID, "cpuid")             \
    X(MSR_READ, "msr_read")       \
    X(MSR_WRITE, "msr_write")     \
    X(CR_ACCESS, "cr_access")     \
    X(HLT, "hlt")                 \
    X(EXCEPTION, "exception")     \
    X(INTERRUPT, "interrupt")     \
    X(NMI, "nmi")                 \
    X(KICK, "kick")               \
    X(WINDOW, "interrupt_window") \
    X(DEBUG, "debug")             \
    X(EVENT, "system_event")      \
    X(EOI, "eoi")                 \
    X(DIRTY_RING, "dirty_ring")   \
    X(SHUTDOWN, "shutdown")

#define ENGINE_EXIT_ENUM(name, text) ENGINE_EXIT_##name,
enum engine_exit_reason { ENGINE_EXIT_REASONS(ENGINE_EXIT_ENUM) ENGINE_N_EXITS };
#undef ENGINE_EXIT_ENUM

extern const char *const engine_exit_names[ENGINE_N_EXITS];

/* A kind of instruction that a translating engine interpreted, and how often. */
struct engine_count {
    const char *mnemonic; /* NULL: no more */
    uint64_t n;
};

/* Why it did. */
enum engine_interpreted {
    ENGINE_UNTRANSLATED, /* there is no translation for it, or not for this form of it */
    ENGINE_SLOW,         /* there is, but the operands were not of the usual kind: a TLB miss, a device, a fault */
    ENGINE_N_INTERPRETED
};

#define ENGINE_N_COUNTS 20 /* the most frequent */

/*
 * What a translator has done. Times are in ns, the interpreter's sampled and without devices'. INTERPRETED is of code that is not translated at
 * all, or not yet. The last three are counted by generated code, under engine_conf.profile alone: each look into the TLB; each block that was entered,
 * and how many of them through the jump cache.
 */
#define ENGINE_TRANSLATOR_COUNTS(X)                    \
    X(BLOCKS, "blocks")                                \
    X(GUEST_INSTRUCTIONS, "guest_instructions")        \
    X(GUEST_BYTES, "guest_bytes")                      \
    X(HOST_BYTES, "host_bytes")                        \
    X(COPIED, "copied_blocks")                         \
    X(MOVED, "moved_blocks")                           \
    X(INVALIDATED, "invalidated_blocks")               \
    X(EVICTED, "evicted_segments")                     \
    X(SLOW_PATHS, "slow_paths")                        \
    X(TLB_MISSES, "tlb_misses")                        \
    X(JUMP_MISSES, "jump_cache_misses")                \
    X(LINKS, "unlinked_jumps")                         \
    X(POLLS, "polls")                                  \
    X(INTERPRETED, "instructions_in_interpreted_code") \
    X(TRANSLATOR_NS, "translator_ns")                  \
    X(INTERPRETER_NS, "interpreter_ns")                \
    X(TLB_LOOKUPS, "tlb_lookups")                      \
    X(ENTRIES, "block_entries")                        \
    X(JUMPS, "jump_cache_lookups")

#define ENGINE_TRANSLATOR_ENUM(name, text) ENGINE_TRANSLATOR_##name,
enum engine_translator_count { ENGINE_TRANSLATOR_COUNTS(ENGINE_TRANSLATOR_ENUM) ENGINE_N_TRANSLATOR };
#undef ENGINE_TRANSLATOR_ENUM

extern const char *const engine_translator_names[ENGINE_N_TRANSLATOR];

/* Written by the vCPU's thread alone; read by others when it is done (or as a rough figure before). */
struct engine_stats {
    uint64_t exits[ENGINE_N_EXITS];
    int64_t exit_ns
        [ENGINE_N_EXITS];  /* from there until the guest may go on; 0 where the engine does not measure that reason */
    uint64_t instructions; /* retired by the guest, where the engine can count them */
    int64_t device_ns;     /* spent in bus_access; sampled, see the engine */
    struct engine_count interpreted[ENGINE_N_INTERPRETED][ENGINE_N_COUNTS];
    uint64_t translator[ENGINE_N_TRANSLATOR]; /* zeroes for other engines */
};

/* Who takes figures that have names of their own. */
struct engine_figures {
    void (*put)(void *opaque, const char *name, uint64_t value); /* the name is the callee's for the call alone */
    void *opaque;
};

/* All that joins a vCPU to its machine; outlives it. */
struct engine_vcpu_conf {
    unsigned index;
    struct ram *ram;
    struct bus *pio, *mmio; /* mmio is the vCPU's own bus, its local APIC in front */
    struct vcpu_port *port;
    struct clock *clock;
    const struct x86_cpuid *cpuid;
    struct engine_stats *stats;
    /* For RDRAND and RDSEED: a number of so many bytes, or false when there is none. NULL: the host's. */
    bool (*random)(void *opaque, uint64_t *val, unsigned len);
    void *random_opaque;
};

/* Where a debugger wants to look. The kinds are a set. */
enum { ENGINE_BREAK_EXEC = 1 << 0, ENGINE_BREAK_READ = 1 << 1, ENGINE_BREAK_WRITE = 1 << 2 };

struct engine_breakpoint {
    uint64_t addr; /* linear; for EXEC, of an instruction's first byte */
    uint64_t len;  /* bytes watched for READ and WRITE, from 1 up */
    unsigned kinds;
};

/*
 * What a debugger wants of a vCPU, and what came of it. All of it is invisible to the guest: its memory and its debug registers stay as
 * they are, and its own breakpoints work beside these.
 *
 * Before the instruction at an EXEC breakpoint, unless RFLAGS.RF is set, and after one that has accessed a watched address explicitly,
 * run() returns ENGINE_DEBUG. An instruction that faults has not accessed anything; one that
 * reads, modifies and writes counts as a write.
 */
struct engine_debug {
    /*
     * One instruction (of a repeated string instruction, one iteration), or the delivery of the exception it raises; then run() returns
     * ENGINE_DEBUG. EXEC breakpoints and interrupts wait meanwhile, unless the vCPU is halted: then the delivery of the interrupt is the step.
     */
    bool step;
    const struct engine_breakpoint *breakpoints;
    unsigned n_breakpoints;
    const struct engine_breakpoint
        *hit; /* set when run() returns ENGINE_DEBUG: the breakpoint met, or NULL for the step */
};

/* A stretch of the guest's code that an engine has made code of the host's of, or decoded. */
struct engine_code {
    unsigned vcpu;
    const char *
        name; /* NULL: it is the guest's; else what this code of the engine's own is for, and there is none of the guest's */
    uint64_t lin;  /* linear address of the guest's code */
    unsigned size; /* 2, 4 or 8: as CS gives it */
    unsigned cpl;
    const uint8_t *guest;
    size_t guest_len;
    const uint8_t *host; /* where it runs */
    size_t host_len;     /* 0: decoded only */
};

/* Who watches an engine at work. Called on the vCPU's thread, inside run() or vcpu_open(). */
struct engine_trace {
    void *opaque;
    void (*code)(void *opaque, const struct engine_code *code); /* or NULL */
    /* The guest's instruction at `rip` needs more than its engine; `detail`: port, address, MSR, vector, or 0. Or NULL. */
    void (*exit)(void *opaque, unsigned vcpu, enum engine_exit_reason reason, uint64_t rip, uint64_t detail);
    /* Before the instruction at `rip` an interrupt or NMI came, and has led to `handler`. Or NULL. */
    void (*interrupt)(void *opaque, unsigned vcpu, unsigned vector, uint64_t rip, uint64_t handler);
    /* The engine fails: the lines that it has also logged. Or NULL. */
    void (*failure)(void *opaque, const char *lines);
};

/* Where the interrupt controllers are; all but the first is for engines that have such.. */
enum engine_irqchip {
    ENGINE_IRQCHIP_USER,   /* the machine's devices */
    ENGINE_IRQCHIP_AUTO,   /* as the engine likes best */
    ENGINE_IRQCHIP_SPLIT,  /* the engine has the local APICs */
    ENGINE_IRQCHIP_KERNEL, /* and IOAPIC and PICs */
};

/* What the vCPUs of a VM share. */
struct engine_conf {
    struct ram *ram;
    unsigned n_vcpus;
    const struct engine_trace *trace; /* or NULL; outlives the engine */
    bool profile;                     /* generated code counts what it does, at a cost */
    uint64_t tsc_hz;                  /* what the guest's TSC is to count at; 0: as the engine has it */
    uint64_t code_cache;              /* bytes of translated code, all vCPUs together; 0: as the engine likes */
    struct lockstep *lockstep;        /* engine/lockstep/lockstep.h; for the engine of that name alone */
    enum engine_irqchip irqchip;
    unsigned
        dirty_ring; /* dirty pages a vCPU may write ahead of dirty_read(), in a ring, where the engine has such; 0: in a bitmap */
};

#define ENGINE_CODE_CACHE_LEAST (1 * MIB)
#define ENGINE_CODE_CACHE_MOST  (4 * GIB)

/* As a limit of run(): stop behind the next stretch of code that this engine runs without a look at what else there is to do. */
#define ENGINE_ONE_BLOCK UINT64_MAX

struct engine; /* one a VM: what its vCPUs share */
struct engine_vcpu;

struct engine_type {
    const char *name;
    /*
     * 0 when "auto" may take it on this host, or -errno and the reason. *rate: guest instructions a second as far as that was measured, else 0.
     * By its name an engine is taken whatever this says; then open() tells what is missing.
     */
    int (*probe)(uint64_t *rate, struct err *err);
    int (*open)(struct engine **engine, const struct engine_conf *conf, struct err *err);
    void (*close)(struct engine *engine);
    /*
     * The rate of the guest's TSC, where it is the host's CPU that counts; NULL: the VM's clock does, at any rate. Where the host's CPU cannot
     * count at the one that is asked for, open() fails.
     */
    uint64_t (*tsc_hz)(const struct engine *engine);
    /*
     * Its own interrupt controllers, or NULL: the machine's. Then the function itself may be NULL too. Where it has some, HLT, INIT and start-up IPIs
     * are its own affair: run() comes back for PIN_KICK alone, and x86_state.activity is what it says.
     */
    const struct irqchip *(*irqchip)(struct engine *engine);
    const struct doorbells *(*doorbells)(struct engine *engine); /* or NULL, or returns that */
    /*
     * Read-only memory beside RAM: the guest reads the host's from there and runs code in it, and its writes are the bus's. Whole pages, outside RAM;
     * `host` outlives the engine. NULL: the engine knows RAM alone.
     */
    int (*rom)(struct engine *engine, uint64_t gpa, const void *host, uint64_t size, struct err *err);
    /*
     * Which pages of RAM vCPUs write, for who copies RAM while they run. From start to stop, read adds to `bits` those that have been written since the
     * start or the last read: bit n is page n of the RAM's file. What devices write they tell themselves (ram.written). Any thread, one at a time. NULL:
     * the engine cannot tell.
     */
    int (*dirty_start)(struct engine *engine, struct err *err);
    int (*dirty_read)(struct engine *engine, uint64_t *bits);
    void (*dirty_stop)(struct engine *engine);
    int (*vcpu_open)(struct engine *engine, const struct engine_vcpu_conf *conf, struct engine_vcpu **vcpu,
                     struct err *err);
    void (*vcpu_close)(struct engine_vcpu *vcpu);
    /* What the guest finds by CPUID there where that is not what x86_cpuid() has put into *r; NULL: it always is. */
    void (*cpuid)(struct engine_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, struct x86_cpuid_regs *r);
    /*
     * Runs the guest until something in enum engine_exit; `limit`: stop with DEBUG after so many instructions, 0 for no limit. A stop lies
     * directly behind an instruction that is complete: an exception that the next one raises is not yet delivered, an interrupt
     * not yet taken.
     */
    enum engine_exit (*run)(struct engine_vcpu *vcpu, uint64_t limit);
    /* Any thread: makes a vCPU inside run() look at its port soon. */
    void (*kick)(struct engine_vcpu *vcpu);
    void (*get)(struct engine_vcpu *vcpu, struct x86_state *st);
    void (*set)(struct engine_vcpu *vcpu, const struct x86_state *st);
    /*
     * What run() is to stop for, from now on and whatever set() does; NULL for nothing. `debug` is kept, and read by run(): after each
     * change this is called again.
     */
    void (*debug)(struct engine_vcpu *vcpu, struct engine_debug *debug);
    /* What the host's kernel counts of the vCPU, by the kernel's names; any thread. NULL for engines without. */
    void (*figures)(struct engine_vcpu *vcpu, const struct engine_figures *out);
    /*
     * The host's code that stands for the guest's at linear address `lin`, as it was made last: its bytes and where they run; 0 where there
     * is none. NULL for engines without. While it is not in run(); valid until it is.
     */
    size_t (*host_code)(struct engine_vcpu *vcpu, uint64_t lin, const uint8_t **code);
};

/* The engine of that name, or the first that probes well for "auto"; NULL and a message that lists the names. */
const struct engine_type *engine_find(const char *name, struct err *err);

#endif
