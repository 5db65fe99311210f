/*
 * A PAPR virtual SCSI adapter whose server partition is another process.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 * Copyright (c) 2026 the vtgt authors. See LICENSE in this folder: unlike the rest of
 * vtgt this file is under the GPL, because it becomes a part of QEMU.
 *
 * To the guest this device is the client's half of a VSCSI pair (PAPR "v-scsi"). What a
 * hypervisor does for the server's half - CRQ entries, copies to and from the client's
 * I/O bus addresses, news of the partner - it does over a UNIX socket, in the protocol of
 * PROTOCOL.md. It knows nothing of SCSI and SRP.
 *
 * Nothing here waits for the server. The socket never blocks; what goes out is queued,
 * within bounds, and written by QEMU's main loop; what comes in is read and executed
 * there, a bounded share at a time. All state is under the BQL.
 */
#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-control.h"
#include "cpu.h"
#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_vio.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#include <libfdt.h>
#include <sys/un.h>

/*
 * LD_PRELOAD is inherited by every program that QEMU starts. There these symbols are
 * missing, and the program shall not notice.
 */
#pragma weak register_module_init
#pragma weak spapr_vio_send_crq
#pragma weak qdev_prop_string
#pragma weak qdev_prop_uint32
#pragma weak qemu_uuid

#ifndef VTGT_QEMU_VERSION
#error "build.sh says for which QEMU this is"
#endif

#define TYPE_VTGT_VSCSI "vtgt-vscsi"
OBJECT_DECLARE_SIMPLE_TYPE(VtgtVscsi, VTGT_VSCSI)

/* The protocol; PROTOCOL.md has the layouts. All numbers are big-endian. */
enum {
    VV_MAJOR = 1,
    VV_MINOR = 0,
    VV_HEADER = 24,
    VV_HELLO_LEN = 64,              /* and the VM's name */
    VV_NAME = 64,
    VV_DATA = 1 << 20,              /* most bytes of one READ or WRITE */
    VV_FRAME = VV_HEADER + 8 + VV_DATA,
};

enum {
    VV_HELLO = 1, VV_CRQ = 2, VV_EVENT = 3,         /* from here */
    VV_READ = 16, VV_WRITE = 17, VV_SEND = 18,      /* from the server */
    VV_REPLY = 0x8000,
};

enum { VV_QUIET = 1, VV_LINK = 2, VV_FLAGS = 3 };

enum {
    VV_REGISTERED = 1, VV_FREED = 2, VV_RESET = 3, VV_PAUSED = 4, VV_RUNNING = 5,
};

enum {
    VV_OK = 0, VV_CLOSED = 1, VV_FULL = 2, VV_ADDRESS = 3, VV_PARAMETER = 4,
    VV_STALE = 5, VV_SKIPPED = 6,
};

enum { VV_F_REGISTERED = 1, VV_F_PAUSED = 2, VV_F_SERVED = 4 };

/*
 * Bounds of what waits for the server. Above OUT_HIGH nothing more is read from it, so
 * that no answer is added but the one under way; what is left up to OUT_CRQ is for the
 * client's CRQ entries, some 26000, far more than a client has under way; and beyond
 * OUT_MAX, which only a client that registers without end reaches, the connection ends.
 */
enum {
    OUT_HIGH = 1 << 20,
    OUT_CRQ = OUT_HIGH + VV_FRAME + (1 << 20),
    OUT_MAX = OUT_CRQ + (64 << 10),
};

/* What one turn of the main loop does for the server at most. */
enum { TURN_FRAMES = 256, TURN_BYTES = 4 << 20 };

typedef enum { DOWN, GREETING, UP } VVState;

struct VtgtVscsi {
    SpaprVioDevice vdev;
    char *path;
    uint32_t reconnect;             /* ms */
    QLIST_ENTRY(VtgtVscsi) next;

    int fd;
    VVState state;
    bool blocked;                   /* the socket takes no more */
    bool drop;                      /* the connection is to end */
    QEMUTimer *retry;
    QEMUBH *bh;
    int64_t said;                   /* when error_report was last used, ms */

