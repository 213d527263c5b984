#include "image/backup_repo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_POINTS 100000

/* ---- names ---- */

static void place(const struct backup_repo *repo, const char *name, char path[4096])
{
    snprintf(path, 4096, "%s/%s", repo->path, name);
}

void backup_repo_file(const struct backup_repo *repo, const struct backup_point *point, char path[4096])
{
    snprintf(path, 4096, "%s/%s.qcow2%s", repo->path, point->id, point->replacing ? ".new" : "");
    if (point->replacing && access(path, F_OK) < 0) /* renamed already */
        path[strlen(path) - strlen(".new")] = '\0';
}

static void random_hex(char *to, unsigned bytes)
{
    uint8_t raw[16];

    if (getrandom(raw, bytes, 0) != (ssize_t)bytes)
        memset(raw, (int)getpid(), sizeof(raw));
    for (unsigned i = 0; i < bytes; i++)
        snprintf(to + i * 2, 3, "%02x", raw[i]);
}

void backup_repo_new_id(const struct backup_repo *repo, int64_t when, char id[BACKUP_ID])
{
    time_t seconds = (time_t)when;
    struct tm tm = {0};
    char text[20] = "0", hex[5];

    if (gmtime_r(&seconds, &tm))
        strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &tm);
    do {
        random_hex(hex, 2);
        snprintf(id, BACKUP_ID, "%s-%s", text, hex);
    } while (backup_repo_find(repo, id));
}

/* What a manifest may call a point: no way out of the directory. */
static bool is_id(const char *id)
{
    size_t n = strspn(id, "0123456789abcdef-");
    return n && n < BACKUP_ID && !id[n] && *id != '-';
}

struct backup_point *backup_repo_find(const struct backup_repo *repo, const char *id)
{
    for (size_t i = 0; i < repo->n; i++)
        if (strcmp(repo->points[i].id, id) == 0)
            return &repo->points[i];
    return NULL;
}

unsigned backup_repo_depth(const struct backup_repo *repo, const struct backup_point *point)
{
    unsigned n = 0;

    for (; point && n <= repo->n; n++)
        point = *point->parent ? backup_repo_find(repo, point->parent) : NULL;
    return n;
}

static bool parse_time(const char *text, int64_t *seconds)
{
    static const char *const forms[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M",
                                        "%Y-%m-%d"};

    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        struct tm tm = {.tm_isdst = -1, .tm_hour = 23, .tm_min = 59, .tm_sec = 59};
        const char *end = strptime(text, forms[i], &tm);
        if (end && !*end) {
            *seconds = mktime(&tm);
            return true;
        }
    }
    return false;
}

int backup_repo_choose(const struct backup_repo *repo, const char *what, struct backup_point **point, struct err *err)
{
    int64_t seconds;

    *point = NULL;
    if (!repo->n)
        return err_set(err, -ENOENT, "backup '%.200s': it has no points", repo->path);
    for (size_t i = 0; what && i < repo->n; i++)
        if (strcmp(repo->points[i].id, what) == 0 || strcmp(repo->points[i].name, what) == 0)
            *point = &repo->points[i];
    if (!*point && (!what || parse_time(what, &seconds)))
        for (size_t i = 0; i < repo->n; i++)
            if (!what || repo->points[i].time <= seconds)
                *point = &repo->points[i];
    if (*point)
        return 0;
    return err_set(err, -ENOENT,
                   "backup '%.200s': no point is '%.60s'; accepted are the ids and names that --list shows, and a time "
                   "such as '2026-05-01 12:30' from the first point on",
                   repo->path, what);
}

int backup_repo_add(struct backup_repo *repo, const struct backup_point *point)
{
    struct backup_point *points = realloc(repo->points, (repo->n + 1) * sizeof(*points));

    if (!points)
        return -ENOMEM;
    repo->points = points;
    points[repo->n++] = *point;
    return 0;
}

/* ---- the manifest ---- */

static bool text_to(const json_t *object, const char *key, char *to, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (!text || strlen(text) >= size)
        return false;
    strcpy(to, text);
    return true;
}

static int64_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static bool read_point(const json_t *json, struct backup_point *p)
{
    *p = (struct backup_point){0};
    if (!json_is_null(json_object_get(json, "parent")) && !text_to(json, "parent", p->parent, sizeof(p->parent)))
        return false;
    (void)text_to(json, "name", p->name, sizeof(p->name));
    (void)text_to(json, "bitmap", p->bitmap, sizeof(p->bitmap));
    (void)text_to(json, "source", p->source, sizeof(p->source));
    p->time = number_of(json, "time");
    p->size = (uint64_t)number_of(json, "size");
    p->file_size = (uint64_t)number_of(json, "file_size");
    return text_to(json, "id", p->id, sizeof(p->id)) && is_id(p->id) && (!*p->parent || is_id(p->parent)) &&
           text_to(json, "sha256", p->sha256, sizeof(p->sha256)) && p->size;
}

