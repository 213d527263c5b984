/*
 * The CPU's features are read from /proc/cpuinfo, "flags" and "vmx flags" (Linux 5.8 and later has the latter); what KVM makes of them from the
 * parameters of its modules in /sys; the rest KVM itself is asked for.
 */
#include "engine/host_virt.h"

#include <cpuid.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kvm_probe.h"

#define LINE_MOST 8192

#define ECX1_VMX        (1u << 5)
#define ECX80000001_SVM (1u << 2)

#define KEY(key, ...)         #key,
#define TEXT(key, text, ...)  text,
#define CAP(key, text, cap)   KVM_CAP_##cap,
#define PAIR(key, text, a, b) {a, b},
const char *const host_virt_feature_keys[HOST_N_FEATURES] = {HOST_FEATURES(KEY)};
const char *const host_virt_feature_texts[HOST_N_FEATURES] = {HOST_FEATURES(TEXT)};
const char *const host_virt_capability_keys[HOST_N_CAPABILITIES] = {HOST_CAPABILITIES(KEY)};
const char *const host_virt_capability_texts[HOST_N_CAPABILITIES] = {HOST_CAPABILITIES(TEXT)};
static const int capabilities[HOST_N_CAPABILITIES] = {HOST_CAPABILITIES(CAP)};
static const char *const feature_names[HOST_N_FEATURES][2] = {HOST_FEATURES(PAIR)};
#undef KEY
#undef TEXT
#undef CAP
#undef PAIR

/* The module that runs guests; the first that is loaded. The last runs them on page tables alone, without help from the CPU. */
static const char *const modules[] = {"kvm_intel", "kvm_amd", "kvm_pvm"};

/* Where a feature shows: a word of a line of /proc/cpuinfo, and a parameter of the vendor's module or NULL. */
static const struct {
    const char *line, *flag, *parameter;
} places[HOST_N_FEATURES][2] = {
    [HOST_nested_paging] = {{"flags", "ept", "ept"}, {"flags", "npt", "npt"}},
    [HOST_tagged_tlb] = {{"flags", "vpid", "vpid"}, {"flags", "svm", NULL}},
    [HOST_apic_virtualization] = {{"vmx flags", "apicv", "enable_apicv"}, {"flags", "avic", "avic"}},
    [HOST_posted_interrupts] = {{"vmx flags", "posted_intr", "enable_apicv"}, {"flags", "avic", "avic"}},
    [HOST_tsc_scaling] = {{"vmx flags", "tsc_scaling", NULL}, {"flags", "tsc_scale", NULL}},
    [HOST_nested_guests] = {{"flags", "vmx", "nested"}, {"flags", "svm", "nested"}},
};

const char *host_virt_vendor(enum host_vendor vendor)
{
    return vendor == HOST_VTX ? "VT-x" : vendor == HOST_AMDV ? "AMD-V" : NULL;
}

const char *host_virt_feature(enum host_vendor vendor, enum host_feature feature)
{
    return feature_names[feature][vendor == HOST_AMDV];
}

const char *host_virt_state(enum host_state state)
{
    static const char *const names[] = {
        [HOST_UNKNOWN] = "unknown", [HOST_NO] = "no", [HOST_OFF] = "off", [HOST_YES] = "yes"};
    return names[state];
}

/* ---- /proc/cpuinfo ---- */

struct cpuinfo {
    bool read;
    char flags[LINE_MOST], vmx_flags[LINE_MOST]; /* of the first CPU; "" where there is no such line */
};

static bool is_line(const char *line, const char *name)
{
    size_t n = strlen(name);
    return strncmp(line, name, n) == 0 && (line[n] == '\t' || line[n] == ' ' || line[n] == ':');
}

static void read_cpuinfo(const char *root, struct cpuinfo *info)
{
    char path[512], line[LINE_MOST];

    *info = (struct cpuinfo){0};
    snprintf(path, sizeof(path), "%s/proc/cpuinfo", root);
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    info->read = true;
    while (fgets(line, sizeof(line), f) && *line != '\n') { /* a CPU each, with empty lines between */
        line[strcspn(line, "\n")] = '\0';
        const char *colon = strchr(line, ':');
        if (colon && is_line(line, "vmx flags"))
            snprintf(info->vmx_flags, sizeof(info->vmx_flags), "%s", colon + 1);
        else if (colon && is_line(line, "flags"))
            snprintf(info->flags, sizeof(info->flags), "%s", colon + 1);
    }
    fclose(f);
}