    uint8_t *in;
    size_t in_len;
    uint8_t *out;
    size_t out_off, out_len, out_cap;
    bool skip;                      /* the rest of a chain that failed */
    bool more;                      /* whole frames may be left in in */

    /* The client's queue as the server was last told. */
    uint64_t qladdr;
    uint32_t qsize;
    uint32_t epoch;
    bool served;                    /* a server was there since it is registered */
};

static QLIST_HEAD(, VtgtVscsi) vv_devices = QLIST_HEAD_INITIALIZER(vv_devices);
static void (*vv_next_hypercall)(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu);

static void vv_pump(VtgtVscsi *s);

/* A server that misbehaves shall not fill the log. */
static void G_GNUC_PRINTF(2, 3) vv_say(VtgtVscsi *s, const char *fmt, ...)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    g_autofree char *text = NULL;
    va_list ap;

    if (s->said && now - s->said < 5000) {
        return;
    }
    s->said = now;
    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    error_report("vtgt-vscsi: %s: %s", s->path, text);
}

/* Out */

static size_t vv_waiting(VtgtVscsi *s)
{
    return s->out_len - s->out_off;
}

/* Room for n bytes at the end of what goes out. */
static uint8_t *vv_room(VtgtVscsi *s, size_t n)
{
    if (s->out_off == s->out_len) {
        s->out_off = s->out_len = 0;
    }
    if (s->out_len + n > s->out_cap && s->out_off) {
        memmove(s->out, s->out + s->out_off, vv_waiting(s));
        s->out_len -= s->out_off;
        s->out_off = 0;
    }
    if (s->out_len + n > s->out_cap) {
        s->out_cap = MAX(s->out_len + n, 2 * s->out_cap);
        s->out = g_realloc(s->out, s->out_cap);
    }
    return s->out + s->out_len;
}

static void vv_header(VtgtVscsi *s, uint8_t *h, uint32_t len, int type, int status,
                      uint64_t id)
{
    stl_be_p(h, len);
    stw_be_p(h + 4, type);
    stw_be_p(h + 6, status);
    stl_be_p(h + 8, s->epoch);
    stl_be_p(h + 12, 0);
    stq_be_p(h + 16, id);
}

static void vv_put(VtgtVscsi *s, int type, int status, uint64_t id, const void *p,
                   uint32_t len)
{
    uint8_t *h = vv_room(s, VV_HEADER + len);

    vv_header(s, h, len, type, status, id);
    if (len) {
        memcpy(h + VV_HEADER, p, len);
    }
    s->out_len += VV_HEADER + len;
}

/* Called from vCPU threads, too: the main loop does the writing. */
static void vv_event(VtgtVscsi *s, int kind)
{
    uint8_t b[16] = { 0 };

    if (s->state == DOWN) {
        return;                     /* HELLO will tell */
    }
    if (vv_waiting(s) > OUT_MAX) {
        s->drop = true;
    } else {
        stq_be_p(b, s->qladdr);
        stl_be_p(b + 8, s->qsize);
        vv_put(s, VV_EVENT, kind, 0, b, sizeof(b));
    }
    qemu_bh_schedule(s->bh);
}

/* The client */

/*
 * vv_look notices that the client's queue has come or gone. What the server does under
 * an older epoch is refused from then on: nothing of it may reach the memory or the
 * queue of a client that has begun anew.
 */
static void vv_look(VtgtVscsi *s)
{
    SpaprVioCrq *q = &s->vdev.crq;

    if (q->qladdr == s->qladdr && q->qsize == s->qsize) {
        return;
    }
    if (s->qsize) {
        s->qladdr = s->qsize = 0;
        s->epoch++;
        s->served = false;
        vv_event(s, VV_FREED);
    }
    if (q->qsize) {
        s->qladdr = q->qladdr;
        s->qsize = q->qsize;
        s->epoch++;
        s->served = s->state == UP;
        vv_event(s, VV_REGISTERED);
    }
}

