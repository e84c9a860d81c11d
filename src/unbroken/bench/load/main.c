/* The load client of `unbroken bench`: one epoll loop that produces, views, checks and measures.
 *
 * It is started by bench/client.py with key=value arguments and prints one JSON object. It knows no server's frames: what
 * it sends and waits for are templates from the command line. Every message carries "@@#SSSS:NNNNNNNNNN:TTTTTTTTTTTTTTTT:"
 * (stream, number, nanoseconds), by which deliveries are counted, checked for density and timed. It is bounded in time,
 * and what is lost, doubled or out of order is reported as a fault.
 */

#include "load.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

struct options options = {
    .mode = "window", .host = "127.0.0.1", .producer_path = "/", .viewer_path = "/", .subprotocol = "", .send_frame = "{t}",
    .viewer_frame = "", .viewer_ready = "", .producer_ready = "", .ack = "", .refusal = "",
    .streams = 1, .viewers = 1, .in_flight = 1, .upgrade = 1, .dense = 1,
    .seconds = 1, .warm_seconds = 0.3, .settle_seconds = 0.7, .message_bytes = 64};
struct counts counts;
static int timer_fd;

static int may_send(const struct conn *c) {
    if (options.count && counts.sent >= options.count)
        return 0;
    uint64_t done = options.viewers ? counts.completed[c->stream] : c->got;
    return c->sent - done < (uint64_t)options.in_flight;
}

static void produce(struct conn *c, uint64_t at) {
    while (may_send(c)) {
        put_frame(c, options.send_frame, ++c->sent, at);
        counts.sent++;
    }
    flush(c);
}

/* --- the loop --------------------------------------------------------------------------------------------------------- */

static void turn(int wait_ms) {
    struct epoll_event events[256];
    static uint64_t looked_at;
    int n = epoll_wait(counts.epoll_fd, events, 256, wait_ms);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        uint64_t expirations;
        if (!c) {
            if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN)
                fail("timer: %s", strerror(errno));
            continue;
        }
        if (events[i].events & EPOLLOUT)
            flush(c);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            receive(c);
    }
    if (now_ns() - looked_at > 20000000) {
        rss_kb();
        looked_at = now_ns();
    }
}

static struct {
    uint64_t begin_ns, end_ns, cpu[PIDS];
    double own_cpu;
} window;

static void begin(void) {
    for (int i = 0; i < options.pids_len; i++)
        window.cpu[i] = cpu_ns(options.pids[i]);
    window.own_cpu = own_cpu_seconds();
    window.begin_ns = now_ns();
    counts.measuring = 1;
}

static void end(void) {
    counts.measuring = 0;
    window.end_ns = now_ns();
    window.own_cpu = own_cpu_seconds() - window.own_cpu;
    for (int i = 0; i < options.pids_len; i++)
        window.cpu[i] = cpu_ns(options.pids[i]) - window.cpu[i];
}

/* Waits for everything that was sent, bounded, and checks that every viewer got all of it once and in order. */
static void drain(void) {
    uint64_t until = now_ns() + 20000000000u, wanted = counts.sent * (uint64_t)options.viewers;
    while (now_ns() < until && (counts.delivered < wanted || (*options.ack && counts.acked < counts.sent)))
        turn(20);
    for (int i = options.streams; options.dense && i < counts.conns_len; i++)
        if (counts.conns[i].got != counts.conns[counts.conns[i].stream].sent)
            fault("messages delivered", &counts.conns[i], counts.conns[i].got, counts.conns[counts.conns[i].stream].sent);
    if (*options.ack && counts.acked != counts.sent)
        fault("acknowledged in all", &counts.conns[0], counts.acked, counts.sent);
}

static void open_all(void) {
    for (int i = 0; i < options.streams; i++)
        open_conn(&counts.conns[i], PRODUCER, i);
    for (int i = 0; i < options.streams * options.viewers; i++)
        open_conn(&counts.conns[options.streams + i], VIEWER, i / options.viewers);
}

