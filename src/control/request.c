#include "control/request.h"

#include <errno.h>
#include <stdio.h>

/* Takes `what`, which holds "ok" and more; `id` comes in front. */
static json_t *with_id(json_t *id, json_t *what)
{
    json_t *object = json_object();

    if (id)
        json_object_set(object, "id", id);
    json_object_update(object, what);
    json_decref(what);
    return object;
}

static json_t *failure(json_t *id, const char *message)
{
    json_t *text = json_string(message);

    if (!text) /* what it repeats is no UTF-8 */
        text = json_string("malformed text");
    return with_id(id, json_pack("{s:b, s:o}", "ok", 0, "error", text));
}

/* Takes `result`, which may be NULL. */
static json_t *success(json_t *id, json_t *result)
{
    json_t *what = json_pack("{s:b}", "ok", 1);

    if (result)
        json_object_set_new(what, "result", result);
    return with_id(id, what);
}

json_t *request_error(const char *message)
{
    return failure(NULL, message);
}

json_t *request_finish(struct request_pending *pending, json_t *result, const char *error)
{
    if (error)
        json_decref(result);
    json_t *object = error ? failure(pending->id, error) : success(pending->id, result);

    json_decref(pending->id);
    *pending = (struct request_pending){0};
    return object;
}

/* The request's parts, borrowed from it. */
static int take_request(json_t *request, const char **name, struct control_call *call, struct err *err)
{
    const char *key;
    json_t *value;

    *name = NULL;
    if (!json_is_object(request))
        return err_set(err, -EINVAL, "accepted is an object a line, such as {\"command\": \"status\"}");
    json_object_foreach(request, key, value)
    {
        if (strcmp(key, "command") == 0)
            *name = json_string_value(value);
        else if (strcmp(key, "arguments") == 0 && json_is_array(value))
            call->n = (unsigned)json_array_size(value);
        else if (strcmp(key, "id") != 0)
            return err_set(err, -EINVAL,
                           "'%.60s': accepted are command, a string; arguments, an array of strings; and id", key);
    }
    if (!*name)
        return err_set(err, -EINVAL, "command is missing: accepted is a string; help lists them");
    for (unsigned i = 0; i < call->n; i++) {
        const char *text = json_string_value(json_array_get(json_object_get(request, "arguments"), i));
        if (!text)
            return err_set(err, -EINVAL, "%.60s: argument %u: accepted is a string", *name, i + 1);
        if (i < CONTROL_COMMAND_MAX_ARGUMENTS)
            call->arguments[i] = text;
    }
    return 0;
}

json_t *request_serve(struct machine *machine, const char *line, size_t len, const struct control_later *later,
                      struct request_pending *pending)
{
    struct control_call call = {.machine = machine, .later = *later};
    json_error_t why;
    json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);
    json_t *id = json_object_get(request, "id"), *object = NULL;
    const char *name;
    struct err err;

    if (!request) {
        err_set(&err, -EINVAL, "no JSON: %.200s, at character %d", why.text, why.position);
        return failure(NULL, err.msg);
    }
    int r = take_request(request, &name, &call, &err);
    if (r == 0)
        r = control_command_run(name, &call, &err);
    if (r < 0) {
        object = failure(id, err.msg);
    } else if (*call.detaching) {
        snprintf(pending->detaching, sizeof(pending->detaching), "%s", call.detaching);
        pending->id = json_incref(id);
    } else if (call.comes_later) {
        pending->ticket = later->ticket;
        pending->id = json_incref(id);
    } else {
        object = success(id, call.result);
    }
    json_decref(request);
    return object;
}