/*
 * The bus tells a device nothing of H_REG_CRQ, H_FREE_CRQ and RTAS quiesce: look after
 * each hypercall. KVM does not come by here; under it changes are noticed when the
 * client sends, which it does as soon as it has registered.
 */
static void vv_hypercall(PPCVirtualHypervisor *vhyp, PowerPCCPU *cpu)
{
    VtgtVscsi *s;

    vv_next_hypercall(vhyp, cpu);
    QLIST_FOREACH(s, &vv_devices, next) {
        vv_look(s);
    }
}

/* H_SEND_CRQ; the result is the hypercall's. */
static int vv_crq(SpaprVioDevice *dev, uint8_t *crq)
{
    VtgtVscsi *s = VTGT_VSCSI(dev);

    vv_look(s);
    if (s->state != UP || s->drop || vv_waiting(s) > OUT_CRQ) {
        /* Linux's client takes H_CLOSED for "later", and nothing else. */
        return H_CLOSED;
    }
    if (crq[0] == 0xc0 && crq[1] == 0x01) {
        s->epoch++;                 /* INIT: the client has forgotten what was */
    }
    vv_put(s, VV_CRQ, 0, 0, crq, 16);
    qemu_bh_schedule(s->bh);
    return H_SUCCESS;
}

static void vv_reset(SpaprVioDevice *dev)
{
    VtgtVscsi *s = VTGT_VSCSI(dev);

    s->qladdr = s->qsize = 0;       /* the bus has freed it */
    s->epoch++;
    s->served = false;
    vv_event(s, VV_RESET);
}

/* The server's requests */

static int vv_read(VtgtVscsi *s, uint64_t id, const uint8_t *p, uint32_t len)
{
    uint32_t n;
    uint8_t *h;

    if (len != 12) {
        return VV_PARAMETER;
    }
    n = ldl_be_p(p + 8);
    if (!n || n > VV_DATA) {
        return VV_PARAMETER;
    }
    h = vv_room(s, VV_HEADER + n);
    if (spapr_vio_dma_read(&s->vdev, ldq_be_p(p), h + VV_HEADER, n)) {
        return VV_ADDRESS;
    }
    vv_header(s, h, n, VV_READ | VV_REPLY, VV_OK, id);
    s->out_len += VV_HEADER + n;
    return VV_OK;
}

static int vv_write(VtgtVscsi *s, const uint8_t *p, uint32_t len)
{
    if (len <= 8) {
        return VV_PARAMETER;
    }
    return spapr_vio_dma_write(&s->vdev, ldq_be_p(p), p + 8, len - 8) ? VV_ADDRESS : VV_OK;
}

static int vv_send(VtgtVscsi *s, const uint8_t *p, uint32_t len)
{
    uint8_t crq[16];
    int rc;

    if (len != 16 || !(p[0] & 0x80)) {
        return VV_PARAMETER;
    }
    memcpy(crq, p, sizeof(crq));
    rc = spapr_vio_send_crq(&s->vdev, crq);
    return rc == 0 ? VV_OK : rc > 0 ? VV_FULL : VV_ADDRESS;
}

