/*
 * What --port takes: "name=org.vireo.agent,unix=PATH", or "console,stdio": a port of the virtio console (device/virtio_console.h). Pure.
 */
#ifndef DEVICE_VPORT_SPEC_H
#define DEVICE_VPORT_SPEC_H

#include "base/keyval.h"

/* For help texts. */
#define VPORT_SPEC_SYNTAX "name=NAME|console,unix=PATH|file=PATH|pty|stdio|none|agent"

#define VPORT_AGENT      "agent" /* a backend: vireo itself talks to the guest's agent, which is no console's */
#define VPORT_AGENT_NAME "org.qemu.guest_agent.0"

struct vport_spec {
    char name[KEYVAL_TEXT_MAX];        /* as in /dev/virtio-ports; may be empty for a console */
    bool is_console;                   /* hvc<n> in the guest */
    char backend[KEYVAL_PATH_MAX + 8]; /* as console_open() takes it, such as "unix:PATH" */
};

/* A name or `console`, and one backend; -EINVAL and one line otherwise. Opens nothing. */
int vport_spec_parse(struct vport_spec *spec, const char *text, struct err *err) MUST_CHECK;

#endif
