/* `vireo engines`: what can run guests here, the first choice first, and what the host has for it; lines or JSON. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/command.h"
#include "cli/engines_options.h"
#include "cli/help.h"
#include "engine/host_virt.h"
#include "engine/kvm_probe.h"
#include "engine/survey.h"

#define MOST_ENGINES 16

/* "12 M instructions/s" */
static void print_rate(char *text, size_t len, uint64_t rate)
{
    snprintf(text, len, "%.*f M instructions/s", rate < 10000000 ? 1 : 0, (double)rate / 1e6);
}

static void print_lines(const struct survey *found, size_t n)
{
    char rate[64];

    for (size_t i = 0; i < n; i++) {
        const struct survey *s = &found[i];
        print_rate(rate, sizeof(rate), s->rate);
        printf("%-8s%-46s", s->name, s->kind);
        if (s->usable)
            printf("usable, %s%s\n", rate, s->preferred ? "; what auto takes" : "");
        else
            printf("not usable: %s\n", s->reason.msg);
    }
}

/* Below the engines, what the host has for the one on its CPU. */
static void print_host(const struct host_virt *h)
{
    const char *vendor = host_virt_vendor(h->vendor);

    printf("\n%-32s%s%s\n", "CPU virtualization", vendor ? vendor : "not there: CPUID tells of neither VT-x nor AMD-V",
           h->off_in_firmware ? ", but the firmware has it off, or the kernel" : "");
    for (unsigned i = 0; i < HOST_N_FEATURES && vendor; i++)
        printf("  %-30s%s: %s\n", host_virt_feature_texts[i], host_virt_feature(h->vendor, i),
               h->features[i] == HOST_OFF ? "off, KVM does not use it" : host_virt_state(h->features[i]));
    printf("%-32s%s\n", "KVM's module", h->module ? h->module : "none that is loaded");
    if (!h->asked) {
        printf("%-32sunknown: no KVM could be asked\n", "KVM offers");
        return;
    }
    printf("%-32s%d vCPUs a VM", "KVM offers", h->max_vcpus);
    for (unsigned i = 0; i < HOST_N_CAPABILITIES; i++)
        if (h->capabilities[i])
            printf(", %s", host_virt_capability_texts[i]);
    printf("\n");
    const char *lead = "";
    for (unsigned i = 0; i < HOST_N_CAPABILITIES; i++)
        if (!h->capabilities[i]) {
            printf(*lead ? "%s%s" : "%-32s%s", *lead ? lead : "KVM lacks", host_virt_capability_texts[i]);
            lead = ", ";
        }
    printf("%s", *lead ? "\n" : "");
}

static json_t *host_as_json(const struct host_virt *h)
{
    json_t *object = json_object(), *features = json_object(), *capabilities = json_object();
    const char *vendor = host_virt_vendor(h->vendor);

    json_object_set_new(object, "virtualization", vendor ? json_string(vendor) : json_null());
    json_object_set_new(object, "off_in_firmware", json_boolean(h->off_in_firmware));
    json_object_set_new(object, "module", h->module ? json_string(h->module) : json_null());
    for (unsigned i = 0; i < HOST_N_FEATURES; i++)
        json_object_set_new(features, host_virt_feature_keys[i], json_string(host_virt_state(h->features[i])));
    json_object_set_new(object, "features", features);
    for (unsigned i = 0; i < HOST_N_CAPABILITIES; i++)
        json_object_set_new(capabilities, host_virt_capability_keys[i],
                            h->asked ? json_boolean(h->capabilities[i] > 0) : json_null());
    json_object_set_new(object, "capabilities", capabilities);
    json_object_set_new(object, "max_vcpus", h->asked ? json_integer(h->max_vcpus) : json_null());
    return object;
}

static json_t *as_json(const struct survey *s, const struct host_virt *host)
{
    json_t *object = json_object();

    json_object_set_new(object, "name", json_string(s->name));
    json_object_set_new(object, "kind", json_string(s->kind));
    json_object_set_new(object, "usable", json_boolean(s->usable));
    json_object_set_new(object, "auto", json_boolean(s->preferred));
    json_object_set_new(object, "instructions_per_second", s->rate ? json_integer((json_int_t)s->rate) : json_null());
    json_object_set_new(object, "reason", s->usable ? json_null() : json_string(s->reason.msg));
    if (strcmp(s->name, "kvm") == 0)
        json_object_set_new(object, "host", host_as_json(host));
    return object;
}

static int print_json(const struct survey *found, size_t n, const struct host_virt *host)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, as_json(&found[i], host));
    char *text = json_dumps(array, JSON_INDENT(2));
    json_decref(array);
    if (!text)
        return -ENOMEM;
    puts(text);
    free(text);
    return 0;
}

int command_engines(int argc, char **argv)
{
    struct engines_options options = {0};
    struct survey found[MOST_ENGINES];
    struct host_virt host;
    struct err err;
    bool help;
    int r = option_parse(&engines_option_table, argc, argv, &options, &help, &err);

    if (r < 0)
        return command_fail(r, &err);
    if (help) {
        help_command(stdout, "engines");
        return STATUS_OK;
    }
    size_t n = survey_engines(found, ARRAY_SIZE(found));
    host_virt_survey(&host, KVM_PROBE_DEVICE);
    if (!options.json) {
        print_lines(found, n);
        print_host(&host);
        return STATUS_OK;
    }
    r = print_json(found, n, &host);
    if (r < 0)
        return command_fail(err_set(&err, r, "out of memory"), &err);
    return STATUS_OK;
}