/* vv_frame executes a whole frame; false: the server broke a rule. */
static bool vv_frame(VtgtVscsi *s, const uint8_t *h, uint32_t len)
{
    int type = lduw_be_p(h + 4), flags = lduw_be_p(h + 6), status;
    uint32_t epoch = ldl_be_p(h + 8);
    uint64_t id = ldq_be_p(h + 16);
    const uint8_t *p = h + VV_HEADER;

    if (s->state == GREETING) {
        if (type != (VV_HELLO | VV_REPLY) || len < 4) {
            vv_say(s, "the server answers the greeting with a frame of type %#x", type);
            return false;
        }
        if (flags || lduw_be_p(p) != VV_MAJOR) {
            vv_say(s, "the server refuses us (status %d, it speaks version %d, we %d): "
                   "use the device and the vtgt of one release", flags, lduw_be_p(p), VV_MAJOR);
            return false;
        }
        s->state = UP;
        s->served |= s->qsize != 0;
        return true;
    }
    if ((type != VV_READ && type != VV_WRITE && type != VV_SEND) || flags & ~VV_FLAGS) {
        vv_say(s, "a frame of type %#x with flags %#x: not known", type, flags);
        return false;
    }
    if (s->skip) {
        status = VV_SKIPPED;
    } else if (epoch != s->epoch) {
        status = VV_STALE;
    } else if (!s->vdev.crq.qsize) {
        status = VV_CLOSED;
    } else if (type == VV_READ) {
        status = vv_read(s, id, p, len);
        if (status == VV_OK) {
            return true;            /* answered */
        }
    } else if (type == VV_WRITE) {
        status = vv_write(s, p, len);
    } else {
        status = vv_send(s, p, len);
    }
    s->skip = status != VV_OK && flags & VV_LINK;
    if (status != VV_OK || !(flags & VV_QUIET)) {
        vv_put(s, type | VV_REPLY, status, id, NULL, 0);
    }
    return true;
}

/* The connection */

static void vv_lost(VtgtVscsi *s)
{
    if (s->fd >= 0) {
        qemu_set_fd_handler(s->fd, NULL, NULL, NULL);
        close(s->fd);
        s->fd = -1;
    }
    s->state = DOWN;
    s->blocked = s->drop = s->skip = s->more = false;
    s->in_len = s->out_off = s->out_len = s->out_cap = 0;
    g_clear_pointer(&s->in, g_free);
    g_clear_pointer(&s->out, g_free);
    timer_mod(s->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + s->reconnect);
}

/* vv_flush writes what the socket takes; false: the connection is over. */
static bool vv_flush(VtgtVscsi *s)
{
    s->blocked = false;
    while (vv_waiting(s)) {
        ssize_t n = send(s->fd, s->out + s->out_off, vv_waiting(s), MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            s->blocked = true;
            return true;
        }
        if (n < 0) {
            return false;
        }
        s->out_off += n;
    }
    return true;
}

/*
 * Requests are executed while the VM runs: a VM that is paused keeps its memory. The
 * greeting's answer is taken at all times.
 */
static bool vv_executes(VtgtVscsi *s)
{
    return s->state == GREETING || (runstate_is_running() && vv_waiting(s) < OUT_HIGH);
}

/* They are read while there is room, so that the server's end is noticed. */
static bool vv_reads(VtgtVscsi *s)
{
    return s->in_len < VV_FRAME && vv_waiting(s) < OUT_HIGH;
}

/* vv_cost is how many bytes a frame moves. */
static uint32_t vv_cost(const uint8_t *h, uint32_t len)
{
    bool read = lduw_be_p(h + 4) == VV_READ && len == 12;

    return read ? MIN(ldl_be_p(h + VV_HEADER + 8), VV_DATA) : len;
}

/* vv_take reads and executes; false: the connection is over. */
static bool vv_take(VtgtVscsi *s)
{
    size_t off = 0;
    int frames = 0, bytes = 0;
    bool ok = true;

    s->more = false;
    for (;;) {
        size_t have = s->in_len - off;
        uint32_t len = have >= VV_HEADER ? ldl_be_p(s->in + off) : 0;

        if (len > 8 + VV_DATA) {
            vv_say(s, "a frame of %u bytes: %d is the most", len, 8 + VV_DATA);
            ok = false;
            break;
        }
        if (frames == TURN_FRAMES || bytes >= TURN_BYTES) {
            s->more = true;
            break;
        }
        s->more = have >= VV_HEADER && have >= VV_HEADER + len;
        if (s->more && vv_executes(s)) {
            frames++;
            bytes += vv_cost(s->in + off, len);
            ok = vv_frame(s, s->in + off, len);
            if (!ok) {
                break;
            }
            off += VV_HEADER + len;
            continue;
        }
        if (off) {
            memmove(s->in, s->in + off, have);
            s->in_len = have;
            off = 0;
        }
        if (!vv_reads(s)) {
            break;
        }
        ssize_t n = recv(s->fd, s->in + s->in_len, VV_FRAME - s->in_len, MSG_DONTWAIT);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        }
        if (n <= 0) {
            ok = false;
            break;
        }
        s->in_len += n;
    }
    if (off) {
        memmove(s->in, s->in + off, s->in_len - off);
        s->in_len -= off;
    }
    return ok;
}