/* A window of messages in flight on each stream; one is in flight until its last viewer (or the ack, without viewers) has it. */
static void run_window(void) {
    open_all();
    uint64_t warm = now_ns() + (uint64_t)(options.warm_seconds * 1e9), until = warm + (uint64_t)(options.seconds * 1e9), now;
    for (int i = 0; i < options.streams; i++)
        produce(&counts.conns[i], now_ns());
    while ((now = now_ns()) < until) {
        if (!window.begin_ns && now >= warm)
            begin();
        turn(20);
        uint64_t at = now_ns();
        for (int i = 0; i < options.streams; i++)
            if (counts.conns[i].dirty) {
                counts.conns[i].dirty = 0;
                produce(&counts.conns[i], at);
            }
        if (options.count && counts.sent >= options.count && (options.viewers ? counts.delivered >= options.count * (uint64_t)options.viewers : counts.acked >= options.count))
            break;
    }
    if (!window.begin_ns)
        begin();
    end();
    drain();
}

/* `rate` messages a second in all, evenly over time and streams, sent when due whatever came before. */
static void run_paced(void) {
    open_all();
    uint64_t start = now_ns() + 10000000, warm = start + (uint64_t)(options.warm_seconds * 1e9), sent = 0, now;
    uint64_t until = warm + (uint64_t)(options.seconds * 1e9);
    struct epoll_event event = {.events = EPOLLIN};
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (timer_fd < 0 || epoll_ctl(counts.epoll_fd, EPOLL_CTL_ADD, timer_fd, &event))
        fail("timer: %s", strerror(errno));
    while ((now = now_ns()) < until) {
        if (!window.begin_ns && now >= warm)
            begin();
        uint64_t due = start + (uint64_t)((double)sent * 1e9 / options.rate);
        if (due <= now) {
            struct conn *c = &counts.conns[sent++ % (uint64_t)options.streams];
            put_frame(c, options.send_frame, ++c->sent, due);
            counts.sent++;
            flush(c);
            continue;
        }
        struct itimerspec at = {.it_value = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)}};
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
        turn(20);
    }
    end();
    drain();
}

/* One viewer from the first message to message `count`. */
static void run_replay(void) {
    uint64_t until = now_ns() + (uint64_t)(options.seconds * 1e9);
    begin();
    counts.conns[0].stream = 0;
    open_conn(&counts.conns[0], VIEWER, 0);
    while (counts.delivered < options.count && now_ns() < until)
        turn(20);
    end();
    counts.measured = counts.delivered;
    counts.measured_bytes = counts.delivered_bytes;
    if (counts.delivered != options.count)
        fault("messages replayed", &counts.conns[0], counts.delivered, options.count);
}

/* Connections that do nothing; prints the server's memory after each fifth of them. */
static void run_idle(long *rss) {
    for (int i = 0; i <= 5; i++) {
        int until = i ? 20 + options.connections / 5 * i : 20;
        while (counts.conns_len < until)
            open_conn(&counts.conns[counts.conns_len++], VIEWER, 0);
        for (uint64_t settled = now_ns() + (uint64_t)(options.settle_seconds * 1e9); now_ns() < settled;)
            turn(20);
        rss[i] = rss_kb();
    }
}

/* The floor for `replay`: a plain TCP server that writes one block `count` times. */
static void serve_raw(void) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    inet_pton(AF_INET, options.host, &at.sin_addr);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8))
        fail("listen: %s", strerror(errno));
    char *block = malloc(options.message_bytes + HEAD + 1);
    fill_in(block, "{t}", 0, 1, 0);
    printf("listening\n");
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            fail("accept: %s", strerror(errno));
        if (read(fd, counts.buffer, READ) > 0 && write(fd, "HTTP/1.1 101 Raw\r\n\r\n", 20) == 20)
            for (uint64_t i = 0; i < options.count; i++)
                for (size_t off = 0; off < options.message_bytes;) {
                    ssize_t n = write(fd, block + off, options.message_bytes - off);
                    if (n < 0)
                        fail("the reader went away: %s", strerror(errno));
                    off += (size_t)n;
                }
        shutdown(fd, SHUT_WR);
        while (read(fd, counts.buffer, READ) > 0) {
        }
        close(fd);
    }
}

/* --- arguments and report --------------------------------------------------------------------------------------------- */

