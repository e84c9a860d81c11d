/* What the parts of the load client share: its arguments, its connections and its counts. */

#ifndef UNBROKEN_LOAD_H
#define UNBROKEN_LOAD_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEAD = 36, CARRY = 64, READ = 256 * 1024, PIDS = 4, ROOM = 2048 };
enum role { PRODUCER, VIEWER };

struct conn {
    int fd, stream;
    enum role role;
    int carried, dirty, wants_out;
    char carry[CARRY];
    uint64_t got, sent;
    char *out;
    size_t out_len, out_off, out_cap;
};

/* Arguments. */
extern struct options {
    const char *mode, *host, *producer_path, *viewer_path, *subprotocol, *send_frame, *viewer_frame;
    const char *viewer_ready, *producer_ready, *ack, *refusal;
    int port, streams, viewers, in_flight, connections, upgrade, dense, pids_len, pids[PIDS];
    double seconds, warm_seconds, rate, settle_seconds;
    uint64_t count, message_bytes;
} options;

/* What has happened so far; `completed` and `arrived` say which messages every viewer has. */
extern struct counts {
    uint64_t delivered, delivered_bytes, acked, sent, measured, measured_bytes, faults, arrived_cap, *completed;
    uint16_t *arrived;
    int measuring, conns_len, epoll_fd;
    struct conn *conns;
    char *buffer, *pad, fault_text[256];
} counts;

/* measure.c */
uint64_t now_ns(void);
uint64_t cpu_ns(int pid);
double own_cpu_seconds(void);
long rss_kb(void);
long rss_peak_kb(void);
void observe(uint64_t ns);
double percentile_us(double part);

/* wire.c */
void fail(const char *format, ...);
void fault(const char *what, const struct conn *c, uint64_t is, uint64_t should);
size_t fill_in(char *to, const char *text, int stream, uint64_t n, uint64_t at);
void put_frame(struct conn *c, const char *text, uint64_t n, uint64_t at);
void flush(struct conn *c);
void receive(struct conn *c);
void open_conn(struct conn *c, enum role role, int stream);

#endif