static void vv_ready(void *opaque)
{
    vv_pump(opaque);
}

/* vv_pump does what there is to do, in the main loop. */
static void vv_pump(VtgtVscsi *s)
{
    if (s->state == DOWN) {
        return;
    }
    vv_look(s);
    if (s->drop || !vv_take(s) || !vv_flush(s)) {
        vv_lost(s);
        return;
    }
    qemu_set_fd_handler(s->fd, vv_reads(s) ? vv_ready : NULL, s->blocked ? vv_ready : NULL, s);
    if (s->more && vv_executes(s)) {
        qemu_bh_schedule(s->bh);            /* after the others' turn */
    }
}

static void vv_hello(VtgtVscsi *s)
{
    const char *name = qemu_get_vm_name();
    size_t n = name ? MIN(strlen(name), VV_NAME) : 0;
    uint8_t b[VV_HELLO_LEN + VV_NAME] = { 0 };
    uint32_t flags = 0;

    if (s->qsize) {
        flags |= VV_F_REGISTERED;
    }
    if (!runstate_is_running()) {
        flags |= VV_F_PAUSED;
    }
    if (s->served) {
        flags |= VV_F_SERVED;
    }
    stw_be_p(b, VV_MAJOR);
    stw_be_p(b + 2, VV_MINOR);
    stl_be_p(b + 4, s->vdev.reg);
    stl_be_p(b + 8, SPAPR_VIO_LIOBN(s->vdev.reg));
    stl_be_p(b + 12, VV_DATA);
    stq_be_p(b + 16, (uint64_t)s->vdev.tcet->nb_table << s->vdev.tcet->page_shift);
    stl_be_p(b + 24, flags);
    stl_be_p(b + 28, n);
    stq_be_p(b + 32, s->qladdr);
    stl_be_p(b + 40, s->qsize);
    memcpy(b + 48, qemu_uuid.data, 16);
    memcpy(b + VV_HELLO_LEN, name, n);
    vv_put(s, VV_HELLO, 0, 0, b, VV_HELLO_LEN + n);
}

static void vv_retry(void *opaque)
{
    VtgtVscsi *s = opaque;
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(a.sun_path, s->path, strlen(s->path));       /* it fits */
    /* Of a UNIX socket connect never is "in progress": EAGAIN is a full backlog. */
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        if (fd >= 0) {
            close(fd);
        }
        timer_mod(s->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + s->reconnect);
        return;
    }
    s->fd = fd;
    s->in = g_malloc(VV_FRAME);
    s->state = GREETING;
    vv_look(s);
    vv_hello(s);
    vv_pump(s);
}

static void vv_vm_state(void *opaque, bool running, RunState state)
{
    VtgtVscsi *s = opaque;

    vv_event(s, running ? VV_RUNNING : VV_PAUSED);
}

/* The device */

/*
 * vv_layout compares what the compiler made of QEMU's headers with what this QEMU has.
 */
static bool vv_layout(Error **errp)
{
    static const struct { const char *type; size_t size; } known[] = {
        { TYPE_DEVICE, sizeof(DeviceState) },
        { TYPE_VIO_SPAPR_DEVICE, sizeof(SpaprVioDevice) },
        { TYPE_SPAPR_TCE_TABLE, sizeof(SpaprTceTable) },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(known); i++) {
        if (object_type_get_instance_size(known[i].type) != known[i].size) {
            error_setg(errp, "vtgt-vscsi was built with another layout of %s (%zu bytes, here %zu): "
                       "run make qemu-vio again", known[i].type, known[i].size,
                       object_type_get_instance_size(known[i].type));
            return false;
        }
    }
    return true;
}

