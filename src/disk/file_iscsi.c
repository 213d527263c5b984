/*
 * iSCSI, through libiscsi: iscsi://[USER%PASSWORD@]HOST[:PORT]/IQN/LUN[?initiator=IQN], a LUN of a target (RFC 7143; SBC-3 and SPC-4 for the commands).
 *
 * A flush is SYNCHRONIZE CACHE, whatever the mode pages say of a cache. A writer reserves the LUN (RESERVE, SPC-2 section 7.6) where the target knows that: it
 * ends with the session, and is taken again with each connection. Readers reserve nothing.
 *
 * On the file's thread.
 */
#include <errno.h>
/* scsi-lowlevel.h needs what iscsi.h declares. */
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk/file_net.h"
#include "disk/libraries.h"

#define RETRIES     5 /* of a command at the start that a UNIT ATTENTION has taken the place of */
#define BLOCK_MAX   (64 * KIB)
#define INQUIRY_LEN 255
#define REDIRECTS   4
#define PORTAL_MAX  (MAX_STRING_SIZE + 1)
#define NAME        "iqn.2026-11.invalid.vireo"

/* SPC-4: additional sense codes, where libiscsi has none. */
enum { ASCQ_SPACE_ALLOCATION_FAILED = 0x2707 };

/* A command that open waits for. */
struct wait {
    bool done;
    int status;
};

struct file_iscsi {
    struct file_net_conn conn;
    struct wait socket; /* libiscsi tells of the connection's end by the callback that told of its start */
    const char *why;
    struct iscsi_context *context;
    int lun;
    bool connected;
    uint64_t size;
    uint32_t block, max_transfer; /* bytes; max_transfer 0: no limit */
    uint32_t max_unmap;           /* blocks */
    bool unmaps, write_sames, read_only;
};

static struct file_iscsi *iscsi_of(struct file_net_conn *conn)
{
    return CONTAINER_OF(conn, struct file_iscsi, conn);
}

static const char *why(struct file_net_conn *conn)
{
    return iscsi_of(conn)->why;
}

/* ---- the connection's descriptor ---- */

static int fd_of(struct file_net_conn *conn, short *events)
{
    struct file_iscsi *iscsi = iscsi_of(conn);

    *events = (short)iscsi_which_events(iscsi->context);
    return iscsi_get_fd(iscsi->context);
}