static int read_points(struct backup_repo *repo, const json_t *root)
{
    const json_t *points = json_object_get(root, "points"), *replacing = json_object_get(root, "replacing");
    struct backup_point p;

    if (number_of(root, "vireo_backup") != 1 || !text_to(root, "id", repo->id, sizeof(repo->id)) || !is_id(repo->id) ||
        json_array_size(points) > MAX_POINTS)
        return -EINVAL;
    for (size_t i = 0; i < json_array_size(points); i++) {
        if (!read_point(json_array_get(points, i), &p) || backup_repo_find(repo, p.id))
            return -EINVAL;
        if (*p.parent && !backup_repo_find(repo, p.parent)) /* parents come first */
            return -EINVAL;
        if (backup_repo_add(repo, &p))
            return -ENOMEM;
    }
    for (size_t i = 0; i < json_array_size(replacing); i++) {
        const char *id = json_string_value(json_array_get(replacing, i));
        struct backup_point *point = id ? backup_repo_find(repo, id) : NULL;
        if (!point)
            return -EINVAL;
        point->replacing = true;
    }
    return 0;
}

static int read_manifest(struct backup_repo *repo, struct err *err)
{
    char path[4096];
    json_error_t where;

    place(repo, "manifest.json", path);
    if (access(path, F_OK) < 0 && errno == ENOENT) {
        repo->fresh = true;
        return 0;
    }
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return err_set(err, -EIO, "backup '%.200s': manifest.json: line %d: %.100s", repo->path, where.line,
                       where.text);
    int r = read_points(repo, root);
    json_decref(root);
    return r ? err_set(err, r == -EINVAL ? -EIO : r, "backup '%.200s': manifest.json: %s", repo->path,
                       r == -EINVAL ? "it is no list of points" : strerror(-r))
             : 0;
}

static json_t *write_point(const struct backup_point *p)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:I, s:I, s:s, s:s, s:s}", "id", p->id, "name", p->name, "time",
                     (json_int_t)p->time, "kind", *p->parent ? "incremental" : "full", "parent",
                     *p->parent ? json_string(p->parent) : json_null(), "size", (json_int_t)p->size, "file_size",
                     (json_int_t)p->file_size, "sha256", p->sha256, "source", p->source, "bitmap", p->bitmap);
}

