/*
 * The real-time clock and CMOS RAM.
 *
 * The clock does not tick: the time registers are filled from the wall clock when somebody looks, and a write to one of them
 * moves the offset between the two. Flags (update ended, alarm, periodic) are likewise found when somebody looks (sync), by what has
 * passed since the last time; a vtimer makes sure that somebody does where an interrupt is wanted. While the guest holds the
 * clock (SET, or the divider in reset) the registers are plain memory.
 *
 * Threads: ports from any vCPU, the vtimer on the loop's thread; all under the device's lock.
 */
#include "device/rtc.h"

#include <errno.h>
#include <time.h>

#define UPDATE_NS  244000 /* UIP says so this long before an update (datasheet, "update cycle") */
#define DAY        86400
#define MAX_SLEEP  60                 /* seconds: the wall clock may be set meanwhile */
#define MAX_OFFSET (INT64_C(1) << 40) /* seconds, beyond any date that the registers can hold */
#define CMOS_SIZE  128
#define NEVER      INT64_MAX

enum {
    REG_SECONDS = 0x00,
    REG_SECONDS_ALARM = 0x01,
    REG_MINUTES = 0x02,
    REG_MINUTES_ALARM = 0x03,
    REG_HOURS = 0x04,
    REG_HOURS_ALARM = 0x05,
    REG_WEEKDAY = 0x06,
    REG_DAY = 0x07,
    REG_MONTH = 0x08,
    REG_YEAR = 0x09,
    REG_A = 0x0a,
    REG_B = 0x0b,
    REG_C = 0x0c,
    REG_D = 0x0d,
    REG_CENTURY = 0x32,

    A_UIP = 1 << 7,
    A_DIVIDER_RESET = 6 << 4, /* 11x */
    A_RATE = 0x0f,
    A_RESET = 0x26, /* 32.768 kHz, 1.024 kHz periodic */
    B_SET = 1 << 7,
    B_BINARY = 1 << 2,
    B_24H = 1 << 1,
    B_SQUARE_WAVE = 1 << 3,
    C_IRQ = 1 << 7,
    C_PERIODIC = 1 << 6, /* these three stand at the same place in B, as enables */
    C_ALARM = 1 << 5,
    C_UPDATE = 1 << 4,
    C_FLAGS = C_PERIODIC | C_ALARM | C_UPDATE,
    D_VALID = 1 << 7,
};

struct rtc {
    struct device dev;
    struct rtc_conf conf;
    uint8_t index; /* as written: bit 7 is the NMI mask, kept and without effect */
    uint8_t cmos[CMOS_SIZE];
    int64_t offset_s; /* guest time - wall time */
    int64_t offset_ns;
    uint8_t weekday_shift; /* the weekday is a counter of its own: days it is ahead of the date */
    int64_t seen_s;        /* guest time up to which flags have been set */
    uint64_t seen_tick;    /* periodic ticks, likewise */
    struct vtimer timer;
};

struct moment {
    int64_t s;  /* guest time, since 1970 */
    int64_t ns; /* 0 to 999999999 */
};

