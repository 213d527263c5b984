/*
 * `vireo run`: a machine from the command line, run until it ends, and its end as an exit status.
 *
 * Threads: this is the thread of the VM's loop. SIGTERM, SIGHUP, SIGINT and SIGQUIT come through a signalfd on it; they are
 * blocked before any other thread starts.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/default_guest.h"
#include "cli/help.h"
#include "cli/outfile.h"
#include "cli/run_options.h"
#include "cli/trace.h"
#include "commit.h"
#include "console/console.h"
#include "control/control.h"
#include "control/save.h"
#include "control/stats.h"
#include "device/vport_spec.h"
#include "engine/lockstep/lockstep.h"
#include "gdb/gdb_stub.h"
#include "machine/machine.h"
#include "machine/machine_state.h"

#define MOST_DESCRIPTORS 65536
#define DEFAULT_MEMORY   (512 * MIB)
#define SAVE_SIGNAL      SIGUSR1

static const int ending_signals[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};

enum {
#define KIND(name, syntax, help) KIND_##name,
#include "machine/kinds.def"
#undef KIND
    N_KINDS
};

struct run {
    struct machine *machine;
    struct gdb_stub *gdb;    /* or NULL */
    struct control *control; /* or NULL */
    struct lockstep lockstep;
    struct trace trace;
    struct console_hooks hooks;
    struct machine_attach attach[N_KINDS * OPTION_LIST_MAX];
    const char *save;                   /* --save's file, or NULL */
    struct machine_state_source source; /* of --load */
    bool has_kernel;                    /* to start anew with */
    sigset_t blocked;                   /* those that end the VM */
    struct loop_fd signals;
    int signal; /* that ended the VM, or 0 */
};

/* ---- what ends a VM from outside: keys, a lost console, signals ---- */

static void on_quit(void *opaque)
{
    struct run *run = opaque;
    vm_end(&run->machine->vm, VM_END_QUIT, 0);
}

/* What comes of it is up to the guest. */
static void on_power(void *opaque)
{
    struct run *run = opaque;
    machine_press_power(run->machine);
}

/* Where it fails the guest goes on. */
static void on_save(void *opaque)
{
    struct run *run = opaque;
    struct err err;

    if (!run->save)
        log_warn("there is no --save to say where the state goes");
    else if (save_machine(run->machine, run->save, &err) < 0)
        log_error("%s", err.msg);
}

static void on_console_lost(void *opaque, const char *reason)
{
    struct run *run = opaque;

    log_error("%s", reason);
    vm_end(&run->machine->vm, VM_END_FAIL, 0);
}

static void on_notice(void *opaque, const char *line)
{
    puts(line);
    fflush(stdout);
}