/* libiscsi keeps the end of a connection to itself, as long as it may connect again. */
static bool ended(struct file_iscsi *iscsi)
{
    char byte;
    ssize_t n = recv(iscsi_get_fd(iscsi->context), &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static int service(struct file_net_conn *conn, short events)
{
    struct file_iscsi *iscsi = iscsi_of(conn);

    if (iscsi->connected && (events & (POLLIN | POLLHUP | POLLERR)) && ended(iscsi)) {
        iscsi->why = "the target has closed it";
        return -ECONNRESET;
    }
    int error = 0;
    socklen_t len = sizeof(error);
    if (!iscsi->connected && (events & (POLLHUP | POLLERR)) &&
        getsockopt(iscsi_get_fd(iscsi->context), SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error)
        return -error; /* which libiscsi would not tell */
    if (iscsi_service(iscsi->context, events) == 0)
        return 0;
    iscsi->why = iscsi_get_error(iscsi->context);
    return -ECONNRESET;
}

static int wait_done(struct file_iscsi *iscsi, const struct wait *wait, int64_t deadline)
{
    while (!wait->done) {
        short events;
        int fd = fd_of(&iscsi->conn, &events);
        int64_t until = loop_now() + 100 * NS_PER_MS;
        int r = file_net_poll(&iscsi->conn, fd, events, until < deadline ? until : deadline);
        if (r == -ETIMEDOUT && loop_now() < deadline)
            r = 0; /* libiscsi has time-outs of its own */
        if (r < 0)
            return r;
        r = service(&iscsi->conn, (short)r);
        if (r < 0)
            return r;
    }
    return 0;
}

static void on_waited(struct iscsi_context *context, int status, void *data, void *opaque)
{
    struct wait *wait = opaque;

    if (wait->done)
        return;
    wait->done = true;
    wait->status = status;
}

static int fail(const struct file_iscsi *iscsi, int code, const char *what, struct err *err)
{
    const char *text = iscsi_get_error(iscsi->context);
    return err_set(err, code, "%s: %.300s", what, text && *text ? text : strerror(-code));
}

/* ---- what a command came to ---- */

static int of_sense(const struct scsi_sense *sense)
{
    switch (sense->key) {
    case SCSI_SENSE_NO_SENSE:
    case SCSI_SENSE_RECOVERED_ERROR:
        return 0;
    case SCSI_SENSE_UNIT_ATTENTION:
        /* The target was reset, and its cache with it, or has another size: to be looked at anew. */
        return sense->ascq >> 8 == 0x29 || sense->ascq == SCSI_SENSE_ASCQ_CAPACITY_DATA_HAS_CHANGED ? -ENOTCONN
                                                                                                    : -EAGAIN;
    case SCSI_SENSE_NOT_READY:
    case SCSI_SENSE_COMMAND_ABORTED:
        return -EAGAIN;
    case SCSI_SENSE_DATA_PROTECTION:
        return sense->ascq == ASCQ_SPACE_ALLOCATION_FAILED ? -ENOSPC : -EROFS;
    case SCSI_SENSE_ILLEGAL_REQUEST:
        return -EINVAL;
    default:
        return -EIO;
    }
}

static int result_of(int status, const struct scsi_task *task)
{
    switch (status) {
    case SCSI_STATUS_GOOD:
    case SCSI_STATUS_CONDITION_MET:
        return 0;
    case SCSI_STATUS_CHECK_CONDITION:
        return task ? of_sense(&task->sense) : -EIO;
    case SCSI_STATUS_BUSY:
    case SCSI_STATUS_TASK_SET_FULL:
    case SCSI_STATUS_TASK_ABORTED:
        return -EAGAIN;
    case SCSI_STATUS_RESERVATION_CONFLICT:
        return -EBUSY;
    default:
        return -ENOTCONN;
    }
}

/* ---- what a LUN is ---- */

typedef struct scsi_task *command_fn(struct file_iscsi *iscsi, struct wait *wait);

/* Its task, to be freed, or NULL with *result. */
static struct scsi_task *ask(struct file_iscsi *iscsi, command_fn *command, int64_t deadline, int *result)
{
    for (unsigned i = 0;; i++) {
        struct wait wait = {.done = false};
        struct scsi_task *task = command(iscsi, &wait);
        if (!task) {
            *result = -ENOMEM;
            return NULL;
        }
        *result = wait_done(iscsi, &wait, deadline);
        if (*result < 0) {
            /* The callback would find nobody waiting any more. */
            iscsi_scsi_cancel_task(iscsi->context, task);
            scsi_free_scsi_task(task);
            return NULL;
        }
        *result = result_of(wait.status, task);
        if (*result == 0)
            return task;
        bool again = wait.status == SCSI_STATUS_CHECK_CONDITION && task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
        scsi_free_scsi_task(task);
        if (!again || i == RETRIES)
            return NULL;
    }
}

static struct scsi_task *read_capacity(struct file_iscsi *iscsi, struct wait *wait)
{
    return iscsi_readcapacity16_task(iscsi->context, iscsi->lun, on_waited, wait);
}

static struct scsi_task *inquire(struct file_iscsi *iscsi, struct wait *wait)
{
    return iscsi_inquiry_task(iscsi->context, iscsi->lun, 0, 0, INQUIRY_LEN, on_waited, wait);
}

static struct scsi_task *inquire_limits(struct file_iscsi *iscsi, struct wait *wait)
{
    return iscsi_inquiry_task(iscsi->context, iscsi->lun, 1, SCSI_INQUIRY_PAGECODE_BLOCK_LIMITS, INQUIRY_LEN, on_waited,
                              wait);
}

static struct scsi_task *inquire_provisioning(struct file_iscsi *iscsi, struct wait *wait)
{
    return iscsi_inquiry_task(iscsi->context, iscsi->lun, 1, SCSI_INQUIRY_PAGECODE_LOGICAL_BLOCK_PROVISIONING,
                              INQUIRY_LEN, on_waited, wait);
}

static struct scsi_task *sense_mode(struct file_iscsi *iscsi, struct wait *wait)
{
    return iscsi_modesense6_task(iscsi->context, iscsi->lun, 1, SCSI_MODESENSE_PC_CURRENT,
                                 SCSI_MODEPAGE_RETURN_ALL_PAGES, 0, INQUIRY_LEN, on_waited, wait);
}

static struct scsi_task *reserve(struct file_iscsi *iscsi, struct wait *wait)
{
    return iscsi_reserve6_task(iscsi->context, iscsi->lun, on_waited, wait);
}

static int learn_type(struct file_iscsi *iscsi, int64_t deadline, struct err *err)
{
    int r;
    struct scsi_task *task = ask(iscsi, inquire, deadline, &r);

    if (!task)
        return fail(iscsi, r, "INQUIRY", err);
    /* SPC-4 section 6.6.2: the first byte is the peripheral's qualifier and type. */
    int type = task->datain.size > 0 ? task->datain.data[0] : 0xff;
    scsi_free_scsi_task(task);
    if (type >> 5 == SCSI_INQUIRY_PERIPHERAL_QUALIFIER_NOT_SUPPORTED)
        return err_set(err, -ENOENT, "the target has no LUN %d", iscsi->lun);
    if (type != SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS)
        return err_set(err, -ENODEV, "LUN %d is no disk (it is of type 0x%02x)", iscsi->lun, (unsigned)type);
    return 0;
}

static int learn_size(struct file_iscsi *iscsi, int64_t deadline, struct err *err)
{
    int r;
    struct scsi_task *task = ask(iscsi, read_capacity, deadline, &r);

    if (!task)
        return fail(iscsi, r, "READ CAPACITY", err);
    const struct scsi_readcapacity16 *rc = scsi_datain_unmarshall(task);
    uint64_t last = rc ? rc->returned_lba : 0;
    iscsi->block = rc ? rc->block_length : 0;
    scsi_free_scsi_task(task);
    if (!rc)
        return err_set(err, -EINVAL, "READ CAPACITY: the answer is too short");
    if (!iscsi->block || iscsi->block > BLOCK_MAX || last >= (uint64_t)INT64_MAX / iscsi->block - 1)
        return err_set(err, -EINVAL, "READ CAPACITY: the target says that it has blocks up to %llu of %u bytes",
                       (unsigned long long)last, iscsi->block);
    iscsi->size = (last + 1) * iscsi->block;
    return 0;
}

/* What need not be there. */
static int learn_more(struct file_iscsi *iscsi, int64_t deadline)
{
    int r;
    struct scsi_task *task = ask(iscsi, inquire_limits, deadline, &r);

    if (task) {
        const struct scsi_inquiry_block_limits *limits = scsi_datain_unmarshall(task);
        if (limits && limits->max_xfer_len && limits->max_xfer_len < UINT32_MAX / iscsi->block)
            iscsi->max_transfer = limits->max_xfer_len * iscsi->block;
        iscsi->max_unmap = limits ? limits->max_unmap : 0;
        scsi_free_scsi_task(task);
    } else if (r != -EINVAL) {
        return r;
    }
    task = ask(iscsi, inquire_provisioning, deadline, &r);
    if (task) {
        const struct scsi_inquiry_logical_block_provisioning *thin = scsi_datain_unmarshall(task);
        iscsi->unmaps = thin && thin->lbpu;
        iscsi->write_sames = thin && thin->lbpws && thin->lbprz;
        scsi_free_scsi_task(task);
    } else if (r != -EINVAL) {
        return r;
    }
    task = ask(iscsi, sense_mode, deadline, &r);
    if (task) {
        /* SBC-3 section 6.4.1: bit 7 of the device-specific parameter, byte 2 of the header. */
        iscsi->read_only = task->datain.size > 2 && (task->datain.data[2] & 0x80);
        scsi_free_scsi_task(task);
    }
    return task || r == -EINVAL ? 0 : r;
}

static int take_lock(struct file_iscsi *iscsi, int64_t deadline, struct err *err)
{
    int r;
    struct scsi_task *task;

    if (!file_net_writes(&iscsi->conn) || !file_net_locks(&iscsi->conn))
        return 0;
    task = ask(iscsi, reserve, deadline, &r);
    if (task) {
        scsi_free_scsi_task(task);
        return 0;
    }
    if (r == -EBUSY)
        return err_set(err, r, "LUN %d is locked: another initiator has reserved it", iscsi->lun);
    return r == -EINVAL ? 0 : fail(iscsi, r, "RESERVE", err);
}

/* ---- life ---- */

/* The host's name for itself, if it has one (open-iscsi's file), or one made of its host name. */
static void initiator_name(char *name, size_t size)
{
    char line[300], host[64] = "localhost";
    FILE *file = fopen("/etc/iscsi/initiatorname.iscsi", "re");
    bool found = false;

    while (file && !found && fgets(line, sizeof(line), file))
        if (strncmp(line, "InitiatorName=", 14) == 0) {
            line[strcspn(line, " \t\r\n")] = '\0';
            snprintf(name, size, "%.250s", line + 14);
            found = *name;
        }
    if (file)
        fclose(file);
    if (!found) {
        gethostname(host, sizeof(host) - 1);
        snprintf(name, size, NAME ":%s", host);
    }
}

/* The path without our own query, which may name the initiator. */
static int split(const char *path, char *url, size_t size, char *name, size_t name_size, struct err *err)
{
    const char *query = strchr(path, '?');

    snprintf(url, size, "%.*s", query ? (int)(query - path) : (int)strlen(path), path);
    initiator_name(name, name_size);
    if (!query)
        return 0;
    if (strncmp(query, "?initiator=", 11) != 0 || strchr(query, '&') || !query[11] || strlen(query + 11) >= name_size)
        return err_set(err, -EINVAL, "'%.100s': accepted is ?initiator=IQN", query);
    snprintf(name, name_size, "%s", query + 11);
    return 0;
}

static int set_up(struct file_iscsi *iscsi, const struct iscsi_url *url, struct err *err)
{
    struct iscsi_context *context = iscsi->context;
    uint64_t id = file_net_identity(&iscsi->conn);

    iscsi->lun = url->lun;
    iscsi_set_noautoreconnect(context, 1);
    if (iscsi_set_targetname(context, url->target) < 0 || iscsi_set_session_type(context, ISCSI_SESSION_NORMAL) < 0 ||
        iscsi_set_header_digest(context, ISCSI_HEADER_DIGEST_NONE_CRC32C) < 0 ||
        iscsi_set_isid_random(context, (uint32_t)id & 0xffffff, (uint32_t)(id >> 32) & 0xffff) < 0)
        return fail(iscsi, -EINVAL, "session", err);
    if (*url->user && iscsi_set_initiator_username_pwd(context, url->user, url->passwd) < 0)
        return fail(iscsi, -EINVAL, "user name and password", err);
    if (*url->target_user && iscsi_set_target_username_pwd(context, url->target_user, url->target_passwd) < 0)
        return fail(iscsi, -EINVAL, "the target's user name and password", err);
    return 0;
}

/* Connects to the portal and logs in there. *moved: to do so at another one, which it names. */
static int log_in_at(struct file_iscsi *iscsi, const char *name, const struct iscsi_url *url, char portal[PORTAL_MAX],
                     bool *moved, int64_t deadline, struct err *err)
{
    struct wait login = {.done = false};

    *moved = false;
    iscsi->connected = false;
    iscsi->socket = (struct wait){.done = false};
    iscsi->context = iscsi_create_context(name);
    if (!iscsi->context)
        return err_set(err, -ENOMEM, "out of memory");
    int r = set_up(iscsi, url, err);
    if (r < 0)
        return r;
    if (iscsi_connect_async(iscsi->context, portal, on_waited, &iscsi->socket) < 0)
        return fail(iscsi, -EIO, "connect", err);
    r = wait_done(iscsi, &iscsi->socket, deadline);
    if (r == 0 && iscsi->socket.status != SCSI_STATUS_GOOD)
        r = -ECONNREFUSED;
    if (r < 0)
        return err_set(err, r, "connect: %s", strerror(-r));
    iscsi->connected = true;
    if (iscsi_login_async(iscsi->context, on_waited, &login) < 0)
        return fail(iscsi, -EIO, "log in", err);
    r = wait_done(iscsi, &login, deadline);
    if (r < 0) {
        /* Its callback would find nobody waiting any more. */
        iscsi_destroy_context(iscsi->context);
        iscsi->context = NULL;
        return err_set(err, r, "log in: %s", strerror(-r));
    }
    const char *address = iscsi_get_target_address(iscsi->context);
    *moved = login.status == SCSI_STATUS_REDIRECT && address && *address;
    if (*moved)
        snprintf(portal, PORTAL_MAX, "%s", address);
    return login.status == SCSI_STATUS_GOOD || *moved ? 0 : fail(iscsi, -EACCES, "log in", err);
}

static int log_in(struct file_iscsi *iscsi, const char *path, int64_t deadline, struct err *err)
{
    char text[4096], name[256], portal[PORTAL_MAX];
    int r = split(path, text, sizeof(text), name, sizeof(name), err);
    bool moved = true;

    if (r == 0)
        r = libraries_load_iscsi(err);
    if (r < 0)
        return r;
    struct iscsi_url *url = iscsi_parse_full_url(NULL, text);
    if (!url)
        return err_set(err, -EINVAL, "accepted is iscsi://[USER%%PASSWORD@]HOST[:PORT]/IQN/LUN");
    snprintf(portal, sizeof(portal), "%s", url->portal);
    for (unsigned i = 0; moved && r == 0; i++) {
        if (iscsi->context)
            iscsi_destroy_context(iscsi->context);
        iscsi->context = NULL;
        r = i == REDIRECTS ? err_set(err, -ELOOP, "log in: one portal names the other")
                           : log_in_at(iscsi, name, url, portal, &moved, deadline, err);
    }
    iscsi_destroy_url(url);
    return r;
}

static int open_iscsi(struct file_net_conn *conn, const char *path, int64_t deadline, struct err *err)
{
    struct file_iscsi *iscsi = iscsi_of(conn);
    struct file_net_props *p = &conn->props;
    int r = log_in(iscsi, path, deadline, err);

    if (r < 0)
        return r;
    r = learn_type(iscsi, deadline, err);
    if (r == 0)
        r = learn_size(iscsi, deadline, err);
    if (r == 0) {
        r = learn_more(iscsi, deadline);
        if (r < 0)
            fail(iscsi, r, "INQUIRY", err);
    }
    if (r == 0)
        r = take_lock(iscsi, deadline, err);
    if (r < 0)
        return r;
    p->size = iscsi->size;
    p->block = iscsi->block;
    p->max_transfer = iscsi->max_transfer ? iscsi->max_transfer : UINT32_MAX;
    p->max_range = (iscsi->max_unmap ? iscsi->max_unmap : 1) * (uint64_t)iscsi->block;
    p->read_only = iscsi->read_only;
    p->volatile_cache = true;
    p->discards = iscsi->unmaps && iscsi->max_unmap;
    p->zeroes = iscsi->write_sames && iscsi->max_unmap;
    return 0;
}

static void close_iscsi(struct file_net_conn *conn)
{
    struct file_iscsi *iscsi = iscsi_of(conn);

    if (iscsi->context)
        iscsi_destroy_context(iscsi->context);
}

/* ---- commands ---- */

static void on_done(struct iscsi_context *context, int status, void *data, void *opaque)
{
    struct file_net_piece *piece = opaque;
    struct scsi_task *task = data;
    int result = result_of(status, task);

    /* SBC-3 section 5.22: a target without a cache need not know the command. */
    if (piece->kind == FILE_NET_FLUSH && result == -EINVAL)
        result = 0;
    if (result == 0 && piece->kind == FILE_NET_READ && task && task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
        result = -EIO; /* less than was asked for */
    if (result == -EINVAL)
        result = -EIO;
    if (task)
        scsi_free_scsi_task(task);
    file_net_done(piece, result);
}

static struct scsi_task *send_task(struct file_iscsi *iscsi, struct file_net_piece *piece)
{
    static const unsigned char zeroes[BLOCK_MAX];
    struct iscsi_context *context = iscsi->context;
    uint64_t lba = piece->offset / iscsi->block;
    uint32_t len = (uint32_t)piece->len, n = (uint32_t)(piece->len / iscsi->block);
    struct unmap_list range = {.lba = lba, .num = n};
    int lun = iscsi->lun, block = (int)iscsi->block;
    struct scsi_task *task;

    switch (piece->kind) {
    case FILE_NET_READ:
        task = iscsi_read16_task(context, lun, lba, len, block, 0, 0, 0, 0, 0, on_done, piece);
        if (task && scsi_task_add_data_in_buffer(task, (int)len, piece->buf) < 0) {
            iscsi_scsi_cancel_task(context, task);
            return task;
        }
        return task;
    case FILE_NET_WRITE:
        return iscsi_write16_task(context, lun, lba, piece->buf, len, block, 0, 0, 0, 0, 0, on_done, piece);
    case FILE_NET_FLUSH:
        return iscsi_synchronizecache16_task(context, lun, 0, 0, 0, 0, on_done, piece);
    case FILE_NET_DISCARD:
        return iscsi_unmap_task(context, lun, 0, 0, &range, 1, on_done, piece);
    case FILE_NET_ZERO:
        return iscsi_writesame16_task(context, lun, lba, (unsigned char *)(uintptr_t)zeroes, iscsi->block, n, 0,
                                      piece->unmap, 0, 0, on_done, piece);
    default:
        return NULL;
    }
}

static int start(struct file_net_conn *conn, struct file_net_piece *piece)
{
    return send_task(iscsi_of(conn), piece) || piece->finished ? 0 : -ENOTCONN;
}

static const struct file_net_type type = {
    .name = "iSCSI",
    .size = sizeof(struct file_iscsi),
    .open = open_iscsi,
    .close = close_iscsi,
    .start = start,
    .fd = fd_of,
    .service = service,
    .why = why,
};

int file_iscsi_open(struct file **file, const struct disk_conf *conf, struct loop *loop, struct err *err)
{
    return file_net_open(file, &type, conf, loop, err);
}
