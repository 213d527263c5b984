#include "disk/file_protocol.h"

#include <errno.h>
#include <stdio.h>

static const char *const schemes[] = {
#define PROTOCOL(scheme, name, help) scheme,
#include "disk/protocols.def"
#undef PROTOCOL
    NULL,
};

/* RFC 3986 section 3.1, in lower case. */
static size_t scheme_length(const char *path)
{
    size_t len = strspn(path, "abcdefghijklmnopqrstuvwxyz0123456789+-.");

    return *path >= 'a' && *path <= 'z' && strncmp(path + len, "://", 3) == 0 ? len : 0;
}

bool file_protocol_scheme(const char *path, char scheme[FILE_SCHEME_MAX])
{
    size_t len = scheme_length(path);

    if (!len)
        return false;
    snprintf(scheme, FILE_SCHEME_MAX, "%.*s", len < FILE_SCHEME_MAX ? (int)len : 0, path);
    return true;
}

bool file_protocol_is(const char *path)
{
    return scheme_length(path) > 0;
}

int file_protocol_check(const char *path, struct err *err)
{
    char scheme[FILE_SCHEME_MAX], list[160] = "";
    size_t at = 0;

    if (!file_protocol_scheme(path, scheme))
        return 0;
    for (size_t i = 0; schemes[i] && at < sizeof(list); i++) {
        if (strcmp(scheme, schemes[i]) == 0)
            return 0;
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s://", i ? ", " : "", schemes[i]);
    }
    return err_set(err, -EINVAL, "disk '%.200s': no such protocol; accepted are %s, and files of the host", path, list);
}

size_t file_protocol_length(const char *path)
{
    return file_protocol_is(path) ? strcspn(path, "?") : strlen(path);
}

void file_protocol_show(const char *path, char *buf, size_t size)
{
    size_t start = scheme_length(path), host, secret;

    snprintf(buf, size, "%s", path);
    if (!start)
        return;
    start += 3;
    host = strcspn(path + start, "/@");
    secret = strcspn(path + start, "%:");
    if (path[start + host] == '@' && secret < host)
        snprintf(buf, size, "%.*s%s", (int)(start + secret), path, path + start + host);
}