static int64_t wall_ns(struct rtc *r)
{
    if (r->conf.wall_ns)
        return r->conf.wall_ns(r->conf.wall_opaque);
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static struct moment guest_now(struct rtc *r)
{
    int64_t wall = wall_ns(r), ns = wall % NS_PER_SEC + r->offset_ns;
    return (struct moment){.s = wall / NS_PER_SEC + r->offset_s + ns / NS_PER_SEC, .ns = ns % NS_PER_SEC};
}

static bool divider_reset(const struct rtc *r)
{
    return (r->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static bool held(const struct rtc *r)
{
    return (r->cmos[REG_B] & B_SET) || divider_reset(r);
}

/* ---- the registers' formats ---- */

static uint8_t encode(const struct rtc *r, int val)
{
    return (uint8_t)(r->cmos[REG_B] & B_BINARY ? val : val / 10 << 4 | val % 10);
}

static int decode(const struct rtc *r, uint8_t reg)
{
    return r->cmos[REG_B] & B_BINARY ? reg : (reg >> 4) * 10 + (reg & 15);
}

static uint8_t encode_hour(const struct rtc *r, int hour)
{
    if (r->cmos[REG_B] & B_24H)
        return encode(r, hour);
    return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *r, uint8_t reg)
{
    if (r->cmos[REG_B] & B_24H)
        return decode(r, reg);
    return decode(r, reg & 0x7f) % 12 + (reg & 0x80 ? 12 : 0);
}

/* Fills the time registers, unless they are the guest's. */
static void refresh(struct rtc *r)
{
    time_t t = guest_now(r).s;
    struct tm tm;

    if (held(r) || !gmtime_r(&t, &tm))
        return;
    int year = ((tm.tm_year + 1900) % 10000 + 10000) % 10000; /* four digits are all there are */
    r->cmos[REG_SECONDS] = encode(r, tm.tm_sec);
    r->cmos[REG_MINUTES] = encode(r, tm.tm_min);
    r->cmos[REG_HOURS] = encode_hour(r, tm.tm_hour);
    r->cmos[REG_WEEKDAY] = encode(r, (tm.tm_wday + r->weekday_shift) % 7 + 1);
    r->cmos[REG_DAY] = encode(r, tm.tm_mday);
    r->cmos[REG_MONTH] = encode(r, tm.tm_mon + 1);
    r->cmos[REG_YEAR] = encode(r, year % 100);
    r->cmos[REG_CENTURY] = encode(r, year / 100);
}

/* Makes the time registers the time. A date that is none (31 February) is taken as so many days on. */
static void adopt(struct rtc *r)
{
    struct tm tm = {
        .tm_sec = decode(r, r->cmos[REG_SECONDS]),
        .tm_min = decode(r, r->cmos[REG_MINUTES]),
        .tm_hour = decode_hour(r, r->cmos[REG_HOURS]),
        .tm_mday = decode(r, r->cmos[REG_DAY]),
        .tm_mon = decode(r, r->cmos[REG_MONTH]) - 1,
        .tm_year = decode(r, r->cmos[REG_CENTURY]) * 100 + decode(r, r->cmos[REG_YEAR]) - 1900,
    };
    int weekday = decode(r, r->cmos[REG_WEEKDAY]);
    time_t t = timegm(&tm); /* fills tm_wday */

    r->offset_s += t - guest_now(r).s;
    r->seen_s = t;
    r->weekday_shift = weekday >= 1 && weekday <= 7 ? (uint8_t)((weekday - 1 - tm.tm_wday + 7) % 7) : 0;
}

/* ---- alarm and flags ---- */

static bool alarm_matches(uint8_t alarm, uint8_t now)
{
    return alarm >= 0xc0 || alarm == now; /* 11xxxxxx: any */
}

/* The first second after `after` that the alarm registers match, or NEVER. */
static int64_t next_alarm(const struct rtc *r, int64_t after)
{
    int64_t day = (after + 1) / DAY * DAY, in_day = (after + 1) % DAY;
    if (in_day < 0) { /* before 1970 */
        day -= DAY;
        in_day += DAY;
    }
    int first_minute = (int)(in_day / 60 % 60), first_second = (int)(in_day % 60), hour = (int)(in_day / 3600);
    for (int i = 0; i <= 24; i++, first_minute = 0, first_second = 0) {
        if (!alarm_matches(r->cmos[REG_HOURS_ALARM], encode_hour(r, (hour + i) % 24)))
            continue;
        for (int m = first_minute; m < 60; m++, first_second = 0) {
            if (!alarm_matches(r->cmos[REG_MINUTES_ALARM], encode(r, m)))
                continue;
            for (int s = first_second; s < 60; s++)
                if (alarm_matches(r->cmos[REG_SECONDS_ALARM], encode(r, s)))
                    return day + (hour + i) * 3600 + m * 60 + s;
        }
    }
    return NEVER;
}

/* Rate of the periodic interrupt, 0 where there is none (datasheet, table 5). */
static uint64_t periodic_hz(const struct rtc *r)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;

    if (!rate || divider_reset(r))
        return 0;
    return rate < 3 ? 512u >> rate : 32768u >> (rate - 1);
}

static uint64_t periodic_tick(struct rtc *r)
{
    uint64_t hz = periodic_hz(r);
    return hz ? clock_ticks(clock_now(r->dev.env->clock), hz) : 0;
}

static void drive(struct rtc *r)
{
    bool up = r->cmos[REG_C] & r->cmos[REG_B] & C_FLAGS;

    r->cmos[REG_C] = (r->cmos[REG_C] & C_FLAGS) | (up ? C_IRQ : 0);
    irq_set(&r->conf.irq, up);
}

/* Sets the flags of all that has happened since it was last called. */
static void sync_flags(struct rtc *r)
{
    int64_t s = guest_now(r).s;
    uint64_t tick = periodic_tick(r);

    if (!held(r)) {
        if (s > r->seen_s) {
            r->cmos[REG_C] |= C_UPDATE;
            if (next_alarm(r, r->seen_s) <= s)
                r->cmos[REG_C] |= C_ALARM;
        }
        r->seen_s = s; /* also back, with the wall clock */
    }
    if (tick > r->seen_tick)
        r->cmos[REG_C] |= C_PERIODIC;
    r->seen_tick = tick;
    drive(r);
}

/* VM time at which the next flag is set that an interrupt waits for, or NEVER. */
static int64_t next_event(struct rtc *r)
{
    uint8_t wanted = r->cmos[REG_B] & ~r->cmos[REG_C] & C_FLAGS;
    int64_t vm = clock_now(r->dev.env->clock), next = NEVER;
    struct moment now = guest_now(r);

    if ((wanted & C_PERIODIC) && periodic_hz(r))
        next = clock_ticks_to_ns(r->seen_tick + 1, periodic_hz(r));
    if (held(r))
        return next;
    int64_t wait = wanted & C_UPDATE ? 1 : NEVER;
    if (wanted & C_ALARM) {
        int64_t alarm = next_alarm(r, now.s);
        int64_t until = alarm == NEVER || alarm - now.s > MAX_SLEEP ? MAX_SLEEP : alarm - now.s;
        wait = until < wait ? until : wait;
    }
    if (wait != NEVER && vm + wait * NS_PER_SEC - now.ns < next)
        next = vm + wait * NS_PER_SEC - now.ns;
    return next;
}

static void arm(struct rtc *r)
{
    int64_t next = next_event(r);

    if (next == NEVER)
        vtimer_cancel(&r->timer);
    else
        vtimer_set(&r->timer, next);
}

static void expired(void *opaque)
{
    struct rtc *r = opaque;

    device_lock(&r->dev);
    sync_flags(r);
    arm(r);
    device_unlock(&r->dev);
}

/* ---- ports ---- */

static void a_write(struct rtc *r, uint8_t val)
{
    bool was_held = held(r), was_reset = divider_reset(r);

    refresh(r);
    r->cmos[REG_A] = val & ~A_UIP;
    if (was_reset && !divider_reset(r)) /* the first update comes half a second later (datasheet, "divider control") */
        r->offset_ns = (NS_PER_SEC + NS_PER_SEC / 2 - wall_ns(r) % NS_PER_SEC) % NS_PER_SEC;
    if (was_held && !held(r))
        adopt(r);
    r->seen_tick = periodic_tick(r);
}

static void b_write(struct rtc *r, uint8_t val)
{
    bool was_held = held(r);

    refresh(r);
    if (val & B_SET) /* clears the update-ended interrupt's enable (datasheet, register B) */
        val &= ~C_UPDATE;
    r->cmos[REG_B] = val;
    if (was_held && !held(r))
        adopt(r);
}

static bool is_time(unsigned reg)
{
    switch (reg) {
    case REG_SECONDS:
    case REG_MINUTES:
    case REG_HOURS:
    case REG_WEEKDAY ... REG_YEAR:
    case REG_CENTURY:
        return true;
    default:
        return false;
    }
}

static void cmos_write(struct rtc *r, unsigned reg, uint8_t val)
{
    sync_flags(r);
    if (is_time(reg)) {
        refresh(r);
        r->cmos[reg] = val;
        if (!held(r))
            adopt(r);
    } else if (reg == REG_A) {
        a_write(r, val);
    } else if (reg == REG_B) {
        b_write(r, val);
    } else if (reg != REG_C && reg != REG_D) {
        r->cmos[reg] = val;
    }
    drive(r);
    arm(r);
}

static uint8_t cmos_read(struct rtc *r, unsigned reg)
{
    uint8_t val;

    sync_flags(r);
    refresh(r);
    switch (reg) {
    case REG_A:
        return r->cmos[REG_A] | (!held(r) && guest_now(r).ns >= NS_PER_SEC - UPDATE_NS ? A_UIP : 0);
    case REG_C: /* reading clears */
        val = r->cmos[REG_C];
        r->cmos[REG_C] = 0;
        drive(r);
        arm(r);
        return val;
    case REG_D:
        return D_VALID;
    default:
        return r->cmos[reg];
    }
}

static uint64_t rtc_read(struct device *dev, unsigned region, uint64_t off, unsigned len)
{
    struct rtc *r = (struct rtc *)dev;
    uint64_t val = 0;

    for (unsigned i = 0; i < len; i++)
        val |= (uint64_t)(off + i ? cmos_read(r, r->index % CMOS_SIZE) : r->index) << (8 * i);
    return val;
}

static void rtc_write(struct device *dev, unsigned region, uint64_t off, unsigned len, uint64_t val)
{
    struct rtc *r = (struct rtc *)dev;

    for (unsigned i = 0; i < len; i++, val >>= 8)
        if (off + i)
            cmos_write(r, r->index % CMOS_SIZE, (uint8_t)val);
        else
            r->index = (uint8_t)val;
}

/* ---- contents, reset, state ---- */

/* What the BIOS's set-up would have left (RBIL, CMOS.LST): base memory, extended memory three ways, CPUs, checksum. */
static void fill_cmos(struct rtc *r)
{
    uint64_t low = r->conf.ram_low, ext = low > MIB ? (low - MIB) / KIB : 0;
    uint64_t above_16m = low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0, high = r->conf.ram_high / (64 * KIB);
    uint8_t *c = r->cmos;

    c[0x14] = 0x06; /* a coprocessor, a pointing device */
    store_le16(c + 0x15, 640);
    store_le16(c + 0x17, (uint16_t)(ext > UINT16_MAX ? UINT16_MAX : ext));
    store_le16(c + 0x30, load_le16(c + 0x17));
    store_le16(c + 0x34, (uint16_t)(above_16m > UINT16_MAX ? UINT16_MAX : above_16m));
    if (high > 0xffffff)
        high = 0xffffff;
    store_le16(c + 0x5b, (uint16_t)high);
    c[0x5d] = (uint8_t)(high >> 16);
    c[0x5f] = (uint8_t)(r->conf.n_cpus ? r->conf.n_cpus - 1 : 0);
    unsigned sum = 0;
    for (unsigned i = 0x10; i < 0x2e; i++)
        sum += c[i];
    c[0x2e] = (uint8_t)(sum >> 8);
    c[0x2f] = (uint8_t)sum;
}

/* The reset pin: time and memory are the battery's (datasheet, "reset"). */
static void rtc_reset(struct device *dev)
{
    struct rtc *r = (struct rtc *)dev;

    r->index = 0;
    r->cmos[REG_B] &= ~(C_FLAGS | B_SQUARE_WAVE);
    r->cmos[REG_C] = 0;
    drive(r);
    arm(r);
}

static int rtc_state(struct device *dev, struct stream *s)
{
    struct rtc *r = (struct rtc *)dev;

    if (!s->loading)
        sync_flags(r);
    stream_section(s, "rtc", 1);
    stream_u8(s, &r->index);
    stream_bytes(s, r->cmos, sizeof(r->cmos));
    stream_i64(s, &r->offset_s);
    stream_i64(s, &r->offset_ns);
    stream_u8(s, &r->weekday_shift);
    if (!s->loading)
        return s->error;
    if (r->offset_s < -MAX_OFFSET || r->offset_s > MAX_OFFSET || r->offset_ns < 0 || r->offset_ns >= NS_PER_SEC) {
        r->offset_s = 0;
        r->offset_ns = 0;
        if (!s->error)
            s->error = -EPROTO;
    }
    r->cmos[REG_A] &= ~A_UIP;
    r->weekday_shift %= 7;
    r->seen_s = guest_now(r).s; /* what passed meanwhile rings no alarm */
    r->seen_tick = periodic_tick(r);
    drive(r);
    arm(r);
    return s->error;
}

static int rtc_open(struct device *dev, const void *conf, struct err *err)
{
    struct rtc *r = (struct rtc *)dev;

    r->conf = *(const struct rtc_conf *)conf;
    int rc = device_map(dev, dev->env->pio, 0, 0x70, 2, err);
    if (rc < 0)
        return rc;
    vtimer_init(&r->timer, dev->env->clock, expired, r);
    r->cmos[REG_A] = A_RESET;
    r->cmos[REG_B] = B_24H;
    fill_cmos(r);
    r->seen_s = guest_now(r).s;
    r->seen_tick = periodic_tick(r);
    return 0;
}

static void rtc_close(struct device *dev)
{
    vtimer_fini(&((struct rtc *)dev)->timer);
}

const struct device_type rtc_type = {
    .name = "rtc",
    .size = sizeof(struct rtc),
    .open = rtc_open,
    .read = rtc_read,
    .write = rtc_write,
    .reset = rtc_reset,
    .state = rtc_state,
    .close = rtc_close,
};
