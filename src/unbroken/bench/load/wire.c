/* How the load client speaks: WebSocket frames out, marked messages in, whatever frames they come in. */

#include "load.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>

void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

void fault(const char *what, const struct conn *c, uint64_t is, uint64_t should) {
    if (!counts.faults++)
        snprintf(counts.fault_text, sizeof counts.fault_text, "%s on stream %d: %llu instead of %llu", what, c->stream,
                 (unsigned long long)is, (unsigned long long)should);
}

/* --- sending ---------------------------------------------------------------------------------------------------------- */

static void watch(struct conn *c, int out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(counts.epoll_fd, c->wants_out < 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, c->fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
    c->wants_out = out;
}

void flush(struct conn *c) {
    while (c->out_off < c->out_len) {
        ssize_t n = write(c->fd, c->out + c->out_off, c->out_len - c->out_off);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!c->wants_out)
                watch(c, 1);
            return;
        }
        if (n < 0)
            fail("stream %d: write: %s", c->stream, strerror(errno));
        c->out_off += (size_t)n;
    }
    c->out_off = c->out_len = 0;
    if (c->wants_out > 0)
        watch(c, 0);
}

/* Puts `text` behind what waits: {s} is the stream, {n} the number, {t} the payload. */
size_t fill_in(char *to, const char *text, int stream, uint64_t n, uint64_t at) {
    char *p = to;
    for (; *text; text++) {
        if (text[0] == '{' && text[1] && text[2] == '}') {
            if (text[1] == 's')
                p += sprintf(p, "%d", stream);
            else if (text[1] == 'n')
                p += sprintf(p, "%llu", (unsigned long long)n);
            else {
                p += sprintf(p, "@@#%04d:%010llu:%016llx:", stream, (unsigned long long)n, (unsigned long long)at);
                memcpy(p, counts.pad, options.message_bytes - HEAD);
                p += options.message_bytes - HEAD;
            }
            text += 2;
        } else
            *p++ = *text;
    }
    return (size_t)(p - to);
}

void put_frame(struct conn *c, const char *text, uint64_t n, uint64_t at) {
    size_t room = options.message_bytes + strlen(text) + ROOM;
    if (c->out_len + room > c->out_cap) {
        c->out_cap = (c->out_len + room) * 2;
        if (!(c->out = realloc(c->out, c->out_cap)))
            fail("out of memory");
    }
    unsigned char *start = (unsigned char *)c->out + c->out_len, *body = start + 14;
    size_t length = fill_in((char *)body, text, c->stream, n, at);
    size_t header = length < 126 ? 2 : length < 65536 ? 4 : 10;
    start[0] = 0x81;
    start[1] = (unsigned char)(0x80 | (length < 126 ? length : length < 65536 ? 126 : 127));
    for (size_t i = 2; i < header; i++)
        start[i] = (unsigned char)(length >> (8 * (header - 1 - i)));
    static const unsigned char key[4] = {0x37, 0xfa, 0x21, 0x3d};
    memcpy(start + header, key, 4);
    memmove(start + header + 4, body, length);
    body = start + header + 4;
    for (size_t i = 0; i < length; i++)
        body[i] ^= key[i & 3];
    c->out_len += header + 4 + length;
}

/* --- receiving -------------------------------------------------------------------------------------------------------- */

static uint64_t number(const char *text, int digits, int base) {
    uint64_t value = 0;
    for (int i = 0; i < digits; i++) {
        int digit = text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10;
        value = value * (uint64_t)base + (uint64_t)digit;
    }
    return value;
}

static void message(struct conn *c, const char *head, uint64_t now) {
    uint64_t n = number(head + 8, 10, 10), at = number(head + 19, 16, 16);
    int stream = (int)number(head + 3, 4, 10);
    c->got++;
    counts.delivered++;
    if (counts.measuring) {
        counts.measured++;
        if (at && now > at)
            observe(now - at);
    }
    if (!options.dense)
        return;
    if (stream != c->stream || n != c->got) {
        fault("a message", c, n, c->got);
        return;
    }
    uint16_t *slot = counts.arrived ? &counts.arrived[(uint64_t)stream * counts.arrived_cap + (n & (counts.arrived_cap - 1))] : NULL;
    if (slot && ++*slot == options.viewers) {
        *slot = 0;
        counts.completed[stream]++;
        counts.conns[stream].dirty = 1;
    }
}