static void vv_realize(SpaprVioDevice *dev, Error **errp)
{
    VtgtVscsi *s = VTGT_VSCSI(dev);
    struct sockaddr_un a;

    if (!vv_layout(errp)) {
        return;
    }
    if (!s->path || !*s->path || strlen(s->path) >= sizeof(a.sun_path)) {
        error_setg(errp, "vtgt-vscsi: set path= to the socket of vtgt's vio export, at most %zu bytes",
                   sizeof(a.sun_path) - 1);
        return;
    }
    s->fd = -1;
    s->reconnect = MAX(s->reconnect, 10);
    s->bh = qemu_bh_new(vv_ready, s);
    s->retry = timer_new_ms(QEMU_CLOCK_REALTIME, vv_retry, s);
    dev->crq.SendFunc = vv_crq;
    if (!vv_next_hypercall) {
        PPCVirtualHypervisorClass *c = PPC_VIRTUAL_HYPERVISOR_GET_CLASS(qdev_get_machine());

        vv_next_hypercall = c->hypercall;
        c->hypercall = vv_hypercall;
    }
    QLIST_INSERT_HEAD(&vv_devices, s, next);
    qemu_add_vm_change_state_handler(vv_vm_state, s);
    timer_mod(s->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
}

static int vv_devnode(SpaprVioDevice *dev, void *fdt, int node)
{
    int ret = fdt_setprop_cell(fdt, node, "#address-cells", 2);

    return ret < 0 ? ret : fdt_setprop_cell(fdt, node, "#size-cells", 0);
}

static Property vv_properties[] = {
    DEFINE_SPAPR_PROPERTIES(VtgtVscsi, vdev),
    DEFINE_PROP_STRING("path", VtgtVscsi, path),
    DEFINE_PROP_UINT32("reconnect-ms", VtgtVscsi, reconnect, 200),
    DEFINE_PROP_END_OF_LIST(),
};

static const VMStateDescription vv_vmstate = {
    .name = TYPE_VTGT_VSCSI,
    .unmigratable = 1,
};

static void vv_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    SpaprVioDeviceClass *k = VIO_SPAPR_DEVICE_CLASS(klass);

    dc->desc = "virtual SCSI adapter served by vtgt";
    dc->vmsd = &vv_vmstate;
    device_class_set_props(dc, vv_properties);
    set_bit(DEVICE_CATEGORY_STORAGE, dc->categories);
    k->realize = vv_realize;
    k->reset = vv_reset;
    k->devnode = vv_devnode;
    k->dt_name = "v-scsi";
    k->dt_type = "vscsi";
    k->dt_compatible = "IBM,v-scsi";
    k->signal_mask = 1;
    k->rtce_window_size = 0x10000000;
}

static const TypeInfo vv_type = {
    .name = TYPE_VTGT_VSCSI,
    .parent = TYPE_VIO_SPAPR_DEVICE,
    .instance_size = sizeof(VtgtVscsi),
    .class_init = vv_class_init,
};

/* vv_register adds the type, in the one QEMU for which it was built. */
static void vv_register(void)
{
    VersionInfo *v = qmp_query_version(NULL);
    g_autofree char *here = g_strdup_printf("%" PRId64 ".%" PRId64 ".%" PRId64 " (%s)", v->qemu->major,
                                            v->qemu->minor, v->qemu->micro, v->package);

    qapi_free_VersionInfo(v);
    if (strcmp(here, VTGT_QEMU_VERSION)) {
        error_report("vtgt-vscsi was built for QEMU %s, this is %s: run make qemu-vio again",
                     VTGT_QEMU_VERSION, here);
        return;
    }
    type_register_static(&vv_type);
}

static void __attribute__((constructor)) vv_load(void)
{
    if (register_module_init && spapr_vio_send_crq) {
        register_module_init(vv_register, MODULE_INIT_QOM);
    }
}