/* Saves the state, or ends the VM; then a second signal ends the process at once, should the first not do. */
static void on_signal(void *opaque, uint32_t events)
{
    struct run *run = opaque;
    struct signalfd_siginfo info;

    if (read(run->signals.fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SAVE_SIGNAL) {
        on_save(run);
        return;
    }
    run->signal = (int)info.ssi_signo;
    vm_end(&run->machine->vm, VM_END_QUIT, 0);
    pthread_sigmask(SIG_UNBLOCK, &run->blocked, NULL);
}

static void block_save_signal(void)
{
    sigset_t save;

    sigemptyset(&save);
    sigaddset(&save, SAVE_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &save, NULL);
}

/* Signals that whoever started vireo ignores (nohup) stay ignored. */
static void block_signals(struct run *run)
{
    struct sigaction action;

    sigemptyset(&run->blocked);
    for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++)
        if (sigaction(ending_signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&run->blocked, ending_signals[i]);
    pthread_sigmask(SIG_BLOCK, &run->blocked, NULL);
    if (run->save)
        block_save_signal();
    signal(SIGPIPE, SIG_IGN); /* a console or file nobody reads is an error where it is written */
}

/* A guest's connections each take a descriptor: of NAT's, of vsock's. What the host lets a process have is more than it begins with. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < MOST_DESCRIPTORS ? limit.rlim_max : MOST_DESCRIPTORS;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int watch_signals(struct run *run, struct err *err)
{
    int r;

    run->signals = (struct loop_fd){.fn = on_signal, .opaque = run};
    sigset_t watched = run->blocked;
    if (run->save)
        sigaddset(&watched, SAVE_SIGNAL);
    run->signals.fd = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    if (run->signals.fd < 0)
        return err_set(err, -errno, "signals: %s", strerror(errno));
    r = loop_fd_add(run->machine->vm.loop, &run->signals, EPOLLIN);
    if (r < 0) {
        close(run->signals.fd);
        return err_set(err, r, "signals: %s", strerror(-r));
    }
    return 0;
}

/* ---- from options to a machine ---- */

static int open_gdb(struct run *run, const char *spec, struct err *err)
{
    if (!spec)
        return 0;
    int r = gdb_stub_open(&run->gdb, &run->machine->vm, spec, err);
    if (r < 0)
        err_prefix(err, "--gdb");
    return r;
}

static int open_control(struct run *run, const char *spec, struct err *err)
{
    if (!spec)
        return 0;
    int r = control_open(&run->control, run->machine, spec, err);
    if (r < 0)
        err_prefix(err, "--control");
    return r;
}

static void close_machine(struct run *run)
{
    control_close(run->control);
    run->control = NULL;
    gdb_stub_close(run->gdb);
    run->gdb = NULL;
    machine_close(run->machine);
    run->machine = NULL;
}

static int open_machine(struct run *run, const struct machine_conf *conf, const struct run_options *options,
                        struct err *err)
{
    struct chardev *dev;
    int r = machine_open(&run->machine, conf, err);

    if (r < 0)
        return r;
    r = open_gdb(run, options->gdb, err);
    if (r < 0)
        goto close_machine;
    r = open_control(run, options->control, err);
    if (r < 0)
        goto close_machine;
    r = console_open(&dev, options->console, run->machine->vm.loop, &run->hooks, err);
    if (r < 0)
        goto close_machine;
    machine_connect_console(run->machine, dev);
    if (conf->load) {
        r = machine_load(run->machine, err);
        if (r < 0)
            goto close_machine;
    }
    run->machine->saver = (struct machine_saver){.save = on_save, .opaque = run};
    r = watch_signals(run, err);
    if (r < 0)
        goto close_machine;
    if (run->gdb)
        log_notice("for gdb: target remote %s", gdb_stub_address(run->gdb));
    return 0;

close_machine:
    close_machine(run);
    return r;
}

/* What is left to say when the machine is closed and the terminal restored. */
struct outcome {
    int status;
    char line[128];       /* why it is no success, or "" */
    char registers[4096]; /* of a CPU that crashed, or "" */
    char *stats;          /* JSON, or NULL */
    char *exits;          /* a table, or NULL */
};

static void judge(const struct run *run, struct outcome *o)
{
    const struct vm *vm = &run->machine->vm;
    const char *line = "";

    switch (vm->end) {
    case VM_END_OFF:
    case VM_END_QUIT:
    case VM_END_SAVED:
        o->status = STATUS_OK;
        break;
    case VM_END_DEBUG:
        o->status = vm->end_status & 0xff;
        break;
    case VM_END_RESET:
        o->status = STATUS_GUEST;
        line = run->has_kernel ? "the guest reset, and --no-reboot was given"
                               : "the guest reset, and without --kernel there is nothing to start anew";
        break;
    case VM_END_CRASH:
        o->status = STATUS_GUEST;
        line = "the guest crashed";
        break;
    case VM_END_TIMEOUT:
        o->status = STATUS_TIMEOUT;
        line = "the time of --timeout is up";
        break;
    default:
        o->status = STATUS_FAILED; /* whoever failed has said why */
        break;
    }
    snprintf(o->line, sizeof(o->line), "%s", line);
    if (vm->end == VM_END_CRASH && vm->crashed) {
        snprintf(o->line, sizeof(o->line), "the guest crashed: triple fault on CPU %u", vm->crashed->index);
        x86_state_print(&vm->crash_state, o->registers, sizeof(o->registers));
    }
}

/* What was asked for: JSON, a table of the exits. */
static void put_stats(struct machine *m, const struct run_options *options, struct outcome *o)
{
    json_t *root = json_object(), *figures = stats_get(m);

    if (options->exits)
        o->exits = stats_exits_text(figures);
    json_object_set_new(root, "vireo", json_string(VIREO_VERSION));
    json_object_set_new(root, "status", json_integer(o->status));
    json_object_update(root, figures);
    if (options->stats)
        o->stats = json_dumps(root, JSON_INDENT(2));
    json_decref(figures);
    json_decref(root);
}

/* Runs the machine to its end and closes it; -errno where it could not start. */
static int run_machine(struct run *run, const struct run_options *options, struct outcome *o, struct err *err)
{
    struct vm *vm = &run->machine->vm;
    int r = vm_run(vm, err);

    if (r == 0) {
        judge(run, o);
        if (run->gdb)
            gdb_stub_end(run->gdb, o->status, run->signal);
        if (options->stats || options->exits)
            put_stats(run->machine, options, o);
    }
    loop_fd_remove(vm->loop, &run->signals);
    close(run->signals.fd);
    close_machine(run);
    return r;
}

/* A process that a signal ended says so to its parent, now that everything is in order. */
static void die_of(int signo)
{
    sigset_t one;

    sigemptyset(&one);
    sigaddset(&one, signo);
    signal(signo, SIG_DFL);
    raise(signo);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

/* The machine's engine becomes the leader of two. */
static int configure_lockstep(struct run *run, const struct run_options *o, struct machine_conf *conf, struct err *err)
{
    run->lockstep = (struct lockstep){
        .leader = conf->engine,
        .follower = engine_find(o->lockstep.follower, err),
        .every = o->lockstep.every,
        .memory_every = o->lockstep.memory_every,
        .from_ns = o->lockstep.from_ns,
    };
    if (!run->lockstep.follower)
        return -EAGAIN;
    if (conf->n_cpus != 1)
        return err_set(err, -EINVAL, "--lockstep with --cpus %u: accepted is one CPU", conf->n_cpus);
    if (o->gdb)
        return err_set(err, -EINVAL, "--lockstep with --gdb '%.100s': accepted is one of them", o->gdb);
    conf->engine = &lockstep_engine;
    conf->lockstep = &run->lockstep;
    return 0;
}

/* What came of it, when the machine is closed. */
static void report_lockstep(const struct lockstep *lockstep, struct outcome *o)
{
    if (*lockstep->report) {
        fprintf(stderr, "%s", lockstep->report);
        log_error("lockstep: the engines differ");
        o->status = STATUS_FAILED;
    } else {
        fprintf(stderr,
                "lockstep: %" PRIu64 " instructions in %" PRIu64 " blocks, %" PRIu64 " events, RAM compared %" PRIu64
                " times: no difference\n",
                lockstep->instructions, lockstep->blocks, lockstep->events, lockstep->memory_compares);
    }
}

/* All that is attached: in the order of kinds.def, and of the command line within each kind. Returns how many. */
static unsigned list_attachments(const struct run_options *o, struct machine_attach *out)
{
    unsigned n = 0;

#define KIND(name, syntax, help)             \
    for (unsigned i = 0; i < o->name.n; i++) \
        out[n++] = (struct machine_attach){#name, o->name.items[i]};
#include "machine/kinds.def"
#undef KIND
    return n;
}

/*
 * Standard input and output serve one of serial console and ports. A port's are served by a thread that blocks every signal, so those that
 * concern its terminal (console/stdio.c) are blocked here, before there are others.
 */
static int check_stdio(const struct run_options *o, struct err *err)
{
    bool serial = strcmp(o->console, "stdio") == 0;
    struct vport_spec port;
    unsigned users = serial;
    sigset_t signals;

    for (unsigned i = 0; i < o->port.n; i++) {
        int r = vport_spec_parse(&port, o->port.items[i], err);
        if (r < 0)
            return r;
        users += strcmp(port.backend, "stdio") == 0;
    }
    if (users > 1)
        return err_set(err, -EINVAL, "--port with stdio: standard input and output are %s",
                       serial ? "the serial console's; --console none leaves them to the port" : "another port's");
    if (users > serial && isatty(STDIN_FILENO)) {
        sigemptyset(&signals);
        sigaddset(&signals, SIGTSTP);
        sigaddset(&signals, SIGCONT);
        sigaddset(&signals, SIGWINCH);
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
    }
    return 0;
}

/* What a saved state says of the machine, and the command line may say too. */
static int configure_load(struct run *run, const struct run_options *o, struct machine_conf *conf, struct err *err)
{
    const struct machine_state_head *head = &run->source.head;

    if (o->memory && o->memory != head->ram_size)
        return err_set(err, -EINVAL, "--memory %" PRIu64 ": the saved state '%.200s' has %" PRIu64 " bytes", o->memory,
                       o->load, head->ram_size);
    if (o->cpus && o->cpus != head->n_cpus)
        return err_set(err, -EINVAL, "--cpus %u: the saved state '%.200s' has %u", o->cpus, o->load, head->n_cpus);
    if (o->cpu && o->cpu != run->source.cpu)
        return err_set(err, -EINVAL, "--cpu %s: the saved state '%.200s' has %s", x86_cpuid_model_name(o->cpu), o->load,
                       head->cpu);
    if (o->debug_exit && !head->debug_exit)
        return err_set(err, -EINVAL, "--debug-exit: the saved state '%.200s' is without", o->load);
    if (o->initrd && !o->kernel)
        return err_set(err, -EINVAL, "--initrd with --load: accepted together with --kernel, for what follows a reset");
    conf->ram_size = head->ram_size;
    conf->n_cpus = head->n_cpus;
    conf->cpu = run->source.cpu;
    conf->load = &run->source;
    return 0;
}

static enum engine_irqchip irqchip_of(int choice)
{
    static const enum engine_irqchip irqchips[] = {ENGINE_IRQCHIP_AUTO, ENGINE_IRQCHIP_USER, ENGINE_IRQCHIP_SPLIT,
                                                   ENGINE_IRQCHIP_KERNEL};
    return irqchips[choice];
}

/* The options as the machine takes them. `guest` and `append` hold what the result points to. */
static int configure(struct run *run, const struct run_options *o, struct machine_conf *conf,
                     struct default_guest *guest, char **append, struct err *err)
{
    *conf = (struct machine_conf){
        .engine = engine_find(o->engine, err),
        .kernel = o->kernel,
        .initrd = o->initrd,
        .append = o->append,
        .ram_size = o->memory ? o->memory : DEFAULT_MEMORY,
        .n_cpus = o->cpus ? o->cpus : 1,
        .cpu = o->cpu,
        .code_cache = o->code_cache,
        .profile = o->profile,
        .irqchip = irqchip_of(o->irqchip),
        .debug_exit = o->debug_exit,
        .no_reboot = o->no_reboot,
        .timeout_ns = o->timeout,
        .name = o->name,
        .attach = run->attach,
        .n_attach = list_attachments(o, run->attach),
        .bare = o->bare,
    };
    if (!conf->engine)
        return -EAGAIN; /* its name is right: the host cannot run it */
    int r = check_stdio(o, err);
    if (r == 0 && o->save)
        r = save_check(o->save, err);
    if (r == 0 && o->load)
        r = configure_load(run, o, conf, err);
    if (r < 0)
        return r;
    if (*o->lockstep.follower) {
        r = configure_lockstep(run, o, conf, err);
        if (r < 0)
            return r;
    }
    run->has_kernel = o->kernel || !o->load;
    if (o->kernel || o->load)
        return 0;
    r = default_guest_find(guest, err);
    if (r < 0)
        return r;
    conf->kernel = guest->kernel;
    if (!o->initrd)
        conf->initrd = guest->initrd;
    *append = default_guest_append(o->console, o->append);
    if (!*append)
        return err_set(err, -ENOMEM, "out of memory");
    conf->append = *append;
    return 0;
}

static int open_trace(struct run *run, const struct run_options *o, struct machine_conf *conf, struct err *err)
{
    if (o->trace_file && !o->trace)
        return err_set(err, -EINVAL, "--trace-file '%.100s': needs --trace, with " TRACE_KINDS, o->trace_file);
    if (!o->trace && !o->perf_map)
        return 0;
    conf->trace = &run->trace.hooks;
    return trace_open(&run->trace, o->trace, o->trace_file, o->perf_map, err);
}

/* When nothing writes to it any more. */
static void close_trace(struct run *run, const struct run_options *options, struct outcome *o)
{
    int r = trace_close(&run->trace);

    if (r < 0) {
        log_error("--trace-file '%s': %s", options->trace_file ? options->trace_file : "standard error", strerror(-r));
        o->status = STATUS_FAILED;
    }
}

/* Everything from the options to the outcome; -errno, and what is wrong, where the guest did not get to run. */
static int run_options(struct run *run, const struct run_options *options, struct outcome *o, struct err *err)
{
    struct default_guest guest;
    struct machine_conf conf;
    struct outfile stats = {.fd = -1};
    char *append = NULL;
    int r = options->load ? machine_state_open(&run->source, options->load, err) : 0;

    if (r < 0)
        return r;
    r = configure(run, options, &conf, &guest, &append, err);
    if (r < 0)
        goto free_append;
    r = open_trace(run, options, &conf, err);
    if (r < 0)
        goto free_append;
    if (options->stats) {
        r = outfile_open(&stats, options->stats, err);
        if (r < 0) {
            err_prefix(err, "--stats");
            goto close_trace;
        }
    }
    r = open_machine(run, &conf, options, err);
    if (r < 0)
        goto close_stats;
    r = run_machine(run, options, o, err);
    if (r < 0)
        goto close_stats;
    if (conf.lockstep)
        report_lockstep(&run->lockstep, o);
    if (*o->line)
        log_error("%s", o->line);
    if (*o->registers)
        fprintf(stderr, "%s\n", o->registers);
    if (o->exits)
        fputs(o->exits, stderr);
    if (options->stats) {
        struct err stats_err = {"out of memory"};
        int written = o->stats ? outfile_commit(&stats, o->stats, strlen(o->stats), &stats_err) : -ENOMEM;
        if (written < 0) {
            log_error("--stats: %s", stats_err.msg);
            o->status = STATUS_FAILED;
        }
    }

close_stats:
    outfile_close(&stats);
close_trace:
    close_trace(run, options, o);
free_append:
    if (options->load)
        machine_state_close(&run->source);
    free(o->exits);
    free(o->stats);
    free(append);
    return r;
}

int command_run(int argc, char **argv)
{
    struct run_options options = {0};
    struct run run = {0};
    struct outcome outcome = {0};
    struct err err;
    bool help;
    int r = option_parse(&run_option_table, argc, argv, &options, &help, &err);

    if (r < 0)
        return command_fail(r, &err);
    if (help) {
        help_command(stdout, "run");
        return STATUS_OK;
    }
    run.hooks = (struct console_hooks){.quit = on_quit,
                                       .power = on_power,
                                       .save = on_save,
                                       .fail = on_console_lost,
                                       .notice = on_notice,
                                       .opaque = &run};
    run.save = options.save;
    block_signals(&run);
    raise_descriptor_limit();
    r = run_options(&run, &options, &outcome, &err);
    if (run.signal)
        die_of(run.signal);
    return r < 0 ? command_fail(r, &err) : outcome.status;
}