static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = text; (p = strstr(p, word)); p += n)
        if ((p == text || p[-1] == ' ' || p[-1] == '\t') && (!p[n] || p[n] == ' '))
            return true;
    return false;
}

/* ---- /sys/module ---- */

static bool is_loaded(const char *root, const char *module)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/sys/module/%s", root, module);
    return access(path, F_OK) == 0;
}

/* A parameter that is a yes or no, or a number with 0 for no. */
static enum host_state read_parameter(const char *root, const char *module, const char *name)
{
    char path[512], text[16] = "";

    snprintf(path, sizeof(path), "%s/sys/module/%s/parameters/%s", root, module, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return HOST_UNKNOWN;
    char *got = fgets(text, sizeof(text), f);
    fclose(f);
    if (!got || !*text || *text == '\n')
        return HOST_UNKNOWN;
    return *text == 'N' || *text == 'n' || *text == '0' ? HOST_OFF : HOST_YES;
}

/* ---- all together ---- */

static enum host_state feature_state(const struct host_virt *host, const struct cpuinfo *info, const char *root,
                                     enum host_feature feature)
{
    unsigned vendor = host->vendor == HOST_AMDV;
    const char *own = modules[vendor];
    bool vmx_line = strcmp(places[feature][vendor].line, "vmx flags") == 0;
    const char *line = vmx_line ? info->vmx_flags : info->flags;

    if (host->vendor == HOST_NONE)
        return HOST_NO;
    if (!info->read || !*line)
        return HOST_UNKNOWN;
    if (!has_word(line, places[feature][vendor].flag))
        return HOST_NO;
    if (!host->module)
        return HOST_UNKNOWN; /* nobody says what KVM would do */
    if (strcmp(host->module, own) != 0)
        return HOST_OFF;
    return places[feature][vendor].parameter ? read_parameter(root, own, places[feature][vendor].parameter) : HOST_YES;
}

void host_virt_read(struct host_virt *host, const struct host_virt_conf *conf)
{
    struct cpuinfo info;

    *host = (struct host_virt){.vendor = conf->vmx ? HOST_VTX : conf->svm ? HOST_AMDV : HOST_NONE};
    read_cpuinfo(conf->root, &info);
    host->off_in_firmware = info.read && ((conf->vmx && !has_word(info.flags, "vmx")) ||
                                          (!conf->vmx && conf->svm && !has_word(info.flags, "svm")));
    for (size_t i = 0; i < ARRAY_SIZE(modules) && !host->module; i++)
        if (is_loaded(conf->root, modules[i]))
            host->module = modules[i];
    for (unsigned i = 0; i < HOST_N_FEATURES; i++)
        host->features[i] = feature_state(host, &info, conf->root, i);
    if (!conf->check)
        return;
    host->asked = true;
    for (unsigned i = 0; i < HOST_N_CAPABILITIES; i++)
        host->capabilities[i] = conf->check(conf->opaque, capabilities[i]);
    host->max_vcpus = conf->check(conf->opaque, KVM_CAP_MAX_VCPUS);
}

static int check_extension(void *opaque, int capability)
{
    int r = ioctl(*(const int *)opaque, KVM_CHECK_EXTENSION, (unsigned long)capability);
    return r > 0 ? r : 0;
}

void host_virt_survey(struct host_virt *host, const char *device)
{
    struct host_virt_conf conf = {.root = ""};
    uint32_t a, b, c, d;
    int fd = -1;

    conf.vmx = __get_cpuid(1, &a, &b, &c, &d) && (c & ECX1_VMX);
    conf.svm = __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & ECX80000001_SVM);
    if (kvm_probe_open(device, &fd, NULL) == 0) {
        conf.check = check_extension;
        conf.opaque = &fd;
    }
    host_virt_read(host, &conf);
    if (fd >= 0)
        close(fd);
}