/* Finds what is whole in `data`; gives back how many bytes at its end may be the beginning of something. */
static size_t scan(struct conn *c, const char *data, size_t length, uint64_t now) {
    const char *at = data, *end = data + length;
    if (c->role == PRODUCER) {
        if (*options.refusal && memmem(data, length, options.refusal, strlen(options.refusal)))
            fail("the server refused an append: %.*s", (int)(length < 500 ? length : 500), data);
        size_t mark = strlen(options.ack);
        for (; mark && (at = memmem(at, (size_t)(end - at), options.ack, mark)); at += mark) {
            counts.acked++;
            c->got++;
            c->dirty = 1;
        }
        return length < mark ? length : mark ? mark - 1 : 0;
    }
    while ((at = memchr(at, '@', (size_t)(end - at)))) {
        if (end - at < HEAD)
            return (size_t)(end - at);
        if (at[1] == '@' && at[2] == '#') {
            message(c, at, now);
            at += HEAD;
        } else
            at++;
    }
    return 0;
}

void receive(struct conn *c) {
    memcpy(counts.buffer, c->carry, (size_t)c->carried);
    ssize_t n = read(c->fd, counts.buffer + c->carried, READ);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0)
        fail("stream %d: the server closed the connection (%s)", c->stream, n ? strerror(errno) : "end");
    if (c->role == VIEWER) {
        counts.delivered_bytes += (uint64_t)n;
        if (counts.measuring)
            counts.measured_bytes += (uint64_t)n;
    }
    size_t length = (size_t)c->carried + (size_t)n;
    size_t rest = scan(c, counts.buffer, length, now_ns());
    c->carried = (int)rest;
    memcpy(c->carry, counts.buffer + length - rest, rest);
}

/* --- connecting ------------------------------------------------------------------------------------------------------- */

static size_t read_until(int fd, size_t have, const char *mark, size_t *mark_end, const char *what) {
    for (;;) {
        char *found = memmem(counts.buffer, have, mark, strlen(mark));
        if (found) {
            *mark_end = (size_t)(found - counts.buffer) + strlen(mark);
            return have;
        }
        if (have == READ)
            fail("no %s within %d bytes", what, READ);
        ssize_t n = read(fd, counts.buffer + have, READ - have);
        if (n <= 0)
            fail("no %s: %s; got: %.*s", what, n ? strerror(errno) : "closed", (int)(have < 500 ? have : 500), counts.buffer);
        have += (size_t)n;
    }
}

void open_conn(struct conn *c, enum role role, int stream) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    struct timeval wait = {.tv_sec = 20};
    int one = 1;
    char request[4096], path[512];
    size_t have, end = 0;
    inet_pton(AF_INET, options.host, &to.sin_addr);
    c->role = role;
    c->stream = stream;
    c->wants_out = -1;
    if ((c->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to))
        fail("connect: %s", strerror(errno));
    int plain = role == VIEWER && !options.upgrade;
    path[fill_in(path, role == PRODUCER ? options.producer_path : options.viewer_path, stream, 0, 0)] = 0;
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%d\r\n%s%s%s%s\r\n", path, options.host, options.port,
                          plain ? "Accept: text/event-stream\r\n"
                                : "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                          plain || !*options.subprotocol ? "" : "Sec-WebSocket-Protocol: ", plain ? "" : options.subprotocol,
                          plain || !*options.subprotocol ? "" : "\r\n");
    if (write(c->fd, request, (size_t)length) != length)
        fail("cannot send the request");
    have = read_until(c->fd, 0, "\r\n\r\n", &end, "response");
    if (memcmp(counts.buffer, plain ? "HTTP/1.1 200" : "HTTP/1.1 101", 12))
        fail("the server refused: %.*s", (int)(have < 500 ? have : 500), counts.buffer);
    have -= end;
    memmove(counts.buffer, counts.buffer + end, have);
    end = 0;
    if (role == VIEWER && !plain && *options.viewer_frame) {
        put_frame(c, options.viewer_frame, 1, 0);
        flush(c);
    }
    const char *ready = role == VIEWER ? options.viewer_ready : options.producer_ready;
    if (*ready)
        have = read_until(c->fd, have, ready, &end, ready);
    size_t rest = scan(c, counts.buffer + end, have - end, now_ns());
    c->carried = (int)rest;
    memcpy(c->carry, counts.buffer + have - rest, rest);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, 0);
}

