/*
 * Where the guest's serial console goes: opens the backend that a specification such as "stdio" or "file:PATH" names.
 * Backends are listed in console.def.
 *
 * Threads: console_open() and chardev_close() on the loop's thread or while it does not run; chardev.h says the rest.
 */
#ifndef CONSOLE_CONSOLE_H
#define CONSOLE_CONSOLE_H

#include "base/err.h"
#include "base/loop.h"
#include "core/chardev.h"

/* What a backend tells its owner. Called on the loop's thread, notice() also while opening. */
struct console_hooks {
    void (*quit)(void *opaque);                     /* the user asked for the VM's end (Ctrl-A x) */
    void (*power)(void *opaque);                    /* the user pressed the VM's power button (Ctrl-A p) */
    void (*save)(void *opaque);                     /* the user wants the VM's state saved (Ctrl-A s) */
    void (*fail)(void *opaque, const char *reason); /* nobody can see the console any more; reason: one line */
    void (*notice)(void *opaque, const char *line); /* something the user should know, such as a path */
    void *opaque;
};

/* What a backend is opened with; hooks outlive it. */
struct console_conf {
    struct loop *loop;
    const struct console_hooks *hooks;
    const char *arg; /* after the colon, or NULL */
};

/* Whether `spec` is well-formed: 0, or -EINVAL and a message that lists the backends. Opens nothing. */
int console_check(const char *spec, struct err *err) MUST_CHECK;

/* Opens what `spec` names; -errno and a message where it is malformed or the host refuses. chardev_close() ends it. */
int console_open(struct chardev **dev, const char *spec, struct loop *loop, const struct console_hooks *hooks,
                 struct err *err) MUST_CHECK;

#define CONSOLE(name, open, arg, help) \
    int open(struct chardev **dev, const struct console_conf *conf, struct err *err) MUST_CHECK;
#include "console/console.def"
#undef CONSOLE

#endif