static json_t *to_json(const struct backup_repo *repo)
{
    json_t *points = json_array(), *replacing = json_array();
    int r = 0;

    for (size_t i = 0; i < repo->n; i++) {
        r |= json_array_append_new(points, write_point(&repo->points[i]));
        if (repo->points[i].replacing)
            r |= json_array_append_new(replacing, json_string(repo->points[i].id));
    }
    json_t *root =
        json_pack("{s:i, s:s, s:o, s:o}", "vireo_backup", 1, "id", repo->id, "points", points, "replacing", replacing);
    if (r) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static int sync_directory(const struct backup_repo *repo)
{
    int fd = open(repo->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = fd < 0 || fsync(fd) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    return r == -EINVAL ? 0 : r;
}

static int write_synced(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    if (!file)
        return -errno;
    int r = fputs(text, file) < 0 || fputc('\n', file) < 0 || fflush(file) || fsync(fileno(file)) < 0 ? -errno : 0;
    if (fclose(file) && r == 0)
        r = -errno;
    return r;
}

int backup_repo_save(struct backup_repo *repo, struct err *err)
{
    char path[4096], temporary[4096];
    json_t *root = to_json(repo);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;

    json_decref(root);
    if (!text)
        return err_set(err, -EINVAL, "backup '%.200s': a name is no UTF-8 text", repo->path);
    place(repo, "manifest.json", path);
    place(repo, "manifest.json.new", temporary);
    int r = write_synced(temporary, text);
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    if (r == 0)
        r = sync_directory(repo);
    free(text);
    repo->fresh = repo->fresh && r;
    return r ? err_set(err, r, "backup '%.200s': manifest.json cannot be written: %s", repo->path, strerror(-r)) : 0;
}

/* ---- files ---- */

/* Whether `name` is that of a file that only a repository has, and no point does. */
static bool is_left_over(const struct backup_repo *repo, const char *name)
{
    const char *dot = strchr(name, '.');
    char id[BACKUP_ID];

    if (!dot || (size_t)(dot - name) >= sizeof(id) || strncmp(dot, ".qcow2", 6) != 0)
        return false;
    snprintf(id, sizeof(id), "%.*s", (int)(dot - name), name);
    const struct backup_point *point = backup_repo_find(repo, id);
    return is_id(id) && (!point || dot[6]);
}

int backup_repo_tidy(struct backup_repo *repo, struct err *err)
{
    bool renamed = false;
    char from[4096], to[4096];

    for (size_t i = 0; i < repo->n; i++) {
        struct backup_point *p = &repo->points[i];
        if (!p->replacing)
            continue;
        snprintf(from, sizeof(from), "%s/%s.qcow2.new", repo->path, p->id);
        p->replacing = false;
        backup_repo_file(repo, p, to);
        if (rename(from, to) < 0 && errno != ENOENT) { /* done already */
            p->replacing = true;
            return err_set(err, -errno, "backup '%.200s': '%.200s' cannot be renamed: %s", repo->path, from,
                           strerror(errno));
        }
        renamed = true;
    }
    int r = renamed ? sync_directory(repo) : 0;
    if (r)
        return err_set(err, r, "backup '%.200s': %s", repo->path, strerror(-r));
    if (renamed)
        r = backup_repo_save(repo, err);
    DIR *dir = r == 0 ? opendir(repo->path) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (is_left_over(repo, e->d_name)) {
            place(repo, e->d_name, from);
            (void)!unlink(from);
        }
    }
    if (dir)
        closedir(dir);
    return r;
}

/* Whether nothing but what we put there is in the directory. */
static bool is_empty(const struct backup_repo *repo)
{
    DIR *dir = opendir(repo->path);
    bool empty = dir;

    for (struct dirent *e; dir && (e = readdir(dir));)
        empty = empty && (*e->d_name == '.' || strcmp(e->d_name, "lock") == 0 || strcmp(e->d_name, "lost+found") == 0 ||
                          strcmp(e->d_name, "manifest.json.new") == 0 || is_left_over(repo, e->d_name));
    if (dir)
        closedir(dir);
    return empty;
}

static int take_lock(struct backup_repo *repo, bool write, struct err *err)
{
    char path[4096];

    place(repo, "lock", path);
    repo->lock = open(path, write ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0666);
    if (repo->lock < 0 && !write)
        return 0; /* a copy on a medium that is only read */
    if (repo->lock < 0)
        return err_set(err, -errno, "backup '%.200s': %s", path, strerror(errno));
    if (flock(repo->lock, (write ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0)
        return err_set(err, -EBUSY, "backup '%.200s': somebody else is at work on it", repo->path);
    return 0;
}

int backup_repo_open(struct backup_repo *repo, const char *path, bool write, struct err *err)
{
    *repo = (struct backup_repo){.lock = -1};
    if (strlen(path) >= sizeof(repo->path))
        return err_set(err, -ENAMETOOLONG, "backup '%.60s...': accepted are names up to %zu bytes", path,
                       sizeof(repo->path) - 1);
    strcpy(repo->path, path);
    if (write && mkdir(path, 0777) < 0 && errno != EEXIST)
        return err_set(err, -errno, "backup '%.200s': the directory cannot be made: %s", path, strerror(errno));
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(err, -ENOENT, "backup '%.200s': accepted is a directory that vireo disk backup has made", path);
    if (write && !is_empty(repo)) {
        char manifest[4096];
        place(repo, "manifest.json", manifest);
        if (access(manifest, F_OK) < 0)
            return err_set(err, -EEXIST,
                           "backup '%.200s': it holds other files; accepted is a backup, or an empty directory", path);
    }
    int r = disk_allow_open(&repo->allow, (const char *const[]){repo->path}, 1, err);
    if (r == 0)
        r = take_lock(repo, write, err);
    if (r == 0)
        r = read_manifest(repo, err);
    if (r == 0 && repo->fresh && !write)
        r = err_set(err, -ENOENT, "backup '%.200s': it has no manifest.json", path);
    if (r == 0 && repo->fresh)
        random_hex(repo->id, 8);
    if (r == 0 && write)
        r = backup_repo_tidy(repo, err);
    if (r)
        backup_repo_close(repo);
    return r;
}

void backup_repo_close(struct backup_repo *repo)
{
    if (repo->lock >= 0)
        close(repo->lock);
    repo->lock = -1;
    disk_allow_close(repo->allow);
    repo->allow = NULL;
    free(repo->points);
    repo->points = NULL;
    repo->n = 0;
}
