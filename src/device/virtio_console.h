/*
 * virtio-console (virtio 1.2 section 5.3) with several ports: consoles, which are hvc0 and so on in the guest, and named ports, which are
 * /dev/virtio-ports/NAME there. At the host's end each is a chardev, as a serial port's.
 *
 * Port 0 is the first console, also for a guest that knows no other; without a console it stays empty. The others are
 * numbered as they come.
 */
#ifndef DEVICE_VIRTIO_CONSOLE_H
#define DEVICE_VIRTIO_CONSOLE_H

#include "core/chardev.h"
#include "virtio/virtio.h"

#define VIRTIO_CONSOLE_PORTS    30 /* beside port 0 */
#define VIRTIO_CONSOLE_NAME_MAX 64 /* with its end */

struct virtio_console_port {
    const char *name;    /* NULL or empty: none; see virtio_console_check_name() */
    const char *backend; /* what open_backend() is asked for */
    bool is_console;
};

struct virtio_console_conf {
    const struct virtio_console_port *ports;
    unsigned n_ports; /* 1 to VIRTIO_CONSOLE_PORTS */
    /*
     * Opens what `backend` names: console_open(), wrapped by somebody who knows of consoles. It runs on the device's iothread, whose loop it is
     * given, so that the chardev works there; hooks it calls later come from that thread too.
     */
    int (*open_backend)(void *opaque, struct chardev **dev, const char *backend, struct loop *loop, struct err *err);
    void *opaque;
    int64_t patience_ns; /* how long a guest's console may have to wait for its output to go; 0: 250 ms */
};

extern const struct virtio_type virtio_console_type;

/* Whether it can be a file's name in the guest: 0, or -EINVAL and one line. */
int virtio_console_check_name(const char *name, struct err *err) MUST_CHECK;

#endif