static void set(const char *key, const char *value) {
    struct { const char *key, **text; } texts[] = {
        {"mode", &options.mode}, {"host", &options.host}, {"producer_path", &options.producer_path}, {"viewer_path", &options.viewer_path},
        {"subprotocol", &options.subprotocol}, {"send_frame", &options.send_frame}, {"viewer_frame", &options.viewer_frame},
        {"viewer_ready", &options.viewer_ready}, {"producer_ready", &options.producer_ready}, {"ack", &options.ack}, {"refusal", &options.refusal}};
    struct { const char *key; int *number; } numbers[] = {
        {"port", &options.port}, {"streams", &options.streams}, {"viewers", &options.viewers}, {"in_flight", &options.in_flight},
        {"connections", &options.connections}, {"upgrade", &options.upgrade}, {"dense", &options.dense}};
    struct { const char *key; double *number; } reals[] = {{"seconds", &options.seconds}, {"warm_seconds", &options.warm_seconds}, {"rate", &options.rate},
                                                     {"settle_seconds", &options.settle_seconds}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!strcmp(key, texts[i].key)) { *texts[i].text = value; return; }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(key, numbers[i].key)) { *numbers[i].number = atoi(value); return; }
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (!strcmp(key, reals[i].key)) { *reals[i].number = atof(value); return; }
    if (!strcmp(key, "count"))
        options.count = strtoull(value, NULL, 10);
    else if (!strcmp(key, "message_bytes"))
        options.message_bytes = strtoull(value, NULL, 10);
    else if (!strcmp(key, "pid") && options.pids_len < PIDS)
        options.pids[options.pids_len++] = atoi(value);
    else
        fail("unknown argument %s", key);
}

static void report(long rss_before, const long *rss) {
    double took = (double)(window.end_ns - window.begin_ns) / 1e9;
    printf("{\"client\":\"c\",\"seconds\":%.6f,\"messages\":%llu,\"bytes\":%llu,\"sent\":%llu,\"acked\":%llu,", took,
           (unsigned long long)counts.measured, (unsigned long long)counts.measured_bytes, (unsigned long long)counts.sent,
           (unsigned long long)counts.acked);
    printf("\"p50_us\":%.0f,\"p99_us\":%.0f,\"client_cpu_seconds\":%.6f,\"cpu_ns\":[", percentile_us(0.5), percentile_us(0.99),
           window.own_cpu);
    for (int i = 0; i < options.pids_len; i++)
        printf("%s%llu", i ? "," : "", (unsigned long long)window.cpu[i]);
    printf("],\"rss_before_kb\":%ld,\"rss_peak_kb\":%ld,\"rss_kb\":[", rss_before, rss_peak_kb());
    for (int i = 0; options.connections && i <= 5; i++)
        printf("%s%ld", i ? "," : "", rss[i]);
    printf("],\"faults\":%llu,\"fault\":\"%s\"}\n", (unsigned long long)counts.faults, counts.fault_text);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (!equals)
            fail("arguments are key=value");
        *equals = 0;
        set(argv[i], equals + 1);
    }
    if (options.message_bytes < HEAD || options.streams < 1 || options.streams > 9999 || options.viewers > 65000 || options.in_flight < 1)
        fail("an argument is out of bounds");
    int idle = !strcmp(options.mode, "idle"), replay = !strcmp(options.mode, "replay");
    counts.conns_len = idle ? 0 : replay ? 1 : options.streams + options.streams * options.viewers;
    for (counts.arrived_cap = 1; counts.arrived_cap < (uint64_t)options.in_flight * 2; counts.arrived_cap *= 2) {
    }
    counts.conns = calloc((size_t)(idle ? options.connections + 20 : counts.conns_len) + 1, sizeof *counts.conns);
    counts.completed = calloc((size_t)options.streams, sizeof *counts.completed);
    counts.buffer = malloc(CARRY + READ + 1);
    counts.pad = malloc(options.message_bytes);
    if (!strcmp(options.mode, "window"))
        counts.arrived = calloc((size_t)options.streams * counts.arrived_cap, sizeof *counts.arrived);
    if (!counts.conns || !counts.completed || !counts.buffer || !counts.pad)
        fail("out of memory");
    memset(counts.pad, 'x', options.message_bytes);
    if (!strcmp(options.mode, "raw"))
        serve_raw();
    if ((counts.epoll_fd = epoll_create1(0)) < 0)
        fail("epoll: %s", strerror(errno));
    long rss[6] = {0}, rss_before = rss_kb();
    if (idle)
        run_idle(rss);
    else if (replay)
        run_replay();
    else if (!strcmp(options.mode, "paced"))
        run_paced();
    else
        run_window();
    report(rss_before, rss);
    return 0;
}
