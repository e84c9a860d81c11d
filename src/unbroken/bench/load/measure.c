/* What the load client measures: time, the server's processor time and memory, and latencies. */

#include "load.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>

/* 128 buckets to each doubling of a latency in microseconds. */
enum { SUB_BITS = 8, SUB = 1 << SUB_BITS, BUCKETS = 48 * SUB };

static uint64_t histogram[BUCKETS];
static long rss_peak;

uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

uint64_t cpu_ns(int pid) {
    char path[320];
    uint64_t total = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return 0;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, entry->d_name);
        FILE *file = fopen(path, "r");
        unsigned long long ran = 0;
        if (file && fscanf(file, "%llu", &ran) == 1)
            total += ran;
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return total;
}

long rss_kb(void) {
    char path[64];
    long pages = 0;
    if (!options.pids_len)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/statm", options.pids[0]);
    FILE *file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%*d %ld", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    long kb = pages * (sysconf(_SC_PAGESIZE) / 1024);
    if (kb > rss_peak)
        rss_peak = kb;
    return kb;
}

long rss_peak_kb(void) {
    return rss_peak;
}

double own_cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void observe(uint64_t ns) {
    uint64_t us = ns / 1000;
    int bits = 63 - __builtin_clzll(us | 1), shift = bits > SUB_BITS - 1 ? bits - (SUB_BITS - 1) : 0;
    uint64_t index = (uint64_t)shift * SUB + (us >> shift);
    histogram[index < BUCKETS ? index : BUCKETS - 1]++;
}

double percentile_us(double part) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        total += histogram[i];
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (total && (double)seen >= part * (double)total)
            return (double)(((uint64_t)(i % SUB)) << (i / SUB));
    }
    return 0;
}

